"""Les équations du chapitre 4, chacune contre un oracle indépendant."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, optimize, special, stats
from torch import distributions as D
from torch import nn

from utils import training
from utils.chapters import load_chapter
from utils.data import Batches

gan = load_chapter("04_gan")
pytestmark = pytest.mark.usefixtures("double")


# --- 1 et 2. Modèle implicite, jeu, discriminateur optimal -------------------------------------------


def _laws():
    """Deux lois de scipy qui se chevauchent, et leurs densités sur une grille fine."""
    real, fake = stats.norm(-0.5, 0.8), stats.norm(1.0, 1.5)
    x = torch.linspace(-14, 15, 5801)
    return real, fake, x, torch.tensor(real.pdf(x)), torch.tensor(fake.pdf(x))


def _quad(f):
    return integrate.quad(f, -14, 15, limit=500, points=[-0.5, 1.0])[0]


def test_4_1_folds_spread_the_law_over_every_preimage():
    """P(G(z) < x) par tirages, contre la mesure exacte de {z : G(z) < x} sous N(0, 1), pli par pli."""
    draws = gan.folded_generator(torch.randn(400_000))
    z = np.linspace(-9, 9, 400_001)
    for x in (-2.0, 0.9, 2.2):
        below = z + 1.5 * np.sin(2 * z) < x
        exact = stats.norm.cdf(z[1:])[below[1:]].sum() - stats.norm.cdf(z[:-1])[below[1:]].sum()
        assert (draws < x).double().mean().item() == pytest.approx(exact, abs=0.005)
    assert gan.curve_generator(torch.randn(7)).shape == (7, 2)


def test_4_2_value_agrees_with_scipy():
    real, fake, x, p, q = _laws()
    expected = _quad(lambda t: real.pdf(t) * math.log(special.expit(2 * t - 1))
                     + fake.pdf(t) * math.log(1 - special.expit(2 * t - 1)))
    assert gan.game_value(2 * x - 1, p, q, x).item() == pytest.approx(expected, abs=1e-6)


def test_4_3_optimal_discriminator_maximizes_the_integrand():
    """Point par point, contre une minimisation numérique de −p ln d − q ln(1 − d)."""
    for p, q in ((0.3, 0.1), (0.02, 0.5), (1.0, 1.0)):
        best = optimize.minimize_scalar(lambda d, p=p, q=q: -p * math.log(d) - q * math.log(1 - d),
                                        bounds=(1e-9, 1 - 1e-9), method="bounded", options={"xatol": 1e-10})
        got = gan.optimal_discriminator(torch.tensor(p), torch.tensor(q))
        assert got.item() == pytest.approx(best.x, abs=1e-6)


def test_4_4_value_at_the_optimum():
    """V(D*, G) = 2 JS − ln 4, V et JS par deux chemins ; tout autre logit fait moins bien."""
    real, fake, x, p, q = _laws()
    best = torch.tensor(real.logpdf(x) - fake.logpdf(x))
    torch.testing.assert_close(torch.sigmoid(best), gan.optimal_discriminator(p, q))
    value = gan.game_value(best, p, q, x)
    assert value.item() == pytest.approx(2 * gan.js_divergence(p, q, x).item() - math.log(4), abs=1e-9)
    assert all(gan.game_value(best + change, p, q, x) < value for change in (-0.1, 0.1, 0.1 * x.sin()))


def test_4_5_jensen_shannon_agrees_with_scipy():
    real, fake, x, p, q = _laws()

    def half(a, b):
        return _quad(lambda t: a.pdf(t) * math.log(2 * a.pdf(t) / (a.pdf(t) + b.pdf(t))) if a.pdf(t) else 0.0) / 2

    assert gan.js_divergence(p, q, x).item() == pytest.approx(half(real, fake) + half(fake, real), abs=1e-6)


def test_4_5_jensen_shannon_bounds_and_batches():
    """Nulle si p = q, ln 2 si les supports sont disjoints (0 ln 0 = 0), et une valeur par ligne."""
    x = torch.linspace(0, 4, 4001)
    p, q = (x < 1).double(), ((x > 2) & (x < 3)).double()
    p, q = p / torch.trapezoid(p, x), q / torch.trapezoid(q, x)
    got = gan.js_divergence(p, torch.stack([p, q]), x)
    torch.testing.assert_close(got, torch.tensor([0.0, math.log(2)]))


def test_4_6_gradients_agree_with_autograd_of_the_losses():
    x = torch.linspace(-3, 3, 13).requires_grad_()
    saturating, other = gan.sample_gradients(x.sin() - 0.3 * x**2, x)
    for got, f in ((saturating, lambda d: torch.log(1 - d)), (other, lambda d: -torch.log(d))):
        expected, = torch.autograd.grad(f(torch.sigmoid(x.sin() - 0.3 * x**2)).sum(), x)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("shift", [0.5, 2.0, 4.0])
def test_mean_gradients_against_the_optimal_discriminator(shift):
    """Annoncés dans le texte : à D* figé, ∇ 2 JS pour la perte saturante, ∇ (KL(q‖p) − 2 JS) pour l'autre."""
    x = torch.linspace(-12, 16, 20_001)

    def density(mean):
        return torch.exp(-(x - mean) ** 2 / 2) / math.sqrt(2 * math.pi)

    points = x.clone().requires_grad_()
    means = [torch.trapezoid(density(shift) * gradient, x).item() for gradient in
             gan.sample_gradients(shift**2 / 2 - shift * points, points)]     # x = shift + z : ∂x/∂shift = 1
    up, down = (gan.js_divergence(density(0), density(shift + h), x).item() for h in (1e-4, -1e-4))
    slope = (up - down) / 2e-4
    assert means == pytest.approx([2 * slope, shift - 2 * slope], abs=1e-6)   # KL(q‖p) = shift² / 2


# --- 3. Pertes --------------------------------------------------------------------------------------


def test_4_7_to_4_9_losses_agree_with_torch():
    bce = torch.nn.BCEWithLogitsLoss()
    real, fake = 5 * torch.randn(40), 5 * torch.randn(30)
    expected = bce(real, torch.ones(40)) + bce(fake, torch.zeros(30))
    torch.testing.assert_close(gan.discriminator_loss(real, fake), expected)
    torch.testing.assert_close(gan.saturating_loss(fake), -bce(fake, torch.zeros(30)))
    torch.testing.assert_close(gan.generator_loss(fake), bce(fake, torch.ones(30)))


def test_4_8_and_4_9_slopes_are_minus_d_and_d_minus_one():
    logits = torch.linspace(-6, 6, 25).requires_grad_()
    d = special.expit(logits.detach().numpy())
    for loss, expected in ((gan.saturating_loss, -d), (gan.generator_loss, d - 1)):
        slope, = torch.autograd.grad(25 * loss(logits), logits)
        np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_losses_stay_finite_in_float32(value):
    logit = torch.full((1,), value, dtype=torch.float32, requires_grad=True)
    for loss in (gan.saturating_loss(logit), gan.generator_loss(logit), gan.discriminator_loss(logit, logit)):
        slope, = torch.autograd.grad(loss, logit)
        assert loss.isfinite() and slope.isfinite()


def test_shifted_game_starves_with_the_saturating_loss_only():
    """μ(t) contre la récurrence de la descente, gradient moyen de D* (ou 1 − D*) fois ∓μ, en numpy."""
    noise = torch.randn(40, 256)
    for loss, weight in ((gan.saturating_loss, lambda d: d), (gan.generator_loss, lambda d: 1 - d)):
        got = gan.shifted_game(loss, lambda weights: torch.optim.SGD(weights, lr=0.05), noise)
        mu, expected = 6.0, []
        for z in noise.numpy():
            expected.append(mu)
            d = stats.norm.pdf(mu + z) / (stats.norm.pdf(mu + z) + stats.norm.pdf(z))
            mu -= 0.05 * mu * weight(d).mean()
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        assert (got[-1] > 5.9) == (loss is gan.saturating_loss)


# --- 4. Dynamique -----------------------------------------------------------------------------------


def _linear_map(lr_x, lr_y, **options):
    """Matrice d'un pas de la partie, lue sur les deux vecteurs de base."""
    return np.array([gan.bilinear_play(1, lr_x, lr_y, start=start, **options)[1] for start in ((1, 0), (0, 1))]).T


def test_4_10_radius_grows_by_the_same_factor_at_every_step():
    path = np.array(gan.bilinear_play(50, 0.3, 0.3, start=(0.6, -0.7)))
    assert path.shape == (51, 2)
    radius = np.hypot(*path.T)
    np.testing.assert_allclose(radius[1:] / radius[:-1], math.sqrt(1.09), rtol=1e-12)


def test_4_10_step_follows_autograd():
    """Un pas simultané descend ∂f/∂x et monte ∂f/∂y, f = xy − damping y²/2, dérivées par autograd."""
    x, y = torch.tensor(0.7, requires_grad=True), torch.tensor(-1.2, requires_grad=True)
    slope_x, slope_y = torch.autograd.grad(x * y - 0.4 * y**2 / 2, (x, y))
    expected = ((x - 0.1 * slope_x).item(), (y + 0.3 * slope_y).item())
    got = gan.bilinear_play(1, 0.1, 0.3, damping=0.4, start=(0.7, -1.2))
    assert got[0] == (0.7, -1.2) and got[1] == pytest.approx(expected)


@pytest.mark.parametrize("lr", [0.1, 1.0, 1.9, 2.3])
def test_4_11_alternating_preserves_area_and_ellipse(lr):
    step = _linear_map(lr, lr, alternate=True)
    np.testing.assert_allclose(step, [[1, -lr], [lr, 1 - lr**2]], atol=1e-12)
    assert np.linalg.det(step) == pytest.approx(1)
    path = np.array(gan.bilinear_play(300 if lr < 2 else 20, lr, lr, alternate=True, start=(0.6, -0.7)))
    x, y = path.T
    if lr < 2:
        np.testing.assert_allclose(x**2 - lr * x * y + y**2, 0.85 + 0.42 * lr, rtol=1e-9)
        assert np.hypot(x, y).max() < 10
    else:
        assert np.hypot(x, y)[-1] > 1e6


@pytest.mark.parametrize("lr_x, lr_y", [(0.3, 0.3), (0.3, 0.05), (0.05, 0.3), (0.05, 0.05)])
def test_4_12_modulus_is_that_of_the_eigenvalues(lr_x, lr_y):
    """Simultané : √(1 − b(ε − a)), moins de 1 si a < ε. Alterné, annoncé dans le texte : √(1 − bε)."""
    values = np.linalg.eigvals(_linear_map(lr_x, lr_y, damping=0.2))
    assert abs(values[0].imag) > 0
    np.testing.assert_allclose(np.abs(values), gan.damped_modulus(lr_x, lr_y, 0.2), rtol=1e-12)
    assert (gan.damped_modulus(lr_x, lr_y, 0.2) < 1) == (lr_x < 0.2)
    alternate = np.linalg.eigvals(_linear_map(lr_x, lr_y, damping=0.2, alternate=True))
    np.testing.assert_allclose(np.abs(alternate), math.sqrt(1 - 0.2 * lr_y), rtol=1e-12)


# --- 5. Le GAN dense, la mise à jour alternée -------------------------------------------------------


def _small():
    return gan.GAN(gan.MLPGenerator(4, 8), gan.MLPDiscriminator(8), latent_dim=4)


def _turn(model, step, x):
    """Un pas de descente sur tous les poids ; rend les réseaux qui ont un gradient, et ceux qui ont bougé."""
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    step(x).backward()
    optimizer.step()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    return touched, moved


@pytest.mark.parametrize("n_critic", [1, 3])
@pytest.mark.parametrize("penalized", [False, True])
def test_4_13_only_the_player_whose_turn_it_is_moves(n_critic, penalized):
    model = _small()
    step = gan.gan_step(model, gan.discriminator_loss, gan.generator_loss, n_critic,
                        penalty=gan.r1_penalty if penalized else None)
    x, expected = torch.rand(6, 1, 28, 28), [{"discriminator"}] * n_critic + [{"generator"}]
    for player in 2 * expected:
        assert _turn(model, step, x) == (player, player)


def test_4_13_resumes_at_the_right_turn():
    """Le tour en cours fait partie de l'état : un modèle rechargé reprend à son tour."""
    model, x = _small(), torch.rand(6, 1, 28, 28)
    _turn(model, gan.gan_step(model, gan.discriminator_loss, gan.generator_loss), x)
    resumed = _small()
    resumed.load_state_dict(model.state_dict())
    assert _turn(resumed, gan.gan_step(resumed, gan.discriminator_loss, gan.generator_loss), x)[1] == {"generator"}


def test_4_13_against_the_loop_written_by_hand():
    """Deux tours de `gan_step` = les deux lignes de (4.13), écrites avec autograd.grad, mêmes tirages."""
    model, x, lr = _small(), torch.rand(6, 1, 28, 28), 0.1
    hand = copy.deepcopy(model)
    step = gan.gan_step(model, gan.discriminator_loss, gan.generator_loss)
    torch.manual_seed(1)
    _turn(model, step, x)
    _turn(model, step, x)
    torch.manual_seed(1)
    for player, loss in ((hand.discriminator, lambda fake: nn.functional.softplus(-hand.discriminator(2 * x - 1)).mean()
                          + nn.functional.softplus(hand.discriminator(fake)).mean()),
                         (hand.generator, lambda fake: nn.functional.softplus(-hand.discriminator(fake)).mean())):
        weights = list(player.parameters())
        gradients = torch.autograd.grad(loss(hand.generator(torch.randn(6, 4))), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= lr * gradient
    for got, expected in zip(model.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(got, expected)


def test_the_penalty_is_added_at_the_discriminator_turn_only():
    model, x, seen = _small(), torch.rand(6, 1, 28, 28), []

    def penalty(discriminator, real, fake):
        seen.append((discriminator, real, fake))
        return torch.tensor(100.0)

    losses = []
    for option in (None, penalty):
        torch.manual_seed(1)
        step = gan.gan_step(model, gan.discriminator_loss, gan.generator_loss, penalty=option)
        losses.append([step(x).item(), step(x).item()])
    assert losses[1] == pytest.approx([losses[0][0] + 100, losses[0][1]])
    (discriminator, real, fake), = seen
    assert discriminator is model.discriminator and fake.shape == real.shape
    torch.testing.assert_close(real, 2 * x - 1)


def test_fit_history_alternates():
    """Un critique qui répond 0 : ln 4 aux tours du discriminateur, ln 2 à ceux du générateur."""
    torch.set_default_dtype(torch.float32)
    model = _small()
    for parameter in model.discriminator.parameters():
        parameter.data.zero_()
    history = training.fit(model, gan.gan_step(model, gan.discriminator_loss, gan.generator_loss),
                           Batches(torch.rand(12, 1, 28, 28), size=4), 6, lr=0.0)
    assert history["loss"][::2] == pytest.approx([math.log(4)] * 3)
    assert history["loss"][1::2] == pytest.approx([math.log(2)] * 3)


def test_sampling_contract():
    torch.set_default_dtype(torch.float32)
    model = gan.GAN(gan.MLPGenerator(), gan.MLPDiscriminator())
    images = model.sample(7, torch.Generator("cpu").manual_seed(0))
    assert images.shape == (7, 1, 28, 28) and images.dtype == torch.float32 and not images.requires_grad
    assert 0 <= images.min() and images.max() <= 1
    assert torch.equal(images, model.sample(7, torch.Generator("cpu").manual_seed(0)))
    assert not torch.equal(images, model.sample(7, torch.Generator("cpu").manual_seed(1)))
    z = model.latent(7, torch.Generator("cpu").manual_seed(0))
    torch.testing.assert_close(2 * images - 1, model.generator(z))
    assert model.sample(1001).shape == (1001, 1, 28, 28)                      # au-delà d'un paquet de 500
    assert model.discriminator(2 * images - 1).shape == (7,)


# --- 6. L'effondrement de modes ---------------------------------------------------------------------


def _circle(n=8):
    angle = 2 * math.pi * torch.arange(n) / n
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_covered_modes_by_hand():
    centers, std = _circle(), 0.05
    assert gan.covered_modes(centers.repeat(10, 1), centers, std) == (8, 1.0)
    assert gan.covered_modes(centers[2:3].repeat(10, 1), centers, std) == (1, 1.0)
    assert gan.covered_modes(torch.zeros(10, 2), centers, std) == (0, 0.0)
    # 200 points : 2 au mode 1 (1 % tout juste), 1 au mode 2 (trop peu), 97 au mode 0, 100 nulle part.
    cloud = torch.cat([centers[1:2].repeat(2, 1), centers[2:3], centers[:1].repeat(97, 1), torch.zeros(100, 2)])
    modes, good = gan.covered_modes(cloud, centers, std)
    assert modes == 2 and good == pytest.approx(0.5)


def test_covered_modes_stops_at_three_deviations():
    centers = _circle()
    for distance, expected in ((0.149, (8, 1.0)), (0.151, (0, 0.0))):
        assert gan.covered_modes(centers * (1 + distance), centers, 0.05) == expected


def test_4_14_spectral_norm_is_the_largest_singular_value():
    model = gan.ring_gan(spectral=True)
    layers = [m for m in model.discriminator.modules() if isinstance(m, nn.Linear)]
    originals = [layer.parametrizations.weight.original.detach() for layer in layers]
    assert len(layers) == 3
    for _ in range(2000):                                                     # une itération par passage
        model.discriminator(torch.zeros(1, 2))
    model.eval()
    for layer, original in zip(layers, originals, strict=True):
        sigma = torch.linalg.svd(original).S[0]
        torch.testing.assert_close(layer.weight, original / sigma, rtol=1e-4, atol=1e-8)


def test_4_14_the_slope_is_bounded_by_the_gain():
    model = gan.ring_gan(spectral=True, gain=8.0)
    for _ in range(2000):
        model.discriminator(torch.zeros(1, 2))
    model.eval()
    a, b = torch.randn(500, 2), torch.randn(500, 2)
    slopes = (model.discriminator(a) - model.discriminator(b)).abs() / (a - b).norm(dim=1)
    assert 0 < slopes.max() < 8 * (1 + 1e-4)
    doubled = copy.deepcopy(model)
    doubled.discriminator[-2].gain = 16.0
    torch.testing.assert_close(doubled.discriminator(a), 2 * model.discriminator(a))


@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 4, 4)])
def test_4_15_linear_discriminator(shape):
    """Un logit w·x + b a partout le gradient w : la pénalité vaut γ/2 |w|², de gradient γ w."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape[1:]), 1), nn.Flatten(0))
    weight = critic[1].weight
    penalty = gan.r1_penalty(critic, torch.randn(shape), torch.randn(shape), gamma=3.0)
    torch.testing.assert_close(penalty, 1.5 * weight.square().sum())
    gradient, = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 3.0 * weight)


def test_4_15_quadratic_discriminator():
    """ℓ(x) = xᵀ A x / 2, A symétrique : gradient A x, pénalité γ/2 E|A x|², qui dépend des vrais et d'eux seuls."""
    root = torch.randn(3, 3)
    matrix = (root + root.T).requires_grad_()
    real = torch.randn(50, 3)
    penalties = [gan.r1_penalty(lambda x: (x @ matrix * x).sum(1) / 2, real, fake, gamma=0.7)
                 for fake in (torch.zeros(50, 3), torch.randn(50, 3))]
    expected = 0.35 * (real @ matrix).square().sum(1).mean()
    torch.testing.assert_close(penalties[0], expected)
    assert penalties[0] == penalties[1] and not real.requires_grad


def test_4_16_minibatch_std_by_hand():
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 7.0], [2.0, 7.0]])        # écarts-types √2 et 3
    out = gan.MinibatchStd()(x)
    assert out.shape == (4, 3)
    torch.testing.assert_close(out[:, :2], x)
    torch.testing.assert_close(out[:, 2], torch.full((4,), (math.sqrt(2) + 3) / 2), rtol=1e-6, atol=0)


def test_4_16_minibatch_std_on_images_and_constant_batches():
    x = torch.randn(6, 3, 4, 5)
    out = gan.MinibatchStd()(x)
    assert out.shape == (6, 4, 4, 5)
    torch.testing.assert_close(out[:, 3], x.std(0, correction=0).mean().expand(6, 4, 5), rtol=1e-6, atol=0)
    constant = torch.ones(6, 3, requires_grad=True)
    out = gan.MinibatchStd()(constant)
    assert out[:, 3].max() < 1e-3
    out.sum().backward()
    assert constant.grad.isfinite().all()


@pytest.mark.parametrize("options", [
    {}, {"spectral": True}, {"minibatch": True}, {"rules": {"penalty": gan.r1_penalty}},
    {"losses": (gan.critic_loss, gan.critic_generator_loss),
     "rules": {"penalty": gan.gradient_penalty, "n_critic": 3}}])
def test_train_ring_is_reproducible_and_measures(options):
    torch.set_default_dtype(torch.float32)
    centers, seen = _circle() / 4 + 0.5, []
    points = centers.repeat(50, 1) + 0.01 * torch.randn(400, 2)
    first, measures = gan.train_ring(points, centers, 0.01, 40, seed=3, watch=seen.append, **options)
    again, same = gan.train_ring(points, centers, 0.01, 40, seed=3, **options)
    assert measures == same and len(measures) == len(seen) == 20 and measures[-1][0] == 40
    samples = first.sample(2000, torch.Generator("cpu").manual_seed(0))
    assert samples.shape == (2000, 2) and measures[-1][1:] == gan.covered_modes(samples, centers, 0.01)
    other, _ = gan.train_ring(points, centers, 0.01, 40, seed=4, **options)
    state = [model.generator[0].weight for model in (first, again, other)]
    assert torch.equal(state[0], state[1]) and not torch.equal(state[0], state[2])


# --- 7, 9 et 10. Convolutions transposées, perte charnière, projection --------------------------------


@pytest.mark.parametrize("n, kernel, stride, padding", [(7, 4, 2, 1), (7, 3, 2, 0), (5, 5, 3, 2)])
def test_4_18_size_of_a_transposed_convolution(n, kernel, stride, padding):
    out = F.conv_transpose2d(torch.ones(1, 1, n, n), torch.ones(1, 1, kernel, kernel), stride=stride, padding=padding)
    assert out.shape[-1] == (n - 1) * stride - 2 * padding + kernel


def test_4_25_hinge_losses_ignore_well_classified_images():
    real, fake = (torch.tensor(v, requires_grad=True) for v in ([-0.5, 0.3, 1.5], [-2.0, -0.4, 0.7]))
    loss = gan.hinge_d_loss(real, fake)
    assert loss.item() == pytest.approx((1.5 + 0.7 + 0) / 3 + (0 + 0.6 + 1.7) / 3)
    loss.backward()
    torch.testing.assert_close(real.grad, torch.tensor([-1.0, -1.0, 0.0]) / 3)
    torch.testing.assert_close(fake.grad, torch.tensor([0.0, 1.0, 1.0]) / 3)
    fake.grad = None
    gan.hinge_g_loss(fake).backward()
    torch.testing.assert_close(fake.grad, -torch.ones(3) / 3)


def test_4_27_projection_is_a_dot_product_with_the_features():
    discriminator = gan.ProjectionDiscriminator(4).eval()
    x, y = torch.randn(6, 1, 28, 28), torch.tensor([0, 3, 3, 9, 1, 0])
    phi = discriminator.features(x)
    expected = phi @ discriminator.head.weight[0] + discriminator.head.bias + torch.einsum(
        "nd,nd->n", phi, discriminator.classes.weight[y])
    torch.testing.assert_close(discriminator(x, y), expected)


def test_4_27_optimal_logit_of_gaussian_classes_is_a_projection():
    """Deux classes gaussiennes de même covariance : ln p(y|x) − ln q(y|x) est affine en x, à un terme en x près."""
    means_p, means_q, x = torch.randn(3, 2), torch.randn(3, 2), torch.randn(50, 2)

    def log_posterior(means):
        return torch.log_softmax(D.Normal(means, 1.0).log_prob(x[:, None]).sum(-1), dim=1)               # (50, 3)

    gap = log_posterior(means_p) - log_posterior(means_q)
    residual = gap - x @ (means_p - means_q).T                                  # v_y · x, avec v_y = μ_y^p − μ_y^q
    constant = residual - residual[:, :1]                                       # ne dépend plus de x
    torch.testing.assert_close(constant, constant[:1].expand_as(constant))


@pytest.mark.parametrize("make", [gan.DCGAN, gan.WGAN, gan.SmallGAN, gan.ConditionalGAN])
def test_every_gan_keeps_the_contract_of_sample(make):
    torch.set_default_dtype(torch.float32)
    model = make().eval()
    images = model.sample(3, torch.Generator("cpu").manual_seed(0))
    assert images.shape == (3, 1, 28, 28) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1
    torch.testing.assert_close(images, model.sample(3, torch.Generator("cpu").manual_seed(0)))


def test_small_discriminator_is_lipschitz_layer_by_layer():
    """Chaque couche normalisée a une norme spectrale de 1, à la précision des itérations de la puissance."""
    features = gan.small_features(8).train()
    for _ in range(200):
        features(torch.randn(2, 1, 28, 28))
    for layer in features.eval():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


def test_the_label_reaches_both_networks():
    model = gan.ConditionalGAN().eval()
    z, y = model.latent(2), torch.tensor([1, 7])
    images = model.generator(z, y)
    assert not torch.allclose(images, model.generator(z, y.flip(0)))
    assert not torch.allclose(model.discriminator(images, y), model.discriminator(images, y.flip(0)))


@pytest.mark.parametrize("latent_dim", [2, 7])
def test_dcgan_weights_follow_the_paper(latent_dim):
    generator = gan.dcgan_generator(latent_dim, width=32)
    kernel = next(m for m in generator if isinstance(m, nn.ConvTranspose2d)).weight
    assert kernel.std().item() == pytest.approx(0.02, rel=0.05)
    assert generator(torch.randn(4, latent_dim)).shape == (4, 1, 28, 28)


# --- 8. Transport optimal ---------------------------------------------------------------------------


def test_4_19_sorted_matching_agrees_with_scipy():
    for _ in range(5):
        a, b = torch.randn(50), 2 * torch.rand(50) - 3
        assert gan.wasserstein_1d(a, b).item() == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-12)


@pytest.mark.parametrize("theta", [-3.0, 0.0, 1e-3, 5.0])
def test_4_19_two_dirac_masses(theta):
    a = torch.zeros(4)
    assert gan.wasserstein_1d(a, a + theta).item() == pytest.approx(abs(theta))


def test_4_20_agrees_with_scipy_in_one_dimension():
    """Y compris quand les nuages n'ont pas la même taille : les masses se coupent."""
    for n, m in ((7, 7), (10, 6), (1, 5)):
        x, y = torch.randn(n, 1), 1 + torch.randn(m, 1)
        plan, value = gan.transport_plan(x, y)
        assert value == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-8)
        np.testing.assert_allclose(plan.sum(1), 1 / n, atol=1e-9)
        np.testing.assert_allclose(plan.sum(0), 1 / m, atol=1e-9)
        assert plan.min() >= -1e-12


def test_4_20_agrees_with_all_permutations_in_two_dimensions():
    """À nombres égaux, un plan optimal est une permutation (Birkhoff) : on les essaie toutes."""
    x, y = torch.randn(6, 2), torch.randn(6, 2) + torch.tensor([1.0, -0.5])
    cost = torch.cdist(x, y)
    best = min(cost[range(6), order].mean().item() for order in itertools.permutations(range(6)))
    plan, value = gan.transport_plan(x, y)
    assert value == pytest.approx(best, rel=1e-8)
    assert (plan * cost.numpy()).sum() == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (10, 6)])
def test_4_21_dual_equals_primal(n, m):
    x, y = torch.randn(n, 2), torch.randn(m, 2) + 1
    plan, primal = gan.transport_plan(x, y)
    f, dual = gan.kantorovich_potential(x, y)
    points = torch.cat([x, y])
    assert dual == pytest.approx(primal, rel=1e-8)
    assert f[:n].mean() - f[n:].mean() == pytest.approx(dual, rel=1e-8)
    assert (np.abs(f[:, None] - f) <= torch.cdist(points, points).numpy() + 1e-6).all()      # 1-lipschitzienne
    drops = f[:n, None] - f[n:]
    np.testing.assert_allclose(drops[plan > 1e-9], torch.cdist(x, y).numpy()[plan > 1e-9], atol=1e-6)


def test_4_21_no_lipschitz_function_does_better():
    """La moitié démontrée dans le texte : E_p f − E_q f ≤ W1 pour toute f 1-lipschitzienne."""
    x, y = torch.randn(12, 2), torch.randn(9, 2) + 0.5
    _, value = gan.transport_plan(x, y)
    for _ in range(50):
        direction, center = nn.functional.normalize(torch.randn(2), dim=0), torch.randn(2)
        for f in (lambda z, d=direction: z @ d, lambda z, d=direction: (z @ d).sin(),
                  lambda z, c=center: (z - c).norm(dim=1), lambda z, c=center: (z - c).abs().amax(1)):
            assert (f(x).mean() - f(y).mean()).abs().item() <= value + 1e-9


# --- 8. Critique et pénalité ------------------------------------------------------------------------


def test_4_22_falls_when_real_scores_rise():
    real, fake = torch.randn(6, requires_grad=True), torch.randn(4, requires_grad=True)
    loss = gan.critic_loss(real, fake)
    assert loss.item() == pytest.approx((fake.sum() / 4 - real.sum() / 6).item())
    loss.backward()
    torch.testing.assert_close(real.grad, torch.full((6,), -1 / 6))
    torch.testing.assert_close(fake.grad, torch.full((4,), 1 / 4))


def test_4_24_falls_when_fake_scores_rise():
    fake = torch.randn(5, requires_grad=True)
    loss = gan.critic_generator_loss(fake)
    assert loss.item() == pytest.approx(-fake.mean().item())
    loss.backward()
    torch.testing.assert_close(fake.grad, torch.full((5,), -1 / 5))


def test_4_22_best_linear_critic_on_a_line():
    """Deux nuages séparés : f(x) = x est optimale, et −(4.22) vaut W1."""
    a, b = torch.randn(30) + 20, torch.randn(30)
    assert -gan.critic_loss(a, b).item() == pytest.approx(gan.wasserstein_1d(a, b).item())


def test_clip_weights():
    critic = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    before = [w.detach().clone() for w in critic.parameters()]
    gan.clip_weights(critic, 0.1)
    assert any((w.abs() > 0.1).any() for w in before)
    for old, new in zip(before, critic.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), torch.minimum(torch.maximum(old, -0.1 + 0 * old), 0.1 + 0 * old))
        assert new.requires_grad and new.is_leaf


class Linear(nn.Module):
    """C(x) = w·x, de gradient w partout."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.flatten(1) @ self.weight


class Quadratic(nn.Module):
    """C(x) = s |x|²/2, de gradient s x ; retient les points qu'on lui présente."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        self.seen = x.detach()
        return self.scale * x.flatten(1).square().sum(1) / 2


@pytest.mark.parametrize("shape", [(7, 4), (5, 1, 2, 2)])
def test_4_23_of_a_linear_critic_is_exact_whatever_alpha(shape):
    critic = Linear(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    expected = (critic.weight.norm() - 1).square().item()
    for weight in (1.0, 10.0):
        value = gan.gradient_penalty(critic, torch.randn(shape), torch.randn(shape), weight=weight)
        assert value.shape == () and value.item() == pytest.approx(weight * expected)
    assert gan.gradient_penalty(critic, torch.randn(shape), torch.randn(shape)).item() == pytest.approx(10 * expected)


def test_4_23_of_a_quadratic_critic_with_imposed_alpha(monkeypatch):
    alpha = torch.tensor([0.0, 0.3, 1.0])
    monkeypatch.setattr(torch, "rand", lambda *size, **_: alpha.reshape(*size))              # refuse plus de trois α
    real, fake = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    between = torch.stack([a * r + (1 - a) * f for a, r, f in zip(alpha, real, fake, strict=True)])
    expected = 10 * (1.5 * between.flatten(1).norm(dim=1) - 1).square().mean()
    assert gan.gradient_penalty(Quadratic(1.5), real, fake).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("shape", [(400, 6), (400, 1, 3, 2)])
def test_4_23_one_alpha_per_example(shape):
    """Chaque point vu par le critique est sur le segment de son image vraie à sa fausse, à un α à lui."""
    critic, real, fake = Quadratic(), 1 + torch.rand(shape), -1 - torch.rand(shape)
    gan.gradient_penalty(critic, real, fake)
    alpha = ((critic.seen - fake) / (real - fake)).flatten(1)                                # (N, d)
    assert alpha.std(1).max() < 1e-9, "α change d'un pixel à l'autre"
    assert stats.kstest(alpha[:, 0].numpy(), "uniform").pvalue > 1e-3, "α n'est pas uniforme sur [0, 1]"


def test_4_23_norm_per_example_not_per_batch():
    """Gradient x̂ = x : les normes 0,5 et 3 coûtent (0,25 + 4)/2, quelle que soit α."""
    x = torch.tensor([[0.5, 0.0], [0.0, 3.0]])
    for images in (x, x.view(2, 1, 1, 2)):
        value = gan.gradient_penalty(Quadratic(), images, images, weight=1.0)
        assert value.item() == pytest.approx((0.25 + 4) / 2)


def test_4_23_punishes_slopes_too_small_and_too_large():
    x = torch.randn(4, 2)
    values = [gan.gradient_penalty(Linear(torch.tensor([s, 0.0])), x, x, weight=1.0).item() for s in (0.5, 1.0, 1.5)]
    assert values == pytest.approx([0.25, 0.0, 0.25])


def test_4_23_teaches_the_critic():
    """`create_graph` : d/dw de λ(|w| − 1)² vaut 2λ(|w| − 1) w/|w|."""
    critic = Linear(torch.tensor([1.0, -2.0, 0.5]))
    gan.gradient_penalty(critic, torch.randn(5, 3), torch.randn(5, 3)).backward()
    w = critic.weight.detach()
    torch.testing.assert_close(critic.weight.grad, 20 * (w.norm() - 1) * w / w.norm())


def test_4_23_leaves_the_generator_alone():
    """La pénalité forme le critique ; rien n'en revient aux images engendrées."""
    fake = torch.randn(5, 3, requires_grad=True)
    gan.gradient_penalty(Quadratic(), torch.randn(5, 3), 2 * fake).backward()
    assert fake.grad is None or not fake.grad.any()


# --- 8. Le modèle livré -----------------------------------------------------------------------------


def test_wgan_keeps_the_contract():
    model = gan.WGAN()
    assert isinstance(model, gan.GAN)
    assert sum(p.numel() for p in model.parameters()) < 650_000
    images = model.sample(3, torch.Generator().manual_seed(0))
    assert images.shape == (3, 1, 28, 28) and images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(images, model.sample(3, torch.Generator().manual_seed(0)))
    assert model.discriminator(2 * images - 1).shape == (3,)
    inside = model.generator(model.latent(3))
    assert inside.min() < 0 < inside.max(), "le générateur rend des images dans [−1, 1]"


def test_wgan_critic_scores_each_image_alone():
    """Pas de normalisation par lot : la note d'une image ne dépend pas de ses voisines."""
    critic, images = gan.WGAN().discriminator.train(), torch.rand(6, 1, 28, 28) * 2 - 1
    torch.testing.assert_close(critic(images), torch.cat([critic(image[None]) for image in images]))


def test_wgan_gp_step_is_critic_loss_plus_penalty():
    """Un pas du critique, rejoué à la main avec la même graine ; puis un pas du générateur."""
    model, x = gan.WGAN(latent_dim=4, width=8), torch.rand(5, 1, 28, 28)
    step = gan.gan_step(model, gan.critic_loss, gan.critic_generator_loss, n_critic=1, penalty=gan.gradient_penalty)
    torch.manual_seed(1)
    loss = step(x)
    torch.manual_seed(1)
    real, fake = 2 * x - 1, model.generator(model.latent(5)).detach()
    by_hand = gan.critic_loss(model.discriminator(real), model.discriminator(fake))
    by_hand = by_hand + gan.gradient_penalty(model.discriminator, real, fake)
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert any(p.grad.any() for p in model.discriminator.parameters())
    step(x).backward()
    assert any(p.grad.any() for p in model.generator.parameters())
