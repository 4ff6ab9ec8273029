"""Réponses aux exercices du chapitre 4 (GAN), justes et fausses, écrites comme le ferait un étudiant."""

import math

import torch
import torch.nn.functional as F

# --- Réponses justes, écrites comme le ferait un étudiant ---------------------------------------------------


def optimal_d(p, q):
    return p / (p + q)


def d_loss(real, fake):
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def g_losses(fake):
    return torch.stack([-F.softplus(fake).mean(), F.softplus(-fake).mean()])


def alternate(theta, psi, real, noise, lr):
    theta, psi = theta.clone().requires_grad_(), psi.clone().requires_grad_()
    for x, z in zip(real, noise, strict=True):
        fake = (z + theta).detach()
        loss = d_loss(x @ psi, fake @ psi)
        psi = (psi - lr * torch.autograd.grad(loss, psi)[0]).detach().requires_grad_()
        loss = F.softplus(-((z + theta) @ psi)).mean()
        theta = (theta - lr * torch.autograd.grad(loss, theta)[0]).detach().requires_grad_()
    return torch.stack([theta, psi]).detach()


def count_modes(x, centers, std, share):
    distance, mode = torch.cdist(x, centers).min(dim=1)
    hits = torch.bincount(mode[distance < 3 * std], minlength=len(centers))
    return int((hits >= share * len(x)).sum())


def power(matrix, u, n_steps):
    for _ in range(n_steps):
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return u @ matrix @ v


def spectral_normalize(weight, u, n_steps):
    return weight / power(weight.flatten(1), u, n_steps)


def clipped_step(weight, real, fake, lr, c):
    gradient = fake.mean(0) - real.mean(0)
    return (weight - lr * gradient).clamp(-c, c)


def penalty_points(real, fake):
    alpha = torch.rand(len(real), 1, 1, 1, device=real.device)
    return alpha * real + (1 - alpha) * fake


def critic(weight, v, x):
    return torch.tanh(x.flatten(1) @ weight) @ v


def slopes(weight, v, x, **options):
    """Gradient du critique par rapport à x, image par image."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(weight, v, x).sum(), x, **options)[0]


def gradient_penalty(weight, v, x):
    return (slopes(weight, v, x, create_graph=True).flatten(1).norm(dim=1) - 1).square().mean()


def hinge_losses(real, fake):
    return torch.stack([F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -fake.mean()])


def ema(history, decay):
    mean = history[0]
    for w in history[1:]:
        mean = decay * mean + (1 - decay) * w
    return mean


RIGHT = {f.__name__: f for f in (
    optimal_d, d_loss, g_losses, alternate, count_modes, spectral_normalize, clipped_step, penalty_points,
    gradient_penalty, hinge_losses, ema)}


# --- Autres réponses justes ---------------------------------------------------------------------------------


def optimizers(theta, psi, lr):
    """Copies des deux jeux de poids, et un optimiseur pour chacun."""
    theta, psi = theta.clone().requires_grad_(), psi.clone().requires_grad_()
    return theta, psi, torch.optim.SGD([theta], lr), torch.optim.SGD([psi], lr)


def with_optimizers(theta, psi, real, noise, lr):
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        opt_d.zero_grad()
        d_loss(x @ psi, (z + theta).detach() @ psi).backward()
        opt_d.step()
        opt_g.zero_grad()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def useless_leak(theta, psi, real, noise, lr):
    """Sans `detach`, mais chaque gradient est remis à zéro juste avant de servir : du calcul perdu, rien de faux."""
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        fake = z + theta
        opt_d.zero_grad()
        d_loss(x @ psi, fake @ psi).backward(retain_graph=True)
        opt_d.step()
        opt_g.zero_grad()
        F.softplus(-(fake @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def count_by_mask(x, centers, std, share):
    good = (x[:, None] - centers).square().sum(2) < (3 * std) ** 2
    return (good.double().mean(0) >= share).sum()


def step_by_autograd(weight, real, fake, lr, c):
    w = weight.clone().requires_grad_()
    ((fake @ w).mean() - (real @ w).mean()).backward()
    with torch.no_grad():
        w -= lr * w.grad
        w.clamp_(-c, c)
    return w.detach()


def points_from_the_fake(real, fake):
    alpha = torch.rand(real.shape[0], device=real.device).view(-1, *[1] * (real.dim() - 1))
    return fake + alpha * (real - fake)


def penalty_with_grad_outputs(weight, v, x):
    x.requires_grad_()
    score = critic(weight, v, x)
    gradient, = torch.autograd.grad(score, x, torch.ones_like(score), create_graph=True)
    return ((gradient.square().sum(dim=(1, 2, 3)).sqrt() - 1) ** 2).mean()


def penalty_by_hand(weight, v, x):
    gradient = (1 - torch.tanh(x.flatten(1) @ weight) ** 2) * v @ weight.T
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


ALSO_RIGHT = [
    ("optimal_d", lambda p, q: 1 / (1 + q / p)),
    ("d_loss", lambda real, fake: -F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean()),
    ("d_loss", lambda real, fake: F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
     + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))),
    ("g_losses", lambda fake: torch.stack([F.logsigmoid(-fake).mean(), -F.logsigmoid(fake).mean()])),
    ("alternate", with_optimizers),
    ("alternate", useless_leak),
    ("count_modes", count_by_mask),
    ("spectral_normalize", lambda w, u, n: w / power(w.reshape(w.shape[0], -1), 3 * u, n)),
    ("clipped_step", step_by_autograd),
    ("penalty_points", points_from_the_fake),
    ("penalty_points", lambda real, fake: torch.lerp(real, fake, torch.rand(
        len(real), 1, 1, 1, dtype=real.dtype, device=real.device))),
    ("gradient_penalty", penalty_with_grad_outputs),
    ("gradient_penalty", penalty_by_hand),
    ("hinge_losses", lambda real, fake: torch.stack([
        (1 - real).clamp(min=0).mean() - torch.minimum(-1 - fake, torch.zeros_like(fake)).mean(), -fake.mean()])),
    ("ema", lambda h, decay: h[0] if len(h) == 1 else ema(h[:-1], decay).lerp(h[-1], 1 - decay)),
]

# Justes, avec une remarque : (exercice, fonction, mots de la remarque).
REMARKED = [
    ("d_loss", lambda real, fake: (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2, "moyenne des deux termes"),
    ("hinge_losses", lambda real, fake: torch.stack([
        0.5 * F.relu(1 - real).mean() + 0.5 * F.relu(1 + fake).mean(), -fake.mean()]), "moyenne des deux termes"),
    ("ema", lambda h, decay: sum((1 - decay) * decay ** (len(h) - 1 - t) * h[t] for t in range(len(h)))
     / (1 - decay ** len(h)), "Vous partez de zéro"),
]


# --- Réponses fausses : (exercice, fonction, mots que l'indice doit contenir) -------------------------------


def bce(scores, label):
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))


def one_batch(real, fake):
    labels = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    return F.binary_cross_entropy_with_logits(torch.cat([real, fake]), labels)


def naive_d_loss(real, fake):
    return -torch.log(torch.sigmoid(real)).mean() - torch.log(1 - torch.sigmoid(fake)).mean()


def cautious_d_loss(real, fake):
    of_real, of_fake = torch.sigmoid(real), torch.sigmoid(fake)
    return -torch.log(of_real + 1e-12).mean() - torch.log(1 - of_fake + 1e-12).mean()


def pair(saturating, other):
    """Les deux pertes du générateur, à partir de ce que chacune fait d'un lot de logits."""
    return lambda fake: torch.stack([saturating(fake), other(fake)])


def shared_zero_grad(theta, psi, real, noise, lr):
    """Les gradients ne sont remis à zéro qu'en début de tour, et le faux lot n'est pas détaché."""
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        opt_g.zero_grad()
        opt_d.zero_grad()
        d_loss(x @ psi, (z + theta) @ psi).backward()
        opt_d.step()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def game_with(d=d_loss, g=lambda fake: F.softplus(-fake).mean(), lr_sign=1, turns=None):
    """Bonne partie, à une perte, un signe ou un choix de lots près."""
    def f(theta, psi, real, noise, lr):
        theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
        for k in (range(len(real)) if turns is None else turns(len(real))):
            opt_d.zero_grad()
            (lr_sign * d(real[k] @ psi, (noise[k] + theta).detach() @ psi)).backward()
            opt_d.step()
            opt_g.zero_grad()
            (lr_sign * g((noise[k] + theta) @ psi)).backward()
            opt_g.step()
        return torch.stack([theta, psi])
    return f


def hoisted_fakes(theta, psi, real, noise, lr):
    """Les faux de tous les tours sont calculés une fois, avant la boucle."""
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    fakes = noise + theta.detach()
    for x, z, fake in zip(real, noise, fakes, strict=True):
        opt_d.zero_grad()
        d_loss(x @ psi, fake @ psi).backward()
        opt_d.step()
        opt_g.zero_grad()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def hoisted_graph(theta, psi, real, noise, lr):
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    fakes = noise + theta
    for x, fake in zip(real, fakes, strict=True):
        opt_d.zero_grad()
        d_loss(x @ psi, fake.detach() @ psi).backward()
        opt_d.step()
        opt_g.zero_grad()
        F.softplus(-(fake @ psi)).mean().backward(retain_graph=True)
        opt_g.step()
    return torch.stack([theta, psi])


def simultaneous(theta, psi, real, noise, lr):
    for x, z in zip(real, noise, strict=True):
        t, p = theta.clone().requires_grad_(), psi.clone().requires_grad_()
        slope_d, = torch.autograd.grad(d_loss(x @ p, (z + theta) @ p), p)
        slope_g, = torch.autograd.grad(F.softplus(-((z + t) @ psi)).mean(), t)
        theta, psi = theta - lr * slope_g, psi - lr * slope_d
    return torch.stack([theta, psi])


def generator_first_on_old_fakes(theta, psi, real, noise, lr):
    """Le générateur joue, puis le discriminateur juge le lot calculé avant ce mouvement."""
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        fake = z + theta
        opt_g.zero_grad()
        F.softplus(-(fake @ psi)).mean().backward()
        opt_g.step()
        opt_d.zero_grad()
        d_loss(x @ psi, fake.detach() @ psi).backward()
        opt_d.step()
    return torch.stack([theta, psi])


def generator_first(theta, psi, real, noise, lr):
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        opt_g.zero_grad()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt_g.step()
        opt_d.zero_grad()
        d_loss(x @ psi, (z + theta).detach() @ psi).backward()
        opt_d.step()
    return torch.stack([theta, psi])


def too_much_detach(theta, psi, real, noise, lr):
    theta, psi = theta.clone().requires_grad_(), psi.clone().requires_grad_()
    for x, z in zip(real, noise, strict=True):
        fake = (z + theta).detach()
        psi = (psi - lr * torch.autograd.grad(d_loss(x @ psi, fake @ psi), psi)[0]).detach().requires_grad_()
        theta = theta - lr * torch.autograd.grad(F.softplus(-(fake @ psi)).mean(), theta)[0]
    return torch.stack([theta, psi])


def silent_detach(theta, psi, real, noise, lr):
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        fake = (z + theta).detach()
        opt_d.zero_grad()
        d_loss(x @ psi, fake @ psi).backward()
        opt_d.step()
        opt_g.zero_grad()
        F.softplus(-(fake @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def no_d_step(theta, psi, real, noise, lr):
    theta, psi, opt_g, _ = optimizers(theta, psi, lr)
    for z in noise:
        opt_g.zero_grad()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def summed_losses(theta, psi, real, noise, lr):
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        opt_g.zero_grad()
        opt_d.zero_grad()
        fake = (z + theta) @ psi
        (d_loss(x @ psi, fake) + F.softplus(-fake).mean()).backward()
        opt_g.step()
        opt_d.step()
    return torch.stack([theta, psi])


def one_optimizer(theta, psi, real, noise, lr):
    theta, psi = theta.clone().requires_grad_(), psi.clone().requires_grad_()
    opt = torch.optim.SGD([theta, psi], lr)
    for x, z in zip(real, noise, strict=True):
        opt.zero_grad()
        d_loss(x @ psi, (z + theta).detach() @ psi).backward()
        opt.step()
        opt.zero_grad()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt.step()
    return torch.stack([theta, psi])


def without_zero_grad(theta, psi, real, noise, lr):
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        d_loss(x @ psi, (z + theta).detach() @ psi).backward()
        opt_d.step()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def zero_grad_of_g_only(theta, psi, real, noise, lr):
    theta, psi, opt_g, opt_d = optimizers(theta, psi, lr)
    for x, z in zip(real, noise, strict=True):
        d_loss(x @ psi, (z + theta).detach() @ psi).backward()
        opt_d.step()
        opt_g.zero_grad()
        F.softplus(-((z + theta) @ psi)).mean().backward()
        opt_g.step()
    return torch.stack([theta, psi])


def in_place_step(theta, psi, real, noise, lr):
    result = alternate(theta, psi, real, noise, lr)
    theta.copy_(result[0])
    return result


def all_in_one_batch(theta, psi, real, noise, lr):
    return alternate(theta, psi, real.reshape(1, -1, len(theta)), noise.reshape(1, -1, len(theta)), lr)


def counting(good=lambda d, std: d < 3 * std, enough=lambda hits, x, share: hits >= share * len(x)):
    """Bonne attribution au centre le plus proche, mais `good` ou `enough` est faux."""
    def f(x, centers, std, share):
        distance, mode = torch.cdist(x, centers).min(dim=1)
        hits = torch.bincount(mode[good(distance, std)], minlength=len(centers))
        return int(enough(hits, x, share).sum())
    return f


def in_a_square(x, centers, std, share):
    near = ((x[:, None, :] - centers[None]).abs() < 3 * std).all(dim=-1)
    return int((near.double().mean(0) >= share).sum())


def powered(weight, u, n_steps, unit_v=True, unit_u=True):
    matrix = weight.flatten(1)
    for _ in range(n_steps):
        v = matrix.T @ u
        v = v / v.norm() if unit_v else v
        u = matrix @ v
        u = u / u.norm() if unit_u else u
    return weight / (u @ matrix @ v)


def late_u(weight, u, n_steps):
    matrix = weight.flatten(1)
    for step in range(n_steps):
        v = F.normalize(matrix.T @ u, dim=0)
        if step < n_steps - 1:
            u = F.normalize(matrix @ v, dim=0)
    return weight / (u @ matrix @ v)


def wrong_side(weight, u, n_steps):
    matrix = weight.flatten(1)
    for _ in range(n_steps):
        v = F.normalize(matrix @ u, dim=0)
        u = F.normalize(matrix.T @ v, dim=0)
    return weight / (v @ matrix @ u)


def bce_critic(weight, real, fake, lr, c):
    w = weight.clone().requires_grad_()
    d_loss(real @ w, fake @ w).backward()
    return (weight - lr * w.grad).clamp(-c, c)


def absolute_gap(weight, real, fake, lr, c):
    w = weight.clone().requires_grad_()
    (real @ w - 0).mean().sub((fake @ w).mean()).abs().neg().backward()
    return (weight - lr * w.grad).clamp(-c, c)


def drift(real, fake):
    return fake.mean(0) - real.mean(0)


def per_pixel(real, fake):
    alpha = torch.rand_like(real)
    return alpha * real + (1 - alpha) * fake


def per_channel(real, fake):
    alpha = torch.rand(*real.shape[:2], 1, 1, device=real.device)
    return alpha * real + (1 - alpha) * fake


def one_for_all(real, fake):
    alpha = torch.rand(1, device=real.device)
    return alpha * real + (1 - alpha) * fake


def gaussian_alpha(real, fake):
    alpha = torch.randn(len(real), 1, 1, 1, device=real.device)
    return alpha * real + (1 - alpha) * fake


def squared_alpha(real, fake):
    alpha = torch.rand(len(real), 1, 1, 1, device=real.device) ** 2
    return alpha * real + (1 - alpha) * fake


def shuffled(real, fake):
    keep = torch.rand(len(real), 1, 1, 1, device=real.device) < 0.5
    return torch.where(keep, real, fake)


def two_draws(real, fake):
    a = torch.rand(len(real), 1, 1, 1, device=real.device)
    b = torch.rand(len(real), 1, 1, 1, device=real.device)
    return a * real + b * fake


def noisy(real, fake):
    return real + real.std() * torch.rand_like(real)


def flat_alpha(real, fake):
    alpha = torch.rand(len(real), device=real.device)
    return alpha * real + (1 - alpha) * fake


def penalty_by(reduce, **options):
    """Bons gradients image par image, mais `reduce` pour en faire la pénalité."""
    options = {"create_graph": True} | options
    return lambda weight, v, x: reduce(slopes(weight, v, x, **options))


def without_graph(weight, v, x):
    return (slopes(weight, v, x).flatten(1).norm(dim=1) - 1).square().mean()


def through_backward(weight, v, x):
    x = x.clone().requires_grad_()
    critic(weight, v, x).sum().backward(retain_graph=True)
    return (x.grad.flatten(1).norm(dim=1) - 1).square().mean()


def half_detached(weight, v, x):
    return gradient_penalty(weight.detach(), v, x)


def mean_of_scores(weight, v, x):
    x = x.clone().requires_grad_()
    gradient, = torch.autograd.grad(critic(weight, v, x).mean(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def untracked(weight, v, x):
    gradient, = torch.autograd.grad(critic(weight, v, x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def unsummed(weight, v, x):
    x = x.clone().requires_grad_()
    gradient, = torch.autograd.grad(critic(weight, v, x), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def of_the_weights(weight, v, x):
    w = weight.clone().requires_grad_()
    gradient, = torch.autograd.grad(critic(w, v, x).sum(), w, create_graph=True)
    return (gradient.norm() - 1).square()


def hinge_with(d, g=lambda fake: -fake.mean()):
    return lambda real, fake: torch.stack([d(real, fake), g(fake)])


def right_hinge(real, fake):
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def ema_from_zero(history, decay):
    mean = torch.zeros_like(history[0])
    for w in history:
        mean = decay * mean + (1 - decay) * w
    return mean


def ema_of_two(history, decay):
    before = history[0]
    for w in history[1:]:
        mean, before = decay * before + (1 - decay) * w, w
    return mean if len(history) > 1 else before


def ema_growing(history, decay):
    mean = history[0]
    for w in history[1:]:
        mean = decay * mean + w
    return mean


def by_loop(f):
    """`f` d'un couple de points, en une liste Python."""
    return lambda p, q: [f(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)]


WRONG = [
    ("optimal_d", lambda p, q: q / (p + q), "les deux densités sont échangées"),
    ("optimal_d", lambda p, q: p / q, "rapport des densités"),
    ("optimal_d", lambda p, q: torch.log(p / q), "logit du discriminateur"),
    ("optimal_d", lambda p, q: torch.sigmoid(p - q), "sigmoïde de la différence"),
    ("optimal_d", lambda p, q: torch.sigmoid(p / q), "sigmoïde du rapport"),
    ("optimal_d", lambda p, q: (p - q) / (p + q), "différence des densités"),
    ("optimal_d", lambda p, q: (p > q).double(), "une décision"),
    ("optimal_d", lambda p, q: p / (0.5 * (p + q)), "facteur 2"),
    ("optimal_d", lambda p, q: p / p.sum(), "seulement normalisée"),
    ("optimal_d", lambda p, q: p / (p + q + 1e-8), "ε au dénominateur"),
    ("optimal_d", by_loop(lambda a, b: a / (a + b)), "de type list"),

    ("d_loss", lambda real, fake: bce(real, 0.0) + bce(fake, 1.0), "étiquettes sont échangées"),
    ("d_loss", lambda real, fake: bce(torch.sigmoid(real), 1.0) + bce(torch.sigmoid(fake), 0.0),
     "sigmoïde est appliquée deux fois"),
    ("d_loss", lambda real, fake: -torch.log(real).mean() - torch.log(1 - fake).mean(), "pris pour une probabilité"),
    ("d_loss", lambda real, fake: F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean(), "valeur du jeu"),
    ("d_loss", lambda real, fake: bce(real, 1.0) + bce(fake, 1.0), "même étiquette"),
    ("d_loss", lambda real, fake: bce(real, 1.0), "un seul des deux lots"),
    ("d_loss", lambda real, fake: F.softplus(-real).sum() + F.softplus(fake).sum(), "somme au lieu de moyenne"),
    ("d_loss", one_batch, "une seule moyenne"),
    ("d_loss", lambda real, fake: (1 - real.sigmoid()).mean() + fake.sigmoid().mean(), "logarithme est oublié"),
    ("d_loss", lambda real, fake: ((real - 1) ** 2).mean() + (fake**2).mean(), "moindres carrés"),
    ("d_loss", lambda real, fake: -torch.log2(torch.sigmoid(real)).mean() - torch.log2(torch.sigmoid(-fake)).mean(),
     "le log2 est pris pour ln"),
    ("d_loss", naive_d_loss, "±300"),
    ("d_loss", cautious_d_loss, "±300"),
    ("d_loss", lambda real, fake: F.binary_cross_entropy(real.sigmoid(), torch.ones_like(real))
     + F.binary_cross_entropy(fake.sigmoid(), torch.zeros_like(fake)), "±300"),
    ("d_loss", lambda real, fake: d_loss(real, fake.detach()), "gradient coupé"),

    ("g_losses", lambda fake: g_losses(fake).flip(0), "les deux pertes sont échangées"),
    ("g_losses", pair(lambda s: -bce(s, 1.0), lambda s: bce(s, 0.0)), "étiquettes sont échangées"),
    ("g_losses", pair(lambda s: -bce(s, 0.0), lambda s: bce(s, 0.0)), "étiquettes sont échangées"),
    ("g_losses", pair(lambda s: bce(s, 0.0), lambda s: bce(s, 1.0)), "signe de la perte saturante"),
    ("g_losses", pair(lambda s: -bce(s, 0.0), lambda s: F.logsigmoid(s).mean()), "signe de la perte non saturante"),
    ("g_losses", pair(lambda s: bce(s, 1.0), lambda s: bce(s, 1.0)), "deux fois la même perte"),
    ("g_losses", pair(lambda s: -bce(s.sigmoid(), 0.0), lambda s: bce(s.sigmoid(), 1.0)),
     "sigmoïde est appliquée deux fois"),
    ("g_losses", pair(lambda s: torch.log(1 - s).mean(), lambda s: -torch.log(s).mean()), "pris pour une probabilité"),
    ("g_losses", pair(lambda s: (1 - s.sigmoid()).mean(), lambda s: -s.sigmoid().mean()), "logarithme est oublié"),
    ("g_losses", pair(lambda s: -F.softplus(s).sum(), lambda s: F.softplus(-s).sum()), "somme au lieu de moyenne"),
    ("g_losses", pair(lambda s: torch.log(1 - s.sigmoid().mean()), lambda s: -torch.log(s.sigmoid().mean())),
     "logarithme de la moyenne"),
    ("g_losses", pair(lambda s: -F.softplus(s), lambda s: F.softplus(-s)), "moyenne sur le lot est oubliée"),
    ("g_losses", lambda fake: g_losses(fake) / math.log(2), "le log2 est pris pour ln"),
    ("g_losses", pair(lambda s: torch.log(1 - s.sigmoid()).mean(), lambda s: -torch.log(s.sigmoid()).mean()), "±300"),
    ("g_losses", lambda fake: tuple(g_losses(fake)), "de type tuple"),

    ("alternate", shared_zero_grad, "`detach` est oublié"),
    ("alternate", game_with(d=lambda real, fake: bce(real, 0.0) + bce(fake, 1.0)), "étiquettes sont échangées"),
    ("alternate", game_with(d=lambda real, fake: bce(real, 0.0) + bce(fake, 1.0), g=lambda fake: bce(fake, 0.0)),
     "étiquettes sont échangées"),
    ("alternate", game_with(g=lambda fake: bce(fake, 0.0)), "vise l'étiquette des faux"),
    ("alternate", game_with(g=lambda fake: -bce(fake, 0.0)), "est la saturante"),
    ("alternate", hoisted_fakes, "réutilisé après que le générateur a bougé"),
    ("alternate", hoisted_graph, "réutilisé après que le générateur a bougé"),
    ("alternate", simultaneous, "en même temps"),
    ("alternate", generator_first_on_old_fakes, "en même temps"),
    ("alternate", generator_first_on_old_fakes, "d'avant le mouvement"),
    ("alternate", generator_first, "joue avant le discriminateur"),
    ("alternate", game_with(d=lambda real, fake: bce(real.sigmoid(), 1.0) + bce(fake.sigmoid(), 0.0),
                            g=lambda fake: bce(fake.sigmoid(), 1.0)), "sigmoïde est appliquée deux fois"),
    ("alternate", game_with(g=lambda fake: bce(fake.sigmoid(), 1.0)), "sigmoïde est appliquée deux fois"),
    ("alternate", too_much_detach, "Rien ne remonte jusqu'à θ"),
    ("alternate", silent_detach, "le générateur n'apprend pas"),
    ("alternate", no_d_step, "le discriminateur n'apprend pas"),
    ("alternate", summed_losses, "une seule perte pour les deux"),
    ("alternate", one_optimizer, "à chaque demi-tour"),
    ("alternate", without_zero_grad, "pas remis à zéro"),
    ("alternate", zero_grad_of_g_only, "pas remis à zéro"),
    ("alternate", game_with(lr_sign=-1), "vers le haut"),
    ("alternate", game_with(d=lambda real, fake: d_loss(real, fake) / 2), "divisée par deux"),
    ("alternate", game_with(d=one_batch), "divisée par deux"),
    ("alternate", game_with(d=lambda real, fake: bce(real, 1.0)), "qu'un des deux lots"),
    ("alternate", game_with(d=lambda real, fake: F.softplus(-real).sum() + F.softplus(fake).sum(),
                            g=lambda fake: F.softplus(-fake).sum()), "somme au lieu de moyenne"),
    ("alternate", game_with(turns=lambda n: [0] * n), "le premier lot sert"),
    ("alternate", game_with(turns=lambda n: [0]), "un seul tour"),
    ("alternate", all_in_one_batch, "mêlés en un"),
    ("alternate", lambda *a: alternate(*a)[[1, 0]], "θ et ψ sont échangés"),
    ("alternate", lambda *a: tuple(alternate(*a)), "de type tuple"),
    ("alternate", in_place_step, "modifie son argument `theta`"),

    ("count_modes", counting(good=lambda d, std: d >= 0), "rayon est oublié"),
    ("count_modes", counting(enough=lambda hits, x, share: hits > 0), "un seul échantillon suffit"),
    ("count_modes", counting(enough=lambda hits, x, share: hits / hits.sum() >= share), "part est prise sur les bons"),
    ("count_modes", counting(good=lambda d, std: d < std), "un écart-type au lieu de trois"),
    ("count_modes", counting(good=lambda d, std: d < 2 * std), "deux écarts-types"),
    ("count_modes", counting(good=lambda d, std: d**2 < 3 * std), "carré de la distance"),
    ("count_modes", counting(good=lambda d, std: d < 3), "écart-type est oublié"),
    ("count_modes", in_a_square, "coordonnée par coordonnée"),
    ("count_modes", lambda x, centers, std, share: len(centers) - count_modes(x, centers, std, share), "modes perdus"),
    ("count_modes", lambda x, centers, std, share: int((torch.cdist(x, centers) < 3 * std).sum()),
     "échantillons, pas les modes"),
    ("count_modes", lambda x, centers, std, share: len(torch.cdist(x, centers).min(0).values < 3 * std),
     "tous les modes sont comptés"),
    ("count_modes", lambda x, centers, std, share: count_modes(x, centers, std, share) / len(centers),
     "doit être un entier"),

    ("spectral_normalize", lambda w, u, n: power(w.flatten(1), u, n), "c'est σ"),
    ("spectral_normalize", lambda w, u, n: w * power(w.flatten(1), u, n), "multipliée par σ"),
    ("spectral_normalize", lambda w, u, n: w / w.norm(), "norme de Frobenius"),
    ("spectral_normalize", lambda w, u, n: w / torch.linalg.svdvals(w.flatten(1))[0], "valeur singulière exacte"),
    ("spectral_normalize", lambda w, u, n: spectral_normalize(w, u, 1), "un seul pas"),
    ("spectral_normalize", lambda w, u, n: spectral_normalize(w, u, n + 1), "un pas de trop"),
    ("spectral_normalize", lambda w, u, n: powered(w, u, n, False, False), "ne sont pas normalisés"),
    ("spectral_normalize", lambda w, u, n: powered(w, u, n, unit_u=False), "ne sont pas normalisés"),
    ("spectral_normalize", lambda w, u, n: powered(w, u, n, unit_v=False), "ne sont pas normalisés"),
    ("spectral_normalize", late_u, "pas remis à jour"),
    ("spectral_normalize", wrong_side, "transposée sont échangées"),
    ("spectral_normalize", lambda w, u, n: w / w.abs().max(), "plus grand coefficient"),
    ("spectral_normalize", lambda w, u, n: F.normalize(w.flatten(1), dim=1).view_as(w), "ligne par ligne"),

    ("clipped_step", lambda w, real, fake, lr, c: w.clamp(-c, c) - lr * drift(real, fake), "écrêté avant le pas"),
    ("clipped_step", lambda w, real, fake, lr, c: (w + lr * drift(real, fake)).clamp(-c, c),
     "signe de la perte du critique"),
    ("clipped_step", lambda w, real, fake, lr, c: w - lr * drift(real, fake), "écrêtage est oublié"),
    ("clipped_step", lambda w, real, fake, lr, c: torch.renorm((w - lr * drift(real, fake))[None], 2, 0, c)[0],
     "par la norme"),
    ("clipped_step", lambda w, real, fake, lr, c: w - lr * drift(real, fake).clamp(-c, c), "gradient qui est écrêté"),
    ("clipped_step", lambda w, real, fake, lr, c: (w - lr * drift(real, fake)).clamp(max=c),
     "une seule des deux bornes"),
    ("clipped_step", lambda w, real, fake, lr, c: (w - drift(real, fake)).clamp(-c, c), "taux oublié"),
    ("clipped_step", bce_critic, "entropie croisée"),
    ("clipped_step", lambda w, real, fake, lr, c: (w + lr * real.mean(0)).clamp(-c, c), "un seul des deux lots"),
    ("clipped_step", lambda w, real, fake, lr, c: (w - lr * (fake.sum(0) - real.sum(0))).clamp(-c, c),
     "somme au lieu de moyenne"),
    ("clipped_step", absolute_gap, "valeur absolue"),
    ("clipped_step", lambda w, real, fake, lr, c: w.sub_(lr * drift(real, fake)).clamp(-c, c), "modifie son argument"),

    ("penalty_points", per_pixel, "α est tiré par pixel"),
    ("penalty_points", per_channel, "α est tiré par canal"),
    ("penalty_points", one_for_all, "un seul α pour tout le lot"),
    ("penalty_points", lambda real, fake: (real + fake) / 2, "un seul α pour tout le lot"),
    ("penalty_points", lambda real, fake: real, "que les vrais"),
    ("penalty_points", lambda real, fake: fake.clone(), "que les faux"),
    ("penalty_points", shuffled, "jamais un point entre les deux"),
    ("penalty_points", gaussian_alpha, "α sort de [0, 1]"),
    ("penalty_points", squared_alpha, "α n'est pas uniforme"),
    ("penalty_points", two_draws, "ne font pas 1"),
    ("penalty_points", noisy, "pas sur les segments"),
    ("penalty_points", flat_alpha, "pas les dimensions d'une image"),
    ("penalty_points", lambda real, fake: torch.cat([real, fake]), "mis bout à bout"),
    ("penalty_points", lambda real, fake: per_pixel(real, fake)[:4], "forme de `real`"),

    ("gradient_penalty", penalty_by(lambda g: (g.norm() - 1) ** 2), "norme est prise sur le lot"),
    ("gradient_penalty", penalty_by(lambda g: (g.mean(0).norm() - 1) ** 2), "norme est prise sur le lot"),
    ("gradient_penalty", penalty_by(lambda g: ((g.norm(dim=1) - 1) ** 2).mean()), "par canal ou par pixel"),
    ("gradient_penalty", penalty_by(lambda g: ((g.abs() - 1) ** 2).mean()), "par canal ou par pixel"),
    ("gradient_penalty", penalty_by(lambda g: ((g.norm(dim=0) - 1) ** 2).mean()), "mauvaise dimension"),
    ("gradient_penalty", penalty_by(lambda g: ((g.square().sum((1, 2, 3)) - 1) ** 2).mean()),
     "norme au carré moins un"),
    ("gradient_penalty", penalty_by(lambda g: (g.flatten(1).norm(dim=1) - 1).mean()), "le carré est oublié"),
    ("gradient_penalty", penalty_by(lambda g: g.square().sum((1, 2, 3)).mean()), "le 1 est oublié"),
    ("gradient_penalty", lambda *a: 0.5 * gradient_penalty(*a), "½ de trop"),
    ("gradient_penalty", lambda *a: 10.0 * gradient_penalty(*a), "poids de la pénalité est compté"),
    ("gradient_penalty", penalty_by(lambda g: (F.relu(g.flatten(1).norm(dim=1) - 1) ** 2).mean()), "que d'un côté"),
    ("gradient_penalty", penalty_by(lambda g: (g.flatten(1).norm(dim=1).mean() - 1) ** 2), "avant le carré"),
    ("gradient_penalty", penalty_by(lambda g: ((g.flatten(1).norm(dim=1) - 1) ** 2).sum()), "somme au lieu de moyenne"),
    ("gradient_penalty", mean_of_scores, "gradient de la moyenne des notes"),
    ("gradient_penalty", penalty_by(lambda g: ((g.abs().flatten(1).sum(1) - 1) ** 2).mean()), "norme L1"),
    ("gradient_penalty", of_the_weights, "par rapport aux poids"),
    ("gradient_penalty", untracked, "x n'est pas suivi"),
    ("gradient_penalty", unsummed, "pas un scalaire"),
    ("gradient_penalty", without_graph, "`create_graph` est oublié"),
    ("gradient_penalty", through_backward, "`create_graph` est oublié"),
    ("gradient_penalty", half_detached, "une partie du calcul est détachée"),
    ("gradient_penalty", lambda *a: gradient_penalty(*a).item(), "de type float"),

    ("hinge_losses", hinge_with(right_hinge, lambda fake: fake.mean()), "signe de la perte du générateur"),
    ("hinge_losses", hinge_with(lambda real, fake: right_hinge(-real, -fake)), "étiquettes sont échangées"),
    ("hinge_losses", hinge_with(lambda real, fake: F.relu(-real).mean() + F.relu(fake).mean()), "marge est oubliée"),
    ("hinge_losses", hinge_with(lambda real, fake: torch.minimum(1 - real, 0 * real).mean()
                                + torch.minimum(1 + fake, 0 * fake).mean()), "mauvais côté"),
    ("hinge_losses", hinge_with(lambda real, fake: -real.mean() + fake.mean()), "pas de maximum"),
    ("hinge_losses", hinge_with(lambda real, fake: F.relu(1 - real.mean()) + F.relu(1 + fake.mean())),
     "maximum porte sur la moyenne"),
    ("hinge_losses", hinge_with(right_hinge, lambda fake: F.relu(1 - fake).mean()), "aussi au générateur"),
    ("hinge_losses", hinge_with(lambda real, fake: F.relu(1 - real).mean() + F.relu(1 - fake).mean()),
     "signe de la marge"),
    ("hinge_losses", hinge_with(lambda real, fake: -right_hinge(real, fake)), "signe de la perte du discriminateur"),
    ("hinge_losses", hinge_with(d_loss, lambda fake: F.softplus(-fake).mean()), "entropie croisée"),
    ("hinge_losses", hinge_with(lambda real, fake: (F.relu(1 - real) ** 2).mean() + (F.relu(1 + fake) ** 2).mean()),
     "élevée au carré"),
    ("hinge_losses", hinge_with(lambda real, fake: F.relu(1 - real).sum() + F.relu(1 + fake).sum(),
                                lambda fake: -fake.sum()), "somme au lieu de moyenne"),
    ("hinge_losses", lambda real, fake: hinge_losses(real, fake)[[1, 0]], "les deux pertes sont échangées"),
    ("hinge_losses", lambda real, fake: hinge_losses(real.detach(), fake), "gradient coupé"),

    ("ema", lambda h, decay: ema(h, 1 - decay), "coefficients sont échangés"),
    ("ema", lambda h, decay: h[-1], "derniers poids"),
    ("ema", ema_of_two, "ne se souvient que d'un pas"),
    ("ema", lambda h, decay: h.mean(dim=0), "moyenne ordinaire"),
    ("ema", ema_from_zero, "part de zéro"),
    ("ema", ema_growing, "facteur 1 − β est oublié"),
    ("ema", lambda h, decay: ema(torch.flip(h, [0]), decay), "à l'envers"),
    ("ema", lambda h, decay: ema(h.T, decay), "moyenne sur les poids"),
    ("ema", lambda h, decay: ema(h[:-1], decay) if len(h) > 1 else h[0], "un pas est oublié"),
    ("ema", lambda h, decay: h[0].mul_(decay).add_(h[-1]), "modifie son argument"),
]

# Erreurs communes à plusieurs exercices, écrites à la main pour l'un d'eux seulement : aucune ici.
SHARED = ()

# Ce qu'aucun indice ne doit montrer.
SECRETS = ("softplus", "logsigmoid")
