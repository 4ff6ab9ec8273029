"""Le réseau de caractéristiques : ce qu'il rend, ce qu'il refuse."""

import math

import pytest
import torch

from utils.metrics import FeatureNet, features

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
