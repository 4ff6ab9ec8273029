"""Les chiffres du chapitre 4, face à deux scripts publics très répandus, réécrits d'après leurs réglages.

    python -m chapters.04_gan.banc                tout (une heure)
    python -m chapters.04_gan.banc --images       une seule mesure ; de même --modes

Les deux rivaux ont l'architecture et les réglages des scripts DCGAN et WGAN-GP de la collection PyTorch-GAN
(E. Linder-Norén) : DCGAN à 32 × 32, abandon dans le discriminateur, entropie croisée ; WGAN-GP dense, cinq coups
du critique, pénalité 10 ; Adam 2e-4, β (0,5 ; 0,999), lots de 64. Ils lisent les mêmes images en mémoire que
nous, ce qui les avantage. Voir `utils.lab`.
"""

import functools
import statistics

import torch
import torch.nn.functional as F
from torch import nn

from utils import checkpoints, config, data, lab, metrics
from utils.chapters import load_chapter

SEEDS = (0, 1, 2)
gan, evaluation = load_chapter("04_gan"), load_chapter("08_evaluation")


class Resized(nn.Module):
    """Images 28 × 28 agrandies à 32 × 32 à l'entrée du discriminateur, réduites à la sortie du générateur."""

    def __init__(self, body, side: int):
        super().__init__()
        self.body, self.side = body, side

    def forward(self, x):
        if x.ndim == 4:
            return self.body(F.interpolate(x, self.side, mode="bilinear", align_corners=False))
        return F.interpolate(self.body(x), self.side, mode="bilinear", align_corners=False)


def public_dcgan():
    """DCGAN de la collection, à 32 × 32."""
    def up(n_in, n_out):
        return (nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out, 0.8),
                nn.LeakyReLU(0.2))

    def down(n_in, n_out, normalize=True):
        layers = [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25)]
        return [*layers, nn.BatchNorm2d(n_out, 0.8)] if normalize else layers

    generator = nn.Sequential(nn.Linear(100, 128 * 64), nn.Unflatten(1, (128, 8, 8)), nn.BatchNorm2d(128),
                              *up(128, 128), *up(128, 64), nn.Conv2d(64, 1, 3, padding=1), nn.Tanh())
    discriminator = nn.Sequential(*down(1, 16, False), *down(16, 32), *down(32, 64), *down(64, 128), nn.Flatten(),
                                  nn.Linear(128 * 4, 1), nn.Flatten(0))
    return gan.GAN(Resized(generator.apply(gan.dcgan_weights), 28),
                   Resized(discriminator.apply(gan.dcgan_weights), 32), latent_dim=100)


def public_wgan_gp():
    """WGAN-GP dense de la collection."""
    def block(n_in, n_out, normalize=True):
        return [nn.Linear(n_in, n_out), *([nn.BatchNorm1d(n_out, 0.8)] if normalize else []), nn.LeakyReLU(0.2)]

    generator = nn.Sequential(*block(100, 128, False), *block(128, 256), *block(256, 512), *block(512, 1024),
                              nn.Linear(1024, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
    critic = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2),
                           nn.Linear(256, 1), nn.Flatten(0))
    return gan.GAN(generator, critic, latent_dim=100)


ADAM = {"lr": 2e-4, "betas": (0.5, 0.999), "schedule": "constant", "warmup": 0}
CONTENDERS = {
    "petit_gan": (gan.SmallGAN, lambda model: gan.gan_step(model, gan.hinge_d_loss, gan.hinge_g_loss),
                  {"lr": 8e-4, "betas": (0.5, 0.99), "ema": 0.998, "bfloat16": True}),
    "dcgan_public": (public_dcgan, lambda model: gan.gan_step(model, gan.discriminator_loss, gan.generator_loss), ADAM),
    "wgan_gp_public": (public_wgan_gp, lambda model: gan.gan_step(
        model, gan.critic_loss, gan.critic_generator_loss, n_critic=5, penalty=gan.gradient_penalty), ADAM),
}


def measure_images(name: str) -> dict:
    """Un GAN d'images, cinq minutes de CPU, trois graines : distance de Fréchet, précision, rappel."""
    make, step, options = CONTENDERS[name]
    net = checkpoints.load_model("features_mnist", torch.device("cpu"))
    real = metrics.features(net, data.load("mnist", "test", device="cpu")[0])
    rows = []
    for seed in SEEDS:
        config.seed_everything(seed)
        model = make()
        batches = data.Batches(data.load_full("mnist", device="cpu")[0], size=64, seed=seed)
        facts = lab.trained(model, step, batches, 300, **options)
        fake = metrics.features(net, model.eval().sample(2000, torch.Generator("cpu").manual_seed(0)))
        rows.append((evaluation.frechet_distance(real, fake), *evaluation.precision_recall(real, fake)))
    distances, precisions, recalls = zip(*rows, strict=True)
    return facts | {"graines": len(SEEDS), "frechet_mediane": round(statistics.median(distances), 2),
                    "frechet_min": round(min(distances), 2), "frechet_max": round(max(distances), 2),
                    "precision_mediane": round(statistics.median(precisions), 3),
                    "rappel_mediane": round(statistics.median(recalls), 3),
                    "plancher": checkpoints.entry("features_mnist")["scores"]["frechet_real_vs_real_2000"]}


def measure_modes() -> dict:
    """Huit gaussiennes, 4 000 mises à jour, trois graines : modes couverts par le moins et le plus heureux."""
    ring = data.toy("eight_gaussians")
    points = ring.sample(50_000, torch.Generator("cpu").manual_seed(1), device="cpu") / 8 + 0.5
    steps, found = 20 if lab.TRIAL else 4000, {"graines": len(SEEDS)}
    for name, options in CURES.items():
        runs = [gan.train_ring(points, ring.centers.float() / 8 + 0.5, ring.sigma / 8, steps, seed=seed, **options)
                for seed in SEEDS]
        modes, good = zip(*(measures[-1][1:] for _, measures in runs), strict=True)
        found |= {f"modes_{name}_min": min(modes), f"modes_{name}_max": max(modes),
                  f"bons_{name}_mediane": round(statistics.median(good), 3)}
    return found


# Les remèdes du chapitre, tels qu'il les compare.
CURES = {
    "aucun": {}, "spectrale": {"spectral": True}, "r1": {"rules": {"penalty": gan.r1_penalty}},
    "minilot": {"minibatch": True},
    "wasserstein": {"losses": (gan.critic_loss, gan.critic_generator_loss),
                    "rules": {"penalty": functools.partial(gan.gradient_penalty, weight=1.0), "n_critic": 3}},
}

if __name__ == "__main__":
    lab.bench("04_gan", {
        "modes": ("modes couverts sur huit gaussiennes, avec et sans remède, trois graines",
                  {"modes": measure_modes}),
        "images": ("petit GAN, DCGAN et WGAN-GP, cinq minutes de CPU et trois graines chacun",
                   {name: functools.partial(measure_images, name) for name in CONTENDERS}),
    })
