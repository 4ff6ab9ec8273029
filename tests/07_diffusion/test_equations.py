"""Les équations du chapitre 7 (7.1 à 7.34), chacune contre un oracle indépendant."""

import itertools
import math

import diffusers
import numpy as np
import pytest
import torch
from scipy import integrate, linalg, stats
from torch import distributions as D
from torch import nn

from utils import data
from utils.chapters import load_chapter
from utils.nets import time_embedding

diffusion = load_chapter("07_diffusion")
pytestmark = pytest.mark.usefixtures("double")


# --- 1. Processus direct -------------------------------------------------------------------------------------------


PLANS = {"linear": diffusion.linear_betas, "cosine": diffusion.cosine_betas}


def _matrices(step):
    """Pas linéaire (x, bruit) en dimension 2 → sa matrice en x et celle en bruit, par ses images de la base."""
    zero, one = torch.zeros(2, 2), torch.eye(2)
    return step(one, zero).T, step(zero, one).T


def _mixture():
    return data.GaussianMixture("essai", torch.tensor([[-1.0, 0.5], [1.5, 1.0], [0.2, -2.0]]), 0.4,
                                torch.tensor([0.5, 0.35, 0.15]))


def _oracle(a, s):
    """Le mélange diffusé, par torch.distributions, sans la forme (7.5) écrite dans le chapitre."""
    mixture = _mixture()
    covariance = (a * mixture.sigma) ** 2 * torch.eye(2) + s**2 * torch.eye(2)
    return D.MixtureSameFamily(D.Categorical(mixture.weights), D.MultivariateNormal(a * mixture.centers, covariance))


def test_7_1_step_is_the_announced_gaussian():
    """Coefficients de x et du bruit : moyenne √(1 − β) x, covariance β I ; une variance de 1 reste 1."""
    for beta in (1e-4, 0.02, 0.7):
        by_x, by_noise = _matrices(lambda x, z: diffusion.noise_step(x, beta, z))  # noqa: B023
        torch.testing.assert_close(by_x, math.sqrt(1 - beta) * torch.eye(2))
        torch.testing.assert_close(by_noise @ by_noise.T, beta * torch.eye(2))
        torch.testing.assert_close(by_x @ by_x.T + by_noise @ by_noise.T, torch.eye(2))
        x = torch.randn(3, 1, 4, 4)
        torch.testing.assert_close(diffusion.noise_step(x, torch.tensor(beta), 0 * x), math.sqrt(1 - beta) * x)


def test_7_2_plans_of_the_papers():
    """Linéaire : bornes et pas constant. Cosinus : ᾱ_t = f(t)/f(0) tant que β_t n'est pas borné à 0,999."""
    betas = diffusion.linear_betas()
    np.testing.assert_allclose(betas, np.linspace(1e-4, 0.02, 1000), rtol=1e-6)
    time = np.arange(1001) / 1000
    squared = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = diffusion.cumulative(diffusion.cosine_betas()).numpy()
    np.testing.assert_allclose(kept[:-1], (squared / squared[0])[:-1], rtol=1e-3, atol=1e-6)
    assert kept[-1] == pytest.approx(kept[-2] * 1e-3, rel=1e-3)


@pytest.mark.parametrize("plan", PLANS)
def test_7_2_cumulative_is_the_product(plan):
    betas = PLANS[plan](50).double()
    kept = diffusion.cumulative(betas)
    expected = [math.exp(sum(math.log1p(-b) for b in betas[:t].tolist())) for t in range(51)]
    assert kept[0] == 1 and len(kept) == 51
    np.testing.assert_allclose(kept, expected, rtol=1e-10)
    assert (kept[1:] < kept[:-1]).all()


@pytest.mark.parametrize("plan", PLANS)
def test_7_3_closed_form_against_the_chain(plan):
    """x_t est affine en (x_0, z_1, …, z_t) : ses coefficients, par autograd sur la chaîne, contre la forme close."""
    betas = PLANS[plan](60).double()
    kept = diffusion.cumulative(betas)
    for t in (0, 1, 2, 30, 59, 60):
        start, noises = torch.tensor(1.3, requires_grad=True), torch.randn(60, requires_grad=True)
        x = start
        for beta, noise in itertools.islice(zip(betas, noises, strict=True), t):
            x = diffusion.noise_step(x, beta, noise)
        by_start, by_noises = torch.autograd.grad(x, (start, noises), allow_unused=True, materialize_grads=True)
        x0, eps = torch.randn(1, 2), torch.randn(1, 2)
        a, s = by_start.view(1), by_noises.square().sum().sqrt().view(1)
        torch.testing.assert_close(diffusion.diffuse(x0, kept[t].sqrt().view(1), (1 - kept[t]).sqrt().view(1), eps),
                                   a * x0 + s * eps)


@pytest.mark.parametrize(("name", "plan"), [("linear", PLANS["linear"]), ("cosine", PLANS["cosine"])])
def test_7_3_path_of_a_chain(name, plan):
    """Au temps i/T, le chemin rend √ᾱ_i et √(1 − ᾱ_i) ; il part de (1, 0) ; chacun (N,)."""
    path, kept = diffusion.PATHS[name](), np.cumprod(1 - plan().double().numpy())
    step = torch.tensor([1, 2, 137, 500, 999, 1000])
    a, s = path(step / 1000)
    np.testing.assert_allclose(a, np.sqrt(kept[step - 1]), rtol=1e-5)
    np.testing.assert_allclose(s, np.sqrt(1 - kept[step - 1]), rtol=1e-3)
    assert [value.tolist() for value in path(torch.zeros(2))] == [[1, 1], [0, 0]]


def test_7_3_one_level_per_example():
    x0, noise = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    got = diffusion.diffuse(x0, torch.tensor([1.0, 0.0, 0.6]), torch.tensor([0.0, 1.0, 0.8]), noise)
    torch.testing.assert_close(got, torch.stack([x0[0], noise[1], 0.6 * x0[2] + 0.8 * noise[2]]))


def test_7_4_signal_to_noise_ratio():
    """Pour une chaîne, le logit de ᾱ_t ; pour le chemin droit, 2 ln((1 − t)/t), nul au milieu."""
    kept = diffusion.cumulative(diffusion.linear_betas().double())[1:]
    torch.testing.assert_close(diffusion.log_snr(kept.sqrt(), (1 - kept).sqrt()), torch.logit(kept))
    t = torch.tensor([0.25, 0.5, 0.9])
    torch.testing.assert_close(diffusion.log_snr(*diffusion.PATHS["straight"]()(t)),
                               2 * torch.tensor([math.log(3), 0.0, -math.log(9)]))


# --- 2. Le score exact ---------------------------------------------------------------------------------------------


def test_7_5_diffused_mixture_is_the_averaged_kernel():
    """p_t(x) = ∫ p_0(y) N(x ; α y, σ² I) dy, par quadrature sur une grille fine de y."""
    axis = torch.linspace(-5, 5, 401)
    y = torch.cartesian_prod(axis, axis)
    prior = _oracle(1.0, 0.0).log_prob(y).exp() * (axis[1] - axis[0]) ** 2
    assert prior.sum().item() == pytest.approx(1, abs=1e-9)
    x, a, s = torch.randn(8, 2), 0.7, 0.5
    kernel = torch.exp(-(x[:, None] - a * y).square().sum(-1) / (2 * s**2)) / (2 * math.pi * s**2)
    torch.testing.assert_close(diffusion.diffused_log_prob(_mixture(), x, a, s).exp(), kernel @ prior,
                               rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("a", "s"), [(1.0, 0.0), (0.7, 0.5), (0.05, 1.0), (1.0, 3.0)])
def test_7_5_and_7_6_against_torch_distributions(a, s):
    """Densité par torch.distributions, score par autograd sur elle ; α = 1, σ = 0 rend les données."""
    x = (2 * torch.randn(50, 2)).requires_grad_()
    log_prob = _oracle(a, s).log_prob(x)
    (score,) = torch.autograd.grad(log_prob.sum(), x)
    torch.testing.assert_close(diffusion.diffused_log_prob(_mixture(), x, a, s), log_prob)
    torch.testing.assert_close(diffusion.diffused_score(_mixture(), x, a, s), score)


def test_7_6_one_level_per_point():
    """a et s (N,) : chaque point a le sien, et le type de x est gardé."""
    x, a, s = torch.randn(4, 2), torch.tensor([1.0, 0.9, 0.5, 0.1]), torch.tensor([0.0, 0.3, 0.8, 1.0])
    for f in (diffusion.diffused_log_prob, diffusion.diffused_score):
        one_by_one = torch.cat([f(_mixture(), x[i:i + 1], a[i].item(), s[i].item()) for i in range(4)])
        torch.testing.assert_close(f(_mixture(), x, a, s), one_by_one)
        assert f(_mixture(), x.float(), 0.5, 0.5).dtype == torch.float32


def _parts(step):
    """Pas affine x, bruit → (coefficient de x, constante, coefficient du bruit), en dimension 1."""
    zero, one = torch.zeros(1), torch.ones(1)
    constant = step(zero, zero)
    return (step(one, zero) - constant).item(), constant.item(), (step(zero, one) - constant).item()


def test_7_7_mean_of_the_reverse_step_is_exact():
    """E[x_{t−1} | x_t], par quadrature de Bayes sur le mélange, est le premier terme de (7.7), même pour un grand β."""
    axis = torch.linspace(-5, 5, 501)
    y = torch.cartesian_prod(axis, axis)
    a, s, beta = 0.8, 0.6, 0.3
    before = diffusion.diffused_log_prob(_mixture(), y, a, s)
    x = torch.randn(6, 2)
    kernel = -(x[:, None] - math.sqrt(1 - beta) * y).square().sum(-1) / (2 * beta)
    exact = torch.softmax(before + kernel, 1) @ y
    score = diffusion.diffused_score(_mixture(), x, a * math.sqrt(1 - beta), math.sqrt(1 - 0.64 * (1 - beta)))
    torch.testing.assert_close(diffusion.reverse_step(x, score, beta, torch.zeros(6, 2)), exact, rtol=1e-7, atol=1e-8)


def test_7_7_variance_of_the_reverse_step_at_first_order():
    """Donnée gaussienne : la variance de x_{t−1} sachant x_t est β + O(β²), contre la formule de conditionnement."""
    for beta in (1e-2, 1e-3):
        before = 0.7                                                       # variance de x_{t−1}
        joint = np.array([[before, before * math.sqrt(1 - beta)],
                          [before * math.sqrt(1 - beta), (1 - beta) * before + beta]])
        exact = joint[0, 0] - joint[0, 1] ** 2 / joint[1, 1]
        _, _, gain = _parts(lambda x, z, b=beta: diffusion.reverse_step(x, 0 * x, b, z))
        assert gain**2 == pytest.approx(exact, abs=2 * beta**2)


def test_7_7_chain_returns_to_the_data():
    """Donnée N(m, τ²) : moyenne et variance suivies exactement le long des mille pas, de N(0, 1) à la donnée."""
    m, tau, betas = 2.0, 0.5, diffusion.linear_betas().double()
    kept = diffusion.cumulative(betas)
    mean, var = 0.0, 1.0
    for t in range(1000, 0, -1):
        a, v = kept[t].sqrt(), kept[t] * tau**2 + 1 - kept[t]
        gain, shift, spread = _parts(
            lambda x, z: diffusion.reverse_step(x, (a * m - x) / v, betas[t - 1], z))  # noqa: B023
        mean, var = gain * mean + shift, gain**2 * var + spread**2
    assert mean == pytest.approx(m, abs=0.02)
    assert var == pytest.approx(tau**2, rel=0.02)


# --- 3. Revenir en arrière -----------------------------------------------------------------------------------------


GRID = torch.linspace(-8, 8, 1601, dtype=torch.float64)


def _normalized(log_density):
    density = log_density.sub(log_density.max()).exp()
    return density / torch.trapezoid(density, GRID)


def _noised(x0, i, betas):
    """q(x_i | x0), par la récurrence (7.1) sur la moyenne et la variance, sans passer par ᾱ."""
    mean, variance = x0, torch.zeros(())
    for beta in betas[:i]:
        mean, variance = mean * (1 - beta).sqrt(), variance * (1 - beta) + beta
    return D.Normal(mean, variance.sqrt(), validate_args=False)


@pytest.mark.parametrize("i", [2, 5, 10])
def test_7_8_posterior_is_the_product_of_both_factors(i):
    """Moyenne et variance de la règle de Bayes, intégrée sur une grille."""
    betas = diffusion.linear_betas(10, 0.02, 0.5)
    for x0, x_t in ((0.7, -1.2), (-2.0, 0.3)):
        step = D.Normal((1 - betas[i - 1]).sqrt() * GRID, betas[i - 1].sqrt())
        density = _normalized(step.log_prob(torch.tensor(x_t)) + _noised(torch.tensor(x0), i - 1, betas).log_prob(GRID))
        mean = torch.trapezoid(GRID * density, GRID)
        variance = torch.trapezoid((GRID - mean) ** 2 * density, GRID)
        got, spread = diffusion.posterior(torch.tensor([[x_t]]), torch.tensor([[x0]]), i, betas)
        assert got.item() == pytest.approx(mean.item(), abs=1e-6)
        assert spread.item() == pytest.approx(variance.item(), rel=1e-5)


def test_7_8_first_step_and_batches():
    betas = diffusion.linear_betas(10, 0.02, 0.5)
    x_t, x0 = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    mean, variance = diffusion.posterior(x_t, x0, 1, betas)
    torch.testing.assert_close(mean, x0)
    assert variance.item() == 0
    i = torch.tensor([2, 7, 10])
    mean, variance = diffusion.posterior(x_t, x0, i, betas)
    for n, step in enumerate(i.tolist()):
        alone = diffusion.posterior(x_t[n:n + 1], x0[n:n + 1], step, betas)
        torch.testing.assert_close(mean[n], alone[0][0])
        assert variance[n].item() == pytest.approx(alone[1].item())


class Tanh:
    """Un prédicteur quelconque, non linéaire, qui dépend du temps et reste dans [−1, 1]."""

    def predict(self, x, t):
        return torch.tanh((0.5 + t.view(-1, *[1] * (x.dim() - 1))) * x), None


def _bound_by_quadrature(x0, betas):
    """Les trois termes de (7.9) en nats, par quadrature : lois de torch, conditionnement d'un couple gaussien."""
    T, x0 = len(betas), torch.tensor(x0)
    end = D.kl_divergence(_noised(x0, T, betas), D.Normal(0.0, 1.0)).item()

    def conditional(i, data, x_i):
        """x_{i−1} | x_i, donnée : régression dans le couple (x_{i−1}, x_i)."""
        before, now = _noised(data, i - 1, betas), _noised(data, i, betas)
        covariance = (1 - betas[i - 1]).sqrt() * before.variance
        mean = before.mean + covariance / now.variance * (x_i - now.mean)
        return D.Normal(mean, (before.variance - covariance**2 / now.variance).sqrt())

    steps = 0.0
    for i in range(2, T + 1):
        weight = _noised(x0, i, betas).log_prob(GRID).exp()
        guess = torch.tanh((0.5 + i / T) * GRID)
        kl = D.kl_divergence(conditional(i, x0, GRID), conditional(i, guess, GRID))
        steps += torch.trapezoid(weight * kl, GRID).item()
    weight = _noised(x0, 1, betas).log_prob(GRID).exp()
    last = -torch.trapezoid(weight * _last(x0, betas), GRID).item()
    # la vraisemblance du même modèle, par programmation dynamique sur la grille
    law = D.Normal(0.0, 1.0).log_prob(GRID).exp()
    for i in range(T, 1, -1):
        guess = torch.tanh((0.5 + i / T) * GRID)
        kernel = conditional(i, guess, GRID).log_prob(GRID[:, None]).exp()             # [arrivée, départ]
        law = torch.trapezoid(kernel * law, GRID)
    likelihood = torch.trapezoid(law * _last(x0, betas).exp(), GRID).log().item()
    return np.array([end, steps, last]), likelihood


def _last(x0, betas):
    """ln p(x0 | x1) sur la grille, par scipy ; variance : celle de (7.8) au pas 2."""
    guess = np.tanh((0.5 + 1 / len(betas)) * GRID.numpy())
    b1, b2 = betas[0].item(), betas[1].item()
    std = math.sqrt(b1 * b2 / (b1 + b2 - b1 * b2))
    edges = [-math.inf if x0 < -0.999 else x0.item() - 1 / 255, math.inf if x0 > 0.999 else x0.item() + 1 / 255]
    mass = stats.norm.cdf(edges[1], guess, std) - stats.norm.cdf(edges[0], guess, std)
    return torch.tensor(np.log(np.maximum(mass, 1e-12)))


@pytest.mark.parametrize("level", [0, 90, 255])
def test_7_9_bound_agrees_with_quadrature_and_exceeds_the_likelihood(level):
    betas = diffusion.linear_betas(4, 0.1, 0.6)
    x0 = 2 * level / 255 - 1
    exact, likelihood = _bound_by_quadrature(x0, betas)
    draw = torch.Generator().manual_seed(0)
    got = math.log(2) * diffusion.variational_bound(Tanh(), torch.full((40_000, 1), x0), betas, draw)
    error = (got.std(0) / len(got) ** 0.5).numpy()
    assert np.all(np.abs(got.mean(0).numpy() - exact) < 4.5 * error + 1e-6)
    assert exact.sum() > -likelihood


def test_7_9_is_per_dimension_and_in_float32():
    """Une image de 16 pixels pareils coûte, par dimension, ce que coûte un pixel."""
    betas = diffusion.linear_betas(4, 0.1, 0.6)
    one, many = (diffusion.variational_bound(Tanh(), torch.full((20_000, *shape), 0.2157), betas,
                                             torch.Generator().manual_seed(1)) for shape in ((1,), (1, 4, 4)))
    torch.testing.assert_close(one.mean(0), many.mean(0), rtol=0.05, atol=1e-3)
    single = diffusion.variational_bound(Tanh(), torch.full((10, 1), 0.2157, dtype=torch.float32), betas.float())
    assert single.dtype == torch.float32 and single.shape == (10, 3)


def test_7_9_discretized_gaussian_sums_to_one():
    levels = torch.linspace(-1, 1, 256)
    for mean, std in ((0.1, 0.02), (-1.0, 0.005), (0.95, 0.3)):
        log_mass = diffusion.bin_log_prob(levels, torch.tensor(mean), torch.tensor(std))
        assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-8)
        inside = stats.norm.cdf(levels[100] + 1 / 255, mean, std) - stats.norm.cdf(levels[100] - 1 / 255, mean, std)
        assert log_mass[100].exp().item() == pytest.approx(max(inside, 1e-12), rel=1e-6)


def test_7_10_step_is_a_weighted_error_on_the_noise():
    betas, i = diffusion.cosine_betas(50).double(), torch.tensor([2, 20, 45])
    kept = torch.cumprod(torch.cat([torch.ones(1), 1 - betas]), 0)
    a, s = kept[i].sqrt()[:, None], (1 - kept[i]).sqrt()[:, None]
    x0, eps, wrong = torch.rand(3, 5) - 0.5, torch.randn(3, 5), 0.02 * torch.randn(3, 5)

    class Wrong:
        def predict(self, x, t):
            torch.testing.assert_close(x, a * x0 + s * eps)
            torch.testing.assert_close(t, i / 50)
            return (x - s * (eps + wrong)) / a, eps + wrong

    snr = kept / (1 - kept)
    weight = 0.5 * (snr[i - 1] / snr[i] - 1)
    torch.testing.assert_close(diffusion.step_kl(Wrong(), x0, i, betas, eps), weight[:, None] * wrong**2)


# --- 4. Trois lectures ---------------------------------------------------------------------------------------------


def _two_bumps(x0):
    return 0.7 * stats.norm.pdf(x0, -1, 0.3) + 0.3 * stats.norm.pdf(x0, 1.5, 0.5)


def _given(x, a, s, f):
    """∫ f(x0) p(x0) q(x | x0) dx0, par quadrature."""
    return integrate.quad(lambda u: f(u) * _two_bumps(u) * stats.norm.pdf(x, a * u, s), -6, 6, limit=400,
                          points=[-1, 1.5, x / a])[0]


@pytest.mark.parametrize("a", [0.9, 0.5])
def test_7_12_to_7_14_three_readings_of_one_expectation(a):
    """Le score, par différences finies de ln p_t ; les espérances de (7.12), (7.13), (7.14), par quadrature."""
    s, h = math.sqrt(1 - a * a), 1e-4
    for x in (-1.1, 0.2, 1.0):
        p = _given(x, a, s, lambda u: 1.0)
        score = (math.log(_given(x + h, a, s, lambda u: 1.0)) - math.log(_given(x - h, a, s, lambda u: 1.0))) / (2 * h)
        target = _given(x, a, s, lambda u, x=x: (a * u - x) / s**2) / p                     # (7.12)
        data = _given(x, a, s, lambda u: u) / p
        noise = _given(x, a, s, lambda u, x=x: (x - a * u) / s) / p
        assert target == pytest.approx(score, abs=1e-5)
        one = [torch.tensor([[v]]) for v in (x, score, noise)]
        got = diffusion.tweedie(one[0], one[1], torch.tensor([a]), torch.tensor([s]))
        assert got.item() == pytest.approx(data, abs=1e-5)
        assert diffusion.score_from_eps(one[2], torch.tensor([s])).item() == pytest.approx(score, abs=1e-5)


def test_7_14_point_net_reads_its_point_and_its_time():
    net = diffusion.PointNet(dim=3, hidden=16)
    x = torch.randn(5, 3)
    out = net(x, torch.rand(5))
    assert out.shape == (5, 3)
    assert not torch.allclose(net(x, torch.zeros(5)), net(x, torch.ones(5)))
    assert not torch.allclose(net(x, torch.zeros(5)), net(-x, torch.zeros(5)))


# --- 5. Langevin ---------------------------------------------------------------------------------------------------


def test_7_16_stationary_covariance():
    """Gaussienne corrélée : l'équilibre de (7.16), par l'équation de Lyapunov discrète, tend vers Σ quand η → 0."""
    sigma = np.array([[1.0, 0.6], [0.6, 0.8]])
    precision = torch.tensor(np.linalg.inv(sigma))
    errors = []
    for step in (0.02, 0.01):
        drift, gain = _matrices(lambda x, z: diffusion.langevin_step(x, -x @ precision, step, z))  # noqa: B023
        reached = linalg.solve_discrete_lyapunov(drift.numpy(), (gain @ gain.T).numpy())
        errors.append(np.abs(reached - sigma).max())
    assert errors[0] < 0.006 and errors[1] == pytest.approx(errors[0] / 2, rel=0.05)      # biais d'ordre η


@pytest.mark.parametrize("step", [0.01, 0.1, 0.3, 0.45])
def test_7_16_bias_of_a_finite_step(step):
    """Une gaussienne d'écart-type τ : v = τ² / (1 − η / 4τ²), en itérant la variance ; diverge au-delà de 4τ²."""
    tau = 0.35

    def variance(step):
        gain, _, spread = _parts(lambda x, z: diffusion.langevin_step(x, -x / tau**2, step, z))
        v = 1.0
        for _ in range(3000):
            v = min(gain**2 * v + spread**2, 1e12)
        return v

    assert variance(step) == pytest.approx(tau**2 / (1 - step / (4 * tau**2)), rel=1e-9)
    assert variance(0.5) == 1e12


def test_7_16_annealing_law():
    """Langevin recuit : des niveaux et pas dans l'ordre, n_steps à chacun, et la loi de la donnée à la fin."""
    seen = []

    def score(x, s):
        seen.append(s)
        return (1.5 - x) / (0.3**2 + s**2)

    levels = [(s, 0.2 * s**2) for s in np.geomspace(3, 0.05, 12).tolist()]
    chain = list(diffusion.annealed_langevin(score, 3 * torch.randn(4000, 1), levels, 80))
    assert len(chain) == 960 and seen == [s for s, _ in levels for _ in range(80)]
    law = stats.norm(1.5, math.sqrt(0.3**2 + 0.05**2))
    assert stats.kstest(chain[-1].flatten().numpy(), law.cdf).statistic < 0.03


# --- 6. Plongement du temps, perte générale ------------------------------------------------------------------------


STEPS = 1000
PUBLIC_PLANS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTED = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def _at(path, i, n=1):
    """(α, σ) au pas i de la chaîne, chacun (n,)."""
    return path(torch.full((n,), i / STEPS))


def _double(model):
    """Le plan en float64, sans quoi 1 − ᾱ perd ses décimales près de t = 0."""
    return model.to(torch.float64)


class Oracle(nn.Module):
    """Prédicteur exact quand x0 suit N(mean, diag(std²)) : espérance de la cible sachant x_t."""

    def __init__(self, path, target, mean, std):
        super().__init__()
        self.path, self.target, self.mean, self.std = path, target, mean, std

    def forward(self, x, t, y=None):
        a, s = (diffusion.like(v, x) for v in self.path(t))
        x0 = self.mean + a * self.std**2 / (a**2 * self.std**2 + s**2) * (x - a * self.mean)
        c, d = diffusion.TARGETS[self.target](a, s)
        return c * x0 + d * (x - a * x0) / s


class Circle(nn.Module):
    """Le chemin qui tourne à vitesse constante de la donnée au bruit."""

    def forward(self, t):
        return (math.pi / 2 * t).cos(), (math.pi / 2 * t).sin()


def _gaussian(path="cosine", target="eps"):
    mean, std = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.3, 1.0, 2.0])
    path = _double(diffusion.PATHS[path]())
    return diffusion.Denoiser(Oracle(path, target, mean, std), path, target, (3,)), mean, std


def _end(model, x, n_steps, **options):
    *_, (t, x, _) = diffusion.trajectory(model, x, n_steps, **options)
    assert t == 0
    return x


def test_7_17_time_embedding_is_a_clock():
    """Composante par composante d'après la formule ; le produit scalaire ne dépend que de l'écart."""
    t = torch.tensor([0.0, 0.123, 0.5, 1.0])
    dim, got = 16, time_embedding(torch.tensor([0.0, 0.123, 0.5, 1.0]), 16)
    for n, value in enumerate(t.tolist()):
        for k in range(dim // 2):
            angle = 1000 * value * 10_000 ** (-2 * k / dim)
            assert got[n, k].item() == pytest.approx(math.cos(angle), abs=1e-9)
            assert got[n, k + dim // 2].item() == pytest.approx(math.sin(angle), abs=1e-9)
    pairs = time_embedding(torch.tensor([0.1, 0.15, 0.7, 0.75]), 128)
    assert (pairs[0] @ pairs[1]).item() == pytest.approx((pairs[2] @ pairs[3]).item(), abs=1e-8)


def test_7_17_time_embedding_agrees_with_diffusers():
    from diffusers.models.embeddings import get_timestep_embedding

    i = torch.tensor([0, 1, 250, 999])
    theirs = get_timestep_embedding(i, 64, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(time_embedding(i / 1000, 64), theirs.double(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", PUBLIC_PLANS)
def test_7_2_schedules_agree_with_diffusers(name):
    theirs = diffusers.DDPMScheduler(STEPS, beta_schedule=PUBLIC_PLANS[name], beta_start=1e-4, beta_end=0.02)
    ours = diffusion.linear_betas() if name == "linear" else diffusion.cosine_betas()
    torch.testing.assert_close(ours, theirs.betas.to(ours.dtype), atol=1e-6, rtol=1e-5)
    path = diffusion.PATHS[name]()
    i = torch.arange(1, STEPS + 1)
    a, s = path(i / STEPS)
    torch.testing.assert_close(a**2, theirs.alphas_cumprod.to(a.dtype), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(s**2, 1 - theirs.alphas_cumprod.to(a.dtype), atol=1e-6, rtol=1e-4)
    assert [v.item() for v in path(torch.zeros(1))] == [1, 0]


@pytest.mark.parametrize("path", ["linear", "cosine", "straight"])
@pytest.mark.parametrize("target", ["eps", "x0", "v", "flow"])
def test_7_15_the_two_by_two_system(path, target):
    """Contre torch.linalg.solve ; et un réseau qui rend la cible exacte redonne x0 et ε."""
    path = _double(diffusion.PATHS[path]())
    x0, noise = torch.randn(6, 2), torch.randn(6, 2)
    t = torch.tensor([0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
    a, s = (diffusion.like(v, x0) for v in path(t))
    c, d = {"eps": (0, 1), "x0": (1, 0), "v": (-s, a), "flow": (-1, 1)}[target]
    x, out = a * x0 + s * noise, c * x0 + d * noise
    model = diffusion.Denoiser(lambda *_: out, path, target, (2,))
    got = model.predict(x, t)
    torch.testing.assert_close(got[0], x0, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(got[1], noise, atol=1e-9, rtol=1e-9)
    wrong = out + torch.randn_like(out)                    # une réponse fausse : la solution reste celle du système
    got = diffusion.Denoiser(lambda *_: wrong, path, target, (2,)).predict(x, t)
    for n in range(6):
        cn, dn = (float(v[n]) if torch.is_tensor(v) else v for v in (c, d))
        matrix = torch.tensor([[float(a[n]), float(s[n])], [cn, dn]])
        solved = torch.linalg.solve(matrix, torch.stack([x[n], wrong[n]]))
        torch.testing.assert_close(torch.stack([got[0][n], got[1][n]]), solved, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("target", ["eps", "x0", "v", "flow"])
def test_7_15_loss_of_the_best_predictor(target):
    """Données N(0, 1) : le minimum de la perte est la variance de la cible sachant x_t, (Δ/σ)² Var(x0 | x_t)."""
    path = _double(diffusion.PATHS["cosine"]())
    model = diffusion.Denoiser(Oracle(path, target, 0.0, 1.0), path, target, (2,))
    a, s = path(torch.arange(1, 1001) / 1000)
    det = {"eps": a, "x0": s, "v": torch.ones_like(a), "flow": a + s}[target]
    expected = (det**2).mean().item()                      # Var(x0 | x_t) = σ² quand x0 est réduite
    assert model.loss(torch.randn(300_000, 2)).item() == pytest.approx(expected, rel=0.01)


def test_7_15_labels_are_dropped_one_time_in_ten():
    seen = []

    def net(x, t, y):
        seen.append((t, y))
        return x

    diffusion.Denoiser(net, diffusion.Straight(), "flow", (2,), classes=10).loss(
        torch.randn(20_000, 2), torch.full((20_000,), 3))
    (t, y), = seen
    assert set(y.tolist()) == {3, 10}
    assert (y == 10).double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert t.min() == 1 / 1000 and t.max() == 1            # tous les pas, de 1 à T


# --- 7. Échantillonner ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("path", ["linear", "cosine", "straight"])
def test_7_18_keeps_the_marginals(path, eta):
    """Moyenne et variance de x_s sachant le vrai x0, quels que soient le chemin et η."""
    path, n, x0 = _double(diffusion.PATHS[path]()), 400_000, 0.7
    (a, s), (a_to, s_to) = at, to = _at(path, 800), _at(path, 300)
    x = a * x0 + s * torch.randn(n)
    moved = diffusion.move(x, torch.full((n,), x0), at, to, eta, torch.randn(n))
    assert moved.mean().item() == pytest.approx((a_to * x0).item(), abs=0.005)
    assert moved.std().item() == pytest.approx(s_to.item(), rel=0.005)


@pytest.mark.parametrize("name", PUBLIC_PLANS)
def test_7_18_with_eta_one_is_the_ddpm_step_of_diffusers(name):
    """Un pas de la chaîne : moyenne de la loi a posteriori (bruit nul) et variance, à 1e-5."""
    theirs = diffusers.DDPMScheduler(
        STEPS, beta_schedule=PUBLIC_PLANS[name], clip_sample=False, variance_type="fixed_small")
    path, x, out = diffusion.PATHS[name](), torch.randn(4, 3), torch.randn(4, 3)
    for i in (2, 10, 500, 900, 990):
        at, to = _at(path, i), _at(path, i - 1)
        x0 = (x - at[1] * out) / at[0]
        mean = diffusion.move(x, x0, at, to, eta=1.0)
        ours = diffusion.move(x, x0, at, to, eta=1.0, noise=torch.ones_like(x)) - mean
        state = torch.Generator().manual_seed(3)
        step = theirs.step(out, i - 1, x, generator=state).prev_sample
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
        torch.testing.assert_close(mean + ours * z, step.to(x.dtype), atol=1e-5, rtol=1e-4)
        beta = theirs.betas[i - 1].double()
        product = theirs.alphas_cumprod.double()
        variance = beta * (1 - product[i - 2]) / (1 - product[i - 1])
        torch.testing.assert_close(ours[0, 0] ** 2, variance, atol=1e-7, rtol=2e-3)


@pytest.mark.parametrize("target", PREDICTED)
@pytest.mark.parametrize("name", PUBLIC_PLANS)
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_7_18_is_the_ddim_step_of_diffusers(name, target, eta):
    """Mêmes entrées, cinquante pas par saut : x_s à 1e-5, pour les trois cibles."""
    theirs = diffusers.DDIMScheduler(STEPS, beta_schedule=PUBLIC_PLANS[name], clip_sample=False,
                                     prediction_type=PREDICTED[target], timestep_spacing="trailing")
    theirs.set_timesteps(20)
    path = diffusion.PATHS[name]()
    for i in (100, 500, 950):                              # leur pas i − 1 est le nôtre i
        x, out, z = torch.randn(3, 4, 5)
        model = diffusion.Denoiser(lambda *_, out=out: out, path, target, (5,))
        x0, _ = model.predict(x, torch.full((4,), i / STEPS))
        at, to = ([diffusion.like(v, x) for v in _at(path, step, 4)] for step in (i, i - 50))
        ours = diffusion.move(x, x0, at, to, eta, z)
        step = theirs.step(out, i - 1, x, eta=eta, variance_noise=z).prev_sample
        torch.testing.assert_close(ours, step.to(ours.dtype), atol=1e-5, rtol=1e-4)


def test_7_18_is_euler_on_the_straight_path():
    x, x0 = torch.randn(5, 3), torch.randn(5, 3)
    at, to = ([diffusion.like(v, x) for v in diffusion.Straight()(torch.full((5,), t))] for t in (0.8, 0.3))
    eps = (x - 0.2 * x0) / 0.8
    torch.testing.assert_close(diffusion.move(x, x0, at, to), x + (0.3 - 0.8) * (eps - x0))


def test_7_18_reaches_clean_data_without_noise():
    path = _double(diffusion.PATHS["cosine"]())
    x, x0 = torch.randn(5), torch.randn(5)
    for eta in (0.0, 1.0):
        torch.testing.assert_close(diffusion.move(x, x0, _at(path, 1), _at(path, 0), eta, torch.randn(5)), x0)


@pytest.mark.parametrize("path, options", [("cosine", {"eta": 1.0}), ("cosine", {"eta": 0.5}), ("linear", {}),
                                           ("straight", {}), ("straight", {"heun": True})])
def test_7_18_trajectory_samples_the_gaussian(path, options):
    """Prédicteur exact d'une gaussienne : moyenne et covariance des échantillons justes, de l'ODE à la chaîne."""
    model, mean, std = _gaussian(path, "flow" if path == "straight" else "eps")
    x = _end(model, torch.randn(10_000, 3), 200, **options)
    np.testing.assert_allclose((x.mean(0) - mean) / std, torch.zeros(3), atol=0.04)
    np.testing.assert_allclose(x.std(0) / std, torch.ones(3), atol=0.04)
    np.testing.assert_allclose(torch.corrcoef(x.T), torch.eye(3), atol=0.04)


def test_7_18_the_whole_chain_has_the_right_variance():
    """Sans tirages : la variance que suit la chaîne, linéaire en x, se calcule exactement ; les deux η conviennent."""
    model, mean, std = _gaussian()
    for eta in (0.0, 1.0):
        variance = torch.ones(3)
        for i in range(STEPS, 0, -1):
            at, to = _at(model.path, i), _at(model.path, i - 1)
            probe = torch.stack([torch.zeros(3), torch.ones(3)])
            x0, _ = model.predict(probe, torch.full((2,), i / STEPS))
            moved = diffusion.move(probe, x0, at, to, eta)
            noise = diffusion.move(probe, x0, at, to, eta, torch.ones(2, 3)) - moved
            variance = (moved[1] - moved[0]) ** 2 * variance + noise[0] ** 2
        np.testing.assert_allclose(variance.sqrt(), std, rtol=0.02)


@pytest.mark.parametrize("rotation", [False, True])
def test_7_19_heun_has_order_two(rotation):
    """Flot exact d'une gaussienne : x_0 = m + std (x_1 − α m)/√(α² std² + σ²). Doubler les pas : ÷ 2 pour Euler, ÷ 4.

    Sur le chemin droit, et sur un cercle lisse (le plan « cosinus » de la chaîne a un décalage, d'ordre 1 près de 0).
    """
    model, mean, std = _gaussian("straight", "v" if rotation else "flow")
    if rotation:
        model.path = model.net.path = Circle()
    x = torch.randn(50, 3)
    a, s = (v[0] for v in model.path(torch.ones(1)))
    exact = mean + std * (x - a * mean) / (a**2 * std**2 + s**2).sqrt()
    for heun, order in ((False, 1), (True, 2)):
        errors = [(_end(model, x, n, heun=heun) - exact).abs().mean().item() for n in (50, 100, 200)]
        slopes = np.log2(np.array(errors[:-1]) / errors[1:])
        np.testing.assert_allclose(slopes, order, atol=0.35)
    assert errors[0] < 1e-2


def test_7_19_counts_its_calls_and_is_the_trapezoid_rule():
    """2n − 1 appels ; et un pas est la règle du trapèze pour u = x/σ contre r = α/σ."""
    model, mean, std = _gaussian("straight", "flow")
    times = []
    inner = model.net.forward
    model.net.forward = lambda x, t, y=None: times.append(t[0].item()) or inner(x, t, y)
    x = torch.randn(4, 3)
    steps = list(diffusion.trajectory(model, x, 4, heun=True))
    np.testing.assert_allclose(times, [1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25])
    assert [t for t, _, _ in steps] == [1, 0.75, 0.5, 0.25, 0]
    (_, before, first), (_, after, _) = steps[1:3]
    trial = 0.5 * before / 0.75 + 0.5 * (0.5 / 0.5 - 0.25 / 0.75) * first
    second, _ = model.predict(trial, torch.full((4,), 0.5))
    u = before / 0.75 + (1 - 1 / 3) * (first + second) / 2
    torch.testing.assert_close(after, 0.5 * u)


def test_7_18_the_estimate_stays_in_its_bounds():
    model, _, _ = _gaussian()
    for _, _, x0 in list(diffusion.trajectory(model, 3 * torch.randn(50, 3), 10, bound=0.4))[:-1]:
        assert x0.abs().max() <= 0.4


def test_7_18_same_generator_same_samples():
    model, _, _ = _gaussian()
    x = torch.randn(5, 3)
    draws = [_end(model, x, 5, eta=1.0, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    torch.testing.assert_close(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])


# --- 8. La cible v -------------------------------------------------------------------------------------------------


def test_7_20_v_is_the_velocity_of_the_rotation():
    """α = cos φ, σ = sin φ : v = dx/dφ, par autograd ; et l'inverse de (7.20)."""
    angle = torch.tensor([0.2, 0.7, 1.3], requires_grad=True)
    x0, noise = torch.randn(3), torch.randn(3)
    c, d = diffusion.TARGETS["v"](angle.cos(), angle.sin())
    v = c * x0 + d * noise
    x = angle.cos() * x0 + angle.sin() * noise
    (speed,) = torch.autograd.grad(x.sum(), angle, retain_graph=True)      # chaque coordonnée a son angle
    torch.testing.assert_close(v, speed)
    torch.testing.assert_close(angle.cos() * x - angle.sin() * v, x0)
    torch.testing.assert_close(angle.sin() * x + angle.cos() * v, noise)


def test_7_20_agrees_with_diffusers():
    theirs = diffusers.DDPMScheduler(STEPS, beta_schedule="squaredcos_cap_v2")
    x0, noise, i = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([1, 400, 1000])
    a, s = (diffusion.like(v, x0) for v in diffusion.PATHS["cosine"]()(i / STEPS))
    c, d = diffusion.TARGETS["v"](a, s)
    torch.testing.assert_close(c * x0 + d * noise, theirs.get_velocity(x0, noise, i - 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("target, weight", [("eps", lambda r: r), ("x0", lambda r: 1 + 0 * r), ("v", lambda r: r + 1)])
def test_7_20_weights_of_each_target(target, weight):
    """Erreur d'une réponse fausse = poids(ρ) × erreur sur x0, mesurées toutes deux par `predict`."""
    path = _double(diffusion.PATHS["cosine"]())
    t = torch.tensor([0.1, 0.5, 0.9])
    a, s = (diffusion.like(v, torch.zeros(3, 4)) for v in path(t))
    x0, noise, fault = torch.randn(3, 3, 4)
    c, d = diffusion.TARGETS[target](a, s)
    model = diffusion.Denoiser(lambda *_: c * x0 + d * noise + fault, path, target, (4,))
    got, _ = model.predict(a * x0 + s * noise, t)
    torch.testing.assert_close(fault**2, weight(a**2 / s**2) * (got - x0) ** 2)


# --- Le modèle d'images --------------------------------------------------------------------------------------------


def test_images_stay_in_the_unit_cube_and_the_first_loss_is_one():
    torch.set_default_dtype(torch.float32)
    model = diffusion.ImageDenoiser("cosine", "eps", widths=(8, 8))
    x = torch.rand(64, 1, 28, 28)
    assert model.loss(x).item() == pytest.approx(1, abs=0.03)           # le réseau répond 0, et E ε² = 1
    first, again = (model.sample(3, torch.Generator().manual_seed(0), n_steps=3, eta=1.0) for _ in range(2))
    assert first.shape == (3, 1, 28, 28) and first.dtype == torch.float32
    assert 0 <= first.min() and first.max() <= 1
    torch.testing.assert_close(first, again)


def test_images_are_centered_before_the_noise():
    """Cible x0 : la perte d'un réseau nul sur une image blanche est 1, comme sur une noire ; à mi-gris, 0."""
    torch.set_default_dtype(torch.float32)
    model = diffusion.ImageDenoiser("cosine", "x0", widths=(8, 8))
    for gray, expected in ((0.0, 1.0), (1.0, 1.0), (0.5, 0.0), (0.75, 0.25)):
        assert model.loss(torch.full((4, 1, 28, 28), gray)).item() == pytest.approx(expected, abs=1e-6)


# --- 9. Le temps continu -------------------------------------------------------------------------------------------


def test_7_21_continuous_path_is_the_limit_of_the_chain():
    for t in (0.01, 0.3, 1.0):
        area = integrate.quad(diffusion.noise_rate, 0, t)[0]
        a, s = diffusion.continuous_path(torch.tensor([t]))
        assert a.item() ** 2 == pytest.approx(math.exp(-area), rel=1e-9)
        assert s.item() ** 2 == pytest.approx(1 - math.exp(-area), rel=1e-9)
    errors = []
    for n in (1000, 10_000):
        chain = diffusion.cumulative(diffusion.linear_betas(n, 0.1 / n, 20 / n))
        errors.append((chain[n // 2].sqrt() - diffusion.continuous_path(torch.tensor(0.5))[0]).abs().item())
    assert errors[0] < 0.01 and errors[1] < errors[0] / 8                   # une erreur en 1 / T


MEAN, STD = torch.tensor([[1.2, -0.5], [0.4, 0.9]], dtype=torch.float64)


def _law(t):
    """Loi exacte au temps t d'une donnée gaussienne de moyenne MEAN, d'écarts-types STD."""
    area = integrate.quad(lambda u: 0.1 + 19.9 * u, 0, t)[0]
    return D.Normal(math.exp(-area / 2) * MEAN, (math.exp(-area) * STD**2 + 1 - math.exp(-area)).sqrt())


def _gaussian_score(x, t):
    return (_law(t).mean - x) / _law(t).variance


@pytest.mark.parametrize("churn", [0.0, 0.6, 1.0])
def test_7_22_reverse_walks_keep_the_marginals(churn):
    n, steps = 20_000, 200
    start = _law(1.0).sample((n,))
    path = diffusion.reverse_paths(_gaussian_score, start, steps, churn, torch.Generator().manual_seed(0))
    assert path.shape == (steps + 1, n, 2)
    for t in (0.5, 0.2, 0.0):
        points, law = path[round((1 - t) * steps)], _law(t)
        torch.testing.assert_close(points.mean(0), law.mean, rtol=0, atol=0.035)
        torch.testing.assert_close(points.std(0), law.stddev, rtol=0.03, atol=0.0)


def test_7_22_each_step_has_the_drift_and_the_noise_of_anderson():
    """Un seul pas, moyenne et variance empiriques contre le schéma d'Euler de l'EDS inverse."""
    h, x = 0.5, torch.tensor([[0.7, -1.0]]).expand(200_000, -1)
    end = diffusion.reverse_paths(_gaussian_score, x, 2, 1.0, torch.Generator().manual_seed(0))[1]
    drift = -10 * x[0] - 20 * _gaussian_score(x[0], 1.0)                     # β(1) = 20
    torch.testing.assert_close(end.mean(0), x[0] - h * drift, rtol=0, atol=0.05)
    torch.testing.assert_close(end.var(0), torch.full((2,), 20 * h), rtol=0.02, atol=0)


def test_7_23_velocity_transports_the_density():
    """∂p/∂t + ∂(p v)/∂x = 0, par différences finies, première coordonnée."""
    x, h = torch.linspace(-2, 3, 11), 1e-4

    def density(points, t):
        return D.Normal(_law(t).mean[0], _law(t).stddev[0]).log_prob(points).exp()

    def flux(points, t):
        pair = torch.stack([points, torch.zeros_like(points)], 1)
        return density(points, t) * diffusion.flow_velocity(_gaussian_score, pair, t)[:, 0]

    for t in (0.1, 0.4):
        change = (density(x, t + h) - density(x, t - h)) / (2 * h)
        leaving = (flux(x + h, t) - flux(x - h, t)) / (2 * h)
        assert change.abs().max() > 0.01
        torch.testing.assert_close(change, -leaving, rtol=1e-4, atol=1e-6)


def test_7_24_log_density_along_the_ode():
    """Un mélange centré, dont le score vient d'autograd, contre les lois de torch."""
    def mixture(t):
        area = 0.1 * t + 9.95 * t**2
        centers = math.exp(-area / 2) * torch.tensor([[0.4, 0.2], [-1.6, -0.8]])
        spread = torch.tensor(math.exp(-area) * 0.3**2 + 1 - math.exp(-area)).sqrt()
        parts = D.Independent(D.Normal(centers, spread), 1)
        return D.MixtureSameFamily(D.Categorical(torch.tensor([0.8, 0.2])), parts)

    score = torch.func.vmap(torch.func.grad(lambda y, t: mixture(t).log_prob(y)), in_dims=(0, None))
    x = mixture(0.0).sample((50,))
    found = diffusion.ode_log_prob(score, x, start=0.004)
    torch.testing.assert_close(found, mixture(0.004).log_prob(x), rtol=0, atol=5e-3)


# --- 10. Appariement de flots --------------------------------------------------------------------------------------


def test_7_25_straight_path_is_a_straight_line():
    """Bouts exacts, vitesse constante, et l'écart-type que donne la variance d'une somme."""
    t = torch.linspace(0, 1, 11)
    a, s = diffusion.Straight()(t)
    assert (a[0], s[0], a[-1], s[-1]) == (1, 0, 0, 1)
    x0, noise = torch.randn(3), torch.randn(3)
    x = a[:, None] * x0 + s[:, None] * noise
    torch.testing.assert_close(x.diff(dim=0), ((noise - x0) / 10).expand(10, 3))


class Recorder(nn.Module):
    """Un « réseau » linéaire qui note ce qu'on lui donne."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -0.4]))

    def forward(self, x, t, y=None):
        self.x, self.t = x, t
        return self.weight[0] * x + self.weight[1] * t[:, None]


def test_7_26_flow_loss_recomputed_from_what_the_network_saw():
    """Le point vu est sur la droite, à la fraction t du trajet donnée → bruit ; la cible est bruit − donnée."""
    net, x0, noise = Recorder(), torch.randn(500, 2), torch.randn(500, 2)
    loss = diffusion.flow_loss(net, x0, noise).item()
    fraction = ((net.x - x0) / (noise - x0)).numpy()
    np.testing.assert_allclose(fraction, net.t.numpy()[:, None].repeat(2, 1), atol=1e-9)
    assert stats.kstest(net.t.numpy(), "uniform").pvalue > 1e-3
    out = (0.7 * net.x - 0.4 * net.t[:, None]).detach().numpy()
    assert loss == pytest.approx(((out - noise.numpy() + x0.numpy()) ** 2).mean())


def test_7_26_denoiser_with_straight_flow_has_the_same_expected_loss():
    """`Denoiser(…, "flow").loss` et `flow_loss` estiment la même espérance, connue en forme close."""
    net = Recorder()
    model = diffusion.Denoiser(net, diffusion.Straight(), "flow", (2,))
    x0 = 1.5 * torch.randn(400_000, 2)                     # variance v = 2,25 : E|0,7 x_t − 0,4 t − (ε − x0)|²
    v = 2.25
    expected = integrate.quad(lambda t: (0.7 * (1 - t) + 1) ** 2 * v + (0.7 * t - 1) ** 2 + (0.4 * t) ** 2, 0, 1)[0]
    assert model.loss(x0).item() == pytest.approx(expected, rel=0.01)
    assert diffusion.flow_loss(net, x0, torch.randn_like(x0)).item() == pytest.approx(expected, rel=0.01)


def _posterior_velocity(mixture, x, t):
    """E[ε − x0 | x_t = x] par quadrature sur x0, une coordonnée après l'autre, en numpy : sans score ni Tweedie."""
    grid = np.linspace(-6, 6, 401)
    u, v = np.meshgrid(grid, grid, indexing="ij")
    prior = sum(w * np.exp(-((u - c[0]) ** 2 + (v - c[1]) ** 2) / (2 * mixture.sigma**2))
                for w, c in zip(mixture.weights.tolist(), mixture.centers.tolist(), strict=True))
    weight = prior * np.exp(-((x[0] - (1 - t) * u) ** 2 + (x[1] - (1 - t) * v) ** 2) / (2 * t**2))
    mean = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
    return (x - (1 - t) * mean) / t - mean                 # E[ε | x] − E[x0 | x]


@pytest.mark.parametrize("t", [0.2, 0.6, 0.95])
def test_7_27_marginal_velocity_is_the_posterior_mean(t):
    mixture = data.GaussianMixture("", torch.tensor([[-1.0, 0.5], [1.5, -1.0], [0.0, 2.0]]), 0.4,
                                   torch.tensor([0.5, 0.3, 0.2]))
    x = torch.randn(3, 2)
    got = diffusion.marginal_velocity(mixture, x, torch.full((3,), t))
    expected = np.stack([_posterior_velocity(mixture, point, t) for point in x.numpy()])
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_7_27_marginal_velocity_transports_the_density():
    """Équation de continuité ∂p/∂t + div(p v) = 0, dérivées par différences finies, p par scipy."""
    centers, weights, sigma, h = np.array([[-1.0, 0.3], [1.2, -0.5]]), np.array([0.6, 0.4]), 0.5, 1e-4
    mixture = data.GaussianMixture("", torch.tensor(centers), sigma, torch.tensor(weights))

    def density(x, t):
        var = ((1 - t) * sigma) ** 2 + t**2
        return sum(w * stats.multivariate_normal((1 - t) * c, var * np.eye(2)).pdf(x)
                   for w, c in zip(weights, centers, strict=True))

    def flux(x, t, axis):
        v = diffusion.marginal_velocity(mixture, torch.tensor(x)[None], torch.tensor([t]))[0, axis].item()
        return density(x, t) * v

    for x, t in ((np.array([0.3, -0.2]), 0.3), (np.array([-0.8, 0.9]), 0.7)):
        change = (density(x, t + h) - density(x, t - h)) / (2 * h)
        div = sum((flux(x + h * e, t, i) - flux(x - h * e, t, i)) / (2 * h) for i, e in enumerate(np.eye(2)))
        assert change + div == pytest.approx(0, abs=1e-6) and abs(change) > 1e-3


def test_7_28_euler_follows_the_ode():
    """dx/dt = −x + t : solution de scipy, de 1 à 0 ; l'erreur d'Euler suit l'ordre un ; tout le trajet est rendu."""
    x = torch.randn(5, 3)
    exact = np.stack([integrate.solve_ivp(lambda t, u: -u + t, (1, 0), row, rtol=1e-10, atol=1e-12).y[:, -1]
                      for row in x.numpy()])
    gaps = []
    for n in (50, 100):
        path = diffusion.euler(lambda x, t: -x + t[:, None], x, n)
        assert path.shape == (n + 1, 5, 3) and torch.equal(path[0], x)
        gaps.append(np.abs(path[-1].numpy() - exact).max())
    assert gaps[1] < 0.05 and 1.8 < gaps[0] / gaps[1] < 2.2


def test_7_28_ddim_on_the_straight_path_is_euler():
    """Un pas de `move` contre x + (s − t) v, écrit ici ; puis toute la trajectoire contre `euler`."""
    x, v, t, s = torch.randn(6, 2), torch.randn(6, 2), 0.7, 0.45
    got = diffusion.move(x, x - t * v, *[tuple(torch.tensor(u) for u in pair) for pair in ((1 - t, t), (1 - s, s))])
    torch.testing.assert_close(got, x + (s - t) * v)
    net = Recorder()
    model = diffusion.Denoiser(net, diffusion.Straight(), "flow", (2,))
    path = torch.stack([point for _, point, _ in diffusion.trajectory(model, x, 9)])
    torch.testing.assert_close(path, diffusion.euler(net, x, 9))


def test_7_28_exact_velocity_brings_noise_to_the_data():
    """Une gaussienne N(m, s²) : la carte exacte de l'EDO est affine, ε → m + s ε."""
    one = data.GaussianMixture("", torch.tensor([[2.0, -1.0]]), 0.3)
    noise = torch.randn(20, 2)
    end = diffusion.euler(lambda x, t: diffusion.marginal_velocity(one, x, t), noise, 1000)[-1]
    torch.testing.assert_close(end, torch.tensor([2.0, -1.0]) + 0.3 * noise, atol=1e-2, rtol=0)


def test_7_29_reflow_pairs_are_closer_and_straight():
    """Les couples de reflow coûtent moins que les couples au hasard, et gardent la loi d'arrivée (une gaussienne) ;
    leur vitesse optimale, affine, annule (7.26) : les droites ne se croisent plus."""
    one = data.GaussianMixture("", torch.tensor([[2.0, -1.0]]), 0.3)
    noise = torch.randn(4000, 2)
    x0 = diffusion.euler(lambda x, t: diffusion.marginal_velocity(one, x, t), noise, 200)[-1]
    chords = (noise - x0).square().mean().item()           # au hasard : (4 + 1) / 2 + 1 + s² par coordonnée
    assert chords == pytest.approx(2.5 + (1 - 0.3) ** 2, rel=0.03) and chords < 2.5 + 1 + 0.3**2

    class Affine(nn.Module):
        def forward(self, x, t):                           # x_t = (1−t)(m + s ε) + t ε : on en tire ε
            m, s, t = torch.tensor([2.0, -1.0]), 0.3, t[:, None]
            eps = (x - (1 - t) * m) / ((1 - t) * s + t)
            return eps - (m + s * eps)

    assert diffusion.flow_loss(Affine(), x0, noise).item() < 1e-3
    assert diffusion.flow_loss(Affine(), x0, noise[torch.randperm(4000)]).item() > 0.1


# --- 11. Guidage ---------------------------------------------------------------------------------------------------


class TwoOpinions(nn.Module):
    """Prédit x0 + bruit à partir des scores exacts de deux gaussiennes : celle de la classe, et leur mélange."""

    def __init__(self, path, target, pair, right):
        super().__init__()
        self.path, self.target, self.pair, self.right = path, target, pair, right

    def forward(self, x, t, y=None):
        a, s = self.path(t)
        law = {0: self.right, 1: self.pair}[y[0].item()]
        score = _score(law, x, a, s)
        eps = -s[:, None] * score
        x0 = (x - s[:, None] * eps) / a[:, None]
        c, d = diffusion.TARGETS[self.target](a[:, None], s[:, None])
        return c * x0 + d * eps


def _score(law, x, a, s):
    """Score du mélange diffusé par autograd de sa log-densité, écrite avec torch.distributions."""
    x = x.clone().requires_grad_()
    var = a**2 * law.sigma**2 + s**2
    normal = torch.distributions.Normal(a[:, None, None] * law.centers, var.sqrt()[:, None, None])
    log_p = (normal.log_prob(x[:, None]).sum(-1) + law.weights.to(x).log()).logsumexp(1)
    return torch.autograd.grad(log_p.sum(), x)[0]


@pytest.mark.parametrize("path, target", [("straight", "flow"), ("cosine", "eps"), ("linear", "v"), ("cosine", "x0")])
def test_7_30_guided_prediction_is_the_score_of_the_sharpened_law(path, target):
    """Quelle que soit la cible : −ε̃ / σ est le gradient de (1 + w) ln p_t(x | y) − w ln p_t(x)."""
    pair = data.GaussianMixture("", torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.6)
    right = data.GaussianMixture("", pair.centers[1:], 0.6)
    path = diffusion.PATHS[path]().double()
    model = diffusion.Denoiser(TwoOpinions(path, target, pair, right), path, target, (2,), classes=1)
    x, t, y, w = torch.randn(6, 2), torch.full((6,), 0.4), torch.zeros(6, dtype=torch.int64), 2.5
    a, s = path(t)
    expected = (1 + w) * _score(right, x, a, s) - w * _score(pair, x, a, s)
    x0, eps = model.predict(x, t, y, guidance=w)
    torch.testing.assert_close(-eps / s[:, None], expected)
    torch.testing.assert_close(a[:, None] * x0 + s[:, None] * eps, x)


def test_7_30_labels_are_erased_one_time_in_ten():
    seen = []

    class Spy(nn.Module):
        def forward(self, x, t, y=None):
            seen.append(y)
            return 0 * x

    diffusion.Denoiser(Spy(), diffusion.Straight(), "flow", (2,), classes=3).loss(
        torch.zeros(50_000, 2), torch.ones(50_000, dtype=torch.int64))
    counts = torch.bincount(seen[0], minlength=4) / 50_000
    assert counts.tolist() == pytest.approx([0, 0.9, 0, 0.1], abs=0.01)


# --- 12. Restauration, super-résolution, retouche ------------------------------------------------------------------


class _Gaussian:
    """Débruiteur exact de N(mean, cov) : E[x0 | x_t] par conditionnement gaussien. Tient lieu de réseau entraîné."""

    def __init__(self, mean, cov, path="straight"):
        self.mean, self.cov = torch.as_tensor(mean), torch.as_tensor(cov)
        self.path = diffusion.PATHS[path]()

    def predict(self, x, t, y=None):
        a, s = (v[0] for v in self.path(t))
        marginal = a**2 * self.cov + s**2 * torch.eye(len(self.mean))
        x0 = self.mean + (x - a * self.mean) @ (a * torch.linalg.inv(marginal) @ self.cov)
        return x0, (x - a * x0) / s


@pytest.mark.parametrize("path", ["straight", "linear", "cosine"])
def test_7_31_going_back_gives_the_marginal_of_the_noisier_time(path):
    """Coefficients de x0 et variance du bruit après le retour, pour plusieurs couples de temps, t = 1 compris."""
    scheme = diffusion.PATHS[path]()
    for low, high in ((0.0, 0.1), (0.3, 0.34), (0.5, 0.9), (0.9, 1.0)):
        at, to = ([v.double() for v in scheme(torch.tensor([t]))] for t in (low, high))
        zero, one = torch.zeros(1), torch.ones(1)
        signal = diffusion.renoise(at[0] * one, at, to, zero)           # la part de x0 = 1
        old = diffusion.renoise(at[1] * one, at, to, zero)              # celle de ε = 1
        new = diffusion.renoise(zero, at, to, one)                      # celle du bruit frais
        assert signal.item() == pytest.approx(to[0].item(), abs=1e-9)
        assert (old**2 + new**2).item() == pytest.approx(to[1].item() ** 2, abs=1e-9)
    assert diffusion.renoise(torch.tensor([7.0]), (0.2 * one, 0.8 * one), (zero, one), one).item() == pytest.approx(1.0)


def test_7_31_going_back_one_step_is_the_kernel_of_the_chain():
    betas = diffusion.linear_betas()
    path = diffusion.VariancePreserving(betas.double())
    x, z = torch.randn(5, 3), torch.randn(5, 3)
    for i in (1, 400, 1000):                                            # du pas i − 1 au pas i
        at, to = ([diffusion.like(v, x) for v in path(torch.full((5,), k / 1000))] for k in (i - 1, i))
        expected = (1 - betas[i - 1].double()).sqrt() * x + betas[i - 1].double().sqrt() * z
        torch.testing.assert_close(diffusion.renoise(x, at, to, z), expected, atol=1e-7, rtol=1e-7)


def test_7_31_known_pixels_come_back_untouched():
    model = _Gaussian(np.zeros(3), np.eye(3))
    known, mask = torch.randn(4, 3), torch.tensor([[1.0, 0.0, 1.0]])
    for repeats in (1, 3):
        x = diffusion.inpaint(model, known, mask, 4, repeats, bound=10.0)
        torch.testing.assert_close(x[:, [0, 2]], known[:, [0, 2]])
        assert not torch.isclose(x[:, 1], known[:, 1]).any()


def test_7_31_resampling_approaches_the_exact_conditional_law():
    """Gaussienne corrélée, x₁ connu : la loi de x₂ n'approche N(ρ x₁, 1 − ρ²) qu'avec des retours."""
    rho, seen = 0.9, 1.5
    model = _Gaussian([0.0, 0.0], [[1.0, rho], [rho, 1.0]])
    known, mask = torch.tensor([[seen, 0.0]]).expand(4000, 2), torch.tensor([[1.0, 0.0]])
    exact = stats.norm(rho * seen, math.sqrt(1 - rho**2))
    gaps = []
    for repeats in (1, 20):
        torch.manual_seed(0)
        x = diffusion.inpaint(model, known, mask, 30, repeats, bound=50.0)[:, 1]
        gaps.append((abs(x.mean().item() - exact.mean()), abs(x.std().item() - exact.std()),
                     stats.kstest(x.numpy(), exact.cdf).statistic))
    assert gaps[0][2] > 0.1                                             # le défaut existe
    assert gaps[1][2] < 0.09 and gaps[1][0] < 0.05


def test_7_32_psnr_agrees_with_numpy_and_known_values():
    x, y = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    error = np.mean((x.numpy() - y.numpy()) ** 2)
    assert diffusion.psnr(x, y) == pytest.approx(20 * math.log10(1 / math.sqrt(error)))
    assert diffusion.psnr(x.clamp(max=0.9) + 0.1, x.clamp(max=0.9)) == pytest.approx(20.0)


def test_7_32_one_posterior_draw_costs_three_decibels():
    """Loi a posteriori exacte : l'erreur d'un tirage est le double de celle de la moyenne, de K tirages 1 + 1/K."""
    truth, draws = 0.5 + 0.05 * torch.randn(200_000), 0.5 + 0.05 * torch.randn(4, 200_000)
    best = diffusion.psnr(torch.full_like(truth, 0.5), truth)
    assert best - diffusion.psnr(draws[0], truth) == pytest.approx(10 * math.log10(2), abs=0.03)
    assert best - diffusion.psnr(draws.mean(0), truth) == pytest.approx(10 * math.log10(1.25), abs=0.03)


def test_7_32_guide_is_the_block_mean():
    x = torch.rand(2, 1, 28, 28)
    low = x.numpy().reshape(2, 1, 7, 4, 7, 4).mean((3, 5))
    constant = torch.full((1, 1, 28, 28), 0.3)
    torch.testing.assert_close(diffusion.blur_guide(constant), constant)
    # Le milieu de quatre carrés voisins : bicubique à poids (−3, 19, 19, −3)/32 (a = −0,75, décalage de ½ pixel sur 4).
    guide = diffusion.blur_guide(x)
    assert guide.shape == x.shape and 0 <= guide.min() and guide.max() <= 1
    shift = 0.125                                                       # centre du pixel 13 : (13 + ½)/4 − ½ = 2,875

    def weight(d, a=-0.75):
        d = abs(d)
        return (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

    taps = np.array([weight(k - 2.875) for k in (1, 2, 3, 4)])
    expected = np.einsum("i,j,nij->n", taps, taps, low[:, 0, 1:5, 1:5]).clip(0, 1)
    assert taps.sum() == pytest.approx(1) and shift == 3 - 2.875
    np.testing.assert_allclose(guide[:, 0, 13, 13].numpy(), expected, atol=1e-12)


def test_7_32_upscaler_loss_and_one_step_mean():
    """Un réseau qui connaît x0 (images unies : le guide est l'image) a une perte nulle, et rend l'image en un pas."""
    class Oracle(nn.Module):
        def forward(self, x, t, guide):
            return (x - guide) / diffusion.like(t, x)                   # (x_t − x0)/t = ε − x0

    model = diffusion.Upscaler()
    model.net = Oracle()
    flat = torch.rand(6, 1, 1, 1).expand(6, 1, 28, 28)
    assert model.loss(flat).item() < 1e-20
    for n_steps in (1, 5):
        torch.testing.assert_close(model.upscale(flat, n_steps), flat)
    model.net = type("Null", (nn.Module,), {"forward": lambda self, x, t, guide: 0 * x})()
    white = torch.ones(400, 1, 28, 28)
    assert model.loss(white).item() == pytest.approx(2.0, rel=0.02)     # E‖ε − 1‖² = 2 par pixel


@pytest.mark.parametrize("path", ["straight", "cosine"])
def test_7_33_retouch_follows_the_exact_transport_of_a_gaussian(path):
    """N(m, v) : le flot déterministe multiplie l'écart x_t − α m par √(v/(α² v + σ²))."""
    m, v, g = 0.4, 0.25, -1.0
    model = _Gaussian([m], [[v]], path)
    sketch, start = torch.full((3000, 1), g), 0.6
    draws = torch.Generator().manual_seed(3)
    got = diffusion.retouch(model, sketch, start, 300, bound=50.0, generator=draws)
    noise = torch.randn(3000, 1, generator=torch.Generator().manual_seed(3))
    a, s = (x.item() for x in model.path(torch.tensor([start])))
    expected = m + (a * g + s * noise - a * m) * math.sqrt(v / (a**2 * v + s**2))
    torch.testing.assert_close(got, expected, atol=0.02, rtol=0)


def test_7_33_start_interpolates_between_the_sketch_and_a_plain_sample():
    model, sketch = _Gaussian([0.4], [[0.25]]), torch.full((50, 1), -1.0)
    torch.testing.assert_close(diffusion.retouch(model, sketch, 1e-4), sketch, atol=1e-2, rtol=0)
    noise = torch.randn(50, 1, generator=torch.Generator().manual_seed(1))
    *_, (_, _, plain) = diffusion.trajectory(model_with_guidance(model), noise, 15)
    got = diffusion.retouch(model, sketch, 1.0, 15, bound=50.0, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(got, plain)


def model_with_guidance(model):
    """`trajectory` passe un guidage à `predict` ; l'oracle gaussien n'en a pas."""
    wrapped = _Gaussian(model.mean, model.cov)
    wrapped.path, wrapped.predict = model.path, lambda x, t, y, guidance: model.predict(x, t, y)
    return wrapped


# --- 13. Diffusion latente -----------------------------------------------------------------------------------------


def _latent(classes=10):
    torch.manual_seed(0)
    return diffusion.LatentDenoiser(latent_dim=4, widths=(8, 8), hidden=16, width=16, depth=2, classes=classes)


def test_7_34_codes_are_normalized_and_diffused():
    """Codes tirés : moyenne 0, variance 1 par coordonnée ; et la perte vaut celle de (7.26) sur ces codes."""
    model, x = _latent(), torch.rand(3000, 1, 28, 28)
    with torch.no_grad():                                  # des moyennes et des dispersions bien différentes
        last = model.autoencoder.encoder[-1][-1]
        last.weight.mul_(torch.tensor([30.0, 9.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0])[:, None])
        last.bias.copy_(torch.tensor([3.0, -2.0, 0.0, 1.0, -1.0, 0.0, 1.0, -4.0]))
    mean, logvar = model.normalize(x)
    seen = []
    model.net.forward = lambda c, t, y=None: seen.append((c, t, y)) or 0 * c
    torch.manual_seed(1)
    loss = model.loss(mean, logvar, torch.ones(3000, dtype=torch.int64))
    code, t, y = seen[0]
    torch.manual_seed(1)                                   # les mêmes tirages, dans le même ordre
    z = mean + (logvar / 2).exp() * torch.randn_like(mean)
    c = (z - z.mean(0)) / z.std(0)
    assert c.mean(0).abs().max() < 1e-9
    t_again = torch.randint(1, 1001, (3000,)) / 1000
    noise = torch.randn_like(c)
    torch.testing.assert_close(t, t_again)
    assert (code - (1 - t[:, None]) * c - t[:, None] * noise).std(0).max() < 0.03
    assert loss.item() == pytest.approx((noise - c).square().mean().item(), rel=0.02)
    assert set(y.tolist()) == {1, 10}


def test_7_34_sample_undoes_the_normalization():
    """Un réseau qui ramène tout au même code c : l'image est décodeur(m + s c)."""
    model, c = _latent(), torch.tensor([0.3, -1.0, 2.0, 0.5])
    model.center.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    model.scale.copy_(torch.tensor([0.5, 2.0, 1.0, 3.0]))
    model.net.forward = lambda x, t, y=None: (x - c) / t[:, None]
    images = model.sample(3, torch.Generator().manual_seed(0), n_steps=7)
    z = torch.tensor([1.0 + 0.5 * 0.3, 2.0 - 2.0, 3.0 + 2.0, 4.0 + 1.5])
    with torch.no_grad():
        expected = torch.sigmoid(model.autoencoder.decoder(z.expand(3, 4)))
    torch.testing.assert_close(images, expected)


def test_7_34_samples_follow_labels_generator_and_guidance():
    model = _latent()
    with torch.no_grad():
        for block in model.net.blocks:                     # à l'identité au départ : l'étiquette n'y ferait rien
            block.last.weight.normal_()
    generate = lambda **o: model.sample(4, torch.Generator().manual_seed(3), n_steps=3, **o)  # noqa: E731
    zero, one = (torch.full((4,), k) for k in (0, 1))
    assert torch.equal(generate(y=zero), generate(y=zero)) and generate(y=zero).shape == (4, 1, 28, 28)
    assert not torch.equal(generate(y=zero), generate(y=one))
    assert not torch.equal(generate(y=zero), generate(y=zero, guidance=2.0))
    assert 0 <= generate().min() and generate().max() <= 1
    assert _latent(classes=0).sample(2, n_steps=2).shape == (2, 1, 28, 28)


def test_grey_step_is_the_weighted_negative_elbo():
    """Contre les divergences et vraisemblances de torch.distributions, mêmes tirages."""
    model, x = _latent().autoencoder, torch.rand(6, 1, 28, 28)
    torch.manual_seed(2)
    got = diffusion.grey_step(model, beta=0.1)(x, None)
    torch.manual_seed(2)
    mean, logvar = model.encode(x)
    law = torch.distributions.Normal(mean, (logvar / 2).exp())
    logits = model.decode(mean + law.scale * torch.randn_like(mean))
    kl = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0)).sum(1)
    nll = (torch.nn.functional.softplus(logits) - x * logits).flatten(1).sum(1)
    assert got.item() == pytest.approx((0.1 * kl + nll).mean().item())
    assert math.isfinite(got.item())
