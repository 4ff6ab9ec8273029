"""Distance de Fréchet, précision et rappel, réseau de caractéristiques : contre des oracles."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch

from utils import checkpoints, config, data
from utils.metrics import FeatureNet, features, frechet_distance, precision_recall


@pytest.fixture(autouse=True)
def double():
    """Les points des tests sont en float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def exact(mean, covariance, n=200):
    """n points dont la moyenne et la covariance empiriques sont exactement celles demandées."""
    covariance = torch.as_tensor(covariance)
    x = torch.randn(n, len(covariance))
    x = x - x.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)))
    return x @ whiten.T @ torch.linalg.cholesky(covariance).T + torch.as_tensor(mean)


def random_covariance(d):
    root = torch.randn(d, d)
    return root @ root.T + 0.1 * torch.eye(d)


# --- Distance de Fréchet --------------------------------------------------------------------------


def test_frechet_between_diagonal_gaussians():
    """Σ (μ − ν)² + (σ − τ)² : les covariances commutent."""
    mu, nu = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([0.5, 1.0, 1.0])
    sigma, tau = torch.tensor([1.0, 2.0, 0.3]), torch.tensor([1.5, 0.5, 0.3])
    a, b = exact(mu, torch.diag(sigma**2)), exact(nu, torch.diag(tau**2), n=150)
    expected = ((mu - nu).square() + (sigma - tau).square()).sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("d", [2, 8, 64])
def test_frechet_against_scipy(d):
    c, e, mean = random_covariance(d), random_covariance(d), torch.randn(d)
    a, b = exact(torch.zeros(d), c, n=3 * d), exact(mean, e, n=4 * d)
    root = scipy.linalg.sqrtm(c.numpy() @ e.numpy()).real
    expected = mean.square().sum().item() + np.trace(c.numpy() + e.numpy() - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)


def test_frechet_in_one_dimension_by_hand():
    # Moyennes 1 et 5, variances sans biais 1 et 4.
    a, b = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[3.0], [5.0], [7.0]])
    assert frechet_distance(a, b) == pytest.approx((1 - 5) ** 2 + (1 - 2) ** 2)


@pytest.mark.parametrize("n", [500, 20])  # 20 points en dimension 30 : covariance singulière
def test_frechet_of_a_set_with_itself_is_zero(n):
    a = 3 * torch.randn(n, 30) + 1
    assert abs(frechet_distance(a, a)) < 1e-4
    assert abs(frechet_distance(a, a[torch.randperm(n)])) < 1e-4


def test_frechet_invariances():
    a, b = torch.randn(100, 6) @ torch.randn(6, 6), torch.randn(80, 6) + 1
    value = frechet_distance(a, b)
    q, _ = torch.linalg.qr(torch.randn(6, 6))
    assert frechet_distance(b, a) == pytest.approx(value)
    assert frechet_distance(a @ q + 5, b @ q + 5) == pytest.approx(value)
    assert frechet_distance(a[torch.randperm(100)], b[torch.randperm(80)]) == pytest.approx(value)
    assert frechet_distance(10 * a, 10 * b) == pytest.approx(100 * value)


def test_frechet_computes_in_float64():
    a, b = torch.randn(300, 5) + 1000, torch.randn(300, 5) + 1000
    a, b = a.float(), b.float()
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a.double(), b.double()), rel=1e-12)


# --- Précision et rappel --------------------------------------------------------------------------


def brute_force(real, fake, k):
    """Les équations 1 et 2 de Kynkäänniemi et al. (2019), par des boucles."""
    def covered(points, reference):
        count = 0
        for p in points:
            inside = False
            for i, r in enumerate(reference):
                others = sorted(math.dist(r, o) for j, o in enumerate(reference) if j != i)
                inside |= math.dist(p, r) <= others[k - 1]
            count += inside
        return count / len(points)
    return covered(fake, real), covered(real, fake)


def test_precision_recall_by_hand():
    # k = 1. Rayons réels 0,6 0,6 2 4 : boules [−0,2 ; 1] [0,4 ; 1,6] [1 ; 5] [3 ; 11].
    real = torch.tensor([[0.4], [1.0], [3.0], [7.0]])
    # Rayons engendrés 0,2 0,2 0,5 0,5 : boules [0,1 ; 0,5] [0,3 ; 0,7] [39,5 ; 40,5] [40 ; 41].
    fake = torch.tensor([[0.3], [0.5], [40.0], [40.5]])
    assert precision_recall(real, fake, k=1) == (2 / 4, 1 / 4)
    assert precision_recall(fake, real, k=1) == (1 / 4, 2 / 4)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_precision_recall_against_loops(k, dtype):
    # Loin de l'origine, des distances calculées en float32 seraient fausses.
    real = (torch.randn(30, 2) + 100).to(dtype)
    fake = (1.5 * torch.randn(24, 2) + 101).to(dtype)
    expected = brute_force(real.tolist(), fake.tolist(), k)
    assert precision_recall(real, fake, k) == pytest.approx(expected)
    assert 0 < min(expected) and max(expected) < 1


def test_precision_recall_default_is_three_neighbours():
    real, fake = torch.randn(40, 2), torch.randn(40, 2) + 1
    assert precision_recall(real, fake) == precision_recall(real, fake, 3)


def test_precision_recall_tell_the_two_failures_apart():
    real = torch.randn(200, 8)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, torch.randn(200, 8) + 100) == (0, 0)
    collapsed = real.mean(0) + 1e-3 * torch.randn(200, 8)
    assert precision_recall(real, collapsed) == (1, 0)
    constant = real[:1].expand(200, 8)
    assert precision_recall(real, constant) == (1, 1 / 200)


def test_precision_recall_do_not_depend_on_order_or_frame():
    real, fake = torch.randn(60, 4), torch.randn(50, 4) + 0.7
    value = precision_recall(real, fake)
    q, _ = torch.linalg.qr(torch.randn(4, 4))
    assert precision_recall(real[torch.randperm(60)] @ q + 3, fake[torch.randperm(50)] @ q + 3) == value


# --- Le réseau ------------------------------------------------------------------------------------


@pytest.fixture
def net():
    torch.set_default_dtype(torch.float32)
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
    (torch.linspace(-1, 1, 784, dtype=torch.float32), "-1.00 à 1.00"),
    (torch.linspace(0, 255, 784, dtype=torch.float32), "0.00 à 255.00"),
    (torch.full((784,), math.nan, dtype=torch.float32), "nan à nan")], ids=["[-1, 1]", "[0, 255]", "nan"])
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
    torch.set_default_dtype(torch.float32)
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
    distances = [frechet_distance(half, f) for f in (other, blurred, noise)]
    assert distances[0] < 2 and distances == sorted(distances) and distances[1] > 3 * distances[0], distances
    precision, recall = precision_recall(half, other)
    assert precision > 0.85 and recall > 0.85

