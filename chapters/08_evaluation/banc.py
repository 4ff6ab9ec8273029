"""Le tableau des scores du chapitre 8 : toutes les familles, sur le même travail.

    python -m chapters.08_evaluation.banc              tout (une demi-heure)
    python -m chapters.08_evaluation.banc --images     les modèles livrés et les modèles naïfs ; --jouets : le plan

Les formules sont celles du chapitre. Les vraies images du plancher sont prises dans le jeu de test complet, hors des
2 000 embarquées qui jugent : ni les modèles ni l'extracteur ne les ont vues. Voir `utils.lab`.
"""

import functools
import itertools
import statistics
import time

import torch

from utils import checkpoints, config, data, lab, metrics
from utils.chapters import load_chapter

N, DRAWS = (8, 1) if lab.TRIAL else (2000, 3)
SEEDS, SECONDS = (1, 2) if lab.TRIAL else (3, 10)
evaluation = load_chapter("08_evaluation")
COLUMNS = (*evaluation.GAUGES, "ms de CPU par image")


def summary(rows: torch.Tensor, names: tuple[str, ...]) -> dict:
    """Médiane, minimum et maximum de chaque colonne de `rows` (tirages, mesures) ; NaN est omis."""
    found = {}
    for name, values in zip(names, rows.T.tolist(), strict=True):
        if not any(value != value for value in values):
            for suffix, choose in (("", statistics.median), ("_min", min), ("_max", max)):
                found[name + suffix] = round(choose(values), 3)
    return found


def unseen_test() -> torch.Tensor:
    """Images du jeu de test complet qui ne sont pas parmi celles que le cours embarque."""
    everything, judges = (load("mnist", "test", device="cpu")[0] for load in (data.load_full, data.load))
    known = {image.numpy().tobytes() for image in judges}
    return torch.stack([image for image in everything if image.numpy().tobytes() not in known])


def samplers() -> dict:
    """Nom → (tirage (n, générateur), ce que le manifeste dit du modèle)."""
    x, others = data.load_full("mnist", device="cpu")[0], unseen_test()

    def pick(images):
        return lambda n, g: images[torch.randperm(len(images), generator=g)[:n]]

    found = {"vraies images de test": (pick(others), {}), "images d'entraînement": (pick(x), {}),
             **{name: (sample, {}) for name, sample in evaluation.naive_models(x[:12_000]).items()}}
    for entry in evaluation.image_entries():
        model, name = checkpoints.load_model(entry["name"], torch.device("cpu")), entry["name"].removesuffix("_mnist")
        bits, kind = evaluation.likelihood(entry)
        facts = {"parametres": entry["parameters"], "entrainement_s": entry["seconds"], "machine": entry["hardware"]}
        facts |= {} if bits is None else {"bits_par_dim": round(bits, 3), "vraisemblance": kind}
        found[name] = (model.sample, facts)
        if name == "diffusion":
            found["diffusion guidée"] = (functools.partial(model.sample, guidance=0.5), facts)
    return found


def in_parts(sample, size: int = 500):
    """Le même tirage, par lots de `size` images : la mémoire ne dépend plus de n."""
    return lambda n, g: torch.cat([sample(min(size, n - i), g) for i in range(0, n, size)])


def measure_images() -> dict:
    """Une ligne par modèle : médiane et étendue de DRAWS tirages de N images."""
    net = checkpoints.load_model("features_mnist", torch.device("cpu"))
    reference = metrics.features(net, data.load("mnist", "test", device="cpu")[0])
    learned = metrics.features(net, data.load_full("mnist", device="cpu")[0][:len(reference)])
    rows = {name: facts | summary(
        evaluation.board_rows(in_parts(sample), net, reference, learned, N, DRAWS, time.process_time), COLUMNS)
        for name, (sample, facts) in samplers().items()}
    return {"modeles": rows, "echantillons": N, "tirages": DRAWS}


def measure_toys() -> dict:
    """Les familles dans le plan : SECONDS secondes de CPU d'un fil chacune, SEEDS graines."""
    rows = {}
    for name in ("eight_gaussians", "grid_gaussians", "two_moons"):
        toy = data.toy(name)
        points = data.Batches(toy.sample(100_000, torch.Generator("cpu").manual_seed(1)), size=256)
        test = toy.sample(200 if lab.TRIAL else 5000, torch.Generator("cpu").manual_seed(2))
        found = {}
        for (label, family), seed in itertools.product(evaluation.toy_families().items(), range(SEEDS)):
            config.seed_everything(seed)
            net = family.make()
            lab.trained(net, lambda net, family=family: functools.partial(family.loss, net), points, SECONDS,
                           **family.options)
            draw = torch.Generator("cpu").manual_seed(seed)
            found.setdefault(label, []).append(evaluation.toy_readings(toy, family, net, test, draw)[0])
        rows[name] = {label: summary(torch.tensor(values), evaluation.TOY_GAUGES) for label, values in found.items()}
    return {"jouets": rows, "graines": SEEDS, "budget_cpu_s": SECONDS}


if __name__ == "__main__":
    lab.bench("08_evaluation", {"images": ("les modèles d'images du manifeste", {"images": measure_images}),
                          "jouets": ("toutes les familles dans le plan", {"jouets": measure_toys})})
