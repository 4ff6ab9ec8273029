"""Entraîne le réseau de caractéristiques des métriques sur MNIST complet : python scripts/train_features.py"""

import statistics
import time

import torch
import torch.nn.functional as F

from utils import checkpoints, config, data, metrics, training
from utils.chapters import load_chapter

evaluation = load_chapter("08_evaluation")


def augment(x: torch.Tensor) -> torch.Tensor:
    """Décale chaque lot d'au plus deux pixels : le classifieur ne doit pas dépendre du cadrage."""
    dx, dy = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(x, (dy, dx), dims=(2, 3))


def real_floor(net) -> float:
    """Distance de Fréchet de 2 000 images d'entraînement aux 2 000 de test embarquées : médiane de trois tirages."""
    real, images = metrics.features(net, data.load("mnist", "test")[0]), data.load("mnist")[0]
    draws = (torch.randperm(len(images), generator=torch.Generator("cpu").manual_seed(s))[:2000] for s in range(3))
    return statistics.median(evaluation.frechet_distance(real, metrics.features(net, images[rows])) for rows in draws)


def main() -> None:
    config.setup()
    x_train, y_train = data.load_full("mnist")
    x_test, y_test = data.load_full("mnist", "test")
    net = metrics.FeatureNet().to(config.device)
    steps = config.budget(test=20, rapide=3000, complet=6000)
    start = time.perf_counter()
    training.fit(net, lambda x, y: F.cross_entropy(net(augment(x)), y), data.Batches(x_train, y_train, size=128),
                 steps, lr=2e-3, weight_decay=1e-2, name="features_mnist")
    seconds = time.perf_counter() - start
    variance = metrics.features(net, x_test).var(0).sum()
    net.scale.fill_((100 / variance).sqrt())
    checkpoints.round_to_half(net)
    with torch.no_grad():
        accuracy = torch.cat([net(x).argmax(1) for x in x_test.split(500)]).eq(y_test).double().mean().item()
    floor = real_floor(net)
    print(f"exactitude {accuracy:.4f}, plancher de Fréchet {floor:.3f}")
    if config.budget_name() != "test":
        checkpoints.save_model(
            "features_mnist", net, chapter="08_evaluation", config={}, budget=f"{steps} pas de 128 images",
            hardware=config.hardware(), seconds=seconds,
            scores={"accuracy_test_10000": round(accuracy, 4), "frechet_real_vs_real_2000": round(floor, 3)})


if __name__ == "__main__":
    main()
