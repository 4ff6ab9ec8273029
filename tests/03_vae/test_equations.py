"""Les équations du chapitre 3, chacune contre un oracle indépendant."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn.metrics import roc_auc_score
from torch import distributions as D

from utils.chapters import load_chapter

vae = load_chapter("03_vae")
pytestmark = pytest.mark.usefixtures("double")


# --- 1. Modèles à variables latentes ---------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.5, 0.1])
def test_3_1_quadrature_agrees_with_scipy(sigma):
    for x in (-2.0, 0.3, 1.7):
        expected, _ = integrate.quad(
            lambda z, x=x: stats.norm.pdf(x, 2 * np.tanh(3 * z), sigma) * stats.norm.pdf(z), -6, 6, limit=500)
        assert vae.px_quadrature(torch.tensor([x]), sigma).item() == pytest.approx(expected, rel=1e-5)


def test_3_1_density_has_mass_one():
    x = torch.linspace(-6, 6, 2001)
    assert torch.trapezoid(vae.px_quadrature(x, 0.5), x).item() == pytest.approx(1, abs=1e-6)


def test_3_1_monte_carlo_is_unbiased():
    x, z = torch.tensor([0.5]), torch.randn(400_000)
    draws = torch.exp(D.Normal(vae.toy_decoder(z), 0.5).log_prob(x))
    error = 5 * (draws.std() / len(z)**0.5).item()
    assert vae.px_monte_carlo(x, 0.5, z).item() == pytest.approx(vae.px_quadrature(x, 0.5).item(), abs=error)


@pytest.fixture
def linear():
    return vae.LinearGaussian(torch.randn(5, 3), sigma=0.7)


def test_3_2_linear_gaussian_density(linear):
    x = torch.randn(4, 5)
    covariance = linear.weight @ linear.weight.T + 0.49 * torch.eye(5)
    expected = stats.multivariate_normal(np.zeros(5), covariance.numpy()).logpdf(x.numpy())
    np.testing.assert_allclose(linear.log_px(x).numpy(), expected, rtol=1e-10)


def test_3_2_posterior_is_the_gaussian_conditioned_on_x(linear):
    """Oracle : conditionnement de la loi jointe de (z, x), par blocs."""
    x, w = torch.randn(4, 5), linear.weight
    gain = w.T @ torch.linalg.inv(w @ w.T + 0.49 * torch.eye(5))
    mean, covariance = linear.posterior(x)
    torch.testing.assert_close(mean, x @ gain.T)
    torch.testing.assert_close(covariance, torch.eye(3) - gain @ w)


def test_log_px_given_z(linear):
    x, z = torch.randn(4, 5), torch.randn(6, 3)
    expected = stats.multivariate_normal(np.zeros(5), 0.49 * np.eye(5)).logpdf(
        (x[None] - (z @ linear.weight.T)[:, None]).numpy())
    np.testing.assert_allclose(linear.log_px_given_z(x, z).numpy(), expected)


# --- 2 et 3. ELBO et divergence ---------------------------------------------------------------------


def test_3_5_gap_is_the_divergence_to_the_posterior(linear):
    x, mean = torch.randn(4, 5), torch.randn(4, 3)
    root = torch.randn(3, 3)
    covariance = root @ root.T + 0.1 * torch.eye(3)
    posterior = D.MultivariateNormal(*linear.posterior(x))
    gap = D.kl_divergence(D.MultivariateNormal(mean, covariance), posterior)
    torch.testing.assert_close(vae.linear_elbo(linear, x, mean, covariance) + gap, linear.log_px(x))


def test_3_4_elbo_is_the_mean_of_log_ratios(linear):
    """L'ELBO en forme close contre sa définition (3.4), estimée par tirages."""
    x, mean, covariance = torch.randn(1, 5), torch.randn(1, 3), 0.3 * torch.eye(3)
    q, prior = D.MultivariateNormal(mean[0], covariance), D.MultivariateNormal(torch.zeros(3), torch.eye(3))
    z = q.sample((200_000,))
    terms = linear.log_px_given_z(x, z)[:, 0] + prior.log_prob(z) - q.log_prob(z)
    error = 5 * (terms.std() / len(z)**0.5).item()
    assert vae.linear_elbo(linear, x, mean, covariance).item() == pytest.approx(terms.mean().item(), abs=error)


def test_3_7_divergence_agrees_with_torch():
    mu, logvar = torch.randn(6, 4), torch.randn(6, 4)
    expected = D.kl_divergence(D.Normal(mu, (logvar / 2).exp()), D.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(vae.kl_standard(mu, logvar), expected)
    torch.testing.assert_close(vae.kl_per_dim(mu, logvar).sum(1), expected)


# --- 4. Gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [vae.score_gradient, vae.pathwise_gradient])
def test_3_8_and_3_9_estimators_are_unbiased(estimator):
    """f(z) = Σ sin z : E f = Σ sin(μ) exp(−σ²/2), de gradient cos(μ) exp(−σ²/2)."""
    mu, sigma = torch.tensor([0.3, -1.0, 2.0]), 0.8
    gradient = estimator(lambda z: z.sin().sum(1), mu, sigma, torch.randn(400_000, 3))
    expected = mu.cos() * math.exp(-sigma**2 / 2)
    assert ((gradient.mean(0) - expected).abs() < 5 * gradient.std(0) / 400_000**0.5).all()


def test_variances_announced_in_the_text():
    """Reparamétrisation : 4σ² quelle que soit d. Score : croissance en d² (pente 2 en échelles log)."""
    variance = {}
    for d in (16, 64):
        mu, noise = torch.ones(d), torch.randn(50_000, d)
        variance[d] = [e(lambda z: z.square().sum(1), mu, 1.0, noise).var(0).mean().item()
                       for e in (vae.score_gradient, vae.pathwise_gradient)]
        assert variance[d][1] == pytest.approx(4, rel=0.02)
    assert math.log(variance[64][0] / variance[16][0]) / math.log(4) == pytest.approx(2, abs=0.15)


def test_3_9_reparameterize_law_and_gradient():
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -1.0]])
    z = vae.reparameterize(mu.expand(200_000, 2), logvar.expand(200_000, 2))
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), logvar.exp()[0], rtol=0.02, atol=0)
    mu, logvar = mu.clone().requires_grad_(), logvar.clone().requires_grad_()
    z = vae.reparameterize(mu, logvar)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones_like(mu))
    torch.testing.assert_close(logvar.grad, 0.5 * (z - mu).detach())          # ∂z/∂logvar = ½ σ ε


# --- 5 et 7. VAE, bornes ----------------------------------------------------------------------------


def test_3_11_likelihood_agrees_with_torch():
    logits, x = 3 * torch.randn(4, 1, 28, 28), torch.bernoulli(torch.rand(4, 1, 28, 28))
    expected = D.Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(vae.log_likelihood(logits, x), expected)


@pytest.mark.parametrize("labels", [False, True])
def test_3_12_and_3_22_loss_agrees_with_torch_distributions(labels):
    """La perte de `vae_step`, sans puis avec étiquette : mêmes tirages, log-densités de torch.distributions."""
    model = vae.ConditionalVAE(latent_dim=3, hidden=8) if labels else vae.MLPVAE(latent_dim=3, hidden=8)
    x, condition = torch.rand(4, 1, 28, 28), (torch.tensor([1, 4, 4, 9]),) if labels else ()
    torch.manual_seed(1)
    got = vae.vae_step(model, beta=2.0)(x, *condition)["loss"]
    torch.manual_seed(1)
    binary = torch.bernoulli(x)
    mu, logvar = model.encode(binary, *condition)
    q = D.Normal(mu, (logvar / 2).exp())
    likelihood = D.Bernoulli(logits=model.decode(q.mean + q.stddev * torch.randn(4, 3), *condition)).log_prob(binary)
    divergence = D.kl_divergence(q, D.Normal(torch.zeros_like(mu), 1.0)).sum()
    torch.testing.assert_close(got, (2 * divergence - likelihood.sum()) / 4)


class _Tiny(vae.VAE):
    """VAE à une dimension latente et neuf pixels : sa vraisemblance se calcule par quadrature."""

    def __init__(self):
        encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
        decoder = torch.nn.Sequential(torch.nn.Linear(1, 9), torch.nn.Unflatten(1, (1, 3, 3)))
        super().__init__(encoder, decoder, 1)

    @torch.no_grad()
    def log_px(self, x):
        z = torch.linspace(-8, 8, 4001)[:, None]
        log_joint = D.Normal(0.0, 1.0).log_prob(z[:, 0])[:, None] + D.Bernoulli(
            logits=self.decode(z)[:, None]).log_prob(x).sum((2, 3, 4))
        return torch.logsumexp(log_joint, 0) + math.log(16 / 4000)


@pytest.fixture
def tiny():
    return _Tiny(), torch.bernoulli(torch.rand(5, 1, 3, 3))


@torch.no_grad()
def test_3_6_elbo_terms_on_average(tiny):
    """E[reconstruction] − KL, contre l'intégrale de q (ln p(x, z) − ln q(z)) par quadrature."""
    model, x = tiny
    mu, logvar = model.encode(x)
    z = torch.linspace(-8, 8, 4001)
    q = D.Normal(mu, (logvar / 2).exp())                                       # (5, 1)
    log_px_z = D.Bernoulli(logits=model.decode(z[:, None])[:, None]).log_prob(x).sum((2, 3, 4)).T   # (5, 4001)
    integrand = q.log_prob(z).exp() * (log_px_z + D.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z))
    exact = torch.trapezoid(integrand, z, dim=1)
    draws = torch.stack([reconstruction - kl for reconstruction, kl in (vae.elbo_terms(model, x) for _ in range(4000))])
    assert ((draws.mean(0) - exact).abs() < 5 * draws.std(0) / 4000**0.5).all()
    assert (exact < model.log_px(x)).all()


@torch.no_grad()
def test_3_13_log_weights_agree_with_torch_distributions(tiny):
    model, x = tiny
    torch.manual_seed(3)
    log_w = vae.importance_log_weights(model, x, 7)
    torch.manual_seed(3)
    mu, logvar = model.encode(x)
    q = D.Normal(mu, (logvar / 2).exp())
    z = mu + (logvar / 2).exp() * torch.randn(7, *mu.shape)
    log_px_z = D.Bernoulli(logits=model.decode(z.reshape(35, 1)).view(7, 5, 1, 3, 3)).log_prob(x).sum((2, 3, 4))
    torch.testing.assert_close(log_w, log_px_z + D.Normal(0.0, 1.0).log_prob(z).sum(2) - q.log_prob(z).sum(2))


@torch.no_grad()
def test_3_13_bound_climbs_to_the_likelihood(tiny):
    model, x = tiny
    bounds = {k: torch.stack([vae.importance_bound(vae.importance_log_weights(model, x, k)) for _ in range(n)]).mean(0)
              for k, n in ((1, 2000), (8, 500), (100_000, 1))}
    exact = model.log_px(x)
    assert (bounds[1].mean() < bounds[8].mean() < exact.mean() + 1e-3).item()
    torch.testing.assert_close(bounds[100_000], exact, atol=0.02, rtol=0)


def test_3_13_weights_are_constant_under_the_exact_posterior():
    """Sous la vraie loi a posteriori, ln w = ln p(x) pour tout z : la borne est exacte dès K = 1."""
    linear = vae.LinearGaussian(torch.randn(5, 2), 0.7)
    x = torch.randn(1, 5)
    posterior = D.MultivariateNormal(*linear.posterior(x))
    z = posterior.sample((10,))[:, 0]
    log_w = (linear.log_px_given_z(x, z)[:, 0] + D.Normal(0.0, 1.0).log_prob(z).sum(1) - posterior.log_prob(z))[:, None]
    torch.testing.assert_close(vae.importance_bound(log_w), linear.log_px(x))


def test_3_14_fair_coins_cost_one_bit_per_pixel():
    x = torch.bernoulli(torch.full((3, 1, 28, 28), 0.5))
    torch.testing.assert_close(vae.bits_per_dim(vae.log_likelihood(torch.zeros_like(x), x)), torch.ones(3))


# --- 8. Ce qui tourne mal ---------------------------------------------------------------------------


def test_causal_decoder_sees_only_the_past():
    """Le jacobien des logits par rapport aux pixels est strictement triangulaire, et pas nul dessous."""
    model = vae.CausalVAE()
    z, x = torch.randn(1, 8), torch.rand(1, 1, 14, 14)
    jacobian = torch.func.jacrev(lambda x: model.decode(z, x).flatten())(x).view(196, 196)
    assert torch.triu(jacobian).abs().max() == 0
    left, above = jacobian[20, 19], jacobian[20, 6]
    assert left != 0 and above != 0


def test_3_15_active_units_count_varying_means():
    mu = torch.randn(5000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 3       # variances 1 ; 0,04 ; 0,0025 ; 0
    assert vae.active_units(mu) == 2


def test_3_16_free_bits():
    kl = torch.tensor([[0.0, 2.0, 0.1], [0.4, 4.0, 0.3]])                     # moyennes 0,2 ; 3 ; 0,2
    assert vae.free_bits_kl(kl, 0.5).item() == pytest.approx(0.5 + 3 + 0.5)
    assert vae.free_bits_kl(kl, 0.0).item() == pytest.approx(kl.mean(0).sum().item())


def test_3_17_sharpness_by_hand():
    x = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).view(1, 1, 2, 2)               # lignes : 1, 0 ; colonnes : ¼, ¼
    assert vae.sharpness(x).item() == pytest.approx((1 + 0 + 0.25 + 0.25) / 4)
    assert vae.sharpness(torch.full((1, 1, 5, 5), 0.7)).item() == 0


@pytest.mark.parametrize("learned", [True, False])
def test_gaussian_likelihood(learned):
    model = vae.GaussianVAE(learned, latent_dim=2, hidden=8)
    model.log_sigma.data.fill_(-1.0)
    logits, x = torch.randn(2, 1, 28, 28), torch.rand(2, 1, 28, 28)
    expected = stats.norm.logpdf(x.numpy(), torch.sigmoid(logits).numpy(), math.exp(-1)).sum((1, 2, 3))
    np.testing.assert_allclose(model.log_likelihood(logits, x).detach().numpy(), expected)
    assert model.log_sigma.requires_grad is learned


# --- 9. Usages --------------------------------------------------------------------------------------


def test_3_18_slerp_turns_at_constant_speed():
    a, b = 2 * torch.nn.functional.normalize(torch.randn(2, 6), dim=1)
    path = vae.slerp(a, b, torch.linspace(0, 1, 7))
    torch.testing.assert_close(path[[0, -1]], torch.stack([a, b]))
    torch.testing.assert_close(path.norm(dim=1), torch.full((7,), 2.0))
    cosines = (path[1:] * path[:-1]).sum(1)
    torch.testing.assert_close(cosines, cosines[:1].expand(6))


def test_slerp_of_aligned_codes_is_linear():
    a = torch.randn(6)
    torch.testing.assert_close(vae.slerp(a, 3 * a, torch.tensor([0.5])), 2 * a[None])


def test_auc_agrees_with_sklearn():
    normal, anomalous = torch.randn(300).round(decimals=1), (torch.randn(200) + 0.5).round(decimals=1)
    labels = [0] * 300 + [1] * 200
    expected = roc_auc_score(labels, torch.cat([normal, anomalous]).numpy())
    assert vae.auc(normal, anomalous) == pytest.approx(expected)


def test_conditional_vae_uses_the_label():
    model = vae.ConditionalVAE()
    z, y = torch.randn(2, 10), torch.tensor([3, 3])
    assert model.decode(z, y).shape == (2, 1, 28, 28)
    assert not torch.equal(model.decode(z, y), model.decode(z, y + 1))
    images = model.sample(4, torch.Generator().manual_seed(0))
    assert torch.equal(images, model.sample(4, torch.Generator().manual_seed(0)))


# --- 10 et 11. VQ-VAE, seconde étape -----------------------------------------------------------------


def test_3_19_nearest_word():
    model = vae.VQVAE(codes=8, dim=4, width=6)
    e, k = model.encode(torch.rand(2, 1, 28, 28))
    for n, i, j in ((0, 0, 0), (1, 3, 6)):
        distances = [(e[n, i, j] - word).square().sum().item() for word in model.codebook.weight]
        assert k[n, i, j].item() == int(np.argmin(distances))


def test_3_20_gradients_go_where_they_should():
    """Le dictionnaire ne reçoit que le deuxième terme ; l'encodeur, le gradient copié et le troisième."""
    model, x = vae.VQVAE(codes=8, dim=4, width=6), torch.bernoulli(torch.rand(2, 1, 28, 28))
    vae.vq_loss(model, x, beta=0.25)[0].sum().backward()
    got = [model.codebook.weight.grad.clone(), model.encoder[-1].bias.grad.clone()]
    with torch.no_grad():
        e, k = model.encode(x)
        q = model.codebook(k)
    expected_words = torch.zeros(8, 4).index_add_(0, k.flatten(), (2 * (q - e)).flatten(0, 2))
    torch.testing.assert_close(got[0], expected_words)
    q = q.clone().requires_grad_()
    (-vae.log_likelihood(model.decode(q), x)).sum().backward()
    torch.testing.assert_close(got[1], (q.grad + 0.25 * 2 * (e - q.detach())).sum((0, 1, 2)))


def test_3_21_perplexity():
    assert vae.perplexity(torch.arange(16), 16) == pytest.approx(16)
    assert vae.perplexity(torch.zeros(10, dtype=torch.long), 16) == pytest.approx(1)
    k = torch.tensor([0, 0, 0, 1])
    assert vae.perplexity(k, 4) == pytest.approx(math.exp(stats.entropy([0.75, 0.25])))


def test_seeded_codebook_lies_on_the_codes():
    model, x = vae.VQVAE(), torch.rand(5, 1, 28, 28)
    vae.seed_codebook(model, x)
    with torch.no_grad():
        codes = model.encoder(x).movedim(1, -1).flatten(0, 2)
        assert torch.cdist(model.codebook.weight, codes).amin(dim=1).max() < 1e-6


def test_cluster_mixture_finds_separated_groups():
    centers = torch.tensor([[-10.0, 0.0], [10.0, 0.0]])
    codes = torch.cat([centers[i] + torch.randn(500, 2) * torch.tensor([1.0, 0.5]) for i in (0, 1)])
    mixture = vae.cluster_mixture(codes, 2)
    assert sorted(round(c, 0) for c in mixture.component_distribution.mean[:, 0].tolist()) == [-10, 10]
    torch.testing.assert_close(mixture.mixture_distribution.probs, torch.full((2,), 0.5))
    single = D.MultivariateNormal(codes.mean(0), torch.cov(codes.T))
    assert mixture.log_prob(codes).mean() > single.log_prob(codes).mean()


# --- Architectures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [vae.MLPVAE, vae.ConvVAE])
def test_shapes_and_sampling_contract(cls):
    torch.set_default_dtype(torch.float32)
    model = cls(latent_dim=3)
    mu, logvar = model.encode(torch.rand(2, 1, 28, 28))
    assert mu.shape == logvar.shape == (2, 3)
    images = model.sample(4, torch.Generator().manual_seed(0))
    assert images.shape == (4, 1, 28, 28) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1
    assert torch.equal(images, model.sample(4, torch.Generator().manual_seed(0)))
