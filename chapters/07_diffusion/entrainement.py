"""Entraîne et mesure les modèles livrés du chapitre 7 : python -m chapters.07_diffusion.entrainement [nom ...]

Sans nom, tous ; voir `utils.lab`.
"""

import time

import torch

from utils import checkpoints, config, data, lab, metrics
from utils.chapters import load_chapter

CHAPTER = "07_diffusion"
diffusion, evaluation = load_chapter(CHAPTER), load_chapter("08_evaluation")
GUIDANCE = 0.5  # guidage léger, celui que les mesures « guided » emploient


@torch.no_grad()
def scores(model, n: int = 2000, **options) -> dict:
    """Distance de Fréchet, précision et rappel de `n` échantillons, autant par classe ; part classée comme demandé."""
    net = checkpoints.load_model("features_mnist")
    labels, generator = torch.arange(n, device=config.device) % 10, torch.Generator("cpu").manual_seed(0)
    images = torch.cat([model.sample(len(y), generator, y=y, **options) for y in labels.split(500)])
    real, fake = metrics.features(net, data.load("mnist", "test")[0]), metrics.features(net, images)
    precision, recall = evaluation.precision_recall(real, fake)
    obeyed = torch.cat([net(x).argmax(1) for x in images.split(500)]).eq(labels).float().mean().item()
    return {f"frechet_{n}": round(evaluation.frechet_distance(real, fake), 3), f"precision_{n}": round(precision, 3),
            f"recall_{n}": round(recall, 3), f"obeyed_{n}": round(obeyed, 4)}


def all_scores(model) -> dict:
    """`scores` sans guidage, puis avec (noms en « guided_ »), et les secondes que demandent 64 images."""
    began = time.perf_counter()
    model.sample(64, torch.Generator("cpu").manual_seed(0))
    seconds = time.perf_counter() - began
    guided = {f"guided_{name}": value for name, value in scores(model, guidance=GUIDANCE).items()}
    return scores(model) | guided | {"seconds_64": round(seconds, 2)}


def train_pixels(name: str, n_steps: int = 12_000) -> None:
    """Le modèle conditionnel en pixels : appariement de flots, une étiquette sur dix effacée."""
    torch.manual_seed(0)
    settings = {"path": "straight", "target": "flow", "classes": 10}
    model = diffusion.ImageDenoiser(**settings).to(config.device)
    seconds = lab.fit(name, model, model.loss, data.Batches(*data.load_full("mnist"), size=64), n_steps,
                         lr=3e-3, clip=1.0, ema=0.999, bfloat16=True)
    checkpoints.round_to_half(model)
    lab.deliver(CHAPTER, name, model, settings, f"{n_steps} pas de 64 images, mnist complet", seconds,
                   all_scores(model))


RECIPES = {"diffusion_mnist": train_pixels}

if __name__ == "__main__":
    lab.train(RECIPES)
