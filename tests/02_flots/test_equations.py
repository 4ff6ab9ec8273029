"""Les équations du chapitre 2, chacune contre un oracle indépendant."""

import itertools
import math

import numpy as np
import pytest
import torch
import zuko
from scipy import integrate, stats
from torch import distributions as D
from torch import nn

from utils.chapters import load_chapter

flots = load_chapter("02_flots")
pytestmark = pytest.mark.usefixtures("double")


def shaken(layer, std=0.3):
    """La couche, tous ses poids tirés au hasard : à leur valeur de départ, bien des couches sont l'identité."""
    layer = layer.to(torch.float64)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=std)
    for part in layer.modules():
        if isinstance(part, flots.ActNorm):
            part.ready.fill_(True)
    return layer.requires_grad_(False)


def log_det(layer, x):
    """Oracle : ln|det| du jacobien que donne autograd, un exemple à la fois ; x (N, …) → (N,)."""
    def flat(v, shape):
        return layer(v.view(1, *shape))[0].flatten()

    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda v, s=one.shape: flat(v, s), one.flatten())
                             for one in x])
    return torch.linalg.slogdet(jacobians)[1]


# --- 1 et 2. Changement de variable ------------------------------------------------------------------


def test_2_1_bend_conserves_mass():
    """La densité de x = bend(z), z uniforme, a sur chaque intervalle la masse de l'intervalle de départ."""
    a = 0.8
    for low, high in ((0.0, 1.0), (0.1, 0.3), (0.45, 0.9)):
        z = torch.linspace(low, high, 20_001)
        x, density = flots.bend(z, a), 1 / flots.bend_slope(z, a)
        assert torch.trapezoid(density, x).item() == pytest.approx(high - low, abs=1e-6)
    ends = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(flots.bend(ends, a), ends)


def test_2_2_bend_slope_is_the_derivative():
    z = torch.linspace(0, 1, 50, requires_grad=True)
    for a in (-0.9, 0.0, 0.5):
        slope, = torch.autograd.grad(flots.bend(z, a).sum(), z)
        torch.testing.assert_close(flots.bend_slope(z, a).detach(), slope)
        assert (slope > 0).all()


def test_standard_log_prob_agrees_with_torch():
    z = 2 * torch.randn(3, 2, 4)
    torch.testing.assert_close(flots.standard_log_prob(z), D.Normal(0.0, 1.0).log_prob(z).sum((1, 2)))


def gaussian_coupling(weight, shift):
    """Couplage dont z_2 = x_2 e^s + weight x_1 + shift, s constant : la loi de x est gaussienne."""
    coupling = flots.AffineCoupling(torch.tensor([1.0, 0.0]), bound=2.0)
    coupling.net = nn.Linear(2, 4)
    nn.init.zeros_(coupling.net.weight)
    with torch.no_grad():
        coupling.net.weight[3, 0] = weight
        coupling.net.bias.copy_(torch.tensor([9.0, 0.7, -9.0, shift]))        # s puis t ; ±9 : coordonnée masquée
    return coupling


@torch.no_grad()
def test_2_3_log_density_of_a_gaussian_flow():
    """x_2 = (z_2 − w x_1 − b) e^{−s} : moyenne et covariance connues, densité contre scipy."""
    flow, s = flots.Flow(2, [gaussian_coupling(1.5, -0.4)]), 2 * math.tanh(0.7 / 2)
    root = np.array([[1, 0], [-1.5 * math.exp(-s), math.exp(-s)]])
    law = stats.multivariate_normal([0, 0.4 * math.exp(-s)], root @ root.T)
    x = torch.randn(6, 2)
    np.testing.assert_allclose(flow.log_prob(x).numpy(), law.logpdf(x.numpy()), rtol=1e-10)
    draws = flow.sample(200_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(draws.mean(0).numpy(), law.mean, atol=0.01)
    np.testing.assert_allclose(torch.cov(draws.T).numpy(), law.cov, atol=0.02)


def test_2_3_jacobian_agrees_with_autograd():
    layer, x = shaken(flots.MAFLayer(3)), torch.randn(4, 3)
    expected = torch.stack([torch.autograd.functional.jacobian(lambda v: layer(v[None])[0][0], one) for one in x])
    torch.testing.assert_close(flots.jacobian(layer, x), expected)


def test_2_4_log_determinants_add_up():
    first, second = shaken(flots.MAFLayer(3)), shaken(flots.AffineCoupling(flots.alternating_mask(3, 0)))
    x = torch.randn(5, 3)
    middle, one = first(x)
    z, two = second(middle)
    chained, total = flots.Chain([first, second])(x)
    torch.testing.assert_close(chained, z)
    torch.testing.assert_close(total, one + two)


# --- Toutes les couches : jacobien et inverse ---------------------------------------------------------


VECTORS = {
    "AffineCoupling": lambda: flots.AffineCoupling(flots.alternating_mask(5, 0)),
    "AffineCoupling, masque renversé": lambda: flots.AffineCoupling(flots.alternating_mask(5, 1)),
    "MAFLayer": lambda: flots.MAFLayer(5),
    "MAFLayer, dimension 1": lambda: flots.MAFLayer(1),
    "IAFLayer": lambda: flots.IAFLayer(5),
    "Reverse": lambda: flots.Reverse(),
    "SplineCoupling": lambda: flots.SplineCoupling(flots.alternating_mask(5, 1)),
    "real_nvp": lambda: flots.real_nvp(4, depth=4),
    "maf": lambda: flots.maf(4, depth=3),
    "spline_flow": lambda: flots.spline_flow(4, depth=3),
}
IMAGES = {
    "Squeeze": (lambda: flots.Squeeze(), (3, 4, 6)),
    "ActNorm": (lambda: flots.ActNorm(3), (3, 2, 5)),
    "Conv1x1": (lambda: flots.Conv1x1(3), (3, 2, 5)),
    "ConvCoupling": (lambda: flots.ConvCoupling(4, width=6), (4, 3, 2)),
    "ConvCoupling, canaux impairs": (lambda: flots.ConvCoupling(3, width=6), (3, 3, 2)),
    "Level, dernier": (lambda: flots.Level((1, 4, 4), 2, 6), (1, 4, 4)),
    "Level, suivi d'un autre": (lambda: flots.Level((1, 4, 4), 2, 6, flots.Level((2, 2, 2), 1, 6)), (1, 4, 4)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vector_layer_log_determinant_and_inverse(name):
    layer = shaken(VECTORS[name]())
    x = 2 * torch.randn(4, 1 if name.endswith("dimension 1") else getattr(layer, "dim", 5))
    z, change = layer(x)
    assert change.shape == (4,)
    torch.testing.assert_close(change, log_det(layer, x))
    torch.testing.assert_close(layer.inverse(z), x)
    assert name in ("Reverse", "MAFLayer, dimension 1") or change.std() > 0.01


@pytest.mark.parametrize("name", IMAGES)
def test_image_layer_log_determinant_and_inverse(name):
    make, shape = IMAGES[name]
    layer, x = shaken(make()), torch.randn(3, *shape)
    z, change = layer(x)
    assert change.shape == (3,) and z.shape[0] == 3 and z[0].numel() == x[0].numel()
    torch.testing.assert_close(change, log_det(layer, x))
    torch.testing.assert_close(layer.inverse(z), x)


def test_2_14_logit_log_determinant_and_inverse():
    for alpha in (1e-6, 0.05):
        layer, x = flots.Logit(alpha), torch.rand(3, 1, 2, 4)
        z, change = layer(x)
        torch.testing.assert_close(z, torch.special.logit(alpha + (1 - 2 * alpha) * x))
        torch.testing.assert_close(change, log_det(layer, x))
        torch.testing.assert_close(layer.inverse(z), x)


@torch.no_grad()
def test_small_glow_log_determinant_and_inverse():
    """Le jacobien entier, 784 × 784."""
    glow, x = shaken(flots.Glow(depths=(1, 1), widths=(4, 4), alpha=0.05), std=0.1), torch.rand(2, 1, 28, 28)
    z, change = glow(x)
    assert z.shape == (2, 784)
    torch.testing.assert_close(change, log_det(glow, x))
    torch.testing.assert_close(glow.inverse(z), x)
    torch.testing.assert_close(glow.log_prob(x), D.Normal(0.0, 1.0).log_prob(z).sum(1) + change)


# --- 3. Couplages, maximum de vraisemblance -----------------------------------------------------------


def test_2_5_kept_coordinates_pass_and_command_the_others():
    layer = shaken(flots.AffineCoupling(flots.alternating_mask(4, 0)))
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0][0], torch.randn(4))
    torch.testing.assert_close(jacobian[[0, 2]], torch.eye(4)[[0, 2]])
    assert jacobian[1, 3] == jacobian[3, 1] == 0 and (jacobian[1][[0, 2]] != 0).all()


def test_2_6_log_scale_is_bounded():
    layer = shaken(flots.AffineCoupling(flots.alternating_mask(4, 0), bound=0.5), std=5.0)
    s, _ = layer.scale_shift(10 * torch.randn(100, 4))
    assert 0.49 < s.abs().max() <= 0.5


def test_couplings_alternate_their_masks():
    for flow in (flots.real_nvp(5, depth=4), flots.spline_flow(5, depth=4)):
        for one, two in itertools.pairwise(flow.layers):
            torch.testing.assert_close(one.mask + two.mask, torch.ones(5), check_dtype=False)


def test_untrained_flows_are_the_identity():
    x = torch.randn(4, 6)
    for flow in (flots.real_nvp(6), flots.spline_flow(6), flots.maf(6, depth=3)):
        z, change = flow.to(torch.float64)(x)
        torch.testing.assert_close(z, x)
        torch.testing.assert_close(change, torch.zeros(4), check_dtype=False)


@torch.no_grad()
def test_2_7_loss_is_entropy_plus_divergence():
    """Sur des gaussiennes : −E ln p_θ = H(p) + KL(p ‖ p_θ), formes closes de torch.distributions."""
    flow = flots.Flow(2, [gaussian_coupling(0.8, 0.3)])
    s = 2 * math.tanh(0.7 / 2)
    root = torch.tensor([[1, 0], [-0.8 * math.exp(-s), math.exp(-s)]])
    model = D.MultivariateNormal(torch.tensor([0.0, -0.3 * math.exp(-s)]), root @ root.T)
    truth = D.MultivariateNormal(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.4], [0.4, 0.5]]))
    x = truth.sample((400_000,))
    error = 5 * (flow.log_prob(x).std() / len(x)**0.5).item()
    expected = (truth.entropy() + D.kl_divergence(truth, model)).item()
    assert flots.flow_step(flow)(x, None).item() == pytest.approx(expected, abs=error)


# --- Densités de masse 1 --------------------------------------------------------------------------------


FLOWS = {
    "real_nvp": lambda: flots.real_nvp(2, depth=4, hidden=16),
    "maf": lambda: flots.maf(2, depth=3, hidden=16),
    "spline_flow": lambda: flots.spline_flow(2, depth=3, hidden=16),
    "ODEFlow": lambda: flots.ODEFlow(2, hidden=16, n_steps=8),
}


@torch.no_grad()
@pytest.mark.parametrize("name", FLOWS)
def test_density_has_mass_one(name):
    flow = shaken(FLOWS[name]())
    side = torch.linspace(-12, 12, 401)
    grid = torch.cartesian_prod(side, side)
    density = torch.cat([flow.log_prob(batch) for batch in grid.split(20_000)]).exp().view(401, 401)
    assert torch.trapezoid(torch.trapezoid(density, side), side).item() == pytest.approx(1, abs=1e-3)
    assert (density[200, 200] * 2 * math.pi - 1).abs() > 0.02                  # ce n'est pas N(0, I)


# --- 5. Flot autorégressif --------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "hidden"), [(1, 3), (2, 5), (4, 7)])
def test_2_9_masks_follow_the_degrees(dim, hidden):
    """Les trois règles de MADE, lien par lien ; les degrés cachés parcourent 1, …, D − 1."""
    first, inner, last = flots.made_masks(dim, hidden)
    degree = first.sum(1).int().tolist()                                       # cachée k : voit x_1, …, x_m(k)
    assert set(degree) == set(range(1, max(2, dim)))
    for k, i in itertools.product(range(hidden), range(1, dim + 1)):
        assert first[k, i - 1] == (degree[k] >= i) and last[i - 1, k] == (i > degree[k])
    for k, j in itertools.product(range(hidden), repeat=2):
        assert inner[k, j] == (degree[k] >= degree[j])


def test_2_8_networks_see_only_the_past():
    """μ et α ont un jacobien strictement triangulaire, et dépendent bien de tout le passé."""
    layer, x = shaken(flots.MAFLayer(5)), torch.randn(5)
    for part in (0, 1):
        jacobian = torch.autograd.functional.jacobian(lambda v, p=part: layer.mean_log_scale(v[None])[p][0], x)
        assert torch.triu(jacobian).abs().max() == 0
        assert (jacobian[torch.tril(torch.ones(5, 5), -1) > 0] != 0).all()
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0][0], x)
    assert torch.triu(jacobian, 1).abs().max() == 0
    torch.testing.assert_close(jacobian.diagonal(), torch.exp(-layer.mean_log_scale(x[None])[1][0]))


def test_2_10_iaf_sees_only_the_past_of_the_code():
    """x_i = z_i exp(a_i) + m_i : la passe unique part du code, et son jacobien est triangulaire inférieur."""
    layer, z = shaken(flots.IAFLayer(4)), torch.randn(3, 4)
    slopes = torch.stack([torch.autograd.functional.jacobian(lambda v: layer.inverse(v[None])[0], one) for one in z])
    assert not slopes.triu(1).any()
    torch.testing.assert_close(layer(layer.inverse(z))[1], -torch.linalg.slogdet(slopes)[1])


def test_2_8_one_dimension_at_a_time():
    """(2.8) et son inverse, récités coordonnée par coordonnée."""
    layer, z = shaken(flots.MAFLayer(4)), torch.randn(1, 4)
    x = torch.zeros(1, 4)
    for i in range(4):
        mean, alpha = layer.mean_log_scale(x)
        x[0, i] = mean[0, i] + z[0, i] * torch.exp(alpha[0, i])
    torch.testing.assert_close(layer.inverse(z), x)
    torch.testing.assert_close(layer(x)[0], z)


# --- zuko, à poids copiés -----------------------------------------------------------------------------------


def unclipped(value, slope=1e-3, factor=1):
    """Paramètre brut que zuko ramène à `value` par v / (1 + |factor v / ln slope|)."""
    return value / (1 - factor * value.abs() / abs(math.log(slope)))


def maf_univariate(mean, raw):
    """(2.8), log-échelle bornée à 2, en transformation affine de zuko."""
    alpha = 2 * torch.tanh(raw / 2)
    return zuko.transforms.MonotonicAffineTransform(-mean * torch.exp(-alpha), unclipped(-alpha))


def coupling_univariate(raw, shift):
    """(2.5), log-échelle bornée à 2, en transformation affine de zuko."""
    return zuko.transforms.MonotonicAffineTransform(shift, unclipped(2 * torch.tanh(raw / 2)))


def linear_layers(net):
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear | zuko.nn.Linear)]


def copy_weights(ours, theirs, columns, rows):
    """Copie nos poids dans le réseau de zuko, entrées et sorties prises dans l'ordre `columns` et `rows`."""
    pairs = list(zip(linear_layers(ours), linear_layers(theirs), strict=True))
    for number, (mine, other) in enumerate(pairs):
        weight, bias = mine.weight, mine.bias
        if number == 0:
            weight = weight[:, columns]
        if number == len(pairs) - 1:
            weight, bias = weight[rows], bias[rows]
        assert weight.shape == other.weight.shape
        other.weight.data.copy_(weight)
        other.bias.data.copy_(bias)


def test_maf_agrees_with_zuko():
    """Mêmes masques, mêmes poids ; zuko renverse l'ordre des dépendances là où nous renversons les coordonnées."""
    ours, dim = shaken(flots.maf(4, depth=3, hidden=9)), 4
    theirs = zuko.flows.MAF(dim, transforms=3, hidden_features=(9, 9), activation=nn.SiLU, univariate=maf_univariate)
    layers = [layer for layer in ours.layers if isinstance(layer, flots.MAFLayer)]
    for number, (mine, other) in enumerate(zip(layers, theirs.transform.transforms, strict=True)):
        order = list(range(dim)) if number % 2 == 0 else list(reversed(range(dim)))
        copy_weights(mine.net, other.hyper, order, [row for i in order for row in (i, dim + i)])
    x = 2 * torch.randn(7, dim)
    torch.testing.assert_close(ours.log_prob(x), theirs().log_prob(x).detach())


def test_real_nvp_agrees_with_zuko():
    ours, dim = shaken(flots.real_nvp(5, depth=4, hidden=9)), 5
    theirs = zuko.flows.RealNVP(dim, transforms=4, hidden_features=(9, 9), activation=nn.SiLU,
                                univariate=coupling_univariate)
    for mine, other in zip(ours.layers, theirs.transform.transforms, strict=True):
        other.mask.copy_(mine.mask.bool())
        kept, changed = ([i for i in range(dim) if mine.mask[i] == value] for value in (1, 0))
        other.hyper = zuko.nn.MLP(len(kept), 2 * len(changed), (9, 9), activation=nn.SiLU)
        copy_weights(mine.net, other.hyper, kept, [row for i in changed for row in (i, dim + i)])
    x = 2 * torch.randn(7, dim)
    torch.testing.assert_close(ours.log_prob(x), theirs().log_prob(x).detach())
    z = torch.randn(7, dim)
    torch.testing.assert_close(ours.inverse(z), theirs().transform.inv(z).detach())


def zuko_spline(raw, bound=5.0, tiny=1e-60):
    """Spline de zuko aux nœuds de la nôtre : il part des logarithmes des largeurs, des hauteurs et des pentes."""
    xs, ys, slopes = flots.spline_knots(raw, bound)
    widths, heights = (unclipped(places.diff(dim=-1).log(), tiny, 2) for places in (xs, ys))
    return zuko.transforms.MonotonicRQSTransform(widths, heights, unclipped(slopes[..., 1:-1].log(), tiny), bound, tiny)


def test_2_11_and_2_12_spline_agrees_with_zuko():
    raw = 2 * torch.randn(400, 3 * 6 - 1)
    x = 3 * torch.randn(400)                                                   # dedans et dehors
    assert 20 < (x.abs() > 5).sum() < 100
    y, log_slope = flots.spline(x, flots.spline_knots(raw))
    expected, expected_slope = zuko_spline(raw).call_and_ladj(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(log_slope, expected_slope)
    back, log_slope = flots.spline(y, flots.spline_knots(raw), inverse=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_slope, expected_slope)                      # la pente en x, pas son inverse


def test_spline_flow_agrees_with_zuko():
    ours, dim, size = shaken(flots.spline_flow(4, depth=3, hidden=9, bins=5)), 4, 3 * 5 - 1
    theirs = zuko.flows.NICE(dim, transforms=3, shapes=[(size,)], univariate=zuko_spline)
    for mine, other in zip(ours.layers, theirs.transform.transforms, strict=True):
        other.mask.copy_(mine.mask.bool())
        kept, changed = ([i for i in range(dim) if mine.mask[i] == value] for value in (1, 0))
        other.hyper = zuko.nn.MLP(len(kept), len(changed) * size, (9, 9), activation=nn.SiLU)
        copy_weights(mine.net, other.hyper, kept, [i * size + k for i in changed for k in range(size)])
    x = 2 * torch.randn(7, dim)
    torch.testing.assert_close(ours.log_prob(x), theirs().log_prob(x).detach())


# --- 6. Spline --------------------------------------------------------------------------------------------


def test_2_11_spline_passes_through_its_knots():
    raw = torch.randn(1, 3 * 6 - 1)
    xs, ys, slopes = (knots[0] for knots in flots.spline_knots(raw, bound=3.0))
    for places in (xs, ys):
        torch.testing.assert_close(places[[0, -1]], torch.tensor([-3.0, 3.0]))
        assert (places.diff() >= 6 * 1e-2 - 1e-12).all()                       # largeur et hauteur minimales
    assert slopes[0] == slopes[-1] == 1 and (slopes >= 1e-2).all()
    y, log_slope = flots.spline(xs, [knots.expand(len(xs), -1) for knots in (xs, ys, slopes)])
    torch.testing.assert_close(y, ys)
    torch.testing.assert_close(log_slope.exp(), slopes)
    zeros = flots.spline_knots(torch.zeros(3 * 6 - 1))
    torch.testing.assert_close(zeros[0], zeros[1])
    torch.testing.assert_close(zeros[2], torch.ones(7))                        # sans réseau, l'identité


def test_2_12_spline_slope_is_the_derivative():
    knots = flots.spline_knots(torch.randn(200, 3 * 6 - 1))
    x = torch.linspace(-6, 6, 200, requires_grad=True)
    y, log_slope = flots.spline(x, knots)
    slope, = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope.exp().detach(), slope)


# --- 7. Images ----------------------------------------------------------------------------------------------


def test_2_13_dequantization_keeps_the_level():
    levels = torch.arange(256.0).repeat(200)
    y = flots.dequantize(levels / 255, torch.Generator().manual_seed(0))
    assert torch.equal((256 * y).floor(), levels)
    noise = 256 * y - levels
    assert stats.kstest(noise.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(y, flots.dequantize(levels / 255, torch.Generator().manual_seed(0)))
    assert 0 <= flots.dequantize(levels / 255).min()


def test_2_13_bound_on_a_known_discrete_law():
    """Densité 2y sur [0, 1[ : P(v) = (2v + 1)/256². La borne tient, et son écart est celui de la quadrature."""
    for v in (0, 3, 100):
        y = flots.dequantize(torch.full((100_000,), v / 255))
        bound, exact = torch.log(2 * y) - math.log(256), math.log((2 * v + 1) / 256**2)
        expected = integrate.quad(lambda u, v=v: math.log(2 * (v + u) / 256**2), 0, 1)[0]
        assert bound.mean().item() == pytest.approx(expected, abs=5 * (bound.std() / len(y)**0.5).item())
        assert expected < exact


def test_2_13_and_2_15_bound_is_tight_for_a_histogram():
    """Densité constante sur chaque case : bits par dimension = −log2 P(v), exactement, à chaque tirage."""
    law = torch.zeros(256)
    law[[0, 7, 128, 255]] = torch.tensor([0.5, 0.125, 0.25, 0.125])
    v = torch.multinomial(law, 1000, replacement=True).view(250, 4)            # images de quatre pixels indépendants
    y = flots.dequantize(v / 255)
    log_px = torch.log(256 * law[(256 * y).long()]).sum(1)
    torch.testing.assert_close(flots.bits_per_dim(log_px, 4), -torch.log2(law[v]).mean(1))


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_2_14_and_2_15_uniform_noise_costs_eight_bits(alpha):
    """Modèle de logits logistiques : α + (1 − 2α)x serait uniforme sur [0, 1], d'où 8 − log2(1 − 2α) bits."""
    x = flots.dequantize(torch.randint(256, (5, 1, 28, 28)) / 255)
    z, change = flots.Logit(alpha)(x)
    logistic = D.TransformedDistribution(D.Uniform(0.0, 1.0), [D.SigmoidTransform().inv])
    log_px = logistic.log_prob(z).flatten(1).sum(1) + change
    torch.testing.assert_close(flots.bits_per_dim(log_px, 784), torch.full((5,), 8 - math.log2(1 - 2 * alpha)))
    torch.testing.assert_close(flots.bits_per_dim(torch.zeros(5), 784), torch.full((5,), 8.0), rtol=0, atol=0)
    torch.testing.assert_close(flots.bits_per_dim(torch.zeros(5), 784, levels=32), torch.full((5,), 5.0))


# --- 8. Glow ------------------------------------------------------------------------------------------------


def test_2_16_actnorm_starts_from_the_first_batch():
    layer = flots.ActNorm(3).to(torch.float64)
    x = 4 * torch.randn(8, 3, 5, 6) + torch.tensor([1.0, -2.0, 30.0]).view(3, 1, 1)
    z, _ = layer(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), check_dtype=False, atol=1e-9, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    before = layer.log_scale.clone()
    layer(3 * x)
    torch.testing.assert_close(layer.log_scale, before)                        # le premier lot seulement
    again = flots.ActNorm(3).to(torch.float64)
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(3 * x)[0], layer(3 * x)[0])               # un modèle rechargé ne recommence pas


@pytest.mark.parametrize("make", [lambda: flots.ActNorm(3), lambda: flots.Conv1x1(3)])
def test_2_16_and_2_17_log_determinant_ignores_the_data(make):
    layer = shaken(make())
    (_, one), (_, two) = layer(torch.randn(2, 3, 4, 5)), layer(5 * torch.randn(2, 3, 4, 5))
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(layer(torch.randn(1, 3, 8, 5))[1], 2 * one[:1])  # proportionnel à H·W


def test_2_17_weight_is_a_permuted_lu_product():
    layer = flots.Conv1x1(6).to(torch.float64)
    weight = layer.weight().detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(6), atol=1e-6, rtol=0)   # au départ, une rotation
    layer = shaken(layer)
    weight = layer.weight()
    torch.testing.assert_close(torch.linalg.slogdet(weight)[1], layer.log_s.sum())
    p, lower, upper = layer.permutation, layer.lower.tril(-1) + torch.eye(6), layer.upper.triu(1)
    torch.testing.assert_close(p.T @ weight, lower @ (upper + torch.diag(layer.sign * layer.log_s.exp())))
    x = torch.randn(2, 6, 3, 4)
    torch.testing.assert_close(layer(x)[0], torch.einsum("ij,njhw->nihw", weight, x))


def test_squeeze_turns_squares_into_channels():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    z, change = flots.Squeeze()(x)
    assert z.shape == (1, 8, 2, 2) and change.item() == 0
    for channel, i, j in itertools.product(range(2), range(2), range(2)):
        square = x[0, channel, 2 * i:2 * i + 2, 2 * j:2 * j + 2].flatten()
        torch.testing.assert_close(z[0, 4 * channel:4 * channel + 4, i, j], square)


def test_conv_coupling_keeps_the_first_half():
    layer, x = shaken(flots.ConvCoupling(4, width=6)), torch.randn(2, 4, 3, 3)
    z, _ = layer(x)
    torch.testing.assert_close(z[:, :2], x[:, :2])
    s, t = layer.scale_shift(x[:, :2])
    torch.testing.assert_close(z[:, 2:], x[:, 2:] * torch.exp(s) + t)


@torch.no_grad()
def test_level_sends_half_of_the_channels_out():
    """La première moitié du code d'un niveau sort de lui ; l'autre est le code du niveau suivant."""
    rest = shaken(flots.Level((2, 2, 2), 1, 6))
    level, x = shaken(flots.Level((1, 4, 4), 1, 6, rest)), torch.randn(3, 1, 4, 4)
    h, log_det_chain = level.chain(x)
    z, change = level(x)
    torch.testing.assert_close(z[:, :8], h[:, :2].flatten(1))
    torch.testing.assert_close(z[:, 8:], rest(h[:, 2:])[0])
    torch.testing.assert_close(change, log_det_chain + rest(h[:, 2:])[1])


# --- Échantillons -------------------------------------------------------------------------------------------


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
@pytest.mark.parametrize("name", ["real_nvp", "maf", "spline_flow"])
def test_2_18_samples_and_temperature(name):
    flow = shaken(FLOWS[name]())
    state = torch.get_rng_state()
    x = flow.sample(5, generator())
    assert torch.equal(torch.get_rng_state(), state) and x.shape == (5, 2)
    assert torch.equal(x, flow.sample(5, generator())) and not torch.equal(x, flow.sample(5, generator(1)))
    torch.testing.assert_close(flow.sample(5, temperature=0.0), flow.inverse(torch.zeros(5, 2)))
    torch.testing.assert_close(flow(x)[0], torch.randn(5, 2, generator=generator()))
    torch.testing.assert_close(flow(flow.sample(5, generator(), temperature=0.3))[0], 0.3 * flow(x)[0])


@torch.no_grad()
def test_glow_samples_are_images():
    torch.set_default_dtype(torch.float32)
    glow = flots.Glow(depths=(1, 1), widths=(4, 4))
    glow(torch.rand(8, 1, 28, 28))
    images = glow.sample(3, generator())
    assert images.shape == (3, 1, 28, 28) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1
    assert torch.equal(images, glow.sample(3, generator()))
    cold = glow.sample(2, temperature=0.0)
    torch.testing.assert_close(cold, glow.inverse(torch.zeros(2, 784)).clamp(0, 1))


@torch.no_grad()
def test_2_21_latent_flow_decodes_the_samples_of_its_flow():
    model = shaken(flots.LatentFlow(widths=(2, 3), hidden=8, latent_dim=4, depth=2, flow_hidden=8))
    images = model.sample(3, generator(), temperature=0.7)
    codes = model.flow.inverse(0.7 * torch.randn(3, 4, generator=generator()))
    torch.testing.assert_close(images, torch.sigmoid(model.autoencoder.decode(codes)))
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(model.codes(x), model.autoencoder.encode(x)[0])


# --- 10. Flots continus --------------------------------------------------------------------------------------


def test_rk4_is_of_order_four():
    """Erreur divisée par 16 quand on double les pas, sur deux équations de solution connue ; et retour au départ."""
    matrix = torch.tensor([[0.0, 1.0], [-2.0, -0.3]])
    start = torch.tensor([[1.0, -0.5]])
    cases = ((lambda x, t: x @ matrix.T, start @ torch.linalg.matrix_exp(2 * matrix).T),
             (lambda x, t: math.cos(t) * x, start * math.exp(math.sin(2))))
    for velocity, exact in cases:
        errors = [(flots.rk4(velocity, start, 0.0, 2.0, n) - exact).abs().max().item() for n in (8, 16, 32)]
        assert all(14 < one / two < 18.5 for one, two in itertools.pairwise(errors)), errors
        torch.testing.assert_close(flots.rk4(velocity, exact, 2.0, 0.0, 200), start, atol=1e-7, rtol=0)


def curved(x):
    """Un champ non linéaire, dont chaque coordonnée dépend de toutes les autres."""
    return torch.sin(x @ torch.linspace(-1, 1, 16).view(4, 4)) + x.prod(1, keepdim=True)


def test_2_20_exact_trace_agrees_with_autograd():
    x = torch.randn(3, 4)
    value, trace = flots.exact_trace(curved, x)
    expected = [torch.autograd.functional.jacobian(lambda v: curved(v[None])[0], one).trace() for one in x]
    torch.testing.assert_close(value, curved(x))
    torch.testing.assert_close(trace, torch.stack(expected))


def rademacher(dim):
    """Les 2^D vecteurs de ±1 : leur moyenne est l'espérance, sans tirage."""
    return [torch.tensor(signs) for signs in itertools.product((-1.0, 1.0), repeat=dim)]


def test_2_20_hutchinson_is_unbiased():
    x = torch.randn(3, 4)
    draws = []
    for signs in rademacher(4):
        value, trace = flots.hutchinson_trace(curved, x, signs.expand(3, 4))
        torch.testing.assert_close(value, curved(x))
        draws.append(trace)
    expected = flots.exact_trace(curved, x)[1]
    torch.testing.assert_close(torch.stack(draws).mean(0), expected)
    assert torch.stack(draws).std(0).min() > 0.01
    jacobian = torch.autograd.functional.jacobian(lambda v: curved(v[None])[0], x[0])
    torch.testing.assert_close(draws[3][0], rademacher(4)[3] @ jacobian @ rademacher(4)[3])


def test_2_19_ode_flow_log_determinant_and_inverse():
    """L'intégrale de la trace tend vers le log-déterminant de la carte, et l'écart suit l'ordre du solveur."""
    flow, x = shaken(flots.ODEFlow(2, hidden=16), std=0.7), torch.randn(3, 2)
    gaps, returns = [], []
    for flow.n_steps in (4, 8, 16, 32):
        z, change = flow(x)
        gaps.append((change - log_det(flow, x)).abs().max().item())
        returns.append((flow.inverse(z) - x).abs().max().item())
    assert change.std() > 0.1
    assert gaps[-1] < 2e-6 and returns[-1] < 2e-6
    assert gaps[2] / gaps[3] > 10 and returns[2] / returns[3] > 10
    torch.testing.assert_close(flow.log_prob(x), D.Normal(0.0, 1.0).log_prob(z).sum(1) + change)


def test_2_19_linear_field_gives_a_gaussian():
    """dx/dt = A x : z = e^A x, ln p(x) = ln N(z ; 0, I) + tr A."""
    flow, matrix = flots.ODEFlow(2, n_steps=64), torch.tensor([[0.5, 1.0], [-0.4, -0.2]])
    flow.velocity = lambda x, t: x @ matrix.T
    root = torch.linalg.matrix_exp(-matrix).numpy()
    x = torch.randn(5, 2)
    expected = stats.multivariate_normal(np.zeros(2), root @ root.T).logpdf(x.numpy())
    np.testing.assert_allclose(flow.log_prob(x).numpy(), expected, rtol=1e-7)


def test_2_20_hutchinson_log_density_is_unbiased():
    """Un bruit gardé le long de la trajectoire : la moyenne sur tous les bruits est la densité exacte."""
    flow, x = shaken(flots.ODEFlow(2, hidden=16), std=0.7), torch.randn(4, 2)
    draws = [flow.log_prob(x, trace=lambda f, y, e=signs: flots.hutchinson_trace(f, y, e.expand_as(y)))
             for signs in rademacher(2)]
    torch.testing.assert_close(torch.stack(draws).mean(0), flow.log_prob(x))
