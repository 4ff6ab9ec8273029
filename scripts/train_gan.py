"""Entraîne et mesure les modèles livrés du chapitre 4 : python scripts/train_gan.py [nom ...]

Sans nom, tous ; voir `livrer`.
"""

import livrer
import torch

from utils import checkpoints, config, data, metrics
from utils.chapters import load_chapter

CHAPTER = "04_gan"
gan = load_chapter(CHAPTER)

# Mises à jour (des deux réseaux ensemble), puis réglages de `fit`.
SMALL = {"lr": 8e-4, "betas": (0.5, 0.99), "ema": 0.999, "bfloat16": True}
DCGAN = {"lr": 2e-4, "betas": (0.5, 0.999), "schedule": "constant", "bfloat16": True}
WGAN = {"lr": 2e-4, "betas": (0.5, 0.9), "ema": 0.999}


@torch.no_grad()
def scores(model, n: int = 2000) -> dict:
    """Distance de Fréchet, précision et rappel de `n` échantillons contre le jeu de test embarqué de MNIST."""
    net = checkpoints.load_model("features_mnist")
    real = metrics.features(net, data.load("mnist", "test")[0])
    fake = metrics.features(net, model.sample(n, torch.Generator("cpu").manual_seed(0)))
    precision, recall = metrics.precision_recall(real, fake)
    return {f"frechet_{n}": round(metrics.frechet_distance(real, fake), 2),
            f"precision_{n}": round(precision, 3), f"recall_{n}": round(recall, 3)}


def train(name: str, make, losses, n_steps: int, settings: dict, labels: bool = False, **rules) -> None:
    """Un GAN sur MNIST complet ; `rules` : les options de `gan_step`."""
    torch.manual_seed(0)
    model = make().to(config.device)
    batches = data.Batches(*data.load_full("mnist")[:2 if labels else 1], size=64)
    seconds = livrer.fit(name, model, gan.gan_step(model, *losses, **rules), batches, n_steps, **settings)
    checkpoints.round_to_half(model)
    livrer.deliver(CHAPTER, name, model, {}, f"{n_steps} mises à jour, lots de 64, mnist complet", seconds,
                   scores(model))


RECIPES = {
    "dcgan_mnist": lambda name: train(
        name, gan.DCGAN, (gan.discriminator_loss, gan.generator_loss), 12_000, DCGAN),
    "wgan_gp_mnist": lambda name: train(
        name, gan.WGAN, (gan.critic_loss, gan.critic_generator_loss), 40_000, WGAN,
        penalty=gan.gradient_penalty, n_critic=3),
    "gan_mnist": lambda name: train(
        name, gan.SmallGAN, (gan.hinge_d_loss, gan.hinge_g_loss), 30_000, SMALL),
    "cgan_mnist": lambda name: train(
        name, gan.ConditionalGAN, (gan.hinge_d_loss, gan.hinge_g_loss), 20_000, SMALL, labels=True),
}

if __name__ == "__main__":
    livrer.main(RECIPES)
