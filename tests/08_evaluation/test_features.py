"""Le réseau de caractéristiques livré mesure-t-il des images ? Les formules sont celles du chapitre."""

import pytest
import torch

from utils import checkpoints, data
from utils.chapters import load_chapter
from utils.metrics import features

evaluation = load_chapter("08_evaluation")


def test_the_shipped_network_measures_images():
    """Exact à 98,5 % au moins sur les 2 000 images embarquées, et dans le bon ordre : réel, flou, bruit."""
    entry, = (e for e in checkpoints.models() if e["class"] == "utils.metrics.FeatureNet")
    net = checkpoints.load_model(entry["name"], torch.device("cpu"))
    x, y = data.load("mnist", "test", device="cpu")
    real = features(net, x)
    with torch.no_grad():
        accuracy = net.head((real / net.scale).float()).argmax(1).eq(y).double().mean().item()
    assert accuracy >= 0.985 and entry["scores"]["accuracy_test_10000"] >= 0.99
    assert real.var(0).sum().item() == pytest.approx(100, rel=0.1)
    half, other = real[::2], real[1::2]
    blurred = features(net, torch.nn.functional.avg_pool2d(x[1::2], 5, stride=1, padding=2))
    noise = features(net, torch.bernoulli(x.mean(0).expand_as(x[1::2])))
    distances = [evaluation.frechet_distance(half, f) for f in (other, blurred, noise)]
    assert distances[0] < 2 and distances == sorted(distances) and distances[1] > 3 * distances[0], distances
    precision, recall = evaluation.precision_recall(half, other)
    assert precision > 0.85 and recall > 0.85

