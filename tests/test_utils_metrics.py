"""Le réseau de caractéristiques : ce qu'il rend, ce qu'il refuse, et s'il mesure des images."""

import json
import math

import pytest
import torch

from utils import checkpoints, config, data
from utils.chapters import load_chapter
from utils.metrics import FeatureNet, features

evaluation = load_chapter("08_evaluation")


# --- Le réseau ------------------------------------------------------------------------------------


@pytest.fixture
def net():
    return FeatureNet(width=4).eval()


def test_features_are_the_last_but_one_layer_scaled(net):
    x = torch.rand(7, 1, 28, 28)
    net.scale.fill_(2.0)
    f = features(net, x)
    assert f.shape == (7, 64) and f.dtype == torch.float64 and f.device.type == "cpu" and not f.requires_grad
    torch.testing.assert_close(f, 2 * net.body(x).double())
    torch.testing.assert_close(net(x), net.head((f / 2).float()))
    torch.testing.assert_close(features(net, x, size=3), f)


@pytest.mark.parametrize("x, seen", [
    (torch.linspace(-1, 1, 784), "-1.00 à 1.00"),
    (torch.linspace(0, 255, 784), "0.00 à 255.00"),
    (torch.full((784,), math.nan), "nan à nan")], ids=["[-1, 1]", "[0, 255]", "nan"])
def test_images_out_of_range_are_refused_in_french(net, x, seen):
    with pytest.raises(ValueError, match=r"doivent être dans \[0, 1\] ; les vôtres vont de " + seen):
        features(net, x.view(1, 1, 28, 28))


def test_rounding_does_not_refuse_images(net):
    features(net, torch.rand(2, 1, 28, 28).clamp(0.5) * 2 - 1 + 1e-6)
    features(net, torch.linspace(-1e-6, 1 + 1e-6, 784).view(1, 1, 28, 28))


def shipped():
    manifest = json.loads((config.ROOT / "checkpoints" / "manifest.json").read_text(encoding="utf-8"))
    name, = (e["name"] for e in manifest["models"] if e["class"] == "utils.metrics.FeatureNet")
    return checkpoints.load_model(name, torch.device("cpu")), checkpoints.entry(name)


def test_the_shipped_network_measures_images():
    """Exact à 98,5 % au moins sur les 2 000 images embarquées, et dans le bon ordre : réel, flou, bruit."""
    net, entry = shipped()
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

