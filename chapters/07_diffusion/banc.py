"""Les chiffres du chapitre 7, face au paquet public denoising-diffusion-pytorch (P. Wang).

    pip install -r benchmarks/requirements.txt
    python -m chapters.07_diffusion.banc              tout (deux heures)
    python -m chapters.07_diffusion.banc --pixels     une seule mesure ; de même --latent, --longue, --paquet

Le paquet joue deux fois, à dim 32 et (1, 2, 4) : avec les réglages de son README (lots de 32, Adam 8e-5), puis avec
ceux du cours (lots de 64, Adam 2e-3 en demi-cosinus) ; c'est au meilleur des deux que l'on se compare. Il lit les
mêmes images en mémoire que nous. Seul l'entraînement est compté dans le budget. Voir `utils.lab`.
"""

import functools
import time

import denoising_diffusion_pytorch as public
import torch
from torch import nn

from utils import checkpoints, config, data, lab, metrics
from utils.chapters import load_chapter

N_JUDGED = 8 if lab.TRIAL else 2000
diffusion, evaluation = load_chapter("07_diffusion"), load_chapter("08_evaluation")


def judged(model, **options) -> dict:
    """Fréchet, précision, rappel et secondes de N_JUDGED échantillons ; part classée comme demandé s'il y a lieu."""
    net = checkpoints.load_model("features_mnist", torch.device("cpu"))
    real = metrics.features(net, data.load("mnist", "test", device="cpu")[0])
    labels, generator = torch.arange(N_JUDGED, device="cpu") % 10, torch.Generator("cpu").manual_seed(0)
    model.eval()
    began = time.perf_counter()
    images = torch.cat([model.sample(len(y), generator, **({"y": y} if model.classes else {}), **options)
                        for y in labels.split(500)])
    seconds, fake = time.perf_counter() - began, metrics.features(net, images)
    precision, recall = evaluation.precision_recall(real[:len(fake)], fake)
    facts = {"frechet": round(evaluation.frechet_distance(real, fake), 2), "precision": round(precision, 3),
             "rappel": round(recall, 3), "echantillons": N_JUDGED, "echantillonnage_s": round(seconds, 1),
             "plancher": checkpoints.entry("features_mnist")["scores"]["frechet_real_vs_real_2000"]}
    if model.classes:
        with torch.no_grad():
            facts["obeis"] = round(net(images).argmax(1).eq(labels).float().mean().item(), 4)
    return facts


def batches(labels: bool, size: int = 64) -> data.Batches:
    """Lots de MNIST complet, avec ou sans étiquettes."""
    return data.Batches(*data.load_full("mnist", device="cpu")[:2 if labels else 1], size=size)


GUIDANCE = 0.5
OURS = {"lr": 3e-3, "clip": 1.0, "ema": 0.995, "bfloat16": True}


def measure_pixels(target: str, classes: int, seconds: float) -> dict:
    """Le U-Net du cours sur le chemin droit, de cible x0 ou flow ; jugé avec η = 0, puis 1, puis un guidage léger."""
    config.seed_everything(0)
    model = diffusion.ImageDenoiser("straight", target, classes=classes)
    facts = lab.trained(model, lambda model: model.loss, batches(bool(classes)), seconds, **OURS)
    facts |= {"cible": target} | judged(model)
    ways = {"eta_1": {"eta": 1.0}} | ({"guide": {"guidance": GUIDANCE}} if classes else {})
    for suffix, options in ways.items():
        found = judged(model, **options)
        facts |= {f"{name}_{suffix}": found[name] for name in ("frechet", "precision", "rappel", "obeis")
                  if name in found}
    return facts


def measure_latent() -> dict:
    """Autoencodeur (les deux cinquièmes du budget), puis appariement de flots sur ses codes : trois minutes de CPU."""
    config.seed_everything(0)
    model = diffusion.LatentDenoiser()
    first = lab.trained(model.autoencoder, functools.partial(diffusion.grey_step, beta=0.1), batches(False), 72,
                           lr=3e-3, bfloat16=True)
    began = time.process_time()
    x, y = data.load_full("mnist", device="cpu")
    codes = data.Batches(*model.normalize(x), y, size=256)
    spent = time.process_time() - began                    # encoder le jeu fait partie du budget
    second = lab.trained(model.net, lambda net: model.loss, codes, 108 - spent, lr=2e-3, clip=1.0, bfloat16=True)
    return second | {"parametres": lab.parameters(model), "budget_cpu_s": 180, "pas_autoencodeur": first["pas"],
                     "cpu_s": round(first["cpu_s"] + spent + second["cpu_s"], 1)} | judged(model, n_steps=20)


class Package(nn.Module):
    """Le modèle du paquet, sous le contrat du cours : `sample` rend des images (n, 1, 28, 28) dans [0, 1]."""

    classes = 0

    def __init__(self, n_steps: int = 25):
        super().__init__()
        net = public.Unet(dim=32, dim_mults=(1, 2, 4), channels=1)
        self.chain = public.GaussianDiffusion(net, image_size=28, sampling_timesteps=n_steps)

    def sample(self, n, generator):
        torch.manual_seed(torch.randint(2**31, (), generator=generator).item())
        return self.chain.sample(batch_size=n).clamp(0, 1)


PACKAGE = {"readme": (32, {"lr": 8e-5, "betas": (0.9, 0.99), "schedule": "constant", "warmup": 0, "clip": 1.0}),
           "cours": (64, {"lr": 2e-3, "clip": 1.0})}


def measure_package(settings: str) -> dict:
    """Le paquet public, cinq minutes de CPU, vingt-cinq pas de DDIM (à pleine résolution, chacun est lent)."""
    size, options = PACKAGE[settings]
    config.seed_everything(0)
    model = Package()
    return lab.trained(model, lambda model: model.chain, batches(False, size), 300, **options) | judged(model)


if __name__ == "__main__":
    lab.bench("07_diffusion", {
        "pixels": ("U-Net en pixels, cinq minutes de CPU, sans puis avec étiquettes",
                   {"pixels": functools.partial(measure_pixels, "x0", 0, 300),
                    "pixels_etiquettes": functools.partial(measure_pixels, "x0", 10, 300)}),
        "latent": ("diffusion latente, trois minutes de CPU", {"latent": measure_latent}),
        "longue": ("U-Net en pixels avec étiquettes, quinze minutes de CPU",
                   {"pixels_15_minutes": functools.partial(measure_pixels, "flow", 10, 900)}),
        "paquet": ("denoising-diffusion-pytorch, cinq minutes de CPU, deux jeux de réglages",
                   {f"paquet_{name}": functools.partial(measure_package, name) for name in PACKAGE}),
    }, public.version)
