"""Ce que partagent les scripts d'entraînement : l'essai, la reprise, la livraison et la ligne de commande.

Les jeux complets sont lus par `utils.data.load_full`. Avec COURS_BUDGET=test : un essai de quelques pas, rien
n'est livré. Un entraînement interrompu reprend quand on relance la commande.
"""

import sys
from collections.abc import Callable

import torch

from utils import checkpoints, config, data, metrics, training
from utils.chapters import load_chapter

evaluation = load_chapter("08_evaluation")
TRIAL = config.budget_name() == "test"


def steps(n: int) -> int:
    """Nombre de pas : `n`, ou quelques-uns dans un essai."""
    return 5 if TRIAL else n


def fit(name: str, model, step, batches, n_steps: int, **options) -> float:
    """`training.fit` repris sous `name` (un essai n'en garde rien) ; ses secondes. Interrompu, le script s'arrête."""
    history = training.fit(model, step, batches, steps(n_steps), name=None if TRIAL else name, **options)
    if not history.finished:
        sys.exit(f"{name} : entraînement interrompu, rien n'est livré. La même commande reprend.")
    return history.seconds


def fit_once(name: str, model, step, batches, n_steps: int, **options) -> float:
    """`fit` pour une phase que l'on ne refait pas, une fois finie, si la suite a été interrompue ; ses secondes."""
    done = training.RUNS / f"{name}_fini.safetensors"
    recipe = repr((n_steps, batches.fingerprint(), sorted(options.items())))
    if done.exists() and not TRIAL:
        weights, facts = checkpoints.read(done)
        if facts["recipe"] == recipe:
            model.load_state_dict(weights)
            return float(facts["seconds"])
    seconds = fit(name, model, step, batches, n_steps, **options)
    if not TRIAL:
        checkpoints.write(done, model.state_dict(), {"seconds": str(seconds), "recipe": recipe})
    return seconds


def deliver(chapter: str, name: str, model, settings: dict, budget: str, seconds: float, scores: dict) -> None:
    """Inscrit au manifeste le modèle et ses mesures, sauf dans un essai."""
    print(name, scores, flush=True)
    if not TRIAL:
        checkpoints.save_model(name, model, chapter=chapter, config=settings, budget=budget,
                               hardware=config.hardware(), seconds=seconds, scores=scores)


@torch.no_grad()
def frechet(model, n: int = 2000) -> float:
    """Distance de Fréchet de `n` échantillons (graine 0) au jeu de test embarqué de MNIST."""
    net = checkpoints.load_model("features_mnist")
    images = model.sample(n, torch.Generator("cpu").manual_seed(0))
    real = data.load("mnist", "test")[0]
    return evaluation.frechet_distance(metrics.features(net, real), metrics.features(net, images))


def main(recipes: dict[str, Callable[[str], None]]) -> None:
    """Entraîne les modèles nommés sur la ligne de commande, tous sans nom."""
    names = sys.argv[1:]
    unknown = set(names) - set(recipes)
    if unknown:
        sys.exit(f"Modèle inconnu : {', '.join(sorted(unknown))}. Au choix : {', '.join(recipes)}.")
    config.setup()
    for name in names or recipes:
        recipes[name](name)
