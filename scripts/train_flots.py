"""Entraîne et mesure les modèles livrés du chapitre 2 : python scripts/train_flots.py [nom ...]

Sans nom, tous. Les jeux complets sont lus par `utils.data.load_full`. Avec COURS_BUDGET=test : un essai de
quelques pas, rien n'est livré. Un entraînement interrompu reprend quand on relance la commande.
"""

import sys

import torch

from utils import checkpoints, config, data, metrics, training
from utils.chapters import load_chapter

CHAPTER = "02_flots"
TRIAL = config.budget_name() == "test"
flots = load_chapter(CHAPTER)

# Le Glow livré : pas par niveau et canaux des réseaux de couplage, puis nombre de pas d'entraînement.
GLOW_SETTINGS = {"depths": [6, 8], "widths": [64, 128]}
GLOW_STEPS = 9_000
FASHION_STEPS = 2_500
# Autoencodeur, puis flot sur ses codes : pas, taille des lots, taux d'apprentissage.
LATENT_SETTINGS = {}
AUTOENCODER_PHASE = (6_000, 128, 2e-3)
CODES_PHASE = (8_000, 256, 1e-3)


def steps(n: int) -> int:
    """Nombre de pas : `n`, ou quelques-uns dans un essai."""
    return 5 if TRIAL else n


def fit(name: str, model, step, batches, n_steps: int, **options) -> float:
    """`training.fit` repris sous `name` (un essai n'en garde rien) ; ses secondes. Interrompu, le script s'arrête."""
    history = training.fit(model, step, batches, n_steps, name=None if TRIAL else name, **options)
    if not history.finished:
        sys.exit(f"{name} : entraînement interrompu, rien n'est livré. La même commande reprend.")
    return history.seconds


def deliver(name, model, settings, budget, seconds, scores) -> None:
    """Inscrit au manifeste le modèle et ses mesures, sauf dans un essai."""
    print(name, scores, flush=True)
    if not TRIAL:
        checkpoints.save_model(name, model, chapter=CHAPTER, config=settings, budget=budget,
                               hardware=config.hardware(), seconds=seconds, scores=scores)


def glow_step(model):
    """Pas d'entraînement : l'opposé de la log-densité des pixels déquantifiés, en nats par dimension."""
    return lambda x, *_: -model.log_prob(flots.dequantize(x)).mean() / 784


@torch.no_grad()
def bits_on(model, x) -> float:
    """Bits par dimension (2.15) moyens des images `x`, déquantifiées avec une graine fixe."""
    generator = torch.Generator("cpu").manual_seed(0)
    log_px = torch.cat([model.log_prob(flots.dequantize(batch, generator)) for batch in x.split(500)])
    return flots.bits_per_dim(log_px.double(), 784).mean().item()


@torch.no_grad()
def frechet(model, n: int = 2000) -> float:
    """Distance de Fréchet de `n` échantillons au jeu de test embarqué."""
    net = checkpoints.load_model("features_mnist")
    images = model.sample(n, torch.Generator("cpu").manual_seed(0))
    real = data.load("mnist", "test")[0]
    return metrics.frechet_distance(metrics.features(net, real), metrics.features(net, images))


def train_glow(name: str, settings: dict, n_steps: int, dataset: str) -> None:
    """Glow sur un jeu complet, mesuré sur ses 10 000 images de test."""
    torch.manual_seed(0)
    model = flots.Glow(**settings).to(config.device)
    n_steps = steps(n_steps)
    batches = data.Batches(data.load_full(dataset)[0], size=64)
    # La perte est divisée par 784 : un gradient de norme 0,1 en vaut 78 en nats par image.
    seconds = fit(name, model, glow_step(model), batches, n_steps, lr=1e-3, clip=0.1, ema=0.999, bfloat16=True)
    checkpoints.round_to_half(model)
    x_test = data.load_full(dataset, "test")[0][:200 if TRIAL else None]
    deliver(name, model, settings, f"{n_steps} pas de 64 images, {dataset} complet", seconds,
            {f"bits_per_dim_test_{len(x_test)}": round(bits_on(model, x_test), 3)})


def fit_once(name: str, model, step, batches, n_steps: int, lr: float, **options) -> float:
    """Un entraînement que l'on ne refait pas s'il est fini et si la suite a été interrompue ; ses secondes."""
    done = training.RUNS / f"{name}_fini.safetensors"
    recipe = repr((n_steps, lr, batches.size, sorted(options.items())))
    if done.exists() and not TRIAL:
        weights, facts = checkpoints.read(done)
        if facts["recipe"] == recipe:
            model.load_state_dict(weights)
            return float(facts["seconds"])
    seconds = fit(name, model, step, batches, n_steps, lr=lr, **options)
    if not TRIAL:
        checkpoints.write(done, model.state_dict(), {"seconds": str(seconds), "recipe": recipe})
    return seconds


def train_latent(name: str) -> None:
    """L'autoencodeur d'abord, puis le flot sur des codes tirés de q(z | x), équation (2.21)."""
    torch.manual_seed(0)
    model = flots.LatentFlow(**LATENT_SETTINGS).to(config.device)
    x = data.load_full("mnist")[0]
    n_steps, size, lr = AUTOENCODER_PHASE
    seconds = fit_once(f"{name}_autoencodeur", model.autoencoder, flots.vae.vae_step(model.autoencoder, beta=0.1),
                       data.Batches(x, size=size), steps(n_steps), lr, bfloat16=True)
    checkpoints.round_to_half(model.autoencoder)           # le flot apprend les codes du modèle livré
    with torch.no_grad():
        moments = [torch.cat(t) for t in zip(*(model.autoencoder.encode(batch) for batch in x.split(500)), strict=True)]
    n_codes, size_codes, lr = CODES_PHASE
    seconds += fit(f"{name}_flot", model.flow,
                   lambda mean, logvar: -model.flow.log_prob(flots.vae.reparameterize(mean, logvar)).mean(),
                   data.Batches(*moments, size=size_codes), steps(n_codes), lr=lr, clip=10.0, ema=0.999)
    checkpoints.round_to_half(model)
    budget = f"autoencodeur : {steps(n_steps)} pas de {size} images ; flot : {steps(n_codes)} pas de {size_codes} codes"
    deliver(name, model, LATENT_SETTINGS, f"{budget} ; mnist complet", seconds,
            {"frechet_2000": round(frechet(model), 2)})


RECIPES = {
    "glow_mnist": lambda name: train_glow(name, GLOW_SETTINGS, GLOW_STEPS, "mnist"),
    "glow_fashion": lambda name: train_glow(name, {}, FASHION_STEPS, "fashion_mnist"),
    "latent_flow_mnist": train_latent,
}


def main(names: list[str]) -> None:
    unknown = set(names) - set(RECIPES)
    if unknown:
        sys.exit(f"Modèle inconnu : {', '.join(sorted(unknown))}. Au choix : {', '.join(RECIPES)}.")
    config.setup()
    for name in names or RECIPES:
        RECIPES[name](name)


if __name__ == "__main__":
    main(sys.argv[1:])
