"""Entraîne et mesure les modèles livrés du chapitre 4 : python -m chapters.04_gan.entrainement [nom ...]

Sans nom, tous ; voir `utils.lab`.
"""

import statistics

import torch

from utils import checkpoints, config, data, lab, metrics, training
from utils.chapters import load_chapter

CHAPTER = "04_gan"
gan, evaluation = load_chapter(CHAPTER), load_chapter("08_evaluation")

# Réglages de `fit`.
SMALL = {"lr": 8e-4, "betas": (0.5, 0.99), "ema": 0.999, "bfloat16": True}
DCGAN = {"lr": 2e-4, "betas": (0.5, 0.999), "schedule": "constant", "bfloat16": True}
# Moments du film, en mises à jour : serrés au début, quand tout change.
SHOTS = [250, 500, 750, 1000, 1500, 2000, 3000, 4000, 5000, 6500, 8000, 10_000, 12_500, 15_000, 17_500, 20_000,
         22_500, 25_000, 27_500, 30_000]


@torch.no_grad()
def scores(model, n: int = 2000) -> dict:
    """Distance de Fréchet, précision et rappel de `n` échantillons : médiane et étendue de trois tirages."""
    net = checkpoints.load_model("features_mnist")
    real, rows = metrics.features(net, data.load("mnist", "test")[0]), []
    for seed in range(3):
        fake = metrics.features(net, model.sample(n, torch.Generator("cpu").manual_seed(seed)))
        rows.append((evaluation.frechet_distance(real, fake), *evaluation.precision_recall(real, fake)))
    found = {}
    for name, values in zip(("frechet", "precision", "recall"), zip(*rows, strict=True), strict=True):
        found |= {f"{name}_{n}{suffix}": round(choose(values), 3)
                  for suffix, choose in (("", statistics.median), ("_min", min), ("_max", max))}
    return found


@torch.no_grad()
def picture(model) -> torch.Tensor:
    """Les seize bruits du film décodés, en octets : (16, 1, 28, 28)."""
    z = model.latent(gan.Film.NOISES, torch.Generator("cpu").manual_seed(0))
    return (255 * (model.generator(z) + 1) / 2).round().byte()


def train(name: str, make, losses, n_steps: int, settings: dict, labels: bool = False, live=None, **rules):
    """Un GAN sur MNIST complet, `n_steps` mises à jour ; rend le modèle, et ce que le manifeste en dira.

    `rules` : options de `gan_step`. `live(model)` est appelée à chaque multiple de SHOTS[0] mises à jour.
    """
    torch.manual_seed(0)
    model = make().to(config.device)
    batches = data.Batches(*data.load_full("mnist")[:2 if labels else 1], size=64)
    seconds = lab.fit(name, model, gan.gan_step(model, *losses, **rules), batches, n_steps,
                         live=live and (lambda: live(model)), live_every=SHOTS[0], **settings)
    checkpoints.round_to_half(model)
    facts = f"{n_steps} mises à jour, lots de 64, mnist complet", seconds, scores(model)
    lab.deliver(CHAPTER, name, model, {}, *facts)
    return model, facts


def train_filmed(name: str) -> None:
    """Le petit GAN moderne, et le film de son entraînement, gardé dans runs/ tant qu'il n'est pas fini."""
    film, path = gan.Film(len(SHOTS)).to(config.device), training.RUNS / f"{name}_film.safetensors"
    if path.exists():
        film.load_state_dict(checkpoints.read(path)[0])
    film.steps.copy_(torch.tensor(SHOTS))

    def shoot(model):
        if model.turn.item() in SHOTS[:-1]:
            film.images[SHOTS.index(model.turn.item())] = picture(model)
            checkpoints.write(path, film.state_dict())

    model, facts = train(
        name, gan.SmallGAN, (gan.hinge_d_loss, gan.hinge_g_loss), SHOTS[-1], SMALL, live=shoot)
    film.images[-1] = picture(model)                        # la dernière image est celle du modèle livré
    lab.deliver(CHAPTER, f"{name}_film", film, {"n_shots": len(SHOTS)}, *facts)
    path.unlink(missing_ok=True)


RECIPES = {
    "dcgan_mnist": lambda name: train(
        name, gan.DCGAN, (gan.discriminator_loss, gan.generator_loss), 12_000, DCGAN),
    "gan_mnist": train_filmed,
    "cgan_mnist": lambda name: train(
        name, gan.ConditionalGAN, (gan.hinge_d_loss, gan.hinge_g_loss), 20_000, SMALL, labels=True),
}

if __name__ == "__main__":
    lab.train(RECIPES)
