"""Chapitre 8 : chaque équation contre un oracle indépendant, bibliothèque publique, boucles ou forme close."""

import itertools
import math
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import torch
import torch.nn.functional as F
from prdc import compute_prdc
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import KernelDensity, NearestNeighbors
from torch import distributions as D
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd
from torchvision.models import Inception_V3_Weights

from utils import checkpoints, data, metrics
from utils.chapters import load_chapter

evaluation = load_chapter("08_evaluation")
flows, vae = load_chapter("02_flots"), load_chapter("03_vae")
pytestmark = pytest.mark.usefixtures("double")


# --- 1. Voisinages -------------------------------------------------------------------------------------------------


def test_nearest_distance_is_the_first_neighbour():
    points, reference = torch.randn(40, 6), torch.randn(70, 6)
    expected = NearestNeighbors(n_neighbors=1).fit(reference).kneighbors(points)[0][:, 0]
    np.testing.assert_allclose(evaluation.nearest_distance(points, reference), expected, rtol=1e-9)
    assert evaluation.nearest_distance(points, points).max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("points", "reference", "hint"), [
    (torch.zeros(3, 1, 2, 2), torch.zeros(3, 4), "flatten"), (torch.zeros(3, 4), torch.zeros(3, 5), "même D"),
    (torch.zeros(0, 4), torch.zeros(3, 4), "vide"), (torch.full((2, 4), math.nan), torch.zeros(3, 4), "finies")])
def test_nearest_distance_refuses(points, reference, hint):
    with pytest.raises(ValueError, match=hint):
        evaluation.nearest_distance(points, reference)


# --- 2. Vraisemblance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 16, 128, 256])
def test_8_1_uniform_on_k_levels(k):
    """k niveaux équiprobables sur 256 : log2 k bits, comme probabilité ou comme densité sur [0, 1[ ou [−1, 1[."""
    assert evaluation.bits_per_dim(-12 * math.log(k), 12, cell=1) == pytest.approx(math.log2(k), abs=1e-12)
    assert evaluation.bits_per_dim(12 * math.log(256 / k), 12) == pytest.approx(math.log2(k), abs=1e-12)
    assert evaluation.bits_per_dim(12 * math.log(128 / k), 12, cell=2 / 256) == pytest.approx(math.log2(k), abs=1e-12)


def test_8_1_does_not_depend_on_the_unit():
    """Une même loi continue, en unités quelconques : le changement d'échelle de torch.distributions se compense."""
    x, base = torch.rand(20, 9), D.Independent(D.Beta(torch.full((9,), 2.0), torch.full((9,), 3.0)), 1)
    expected = evaluation.bits_per_dim(base.log_prob(x), 9)
    for loc, scale in ((-1.0, 2.0), (0.0, 256.0), (3.0, 0.1)):
        moved = D.TransformedDistribution(base, D.AffineTransform(loc, scale, event_dim=1))
        actual = evaluation.bits_per_dim(moved.log_prob(loc + scale * x), 9, cell=scale / 256)
        torch.testing.assert_close(actual, expected)


def test_8_1_is_the_entropy_of_a_known_law():
    """En moyenne sous la loi elle-même, les bits par dimension sont son entropie en base 2 (scipy)."""
    p = np.array([0.5, 0.2, 0.2, 0.1])
    bits = evaluation.bits_per_dim(torch.from_numpy(np.log(p)), 1, cell=1)
    assert (torch.from_numpy(p) * bits).sum().item() == pytest.approx(stats.entropy(p, base=2))


def test_8_1_agrees_with_the_other_chapters():
    log_prob = 100 * torch.randn(7)
    torch.testing.assert_close(evaluation.bits_per_dim(log_prob, 784), flows.bits_per_dim(log_prob, 784))
    torch.testing.assert_close(evaluation.bits_per_dim(log_prob, 784, cell=1), vae.bits_per_dim(log_prob))


@pytest.mark.parametrize("options", [dict(dim=0), dict(dim=-3), dict(dim=4, cell=0), dict(dim=4, cell=-1)])
def test_8_1_refuses(options):
    with pytest.raises(ValueError, match="positifs"):
        evaluation.bits_per_dim(torch.zeros(2), **options)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_8_2_is_the_kernel_density(sigma):
    """Contre KernelDensity de scikit-learn, et contre le mélange de torch.distributions."""
    points, samples = torch.rand(30, 5), torch.rand(50, 5)
    actual = evaluation.parzen_log_prob(points, samples, sigma)
    expected = KernelDensity(kernel="gaussian", bandwidth=sigma, rtol=0, atol=0).fit(samples).score_samples(points)
    np.testing.assert_allclose(actual, expected, rtol=1e-8)
    mixture = D.MixtureSameFamily(D.Categorical(torch.ones(50)), D.Independent(D.Normal(samples, sigma), 1))
    torch.testing.assert_close(actual, mixture.log_prob(points))


def test_8_2_has_mass_one_and_stays_finite_far_away():
    axis = torch.linspace(-12, 12, 4001)
    density = evaluation.parzen_log_prob(axis[:, None], torch.tensor([[-1.0], [0.5], [2.0]]), 0.7).exp()
    assert torch.trapezoid(density, axis).item() == pytest.approx(1, abs=1e-9)
    assert evaluation.parzen_log_prob(torch.full((1, 784), 9.0), torch.zeros(3, 784), 0.02).isfinite().all()


@pytest.mark.parametrize(("points", "samples", "sigma", "hint"), [
    (torch.zeros(2, 1, 3, 3), torch.zeros(4, 1, 3, 3), 0.1, "flatten"),
    (torch.zeros(2, 3), torch.zeros(4, 2), 0.1, "flatten"),
    (torch.zeros(2, 3), torch.zeros(0, 3), 0.1, "au moins un"), (torch.zeros(2, 3), torch.zeros(4, 3), 0.0, "sigma")])
def test_8_2_refuses(points, samples, sigma, hint):
    with pytest.raises(ValueError, match=hint):
        evaluation.parzen_log_prob(points, samples, sigma)


def test_kmeans_is_lloyd():
    """Mêmes départs que scikit-learn, même nombre d'itérations, mêmes centres."""
    points = torch.randn(200, 3)
    start = points[torch.randperm(200, generator=torch.Generator("cpu").manual_seed(4), device="cpu")[:6]]
    oracle = KMeans(6, init=start.numpy(), n_init=1, max_iter=5, tol=0, algorithm="lloyd").fit(points.numpy())
    actual = evaluation.kmeans(points, 6, 5, torch.Generator("cpu").manual_seed(4))
    np.testing.assert_allclose(actual, oracle.cluster_centers_, rtol=1e-9)
    for k in (0, 201):
        with pytest.raises(ValueError, match="prototypes"):
            evaluation.kmeans(points, k)


# --- 3. Inception --------------------------------------------------------------------------------------------------


class _Eye(torch.nn.Module):
    """À la place d'Inception : note ce qu'elle reçoit, rend 2 048 nombres."""

    def __init__(self):
        super().__init__()
        self.fc, self.seen = torch.nn.Linear(2048, 1000), []

    def forward(self, x):
        self.seen.append(x)
        return self.fc(x.mean((1, 2, 3))[:, None].expand(-1, 2048))


def test_inception_sees_large_images_between_minus_one_and_one(monkeypatch, tmp_path):
    torch.set_default_dtype(torch.float32)
    eye, options = _Eye(), {}
    monkeypatch.setattr("torchvision.models.inception_v3", lambda **given: options.update(given) or eye)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Inception"):
        evaluation.inception_features(torch.rand(5, 3, 28, 28))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / pathlib.Path(Inception_V3_Weights.IMAGENET1K_V1.url).name).touch()
    images = torch.stack([torch.zeros(3, 28, 28), torch.ones(3, 28, 28), torch.full((3, 28, 28), 0.5)])
    found = evaluation.inception_features(images, size=2)
    assert found.shape == (3, 2048) and found.dtype == torch.float64 and options["transform_input"] is False
    assert [tuple(x.shape) for x in eye.seen] == [(2, 3, 299, 299), (1, 3, 299, 299)]
    torch.testing.assert_close(found[:, 0], torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 28, 28), torch.full((2, 3, 28, 28), 255.0),
                                    torch.full((2, 3, 28, 28), -1.0), torch.full((2, 3, 28, 28), math.nan)])
def test_inception_refuses(images):
    with pytest.raises(ValueError, match="couleur"):
        evaluation.inception_features(images)


# --- 4. Score d'Inception ------------------------------------------------------------------------------------------


def test_8_3_mutual_information_of_a_table():
    """Une loi jointe connue : chaque x, répété selon sa probabilité, répond p(y | x) ; I par les entropies de scipy."""
    weights = np.array([1, 2, 3, 4])
    given = np.random.default_rng(0).dirichlet(np.ones(5), 4)                      # p(y | x), (4, 5)
    joint = weights[:, None] / 10 * given
    information = stats.entropy(joint.sum(1)) + stats.entropy(joint.sum(0)) - stats.entropy(joint.ravel())
    logits = torch.from_numpy(np.log(given)).repeat_interleave(torch.from_numpy(weights), dim=0) + 3.0
    assert math.log(evaluation.inception_score(logits)) == pytest.approx(information, rel=1e-10)


def test_8_3_mutual_information_of_two_gaussians():
    """Deux gaussiennes équiprobables, classifieur exact : I par quadrature, le score sur un grand tirage."""
    axis = torch.linspace(-9, 9, 20_001)
    log_joint = D.Normal(torch.tensor([-1.0, 1.0]), 1.0).log_prob(axis[:, None]) - math.log(2)
    information = math.log(2) + torch.trapezoid((log_joint.exp() * log_joint.log_softmax(1)).sum(1), axis).item()
    x = torch.cat([torch.randn(100_000) - 1, torch.randn(100_000) + 1])
    logits = torch.stack([-x, x], 1)                                               # ln p(y | x), à une constante près
    assert math.log(evaluation.inception_score(logits)) == pytest.approx(information, abs=3e-3)


def test_8_4_against_torchmetrics():
    logits = 3 * torch.randn(300, 10)
    oracle = InceptionScore(feature=torch.nn.Identity(), splits=1)
    oracle.update(logits)
    assert evaluation.inception_score(logits) == pytest.approx(oracle.compute()[0].item(), rel=1e-4)


def test_8_4_bounds_and_invariances():
    certain = 100 * torch.eye(10).repeat(7, 1)
    assert evaluation.inception_score(certain) == pytest.approx(10)
    assert evaluation.inception_score(certain[:5]) == pytest.approx(5)
    assert evaluation.inception_score(torch.zeros(30, 10)) == pytest.approx(1)
    logits = 2 * torch.randn(60, 10)
    score = evaluation.inception_score(logits)
    assert 1 < score < 10
    shifted = (logits + torch.randn(60, 1))[torch.randperm(60)][:, torch.randperm(10)]
    assert evaluation.inception_score(shifted) == pytest.approx(score)
    assert evaluation.inception_score(logits.float()) == pytest.approx(score, rel=1e-5)


def test_8_4_averages_inside_the_exponential():
    """Moyenner les exponentielles donnerait plus (Jensen) ; moyenner dix lots donnerait moins, en logarithme."""
    logits = 3 * torch.randn(500, 10)
    p = logits.softmax(1)
    kl = (p * (p / p.mean(0)).log()).sum(1)
    score = evaluation.inception_score(logits)
    assert score == pytest.approx(kl.mean().exp().item()) and kl.exp().mean().item() > 1.05 * score
    parts = [math.log(evaluation.inception_score(part)) for part in logits.chunk(10)]
    assert np.mean(parts) < math.log(score)


@pytest.mark.parametrize(("logits", "hint"), [
    (torch.zeros(10), "N, K"), (torch.zeros(0, 10), "N, K"), (torch.full((3, 10), math.nan), "finis"),
    (torch.full((3, 10), math.inf), "finis")])
def test_8_4_refuses(logits, hint):
    with pytest.raises(ValueError, match=hint):
        evaluation.inception_score(logits)


def _covariance(d, rank=None):
    half = torch.randn(d, rank or 2 * d)
    return half @ half.T / half.shape[1]


def _exact(mean, cov, n):
    """n points dont les moments empiriques sont exactement ceux demandés."""
    x = torch.randn(n, len(cov))
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return white @ torch.linalg.cholesky(cov).T + mean


def _two_sets(n=300, m=260, d=6):
    return torch.randn(n, d) @ torch.randn(d, d) + 2, 1.2 * torch.randn(m, d) @ torch.randn(d, d) + 1


# --- (8.5) W2 entre gaussiennes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 8, 64])
def test_8_5_against_scipy_sqrtm(d):
    c1, c2, m1, m2 = _covariance(d), _covariance(d), torch.randn(d), torch.randn(d)
    root = scipy.linalg.sqrtm((c1 @ c2).numpy()).real
    expected = (m1 - m2).square().sum().item() + np.trace((c1 + c2).numpy() - 2 * root)
    assert evaluation.frechet_gaussians(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-9)


def test_8_5_closed_forms():
    """Dimension 1 ; covariances diagonales, σ² et τ² : Σ (μ − ν)² + (σ − τ)²."""
    one = torch.ones(1)
    assert evaluation.frechet_gaussians(one, 4 * torch.eye(1), 4 * one, 9 * torch.eye(1)) == pytest.approx(9 + 1)
    mu, nu, sigma, tau = torch.rand(4, 5)
    expected = ((mu - nu).square() + (sigma - tau).square()).sum().item()
    got = evaluation.frechet_gaussians(mu, torch.diag(sigma**2), nu, torch.diag(tau**2))
    assert got == pytest.approx(expected, rel=1e-9)


def test_8_5_is_the_cheapest_coupling():
    """Maximum de tr K sur les K qui gardent la covariance du couple positive, par optimisation numérique."""
    c1, c2 = _covariance(2), _covariance(2)
    h1, h2 = (torch.from_numpy(scipy.linalg.sqrtm(c.numpy()).real.copy()) for c in (c1, c2))

    def trace(p):  # toute matrice de norme ≤ 1 est une moyenne d'orthogonales : on les parcourt
        c, s = math.cos(p), math.sin(p)
        turns = torch.tensor([[[c, -s], [s, c]], [[c, s], [s, -c]]])
        return (h1 @ turns @ h2).diagonal(dim1=1, dim2=2).sum(1).max().item()

    best = max(trace(p) for p in np.linspace(0, 2 * np.pi, 20_001))
    zero = torch.zeros(2)
    expected = (c1.trace() + c2.trace()).item() - 2 * best
    assert evaluation.frechet_gaussians(zero, c1, zero, c2) == pytest.approx(expected, abs=1e-6)


def test_8_5_map_sends_one_gaussian_to_the_other_at_that_cost():
    c1, c2, zero = _covariance(5), _covariance(5), torch.zeros(5)
    a = evaluation.gaussian_map(c1, c2)
    torch.testing.assert_close(a, a.T)
    torch.testing.assert_close(a @ c1 @ a.T, c2)
    cost = ((a - torch.eye(5)) @ c1 @ (a - torch.eye(5)).T).trace().item()
    assert evaluation.frechet_gaussians(zero, c1, zero, c2) == pytest.approx(cost, rel=1e-9)


def test_8_5_bounds_the_true_transport_from_below():
    """Lois discrètes quelconques, mêmes moments : l'affectation optimale coûte au moins (8.5)."""
    a, b = torch.rand(200, 3) ** 3, torch.rand(200, 3).round(decimals=1) + 0.5
    cost = torch.cdist(a, b).square()
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    moments = [m for x in (a, b) for m in (x.mean(0), torch.cov(x.T, correction=0))]
    assert evaluation.frechet_gaussians(*moments) <= cost[rows, columns].mean().item() + 1e-9


@pytest.mark.parametrize("rank", [3, 40])
def test_8_5_singular_covariances(rank):
    """Rang incomplet : la distance à soi-même reste nulle, et aucune partie imaginaire ne se perd."""
    c, zero = _covariance(40, rank), torch.zeros(40)
    assert abs(evaluation.frechet_gaussians(zero, c, zero, c)) < 1e-10
    flat1, flat2 = torch.diag(torch.tensor([4.0, 0, 0])), torch.diag(torch.tensor([0, 9.0, 0]))
    assert evaluation.frechet_gaussians(zero[:3], flat1, zero[:3], flat2) == pytest.approx(13)


@pytest.mark.parametrize("cov, message", [
    (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symétrique"), (torch.diag(torch.tensor([1.0, -1.0])), "valeur propre")])
def test_8_5_refuses_what_is_no_covariance(cov, message):
    with pytest.raises(ValueError, match=message):
        evaluation.frechet_gaussians(torch.zeros(2), cov.double(), torch.zeros(2), torch.eye(2))


# --- (8.6) distance de Fréchet -------------------------------------------------------------------------------------


def test_8_6_covariance_is_unbiased():
    """Moments exacts, diviseur N − 1 : avec N, l'écart serait de 1/80."""
    c1, c2, shift = _covariance(4), _covariance(4), torch.arange(4.0)
    got = evaluation.frechet_distance(_exact(shift, c1, 80), _exact(0 * shift, c2, 50))
    assert got == pytest.approx(evaluation.frechet_gaussians(shift, c1, 0 * shift, c2), rel=1e-9)
    by_hand = evaluation.frechet_distance(torch.tensor([[0.0], [1], [2]]), torch.tensor([[3.0], [5], [7]]))
    assert by_hand == pytest.approx(16 + 1)


def test_8_6_against_torchmetrics():
    real, fake = _two_sets()
    got = evaluation.frechet_distance(real, fake)
    moments = [m for x in (real, fake) for m in (x.mean(0), torch.cov(x.T))]
    assert got == pytest.approx(_compute_fid(*moments).item(), rel=1e-6)


def test_8_6_invariances():
    real, fake = _two_sets()
    value, (turn, _) = evaluation.frechet_distance(real, fake), torch.linalg.qr(torch.randn(6, 6))
    assert evaluation.frechet_distance(fake, real) == pytest.approx(value)
    assert evaluation.frechet_distance(real @ turn + 7, fake @ turn + 7) == pytest.approx(value)
    assert evaluation.frechet_distance(real[torch.randperm(300)], fake[torch.randperm(260)]) == pytest.approx(value)
    assert evaluation.frechet_distance(3 * real, 3 * fake) == pytest.approx(9 * value)
    assert abs(evaluation.frechet_distance(real, real[torch.randperm(300)])) < 1e-9
    few = torch.randn(20, 30)
    assert abs(evaluation.frechet_distance(few, few)) < 1e-10
    far = [(x + 1000).float() for x in (real, fake)]
    assert evaluation.frechet_distance(*far) == pytest.approx(evaluation.frechet_distance(*(x.double() for x in far)))


# --- (8.7) biais et extrapolation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("d, n", [(4, 400), (32, 1000)])
def test_8_7_bias_of_two_draws_of_one_gaussian(d, n):
    values = np.array([evaluation.frechet_distance(torch.randn(n, d), torch.randn(n, d)) for _ in range(200)])
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean() - d * (d + 5) / (2 * n)) < 4 * error + 0.02 * values.mean()


def test_8_7_extrapolation_recovers_the_exact_distance():
    """Deux gaussiennes de distance connue : la droite la retrouve, la distance à N fini la dépasse."""
    cov, zero, shift = torch.diag(torch.linspace(0.5, 2, 16)), torch.zeros(16), 0.2 * torch.ones(16)
    exact = evaluation.frechet_gaussians(zero, torch.eye(16), shift, cov)
    rows = []
    for seed in range(12):
        real, fake = torch.randn(1000, 16), torch.randn(1000, 16) @ cov.sqrt() + shift
        rows.append((evaluation.frechet_distance(real, fake), evaluation.frechet_infinity(real, fake, seed=seed)))
    (raw, infinite), (_, error) = np.mean(rows, 0), np.std(rows, 0) / 12**0.5
    assert raw - exact > 0.1 and abs(infinite - exact) < 4 * error < 0.2


def test_8_7_packs_are_disjoint_and_reproducible():
    seen = []
    index = torch.arange(60.0)[:, None]
    values = evaluation.packs(lambda a, b: seen.append((a, b)) or len(seen), index, index + 100, parts=(1, 3), draws=2)
    assert [len(v) for v in values] == [1, 6]
    for trio in (seen[1:4], seen[4:7]):
        assert torch.equal(torch.cat([a for a, _ in trio]).flatten().sort().values, index.flatten())
        assert torch.equal(torch.cat([b for _, b in trio]).flatten().sort().values, index.flatten() + 100)
    real, fake = _two_sets()
    assert evaluation.frechet_infinity(real, fake) == evaluation.frechet_infinity(real, fake)
    with pytest.raises(ValueError, match="au moins 8 points"):
        evaluation.frechet_infinity(real[:7], fake)


# --- (8.8) et (8.9) MMD et KID -------------------------------------------------------------------------------------


def test_8_9_against_loops_and_sklearn():
    real, fake = torch.randn(9, 4), torch.randn(7, 4) + 0.5

    def k(x, y):
        return (sum(u * v for u, v in zip(x, y, strict=True)) / 4 + 1) ** 3

    a, b = real.tolist(), fake.tolist()
    pairs = [np.mean([k(x, y) for x, y in itertools.permutations(s, 2)]) for s in (a, b)]
    expected = sum(pairs) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert evaluation.kid(real, fake) == pytest.approx(expected, rel=1e-9)
    xx, yy, xy = (polynomial_kernel(u, v, degree=3, gamma=1 / 4, coef0=1)
                  for u, v in ((real, real), (fake, fake), (real, fake)))
    expected = (xx.sum() - xx.trace()) / 72 + (yy.sum() - yy.trace()) / 42 - 2 * xy.mean()
    assert evaluation.kid(real, fake) == pytest.approx(expected, rel=1e-9)


def test_8_9_against_torchmetrics():
    real, fake = torch.randn(200, 8), torch.randn(200, 8) + 0.3
    assert evaluation.kid(real, fake) == pytest.approx(poly_mmd(real, fake).item(), rel=1e-9)


def test_8_8_kernel_compares_moments_up_to_three():
    """MMD² exacte de deux lois discrètes = Σ_j C(3, j) D^−j ‖E x^⊗j − E y^⊗j‖² : la version biaisée l'égale."""
    real, fake = torch.randn(12, 2), torch.randn(10, 2) + 1
    total = 0.0
    for j, letters in ((1, "ni->i"), (2, "ni,nj->ij"), (3, "ni,nj,nk->ijk")):
        gap = torch.einsum(letters, *[real] * j) / 12 - torch.einsum(letters, *[fake] * j) / 10
        total += math.comb(3, j) * gap.square().sum().item() / 2**j
    sums = [evaluation.kernel_sum(u, v).item() for u, v in ((real, real), (fake, fake), (real, fake))]
    assert sums[0] / 144 + sums[1] / 100 - 2 * sums[2] / 120 == pytest.approx(total, rel=1e-9)


def test_8_9_has_no_bias_and_keeps_its_value_under_rotation():
    values = np.array([evaluation.kid(torch.randn(20, 5), torch.randn(30, 5)) for _ in range(2000)])
    assert abs(values.mean()) < 4 * values.std() / 2000**0.5 and (values < 0).any()
    real, fake = _two_sets()
    turn, _ = torch.linalg.qr(torch.randn(6, 6))
    assert evaluation.kid(real @ turn, fake @ turn) == pytest.approx(evaluation.kid(real, fake))
    assert evaluation.kid(real[torch.randperm(300)], fake) == pytest.approx(evaluation.kid(real, fake))
    by_blocks = evaluation.kernel_sum(real, fake, block=7)
    torch.testing.assert_close(by_blocks, evaluation.kernel_sum(real, fake))


# --- (8.10) à (8.12) k plus proches voisins ------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
def test_8_10_radius_against_sklearn(k):
    x = torch.randn(130, 7) + 50
    expected = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x).kneighbors(x)[0][:, k]
    np.testing.assert_allclose(evaluation.knn_radius(x, k), expected, rtol=1e-9)
    np.testing.assert_allclose(evaluation.knn_radius(x, k, block=17), expected, rtol=1e-9)


def test_8_10_a_point_is_not_its_own_neighbour_but_its_twin_is():
    x = torch.tensor([[0.0], [0.0], [1.0], [3.0]])
    assert evaluation.knn_radius(x, 1).tolist() == [0, 0, 1, 2]
    assert evaluation.knn_radius(x + 1e5, 2).tolist() == pytest.approx([1, 1, 1, 3])


def _loops(real, fake, k):
    """(8.11) et (8.12) par des boucles : précision, rappel, densité, couverture."""
    def balls(centers, points):
        inside = []
        for i, c in enumerate(centers):
            radius = sorted(math.dist(c, o) for j, o in enumerate(centers) if j != i)[k - 1]
            inside.append([math.dist(c, p) <= radius for p in points])
        return np.array(inside)
    there, back = balls(real, fake), balls(fake, real)
    return there.any(0).mean(), back.any(0).mean(), there.sum(0).mean() / k, there.any(1).mean()


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_8_11_8_12_against_loops(k, dtype):
    real, fake = (torch.randn(40, 2) + 100).to(dtype), (1.5 * torch.randn(33, 2) + 101).to(dtype)
    got = (*evaluation.precision_recall(real, fake, k), *evaluation.density_coverage(real, fake, k))
    assert got == pytest.approx(_loops(real.tolist(), fake.tolist(), k))
    assert 0 < min(got) and got[0] < 1


@pytest.mark.parametrize("k", [1, 3, 5])
def test_8_11_8_12_against_prdc(k, capsys):
    real, fake = torch.randn(400, 16), 1.1 * torch.randn(350, 16) + 0.2
    expected = compute_prdc(real.numpy(), fake.numpy(), k)
    got = (*evaluation.precision_recall(real, fake, k), *evaluation.density_coverage(real, fake, k))
    assert got == pytest.approx([expected[name] for name in ("precision", "recall", "density", "coverage")], rel=1e-9)


def test_8_6_computes_in_float64():
    a, b = (torch.randn(300, 5).float() + 1000 for _ in range(2))
    assert evaluation.frechet_distance(a, b) == pytest.approx(
        evaluation.frechet_distance(a.double(), b.double()), rel=1e-12)


def test_8_11_by_hand():
    # k = 1. Rayons réels 0,6 0,6 2 4 : boules [−0,2 ; 1] [0,4 ; 1,6] [1 ; 5] [3 ; 11].
    real = torch.tensor([[0.4], [1.0], [3.0], [7.0]])
    # Rayons engendrés 0,2 0,2 0,5 0,5 : boules [0,1 ; 0,5] [0,3 ; 0,7] [39,5 ; 40,5] [40 ; 41].
    fake = torch.tensor([[0.3], [0.5], [40.0], [40.5]])
    assert evaluation.precision_recall(real, fake, k=1) == (2 / 4, 1 / 4)
    assert evaluation.precision_recall(fake, real, k=1) == (1 / 4, 2 / 4)


def test_8_11_tells_the_two_failures_apart():
    real = torch.randn(200, 8)
    assert evaluation.precision_recall(real, real) == (1, 1)
    assert evaluation.precision_recall(real, torch.randn(200, 8) + 100) == (0, 0)
    assert evaluation.precision_recall(real, real.mean(0) + 1e-3 * torch.randn(200, 8)) == (1, 0)
    assert evaluation.precision_recall(real, real[:1].expand(200, 8)) == (1, 1 / 200)
    fake = torch.randn(150, 8) + 0.5
    assert evaluation.precision_recall(fake, real) == evaluation.precision_recall(real, fake)[::-1]


@pytest.mark.parametrize("n, m, k", [(60, 60, 5), (40, 90, 3)])
def test_8_12_expected_values_of_a_perfect_model(n, m, k):
    """Densité 1 et couverture 1 − Π (N − t)/(N + M − t), quelle que soit la loi."""
    for draw in (lambda size: torch.randn(size, 3), lambda size: torch.rand(size, 1) ** 4):
        rows = np.array([evaluation.density_coverage(draw(n), draw(m), k) for _ in range(600)])
        expected = 1, 1 - math.prod((n - t) / (n + m - t) for t in range(1, k + 1))
        assert (abs(rows.mean(0) - expected) < 4 * rows.std(0) / 600**0.5).all()


def test_8_12_copies_and_invariances():
    real, fake = torch.randn(90, 5), torch.randn(80, 5) + 0.3
    assert evaluation.density_coverage(real, real.clone(), 5) == pytest.approx((6 / 5, 1))
    turn, _ = torch.linalg.qr(torch.randn(5, 5))
    moved = 4 * real[torch.randperm(90)] @ turn + 9, 4 * fake[torch.randperm(80)] @ turn + 9
    assert evaluation.density_coverage(*moved) == pytest.approx(evaluation.density_coverage(real, fake))


# --- Mauvaises entrées, temps, mémoire -----------------------------------------------------------------------------


MEASURES = ("frechet_distance", "kid", "precision_recall", "density_coverage")


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("real, fake, message", [
    (torch.rand(20, 1, 4, 4), torch.rand(20, 16), "metrics.features"),
    (torch.rand(9, 3), torch.rand(9, 4), "extracteur"),
    (torch.rand(9, 3), torch.full((9, 3), math.nan), "finies"), (torch.rand(9, 3), torch.rand(1, 3), "tirez-en plus")])
def test_bad_inputs_are_refused_in_french(name, real, fake, message):
    with pytest.raises(ValueError, match=message):
        getattr(evaluation, name)(real, fake)


@pytest.mark.parametrize("name, k", [("precision_recall", 0), ("precision_recall", 5), ("density_coverage", 5)])
def test_k_needs_k_plus_one_points(name, k):
    with pytest.raises(ValueError, match="k \\+ 1 points"):
        getattr(evaluation, name)(torch.rand(5, 2), torch.rand(5, 2), k)


def _cpu(f):
    """Secondes de processeur, tous fils confondus : ce que f coûte, même sur une machine occupée."""
    began = time.process_time()
    f()
    return time.process_time() - began


def test_time():
    """10 000 × 128 en 2 s ; 5 000 × 5 000 en 5 s, sur 2 cœurs (ici, temps de processeur sur un seul)."""
    real, fake = torch.randn(10_000, 128), torch.randn(10_000, 128) + 0.1
    assert _cpu(lambda: evaluation.frechet_distance(real, fake)) < 2
    assert _cpu(lambda: evaluation.precision_recall(real[:5000], fake[:5000])) < 5
    assert _cpu(lambda: evaluation.density_coverage(real[:5000], fake[:5000])) < 5


def test_memory():
    """Précision et rappel de 5 000 × 5 000 sous 2 Go : pic de mémoire résidente d'un processus neuf."""
    if sys.platform != "linux":
        pytest.skip("l'unité de ru_maxrss est celle de Linux")
    code = (f"import resource, torch, {pathlib.Path(__file__).stem} as t; x = torch.randn(2, 5000, 128); "
            "t.evaluation.precision_recall(*x); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         cwd=pathlib.Path(__file__).parent)
    assert int(out.stdout.split()[-1]) < 2e6


def images(n, classes=True):
    return torch.rand(n, 1, 28, 28), torch.arange(n) % 10


# --- Défauts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_scipys(sigma):
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    reach = math.ceil(3 * sigma)
    expected = np.stack([scipy.ndimage.gaussian_filter(image, sigma, mode="constant", radius=reach)
                         for image in x[:, 0].numpy()])
    np.testing.assert_allclose(evaluation.blur(x, sigma)[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("kind", evaluation.DEFECTS)
def test_no_severity_no_defect(kind):
    x, y = images(400)
    torch.testing.assert_close(evaluation.degrade(kind, 0, x, y, x[:50] * 0, 40), x[:40])


@pytest.mark.parametrize("kind", evaluation.DEFECTS)
@pytest.mark.parametrize("s", [0.0, 0.3, 1.0])
def test_degraded_images_are_images(kind, s):
    x, y = images(400)
    out = evaluation.degrade(kind, s, x, y, x[:50], 40)
    assert out.shape == (40, 1, 28, 28) and out.min() >= 0 and out.max() <= 1
    torch.testing.assert_close(out, evaluation.degrade(kind, s, x, y, x[:50], 40))


def test_defects_do_what_they_say():
    x, y = images(400)
    x = x / 2 + y.view(-1, 1, 1, 1) * 1e-6
    label = {row.sum().item(): int(c) for row, c in zip(x, y, strict=True)}
    lost = evaluation.degrade("classes perdues", 1, x, y, x, 60)
    assert {label[i.sum().item()] for i in lost} == {0, 1}
    assert len(evaluation.degrade("doublons", 1, x, y, x, 100).flatten(1).unique(dim=0)) == 2
    mixed = evaluation.degrade("récitation", 0.25, x, y, 0 * x, 100)
    assert int((mixed.flatten(1).sum(1) == 0).sum()) == 25


def test_imbalance_is_geometric():
    y = torch.randint(10, (20_000,))
    rows = evaluation.imbalanced_rows(y, 1023, 0.5)
    share = torch.bincount(y[rows], minlength=10)
    assert len(rows) == len(rows.unique()) == 1023 and (rows.diff() > 0).all()
    assert share.tolist() == pytest.approx([512 / 2**c for c in range(10)], abs=1)


@pytest.mark.parametrize("call", [("flou", 1.5), ("flou", math.nan), ("tache", 0.5)])
def test_bad_defect_is_refused(call):
    x, y = images(40)
    with pytest.raises(ValueError, match="prenez l'un de"):
        evaluation.degrade(*call, x, y, x, 10)


@pytest.mark.parametrize("kind", ["classes perdues", "flou", "déséquilibre"])
def test_too_few_images_is_refused(kind):
    x, y = images(40)
    with pytest.raises(ValueError, match="donnez-en davantage"):
        evaluation.degrade(kind, 1, x, y, x, 41)


# --- (8.13) -----------------------------------------------------------------------------------------------


def test_8_13_against_loops():
    fake, train, held = (torch.randn(n, 3, dtype=torch.float64) for n in (12, 9, 9))
    near = lambda p, points: min(math.dist(p, q) for q in points.tolist())  # noqa: E731
    expected = [near(p, train) / near(p, held) for p in fake.tolist()]
    assert evaluation.copy_ratio(fake, train, held).tolist() == pytest.approx(expected, rel=1e-12)


def test_8_13_named_mistakes_would_be_seen():
    """Copie : exactement 0, même loin de l'origine ; échange des jeux : 1/ρ ; rotation, ordre : rien."""
    fake, train, held = (torch.randn(50, 6) + 100 for _ in range(3))
    assert evaluation.copy_ratio(train[:20], train, held).eq(0).all()
    assert evaluation.copy_ratio(held[:20], train, held).isinf().all()
    assert evaluation.copy_ratio(held[:20], held, held).eq(1).all()
    fake, train, held = fake.double(), train.double(), held.double()
    rho = evaluation.copy_ratio(fake, train, held)
    torch.testing.assert_close(evaluation.copy_ratio(fake, held, train), 1 / rho)
    q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    order = torch.randperm(50)
    torch.testing.assert_close(evaluation.copy_ratio(2 * fake @ q, 2 * train[order] @ q, 2 * held @ q), rho)


def test_8_13_is_one_half_when_nothing_is_learned():
    """Le signe de ρ − 1 est une pièce équilibrée : mille tirages indépendants de (x, A, G), même hors de la loi."""
    for shift in (0, 3):
        below = sum(bool(evaluation.copy_ratio(torch.randn(1, 2) + shift, torch.randn(20, 2), torch.randn(20, 2)) < 1)
                    for _ in range(1000))
        assert stats.binomtest(below, 1000).pvalue > 1e-3


def test_8_13_refuses():
    x = torch.randn(5, 2)
    with pytest.raises(ValueError, match="autant des deux côtés"):
        evaluation.copy_ratio(x, x, x[:4])
    with pytest.raises(ValueError, match="non finies"):
        evaluation.copy_ratio(x / 0, x, x)


# --- Effondrement, (8.14) ---------------------------------------------------------------------------------


def test_effective_classes():
    logits = lambda labels: F.one_hot(torch.tensor(labels), 10).float()  # noqa: E731
    assert evaluation.effective_classes(logits([3] * 7)) == pytest.approx(1)
    assert evaluation.effective_classes(logits(list(range(10)) * 3)) == pytest.approx(10)
    expected = math.exp(stats.entropy([6, 3, 1]))
    assert evaluation.effective_classes(logits([0] * 6 + [1] * 3 + [2])) == pytest.approx(expected)


def test_deserted_cells():
    centers = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    real = centers.repeat(25, 1)
    assert evaluation.deserted_cells(real, real, centers) == 0
    fake = torch.cat([centers[:1].repeat(90, 1), centers[1:2].repeat(7, 1), centers[2:3].repeat(3, 1)])  # seuil 6,25 %
    assert evaluation.deserted_cells(real, fake, centers) == 0.5
    with pytest.raises(ValueError, match="aucun point réel"):
        evaluation.deserted_cells(real[:2], fake, centers)


def test_8_14_parseval_and_numpy():
    x = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    energy = evaluation.ring_energy(x)
    assert energy.sum().item() == pytest.approx(x.square().sum((1, 2, 3)).mean().item(), rel=1e-12)
    power = (np.abs(np.fft.fft2(x[:, 0].numpy())) ** 2 / 784).mean(0)
    expected = np.zeros(len(energy))
    for u in range(28):
        for v in range(28):
            expected[round(math.hypot(min(u, 28 - u), min(v, 28 - v)))] += power[u, v]
    np.testing.assert_allclose(energy, expected, rtol=1e-10)


@pytest.mark.parametrize("k", [(0, 3), (5, 0), (3, 4), (14, 14)])
def test_8_14_a_wave_lives_in_one_ring(k):
    grid = torch.arange(28, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * (k[0] * grid[:, None] + k[1] * grid) / 28)[None, None]
    energy = evaluation.ring_energy(wave)
    assert energy.argmax().item() == round(math.hypot(*k))
    assert energy.max().item() == pytest.approx(energy.sum().item(), rel=1e-12)
    assert evaluation.detail_share(wave) == pytest.approx(float(round(math.hypot(*k)) >= 7))


def test_sharpness_is_a_moment_of_the_spectrum():
    """Σ (4 sin² + 4 sin²) |x̂|² / Σ_{k ≠ 0} |x̂|², calculé sans le code du chapitre."""
    x = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    power = (np.abs(np.fft.fft2(x[:, 0].numpy())) ** 2).sum(0)
    weight = 4 * np.sin(np.pi * np.arange(28) / 28) ** 2
    expected = (power * (weight[:, None] + weight)).sum() / (power.sum() - power[0, 0])
    assert evaluation.sharpness(x) == pytest.approx(expected, rel=1e-10)
    assert evaluation.sharpness(3 * x + 1) == pytest.approx(evaluation.sharpness(x), rel=1e-10)
    assert evaluation.sharpness(evaluation.blur(x, 1.0)) < evaluation.sharpness(x)


def test_8_14_refuses_rectangles():
    with pytest.raises(ValueError, match="carrées"):
        evaluation.ring_energy(torch.rand(2, 1, 28, 20))


# --- Intervalles ------------------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_has_the_known_error():
    x = torch.randn(400, dtype=torch.float64)
    values = evaluation.bootstrap(torch.mean, x, n_draws=2000)
    assert values.std().item() == pytest.approx(x.std(correction=0).item() / 20, rel=0.06)
    assert values.mean().item() == pytest.approx(x.mean().item(), abs=0.01)
    assert torch.equal(values, evaluation.bootstrap(torch.mean, x, n_draws=2000))


def test_bootstrap_draws_samples_apart_and_leaves_the_global_seed():
    x, y = torch.arange(50.0), torch.arange(50.0)
    before = torch.get_rng_state()
    assert evaluation.bootstrap(lambda a, b: (a - b).abs().sum(), x, y, n_draws=3).min() > 0
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="aucun ne soit vide"):
        evaluation.bootstrap(torch.mean, x[:0])


def source(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


# --- (8.15) Wilson ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 8, 30, 400])
@pytest.mark.parametrize("z", [1.0, 1.96, 3.0])
def test_8_15_bounds_are_the_roots_of_the_equation(n, z):
    """Les bornes sont les racines du second degré de (p̂ − p)² = z² p (1 − p) / n."""
    for hits in {0, 1, n // 3, n // 2, n - 1, n}:
        share = hits / n
        low, high = sorted(np.roots([1 + z**2 / n, -(2 * share + z**2 / n), share**2]).real)
        assert evaluation.wilson(hits, n, z) == pytest.approx((low, high), abs=1e-7)


def test_8_15_matches_scipy():
    """scipy.stats.binomtest(...).proportion_ci(method="wilson"), au quantile exact."""
    z = stats.norm.ppf(0.975)
    for hits, n in [(0, 5), (8, 8), (17, 40), (396, 400)]:
        ci = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert evaluation.wilson(hits, n, z) == pytest.approx((ci.low, ci.high), abs=1e-9)


@pytest.mark.parametrize("hits, n", [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses_impossible_counts(hits, n):
    with pytest.raises(ValueError, match="réussites"):
        evaluation.wilson(hits, n)


# --- Le jeu -----------------------------------------------------------------------------------------------


def test_the_real_image_is_as_often_on_the_left():
    """4 000 manches : la part de gauche est dans l'intervalle à cinq écarts-types, et sans mémoire d'une à l'autre."""
    game = evaluation.ForcedChoice(10, 10, seed=3)
    left = np.array([game.draw()[2] for _ in range(4000)])
    assert abs(left.mean() - 0.5) < 5 / (2 * math.sqrt(4000))
    assert abs((left[1:] == left[:-1]).mean() - 0.5) < 5 / (2 * math.sqrt(3999))


def test_no_image_returns_before_the_smaller_pile_is_exhausted():
    game = evaluation.ForcedChoice(12, 7, seed=0)
    for _ in range(3):
        real, fake, _ = zip(*(game.draw() for _ in range(7)), strict=True)
        assert len(set(real)) == 7 and set(fake) == set(range(7)) and set(real) <= set(range(12))


def test_score_counts_right_answers():
    game, truth = evaluation.ForcedChoice(5, 5, seed=1), []
    for i in range(20):
        left = game.draw()[2]
        said = i % 3 != 0
        right = game.answer(said)
        assert right is (said == left)
        truth.append(said == left)
    assert (game.hits, game.rounds) == (sum(truth), 20)


def test_same_seed_same_game_and_global_random_untouched():
    import random
    random.seed(0)
    before = random.getstate()
    games = [evaluation.ForcedChoice(9, 9, seed=s) for s in (4, 4, 5)]
    rounds = [[g.draw() for _ in range(30)] for g in games]
    assert rounds[0] == rounds[1] != rounds[2] and random.getstate() == before


def test_the_game_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="deux sortes"):
        evaluation.ForcedChoice(0, 3)
    game = evaluation.ForcedChoice(3, 3)
    with pytest.raises(ValueError, match="draw"):
        game.answer(True)
    game.draw()
    for wrong in ("gauche", 1, None):
        with pytest.raises(ValueError, match="True"):
            game.answer(wrong)
    game.answer(True)
    with pytest.raises(ValueError, match="draw"):           # une manche ne se joue qu'une fois
        game.answer(True)
    assert game.rounds == 1


def test_play_pairs_against_a_loop_and_the_auc():
    real, fake = torch.randn(200, generator=source()) + 1, torch.randn(200, generator=source(1))
    hits, n = evaluation.play_pairs(lambda x: x, real, fake)
    assert (hits, n) == (sum(r > f for r, f in zip(real.tolist(), fake.tolist(), strict=True)), 200)
    auc = np.mean([[r > f for f in fake.tolist()] for r in real.tolist()])
    assert abs(hits / n - auc) < 5 / (2 * math.sqrt(200))   # les paires en sont un tirage
    with pytest.raises(ValueError, match="autant"):
        evaluation.play_pairs(lambda x: x, real, fake[:3])
    with pytest.raises(ValueError, match="autant"):
        evaluation.play_pairs(lambda x: x, real[:0], fake[:0])


def test_a_taught_judge_finds_a_shift_and_nothing_in_equal_laws():
    torch.manual_seed(0)
    x, y = (torch.randn(400, 5, generator=source(s)) for s in (0, 1))
    far = evaluation.train_judge(torch.nn.Linear(5, 1), x[:200] + 1, y[:200], 200, lr=0.03)
    hits, n = evaluation.play_pairs(far, x[200:] + 1, y[200:])
    best = 0.5 * (1 + math.erf(math.sqrt(5) / 2))           # Φ(‖δ‖ / √2) : le meilleur juge linéaire
    assert abs(hits / n - best) < 0.06
    same = evaluation.train_judge(torch.nn.Linear(5, 1), x[:200], y[:200], 200, lr=0.03)
    hits, n = evaluation.play_pairs(same, x[200:], y[200:])
    assert abs(hits / n - 0.5) < 5 / (2 * math.sqrt(n))


# --- Augmentation -----------------------------------------------------------------------------------------


def test_teach_repeats_itself_and_descends():
    x = torch.randn(60, 3, generator=source())
    y = x @ torch.tensor([1.0, -2.0, 0.5])
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        models.append(evaluation.teach(
            model, lambda a, b, m=model: (m(a)[:, 0] - b).square().mean(), x, y, 400, lr=0.05))
    assert torch.equal(models[0].weight, models[1].weight) and not models[0].training
    assert torch.allclose(models[0].weight[0], torch.tensor([1.0, -2.0, 0.5]), atol=0.05)
    with pytest.raises(ValueError, match="étiquettes"):
        evaluation.teach(model, None, x, y[:3], 1)
    with pytest.raises(ValueError, match="étiquettes"):
        evaluation.teach(model, None, x[:0], y[:0], 1)


def test_small_classifier_shape():
    assert evaluation.small_classifier(3)(torch.zeros(2, 1, 28, 28)).shape == (2, 3)


def test_class_gaussian_has_the_moments_of_each_class():
    """20 000 tirages par classe : moyenne et covariance (sans biais) de torch.cov, pixels loin des bornes."""
    x = 0.5 + 0.05 * torch.randn(30, 1, 2, 2, generator=source(), dtype=torch.float64)
    y = torch.arange(30) % 3
    x[y == 2] += 0.1
    wanted = torch.arange(3).repeat(20_000)
    drawn = evaluation.class_gaussian(x, y, wanted, source(1))
    assert drawn.shape == (60_000, 1, 2, 2) and drawn.dtype == x.dtype
    for c in range(3):
        true, found = x[y == c].flatten(1), drawn[wanted == c].flatten(1)
        assert torch.allclose(found.mean(0), true.mean(0), atol=2e-3)
        assert torch.allclose(torch.cov(found.T), torch.cov(true.T), atol=1.5e-4)


def test_class_gaussian_stays_in_the_span_of_its_class_and_in_0_1():
    x = torch.rand(8, 1, 4, 4, generator=source())
    y = torch.tensor([0] * 4 + [1] * 4)
    drawn = evaluation.class_gaussian(x, y, torch.tensor([0, 1] * 50), source())
    assert drawn.min() >= 0 and drawn.max() <= 1
    with pytest.raises(ValueError, match="deux images"):
        evaluation.class_gaussian(x[:5], y[:5], torch.tensor([1]), source())
    with pytest.raises(ValueError, match="deux images"):
        evaluation.class_gaussian(x, y, torch.tensor([2]), source())


def test_wiggle_keeps_what_it_should():
    x = torch.rand(6, 1, 28, 28, generator=source())
    same = evaluation.wiggle(x, source(), degrees=0, pixels=0)
    assert torch.allclose(same, x, atol=1e-4)
    assert torch.equal(evaluation.wiggle(x, source(3)), evaluation.wiggle(x, source(3)))
    assert not torch.allclose(evaluation.wiggle(x, source(3)), x, atol=1e-2)


def test_wiggle_moves_a_dot_by_the_drawn_amount():
    """Un point loin du bord, sans rotation : son centre de gravité se déplace du décalage tiré, au plus 2 pixels."""
    x = torch.zeros(40, 1, 28, 28)
    x[:, 0, 13:15, 13:15] = 1
    moved = evaluation.wiggle(x, source(), degrees=0, pixels=2)
    grid = torch.arange(28.0) - 13.5
    mass = moved.sum((1, 2, 3))
    across, down = (moved.sum(2)[:, 0] * grid).sum(1) / mass, (moved.sum(3)[:, 0] * grid).sum(1) / mass
    drawn = 2 * (2 * torch.rand(3, 40, generator=source()) - 1)
    assert torch.allclose(mass, torch.full((40,), 4.0), atol=1e-3)
    assert torch.allclose(across, -drawn[1], atol=1e-3) and torch.allclose(down, -drawn[2], atol=1e-3)


# --- Les bibliothèques publiques, avec le réseau de caractéristiques du cours ---------------------------------------


class _Extractor(torch.nn.Module):
    """Ce qu'attend torchmetrics : images → caractéristiques (N, 64), ou logits (N, 10)."""

    def __init__(self, logits):
        super().__init__()
        self.net = checkpoints.load_model("features_mnist", torch.device("cpu"))
        self.logits, self.num_features = logits, 10 if logits else 64

    @torch.no_grad()
    def forward(self, x):
        return self.net(x) if self.logits else metrics.features(self.net, x)


@pytest.fixture
def judged():
    """Vraies images, images abîmées, et leurs caractéristiques, en float32 comme un modèle les rend."""
    torch.set_default_dtype(torch.float32)
    x, _ = data.load("mnist", "test", device="cpu")
    real, fake = x[:600], evaluation.shrink(x[600:1100], 18)
    net = _Extractor(False).net
    return real, fake, metrics.features(net, real), metrics.features(net, fake)


def test_frechet_and_kid_of_images_against_torchmetrics(judged):
    real, fake, *found = judged
    fid = FrechetInceptionDistance(feature=_Extractor(False), normalize=True)
    kid = KernelInceptionDistance(feature=_Extractor(False), subsets=1, subset_size=500, normalize=True)
    for oracle, more in ((fid, real), (kid, real[:500])):
        oracle.update(more, real=True)
        oracle.update(fake, real=False)
    assert evaluation.frechet_distance(*found) == pytest.approx(fid.compute().item(), rel=1e-4)
    assert evaluation.kid(found[0][:500], found[1]) == pytest.approx(kid.compute()[0].item(), rel=1e-4)


def test_inception_score_of_images_against_torchmetrics(judged):
    oracle = InceptionScore(feature=_Extractor(True), splits=1)
    oracle.update(judged[1])
    logits = _Extractor(True)(judged[1])
    assert evaluation.inception_score(logits) == pytest.approx(oracle.compute()[0].item(), rel=1e-4)


# --- Le tableau des scores -------------------------------------------------------------------------------------------


def test_naive_models_have_the_moments_of_the_images(judged):
    """Pixels : la moyenne de chaque pixel. Gaussienne : covariance comprise, avant d'être ramenée dans [0, 1]."""
    x = 0.4 + 0.2 * judged[0][:, :, 10:16, 10:16]          # loin des bords, on n'écrête presque rien
    models = evaluation.naive_models(x, prototypes=5)
    draws = {name: sample(20_000, torch.Generator().manual_seed(0)) for name, sample in models.items()}
    assert all(images.shape == (20_000, 1, 6, 6) and 0 <= images.min() and images.max() <= 1
               for images in draws.values())
    torch.testing.assert_close(draws["pixels indépendants"].mean(0), x.mean(0), atol=0.015, rtol=0)
    assert set(draws["pixels indépendants"].unique().tolist()) == {0, 1}
    flat = draws["gaussienne"].flatten(1)
    torch.testing.assert_close(flat.mean(0), x.flatten(1).mean(0), atol=0.005, rtol=0)
    torch.testing.assert_close(torch.cov(flat.T), torch.cov(x.flatten(1).T), atol=5e-4, rtol=0)
    assert len(draws["prototypes"].flatten(1).unique(dim=0)) == 5


def test_every_image_model_of_the_manifest_is_on_the_board():
    """Sont inscrits tous les modèles de MNIST qui savent tirer des images, et eux seuls."""
    expected = {e["name"] for e in checkpoints.models() if "_mnist" in e["name"]}
    no_sampler = {"features_mnist", "gan_mnist_film", "vqvae_mnist"}
    assert {e["name"] for e in evaluation.image_entries()} == expected - no_sampler


def test_likelihoods_of_the_manifest():
    assert evaluation.likelihood(checkpoints.entry("glow_mnist")) == (
        checkpoints.entry("glow_mnist")["scores"]["bits_per_dim_test_10000"], "densité, 256 niveaux")
    bits, kind = evaluation.likelihood(checkpoints.entry("vae_conv_mnist"))
    nats = checkpoints.entry("vae_conv_mnist")["scores"]["bound_k50_test_10000"]
    assert 2 ** (-784 * bits) == pytest.approx(math.exp(nats)) and kind.startswith("borne")
    assert evaluation.likelihood(checkpoints.entry("gan_mnist")) == (None, "")


def test_board_rows_are_repeatable_readings(judged):
    real, fake, real_features, _ = judged
    net = _Extractor(False).net
    rows = evaluation.board_rows(lambda n, g: fake[torch.randperm(len(fake), generator=g)[:n]], net, real_features,
                                 real_features, 100, draws=2)
    again = fake[torch.randperm(len(fake), generator=torch.Generator().manual_seed(1))[:100]]
    assert rows.shape == (2, 9)
    assert rows[1, 0] == pytest.approx(evaluation.frechet_distance(real_features, metrics.features(net, again)))
    assert (rows[:, -1] >= 0).all()


# --- Les familles dans le plan ---------------------------------------------------------------------------------------


def test_8_8_gaussian_kernel_of_two_gaussians():
    """E k(x, y) a une forme close entre gaussiennes : N(0, w² + variances) à une constante près."""
    def expected(mean, v1, v2, w):
        return w**2 / (w**2 + v1 + v2) * math.exp(-(mean**2).sum() / (2 * (w**2 + v1 + v2)))

    shift = torch.tensor([1.0, -0.5])
    got = [evaluation.mmd(torch.randn(1000, 2), shift + 0.5 * torch.randn(1000, 2)) for _ in range(20)]
    want = sum(expected(0 * shift, 1, 1, w) + expected(0 * shift, 0.25, 0.25, w) - 2 * expected(shift, 1, 0.25, w)
               for w in (0.25, 0.5, 1, 2)) / 4
    assert abs(np.mean(got) - want) < 4 * np.std(got) / 20**0.5
    same = [evaluation.mmd(torch.randn(300, 2), torch.randn(300, 2)) for _ in range(40)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 40**0.5


def test_outside_share():
    """Un mode isolé : hors du disque de rayon r, exp(−r² / 2σ²) de la masse, si bien que r² = 2σ² ln 1000."""
    toy = data.toy("eight_gaussians")
    fresh = toy.sample(50_000, torch.Generator().manual_seed(1)).double()
    assert evaluation.outside_share(toy, fresh) == pytest.approx(0.001, abs=5e-4)
    radius = toy.sigma * math.sqrt(2 * math.log(1000))
    near, far = (toy.centers[:1] * (1 + scale * radius / 3) for scale in (0.85, 1.15))
    assert evaluation.outside_share(toy, near) == 0 and evaluation.outside_share(toy, far) == 1


@pytest.mark.parametrize("name", ["RealNVP", "flot à splines", "VAE"])
def test_toy_densities_have_mass_one(name):
    """Une densité exacte s'intègre à 1 sur le plan ; une borne, à moins de 1."""
    family = evaluation.toy_families()[name]
    torch.manual_seed(0)
    net = family.make().double()
    axis = torch.linspace(-12, 12, 121)
    with torch.no_grad():
        density = family.log_prob(net, torch.cartesian_prod(axis, axis)).exp()
    mass = density.sum().item() * (axis[1] - axis[0]).item() ** 2
    assert mass < 1.02 and (mass > 0.98 or "borne" in family.kind)


class _ExactNet(torch.nn.Module):
    """Ce que prédirait un réseau parfait pour des données N(0, v I) : E[c x0 + d ε | x_t], linéaire en x."""

    def __init__(self, path, mix, v):
        super().__init__()
        self.path, self.mix, self.v, self.weight = path, mix, v, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t, y=None):
        a, s = (value[:, None].to(x.dtype) for value in self.path(t))
        c, d = self.mix(a, s)
        return (c * a * self.v + d * s) * x / (a**2 * self.v + s**2)


@pytest.mark.parametrize("name", ["diffusion", "appariement de flots"])
def test_toy_densities_and_draws_of_a_perfect_denoiser(name):
    """Réseau remplacé par l'espérance exacte : densité et tirages de N(0, 4 v I), l'échelle de deux comprise."""
    family = evaluation.toy_families()[name]
    net, v = family.make().double(), 0.6
    net.net = _ExactNet(net.path, load_chapter("07_diffusion").TARGETS[net.target], v)
    x = 2 * torch.randn(300, 2)
    expected = D.Independent(D.Normal(torch.zeros(2), 2 * v**0.5), 1).log_prob(x)
    with torch.no_grad():
        torch.testing.assert_close(family.log_prob(net, x), expected, atol=0.02, rtol=0.01)  # t part de 0,004
        draws = family.draw(net.float(), 20_000, torch.Generator().manual_seed(0))
    # Cent pas, au premier ordre : il en reste quelques centièmes sur la variance.
    torch.testing.assert_close(torch.cov(draws.double().T), 4 * v * torch.eye(2), atol=0.3, rtol=0)


@pytest.mark.parametrize("name", evaluation.toy_families())
def test_toy_families_learn_and_draw(name):
    """La perte accepte un lot et se dérive ; le tirage est répétable et de la bonne forme."""
    torch.set_default_dtype(torch.float32)
    family, toy = evaluation.toy_families()[name], data.toy("two_moons")
    torch.manual_seed(0)
    net = family.make()
    loss = family.loss(net, toy.sample(64, torch.Generator().manual_seed(0)))
    loss.backward()
    assert loss.ndim == 0 and any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    first, second = (family.draw(net, 7, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (7, 2) and torch.equal(first, second)


def test_plane_vae_bound_is_below_the_density_and_tightens():
    """Décodeur linéaire : p(x) est gaussienne, connue ; la borne (3.13) monte vers elle quand k croît."""
    net = evaluation.PlaneVAE()
    w, b = torch.tensor([[1.0, 0.3], [-0.4, 0.8]]), torch.tensor([0.2, -0.1])
    net.decoder = torch.nn.Linear(2, 2)
    with torch.no_grad():
        net.decoder.weight.copy_(w)
        net.decoder.bias.copy_(b)
        net.log_sigma.fill_(math.log(0.7))
        x = torch.randn(50, 2)
        exact = D.MultivariateNormal(b, w @ w.T + 0.49 * torch.eye(2)).log_prob(x).mean()
        bounds = [evaluation.vae_bound(net, x, k).mean() for k in (1, 20, 20_000)]
    assert bounds[0] < bounds[1] < exact + 0.01 and bounds[2] == pytest.approx(exact.item(), abs=0.01)
