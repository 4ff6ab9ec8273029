"""Entraîne et mesure le modèle livré du chapitre 8 : python -m chapters.08_evaluation.entrainement

C'est le réseau de caractéristiques des métriques de tout le cours ; voir `utils.lab`.
"""

import statistics

import torch
import torch.nn.functional as F

from utils import checkpoints, config, data, lab, metrics
from utils.chapters import load_chapter

CHAPTER = "08_evaluation"
evaluation = load_chapter(CHAPTER)


def augment(x: torch.Tensor) -> torch.Tensor:
    """Décale chaque lot d'au plus deux pixels : le classifieur ne doit pas dépendre du cadrage."""
    dx, dy = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(x, (dy, dx), dims=(2, 3))


def real_floor(net) -> float:
    """Distance de Fréchet de 2 000 images d'entraînement aux 2 000 de test embarquées : médiane de trois tirages."""
    real, images = metrics.features(net, data.load("mnist", "test")[0]), data.load("mnist")[0]
    draws = (torch.randperm(len(images), generator=torch.Generator("cpu").manual_seed(s))[:2000] for s in range(3))
    return statistics.median(evaluation.frechet_distance(real, metrics.features(net, images[rows])) for rows in draws)


def train_features(name: str, n_steps: int = 3000) -> None:
    """Un classifieur, dont l'avant-dernière couche est mise à l'échelle : variance totale 100 sur le test."""
    torch.manual_seed(0)
    net = metrics.FeatureNet().to(config.device)
    seconds = lab.fit(name, net, lambda x, y: F.cross_entropy(net(augment(x)), y),
                      data.Batches(*data.load_full("mnist"), size=128), n_steps, lr=2e-3, weight_decay=1e-2)
    x_test, y_test = data.load_full("mnist", "test")
    net.scale.fill_((100 / metrics.features(net, x_test).var(0).sum()).sqrt())
    checkpoints.round_to_half(net)
    with torch.no_grad():
        accuracy = torch.cat([net(x).argmax(1) for x in x_test.split(500)]).eq(y_test).double().mean().item()
    lab.deliver(CHAPTER, name, net, {}, f"{n_steps} pas de 128 images", seconds,
                {"accuracy_test_10000": round(accuracy, 4), "frechet_real_vs_real_2000": round(real_floor(net), 3)})


RECIPES = {"features_mnist": train_features}

if __name__ == "__main__":
    lab.train(RECIPES)
