"""Entraîne et mesure les modèles livrés du chapitre 2 : python -m chapters.02_flots.entrainement [nom ...]

Sans nom, tous ; voir `utils.lab`.
"""

import torch

from utils import checkpoints, config, data, lab, metrics
from utils.chapters import load_chapter

CHAPTER = "02_flots"
flots, evaluation = load_chapter(CHAPTER), load_chapter("08_evaluation")

# Le Glow livré : pas par niveau et canaux des réseaux de couplage, puis nombre de pas d'entraînement.
GLOW_SETTINGS = {"depths": [6, 8], "widths": [64, 128]}
GLOW_STEPS = 20_000
FASHION_STEPS = 2_500
# Autoencodeur, puis flot sur ses codes : pas, taille des lots, taux d'apprentissage.
LATENT_SETTINGS = {}
AUTOENCODER_PHASE = (6_000, 128, 2e-3)
CODES_PHASE = (8_000, 256, 1e-3)


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
    """Distance de Fréchet de `n` échantillons (graine 0) au jeu de test embarqué de MNIST."""
    net = checkpoints.load_model("features_mnist")
    images = model.sample(n, torch.Generator("cpu").manual_seed(0))
    real = data.load("mnist", "test")[0]
    return evaluation.frechet_distance(metrics.features(net, real), metrics.features(net, images))


def train_glow(name: str, settings: dict, n_steps: int, dataset: str) -> None:
    """Glow sur un jeu complet, mesuré sur ses 10 000 images de test."""
    torch.manual_seed(0)
    model = flots.Glow(**settings).to(config.device)
    batches = data.Batches(data.load_full(dataset)[0], size=64)
    # La perte est divisée par 784 : un gradient de norme 0,1 en vaut 78 en nats par image.
    seconds = lab.fit(name, model, glow_step(model), batches, n_steps, lr=1e-3, clip=0.1, ema=0.999, bfloat16=True)
    checkpoints.round_to_half(model)
    x_test = data.load_full(dataset, "test")[0][:200 if lab.TRIAL else None]
    lab.deliver(CHAPTER, name, model, settings, f"{n_steps} pas de 64 images, {dataset} complet", seconds,
                   {f"bits_per_dim_test_{len(x_test)}": round(bits_on(model, x_test), 3)})


def train_latent(name: str) -> None:
    """L'autoencodeur d'abord, puis le flot sur des codes tirés de q(z | x), équation (2.21)."""
    torch.manual_seed(0)
    model = flots.LatentFlow(**LATENT_SETTINGS).to(config.device)
    x = data.load_full("mnist")[0]
    n_steps, size, lr = AUTOENCODER_PHASE
    seconds = lab.fit_once(f"{name}_autoencodeur", model.autoencoder,
                              flots.vae.vae_step(model.autoencoder, beta=0.1),
                              data.Batches(x, size=size), n_steps, lr=lr, bfloat16=True)
    checkpoints.round_to_half(model.autoencoder)           # le flot apprend les codes du modèle livré
    with torch.no_grad():
        moments = [torch.cat(t) for t in zip(*(model.autoencoder.encode(batch) for batch in x.split(500)), strict=True)]
    n_codes, size_codes, lr = CODES_PHASE
    seconds += lab.fit(f"{name}_flot", model.flow,
                          lambda mean, logvar: -model.flow.log_prob(flots.vae.reparameterize(mean, logvar)).mean(),
                          data.Batches(*moments, size=size_codes), n_codes, lr=lr, clip=10.0, ema=0.999)
    checkpoints.round_to_half(model)
    budget = f"autoencodeur : {n_steps} pas de {size} images ; flot : {n_codes} pas de {size_codes} codes"
    lab.deliver(CHAPTER, name, model, LATENT_SETTINGS, f"{budget} ; mnist complet", seconds,
                   {"frechet_2000": round(frechet(model), 2)})


RECIPES = {
    "glow_mnist": lambda name: train_glow(name, GLOW_SETTINGS, GLOW_STEPS, "mnist"),
    "glow_fashion": lambda name: train_glow(name, {}, FASHION_STEPS, "fashion_mnist"),
    "latent_flow_mnist": train_latent,
}


if __name__ == "__main__":
    lab.train(RECIPES)
