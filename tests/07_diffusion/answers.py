"""Réponses aux exercices du chapitre 7 (modèles de diffusion), justes et fausses, écrites comme par un étudiant."""

import math

import torch
import torch.nn.functional as F


def like(value, x):
    return value.view(-1, *[1] * (x.dim() - 1))


# --- Réponses justes, écrites comme le ferait un étudiant ---------------------------------------------------


def alpha_bars(betas):
    return torch.cat([betas.new_ones(1), 1 - betas]).cumprod(0)


def q_sample(images, t, noise, alpha_bar):
    kept = like(alpha_bar[t], images)
    return kept.sqrt() * (2 * images - 1) + (1 - kept).sqrt() * noise


def posterior_mean(x, x0, t, betas):
    alpha_bar = alpha_bars(betas)
    beta, before, now = (like(v, x) for v in (betas[t - 1], alpha_bar[t - 1], alpha_bar[t]))
    return (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - now)


def loss(net, x0, alpha_bar):
    n_steps = len(alpha_bar) - 1
    t = torch.randint(1, n_steps + 1, (len(x0),), device=x0.device)
    noise = torch.randn_like(x0)
    kept = like(alpha_bar[t], x0)
    return F.mse_loss(net(kept.sqrt() * x0 + (1 - kept).sqrt() * noise, t / n_steps), noise)


def score(eps, t, alpha_bar):
    return -eps / like((1 - alpha_bar[t]).sqrt(), eps)


def time_embedding(t, dim):
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = 1000 * t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def ddpm_sample(net, x, noise, betas):
    alpha_bar, n_steps = alpha_bars(betas), len(betas)
    for t in range(n_steps, 0, -1):
        beta = betas[t - 1]
        time = torch.full((len(x),), t / n_steps, device=x.device)
        x = (x - beta / (1 - alpha_bar[t]).sqrt() * net(x, time)) / (1 - beta).sqrt()
        if t > 1:
            x = x + beta.sqrt() * noise[t]
    return x


def ddim_step(x, eps, t, s, alpha_bar):
    x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
    return alpha_bar[s].sqrt() * x0 + (1 - alpha_bar[s]).sqrt() * eps


def from_v(v, x, alpha, sigma):
    a, s = like(alpha, x), like(sigma, x)
    return torch.stack([a * x - s * v, s * x + a * v])


def flow_pair(x0, noise, t):
    t = like(t, x0)
    return torch.stack([(1 - t) * x0 + t * noise, noise - x0])


def guide(conditional, unconditional, w):
    return conditional + w * (conditional - unconditional)


def repaint(x, known, mask, s, noise, alpha_bar):
    noisy = alpha_bar[s].sqrt() * known + (1 - alpha_bar[s]).sqrt() * noise
    return mask * noisy + (1 - mask) * x


RIGHT = {f.__name__: f for f in (
    alpha_bars, q_sample, posterior_mean, loss, score, time_embedding, ddpm_sample, ddim_step, from_v, flow_pair, guide,
    repaint)}


# --- Autres réponses justes ---------------------------------------------------------------------------------


def bars_by_loop(betas):
    kept = [torch.ones_like(betas[0])]
    for beta in betas:
        kept.append(kept[-1] * (1 - beta))
    return torch.stack(kept)


def q_sample_by_image(images, t, noise, alpha_bar):
    return torch.stack([alpha_bar[i] ** 0.5 * (x - 0.5) / 0.5 + (1 - alpha_bar[i]) ** 0.5 * e
                        for i, x, e in zip(t, images, noise, strict=True)])


def posterior_by_precisions(x, x0, t, betas):
    """Produit de deux gaussiennes ; au pas 1, x_0 est certain."""
    alpha_bar = alpha_bars(betas)
    beta, before = like(betas[t - 1], x), like(alpha_bar[t - 1], x)
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta * x + before.sqrt() / (1 - before) * x0) / precision
    return torch.where(like(t, x) == 1, x0, mean)


def posterior_in_double(x, x0, t, betas):
    """Sans ᾱ_0 : les ᾱ_1, …, ᾱ_T, et le pas 1 à part."""
    kept = torch.cumprod(1 - betas, dim=0)
    now = kept[t - 1]
    before = torch.where(t > 1, kept[t - 2], torch.ones_like(now))
    of_x0 = before.sqrt() * (1 - now / before) / (1 - now)
    of_x = (now / before).sqrt() * (1 - before) / (1 - now)
    return like(of_x0, x) * x0 + like(of_x, x) * x


def loss_by_hand(net, x0, alpha_bar):
    t = 1 + (torch.rand(len(x0), device=x0.device) * (len(alpha_bar) - 1)).long()
    noise = torch.randn(x0.shape, dtype=x0.dtype, device=x0.device)
    x = torch.sqrt(alpha_bar)[t].view(-1, 1, 1, 1) * x0 + torch.sqrt(1 - alpha_bar)[t].view(-1, 1, 1, 1) * noise
    return ((noise - net(x, t.to(x0.dtype) / (len(alpha_bar) - 1))) ** 2).mean()


def embedding_by_loop(t, dim):
    waves = [f(1000 * t / 10_000 ** (2 * k / dim)) for f in (torch.cos, torch.sin) for k in range(dim // 2)]
    return torch.stack(waves, dim=1)


def ddpm_through_the_score(net, x, noise, betas):
    alpha_bar = alpha_bars(betas)
    for t in reversed(range(1, len(betas) + 1)):
        time = torch.full((len(x),), t, device=x.device) / len(betas)
        slope = -net(x, time) / torch.sqrt(1 - alpha_bar[t])
        x = (x + betas[t - 1] * slope) / torch.sqrt(1 - betas[t - 1]) + (t > 1) * torch.sqrt(betas[t - 1]) * noise[t]
    return x


def ddpm_through_x0(net, x, noise, betas):
    alpha_bar, n = alpha_bars(betas), len(betas)
    for t in range(n, 0, -1):
        eps = net(x, x.new_tensor([t / n] * len(x)))
        x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        x = posterior_mean(x, x0, torch.full((len(x),), t, device=x.device), betas)
        x = x + betas[t - 1].sqrt() * noise[t] if t > 1 else x
    return x


def ddim_by_angles(x, eps, t, s, alpha_bar):
    ratio = (alpha_bar[s] / alpha_bar[t]).sqrt()
    return ratio * x + ((1 - alpha_bar[s]).sqrt() - ratio * (1 - alpha_bar[t]).sqrt()) * eps


def v_through_eps(v, x, alpha, sigma):
    a, s = like(alpha, x), like(sigma, x)
    eps = (s * x + a * v) / (a**2 + s**2)
    return torch.stack([(x - s * eps) / a, eps])


ALSO_RIGHT = [
    ("alpha_bars", bars_by_loop),
    ("alpha_bars", lambda b: torch.cat([torch.ones(1, dtype=b.dtype, device=b.device), torch.cumprod(1 - b, 0)])),
    ("alpha_bars", lambda b: F.pad(torch.cumprod(1 - b, dim=0), (1, 0), value=1.0)),
    ("q_sample", q_sample_by_image),
    ("q_sample", lambda x, t, e, a: torch.einsum("n,nchw->nchw", a[t].sqrt(), 2 * x - 1)
     + torch.einsum("n,nchw->nchw", (1 - a[t]).sqrt(), e)),
    ("posterior_mean", posterior_by_precisions),
    ("posterior_mean", posterior_in_double),
    ("loss", loss_by_hand),
    ("score", lambda eps, t, a: -(eps.transpose(0, -1) / (1 - a[t]) ** 0.5).transpose(0, -1)),
    ("score", lambda eps, t, a: torch.stack([-e / math.sqrt(1 - a[i]) for e, i in zip(eps, t, strict=True)])),
    ("time_embedding", embedding_by_loop),
    ("time_embedding", lambda t, dim: torch.cat([f(torch.outer(t * 1000, torch.logspace(
        0, -4, dim // 2 + 1, device=t.device, dtype=t.dtype)[:-1])) for f in (torch.cos, torch.sin)], dim=-1)),
    ("ddpm_sample", ddpm_through_the_score),
    ("ddpm_sample", ddpm_through_x0),
    ("ddpm_sample", lambda *a: torch.no_grad()(ddpm_sample)(*a)),
    ("ddim_step", ddim_by_angles),
    ("from_v", v_through_eps),
    ("flow_pair", lambda x0, e, t: torch.stack([x0 + like(t, x0) * (e - x0), e - x0])),
    ("guide", lambda c, u, w: (1 + w) * c - w * u),
    ("guide", lambda c, u, w: u + (1 + w) * (c - u)),
    ("repaint", lambda x, known, mask, s, e, a: torch.where(
        mask.bool(), a[s].sqrt() * known + (1 - a[s]).sqrt() * e, x)),
    ("repaint", lambda x, known, mask, s, e, a: x + mask * (a[s] ** 0.5 * known + (1 - a[s]) ** 0.5 * e - x)),
]


def ddpm_with(part=lambda b, a: b / (1 - a).sqrt(), shrink=lambda b: (1 - b).sqrt(),
              spread=lambda b, a, before: b.sqrt(), last=False, steps=lambda n: range(n, 0, -1),
              time=lambda t, n, x: torch.full((len(x),), t / n, device=x.device), table=alpha_bars,
              beta=lambda betas, t: betas[t - 1], now=lambda kept, t: kept[t], fresh=lambda z, t: z[t]):
    """Bonne boucle, à un morceau près."""
    def f(net, x, noise, betas):
        kept, n = table(betas), len(betas)
        for t in steps(n):
            b, a = beta(betas, t), now(kept, t)
            x = (x - part(b, a) * net(x, time(t, n, x))) / shrink(b)
            if t > 1 or last:
                x = x + spread(b, a, kept[t - 1]) * fresh(noise, t)
        return x
    return f


# Justes, avec une remarque : (exercice, fonction, mots de la remarque).
REMARKED = [
    ("time_embedding", lambda t, dim: torch.cat([f(1000 * t[:, None] * torch.exp(
        -torch.arange(dim // 2, device=t.device) * math.log(10_000) / (dim // 2 - 1)))
        for f in (torch.cos, torch.sin)], dim=1), "1/10 000 compris"),
    ("ddpm_sample", ddpm_with(spread=lambda b, a, before: (b * (1 - before) / (1 - a)).sqrt()), "loi a posteriori"),
    ("ddpm_sample", ddpm_with(spread=lambda b, a, before: (b * (1 - before) / (1 - a)).sqrt(), last=True),
     "loi a posteriori"),
]


# --- Réponses fausses : (exercice, fonction, mots que l'indice doit contenir) -------------------------------


def noised(signal=lambda a: a**0.5, spread=lambda a: (1 - a) ** 0.5, scale=lambda x: 2 * x - 1, shift=0):
    def f(images, t, noise, alpha_bar):
        a = alpha_bar[t + shift].view(-1, 1, 1, 1)
        return signal(a) * scale(images) + spread(a) * noise
    return f


def flat_noised(images, t, noise, alpha_bar):
    return alpha_bar[t].sqrt() * (2 * images - 1) + (1 - alpha_bar[t]).sqrt() * noise


def posterior_with(of_x0=lambda b, u, a: u.sqrt() * b / (1 - a),
                   of_x=lambda b, u, a: (1 - b).sqrt() * (1 - u) / (1 - a),
                   table=alpha_bars, at=(-1, -1, 0), shape=like):
    """Bonne moyenne, à un coefficient ou à un indice près ; `at` : décalages de β, de ᾱ d'avant et de ᾱ."""
    def f(x, x0, t, betas):
        kept = table(betas)
        b, u, a = (shape(v, x) for v in (betas[t + at[0]], kept[t + at[1]], kept[t + at[2]]))
        return of_x0(b, u, a) * x0 + of_x(b, u, a) * x
    return f


def loss_with(draw=lambda x0, n: torch.randint(1, n + 1, (len(x0),), device=x0.device), noise=torch.randn_like,
              signal=lambda a: a.sqrt(), spread=lambda a: (1 - a).sqrt(), time=lambda t, n: t / n,
              target=lambda x0, e, x, a: e, reduce=lambda d: d.square().mean(), at=lambda t: t,
              see=lambda x, x0: x, scale=lambda x0: x0):
    """Bonne perte, à un tirage, à un coefficient ou à la cible près."""
    def f(net, x0, alpha_bar):
        n = len(alpha_bar) - 1
        t = draw(x0, n)
        e, a = noise(x0), alpha_bar[at(t)].view(-1, *[1] * (x0.dim() - 1))
        x = signal(a) * scale(x0) + spread(a) * e
        return reduce(net(see(x, x0), time(t, n)) - target(x0, e, x, a))
    return f


def one_step_of(values):
    """β_t à la place de ᾱ_t, tiré de ᾱ."""
    return torch.cat([values[:1], values[1:] / values[:-1]])


def loss_of_one_step(net, x0, alpha_bar):
    return loss(net, x0, one_step_of(alpha_bar))


def loss_without_grad(net, x0, alpha_bar):
    with torch.no_grad():
        return loss(net, x0, alpha_bar)


def loss_one_by_one(net, x0, alpha_bar):
    return torch.stack([loss(net, image[None], alpha_bar) for image in x0]).mean()


def mostly_late(x0, n):
    return torch.maximum(*(torch.randint(1, n + 1, (len(x0),), device=x0.device) for _ in range(2)))


def same_noise(x0):
    return torch.randn(x0.shape[1:], dtype=x0.dtype, device=x0.device).expand_as(x0)


def noise_per_image(x0):
    return torch.randn(len(x0), 1, 1, 1, dtype=x0.dtype, device=x0.device).expand_as(x0)


def scored(formula, shift=0):
    return lambda eps, t, alpha_bar: formula(eps, like(alpha_bar[t + shift], eps))


def embedded(waves=(torch.cos, torch.sin), power=lambda k, half: -k / half, scale=1000,
             join=lambda a, b: torch.cat([a, b], dim=1)):
    def f(t, dim):
        k = torch.arange(dim // 2, device=t.device, dtype=t.dtype)
        angles = scale * t.unsqueeze(1) * 10_000 ** power(k, dim // 2)
        return join(*(wave(angles) for wave in waves))
    return f


def linear_frequencies(t, dim):
    angles = 1000 * t[:, None] * torch.linspace(1, 1e-4, dim // 2, device=t.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def too_many_frequencies(t, dim):
    angles = 1000 * t[:, None] * torch.exp(-math.log(10_000) * torch.arange(dim, device=t.device) / dim)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def flat_times(t, dim):
    angles = 1000 * t * torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def stepped(clean=lambda x, e, a: (x - (1 - a).sqrt() * e) / a.sqrt(), signal=lambda b: b.sqrt(),
            spread=lambda b: (1 - b).sqrt(), levels=lambda t, s: (t, s)):
    """Bon pas de DDIM, à un morceau près."""
    def f(x, eps, t, s, alpha_bar):
        a, b = (alpha_bar[i] for i in levels(t, s))
        return signal(b) * clean(x, eps, a) + spread(b) * eps
    return f


def ddpm_mean(x, eps, t, s, alpha_bar):
    kept = alpha_bar[t] / alpha_bar[s]
    return (x - (1 - kept) / (1 - alpha_bar[t]).sqrt() * eps) / kept.sqrt()


def v_by(of_x0, of_eps, shape=like):
    def f(v, x, alpha, sigma):
        a, s = shape(alpha, x), shape(sigma, x)
        return torch.stack([of_x0(v, x, a, s), of_eps(v, x, a, s)])
    return f


def flowed(point=lambda x, e, t: (1 - t) * x + t * e, speed=lambda x, e, t: e - x, shape=like):
    return lambda x0, noise, t: torch.stack([f(x0, noise, shape(t, x0)) for f in (point, speed)])


def pasted(known_at=lambda k, e, a: a.sqrt() * k + (1 - a).sqrt() * e, mix=lambda n, x, m: m * n + (1 - m) * x,
           shift=0):
    return lambda x, known, mask, s, noise, alpha_bar: mix(known_at(known, noise, alpha_bar[s + shift]), x, mask)


def noise_everywhere(x, known, mask, s, noise, alpha_bar):
    return alpha_bar[s].sqrt() * (mask * known + (1 - mask) * x) + (1 - alpha_bar[s]).sqrt() * noise


WRONG = [
    ("alpha_bars", lambda b: torch.cumprod(b, dim=0), "produit des β"),
    ("alpha_bars", lambda b: torch.cumprod(1 - b, dim=0), "ᾱ_0 est oublié"),
    ("alpha_bars", lambda b: F.pad(torch.cumprod(1 - b, dim=0), (1, 0)), "ᾱ_0 n'est pas 1"),
    ("alpha_bars", lambda b: alpha_bars(b)[:-1], "l'indice est décalé d'un"),
    ("alpha_bars", lambda b: alpha_bars(b[:-1]), "l'indice est décalé d'un"),
    ("alpha_bars", lambda b: F.pad(1 - b, (1, 0), value=1.0), "β est pris pour ᾱ"),
    ("alpha_bars", lambda b: F.pad(1 - b.cumsum(0), (1, 0), value=1.0), "somme au lieu d'un produit"),
    ("alpha_bars", lambda b: alpha_bars(1 - (1 - b).sqrt()), "une racine de trop"),
    ("alpha_bars", lambda b: 1 - alpha_bars(b), "part du bruit"),
    ("alpha_bars", lambda b: alpha_bars(b.flip(0)), "à l'envers"),
    ("alpha_bars", lambda b: torch.prod(1 - b), "seul le produit total"),
    ("alpha_bars", lambda b: alpha_bars(b).tolist(), "de type list"),
    ("alpha_bars", lambda b: alpha_bars(b).float(), "torch.float32"),

    ("q_sample", noised(scale=lambda x: x), "ne sont pas ramenées à [−1, 1]"),
    ("q_sample", noised(scale=lambda x: x - 0.5), "ramenées qu'à moitié"),
    ("q_sample", noised(signal=lambda a: a), "la racine est oubliée"),
    ("q_sample", noised(spread=lambda a: 1 - a), "la racine est oubliée"),
    ("q_sample", noised(signal=lambda a: a, spread=lambda a: 1 - a), "la racine est oubliée"),
    ("q_sample", noised(spread=lambda a: 1 - a**0.5), "racine est mal placée"),
    ("q_sample", noised(lambda a: (1 - a) ** 0.5, lambda a: a**0.5), "coefficients sont échangés"),
    ("q_sample", noised(signal=lambda a: 1), "n'est pas atténuée"),
    ("q_sample", noised(shift=-1), "indice de temps est décalé d'un"),
    ("q_sample", noised(shift=1), "indice de temps est décalé d'un"),
    ("q_sample", lambda *a: (q_sample(*a) + 1) / 2, "résultat est ramené à [0, 1]"),
    ("q_sample", lambda *a: q_sample(*a).clamp(-1, 1), "écrêté"),
    ("q_sample", flat_noised, "pas les dimensions d'un exemple"),
    ("q_sample", lambda x, t, e, a: q_sample(x, t, torch.randn_like(x), a), "son propre tirage"),
    ("q_sample", lambda x, t, e, a: q_sample(x.mul_(2).sub_(1), t, e, a), "modifie son argument"),

    ("posterior_mean", posterior_with(at=(-1, 0, 0)), "ᾱ est pris au pas t dans les deux"),
    ("posterior_mean", posterior_with(at=(0, -1, 0)), "indice de temps est décalé d'un"),
    ("posterior_mean", posterior_with(at=(-1, -2, -1)), "indice de temps est décalé d'un"),
    ("posterior_mean", posterior_with(at=(-1, -2, -1), table=lambda b: torch.cumprod(1 - b, 0)), "ᾱ_0 = 1 est oublié"),
    ("posterior_mean", posterior_with(table=lambda b: torch.cumprod(1 - b, 0)), "ᾱ_0 = 1 est oublié"),
    ("posterior_mean", posterior_with(table=lambda b: F.pad(1 - b, (1, 0), value=1.0)), "β est pris pour ᾱ"),
    ("posterior_mean", lambda x, x0, t, b: posterior_mean(x0, x, t, b), "coefficients sont échangés"),
    ("posterior_mean", posterior_with(of_x0=lambda b, u, a: u * b / (1 - a)), "la racine est oubliée"),
    ("posterior_mean", posterior_with(of_x=lambda b, u, a: (1 - b) * (1 - u) / (1 - a)), "la racine est oubliée"),
    ("posterior_mean", posterior_with(lambda b, u, a: u.sqrt() * b / (1 - a).sqrt(),
                                      lambda b, u, a: (1 - b).sqrt() * (1 - u) / (1 - a).sqrt()),
     "racine est prise aussi sur les variances"),
    ("posterior_mean", posterior_with(lambda b, u, a: u.sqrt() * b, lambda b, u, a: (1 - b).sqrt() * (1 - u)),
     "dénominateur est oublié"),
    ("posterior_mean", lambda x, x0, t, b: like((1 - b[t - 1]).sqrt(), x) * x, "processus direct"),
    ("posterior_mean", lambda x, x0, t, b: like(alpha_bars(b)[t - 1].sqrt(), x) * x0, "processus direct"),
    ("posterior_mean", posterior_with(shape=lambda v, x: v), "pas les dimensions d'un exemple"),

    ("loss", loss_with(draw=lambda x0, n: torch.randint(1, n + 1, (1,), device=x0.device)),
     "un seul t pour tout le lot"),
    ("loss", loss_with(draw=lambda x0, n: torch.randint(1, n + 1, (), device=x0.device).expand(len(x0))),
     "un seul t pour tout le lot"),
    ("loss", loss_with(time=lambda t, n: (t / n).view(-1, 1, 1, 1)), "un temps par exemple, de forme (N,)"),
    ("loss", loss_with(time=lambda t, n: t), "temps n'est pas divisé par T"),
    ("loss", loss_with(time=lambda t, n: t / 7.3), "n'est pas celui d'un pas"),
    ("loss", loss_with(draw=lambda x0, n: torch.randint(n, (len(x0),), device=x0.device)),
     "indice de temps est décalé d'un"),
    ("loss", loss_with(draw=lambda x0, n: torch.randint(n + 1, (len(x0),), device=x0.device)),
     "indice de temps est décalé d'un"),
    ("loss", loss_with(draw=lambda x0, n: torch.randint(1, n, (len(x0),), device=x0.device)),
     "pas T n'est jamais tiré"),
    ("loss", loss_with(at=lambda t: t - 1), "indice de temps est décalé d'un"),
    ("loss", loss_with(draw=lambda x0, n: torch.randint(n, (len(x0),), device=x0.device), at=lambda t: t + 1),
     "indice de temps est décalé d'un"),
    ("loss", loss_with(draw=mostly_late), "t n'est pas uniforme"),
    ("loss", loss_with(signal=lambda a: a), "la racine est oubliée"),
    ("loss", loss_with(spread=lambda a: 1 - a), "la racine est oubliée"),
    ("loss", loss_with(signal=lambda a: a, spread=lambda a: 1 - a), "la racine est oubliée"),
    ("loss", loss_with(signal=lambda a: (1 - a).sqrt(), spread=lambda a: a.sqrt()), "coefficients sont échangés"),
    ("loss", loss_with(signal=torch.ones_like), "n'est pas atténuée"),
    ("loss", loss_with(scale=lambda x: 2 * x - 1), "une seconde fois"),
    ("loss", loss_of_one_step, "β est pris pour ᾱ"),
    ("loss", loss_with(see=lambda x, x0: x0), "ne voit pas x_t"),
    ("loss", loss_with(see=lambda x, x0: x / x.std()), "ne voit pas x_t"),
    ("loss", loss_with(see=lambda x, x0: x[:, :, :1]), "de la forme de `x0`"),
    ("loss", loss_with(noise=torch.rand_like), "le bruit est uniforme"),
    ("loss", loss_with(noise=same_noise), "un seul bruit pour tout le lot"),
    ("loss", loss_with(noise=noise_per_image), "un seul nombre de bruit par image"),
    ("loss", loss_with(target=lambda x0, e, x, a: x0), "vous demandez au réseau l'image"),
    ("loss", loss_with(target=lambda x0, e, x, a: x), "vous demandez au réseau x_t"),
    ("loss", loss_with(target=lambda x0, e, x, a: e - x0), "vous demandez au réseau ε − x_0"),
    ("loss", loss_with(target=lambda x0, e, x, a: -e), "l'opposé du bruit"),
    ("loss", loss_with(target=lambda x0, e, x, a: torch.randn_like(e)), "tiré deux fois"),
    ("loss", loss_with(reduce=lambda d: d.square().sum()), "somme au lieu de moyenne"),
    ("loss", loss_with(reduce=lambda d: d.square().flatten(1).sum(1).mean()), "somme au lieu de moyenne"),
    ("loss", loss_with(reduce=lambda d: d.square().flatten(1).mean(1)), "moyenne est incomplète"),
    ("loss", loss_with(reduce=lambda d: d.square()), "moyenne est incomplète"),
    ("loss", loss_with(reduce=lambda d: d.abs().mean()), "le carré est oublié"),
    ("loss", loss_with(reduce=lambda d: 0.5 * d.square().mean()), "½ de trop"),
    ("loss", loss_without_grad, "gradient coupé"),
    ("loss", loss_one_by_one, "une suffit"),
    ("loss", lambda net, x0, alpha_bar: loss(net, x0, alpha_bar).item(), "de type float"),

    ("score", scored(lambda e, a: e / (1 - a).sqrt()), "signe du score"),
    ("score", scored(lambda e, a: -e / (1 - a)), "la racine est oubliée"),
    ("score", scored(lambda e, a: -e), "division par σ est oubliée"),
    ("score", scored(lambda e, a: -(1 - a).sqrt() * e), "division par σ est oubliée"),
    ("score", scored(lambda e, a: -e / a.sqrt()), "coefficient de l'image"),
    ("score", scored(lambda e, a: -e / (1 - a).sqrt(), -1), "indice de temps est décalé d'un"),
    ("score", lambda eps, t, a: -eps / torch.sqrt(1 - a[t]), "pas les dimensions d'un exemple"),

    ("time_embedding", embedded(waves=(torch.sin, torch.sin)), "deux moitiés sont confondues"),
    ("time_embedding", embedded(waves=(torch.cos, torch.cos)), "deux moitiés sont confondues"),
    ("time_embedding", embedded(waves=(torch.sin, torch.cos)), "deux moitiés sont échangées"),
    ("time_embedding", embedded(join=lambda a, b: torch.stack([a, b], dim=-1).reshape(len(a), -1)), "entrelacés"),
    ("time_embedding", embedded(scale=1), "facteur 1000 est oublié"),
    ("time_embedding", embedded(scale=2000 * math.pi), "facteur 2π"),
    ("time_embedding", embedded(power=lambda k, half: k / half), "fréquences croissent"),
    ("time_embedding", embedded(power=lambda k, half: -k / (2 * half)), "exposant est mal compté"),
    ("time_embedding", embedded(power=lambda k, half: -2 * k / half), "exposant est mal compté"),
    ("time_embedding", linear_frequencies, "progression géométrique"),
    ("time_embedding", too_many_frequencies, "deux fois trop de fréquences"),
    ("time_embedding", embedded(join=lambda a, b: torch.cat([a, b])), "l'une sous l'autre"),
    ("time_embedding", flat_times, "pas une colonne"),

    ("ddpm_sample", ddpm_with(last=True), "du bruit est ajouté au dernier pas"),
    ("ddpm_sample", ddpm_with(spread=lambda *a: 0), "aucun bruit n'est ajouté"),
    ("ddpm_sample", ddpm_with(part=lambda b, a: b / b.sqrt()), "β est pris pour ᾱ"),
    ("ddpm_sample", ddpm_with(table=lambda b: F.pad(1 - b, (1, 0), value=1.0)), "β est pris pour ᾱ"),
    ("ddpm_sample", ddpm_with(spread=lambda b, a, before: b), "la racine est oubliée"),
    ("ddpm_sample", ddpm_with(shrink=lambda b: 1 - b), "la racine est oubliée"),
    ("ddpm_sample", ddpm_with(part=lambda b, a: b / (1 - a)), "la racine est oubliée"),
    ("ddpm_sample", ddpm_with(part=lambda b, a: b.sqrt() / (1 - a).sqrt()), "racine de trop"),
    ("ddpm_sample", ddpm_with(part=lambda b, a: -b / (1 - a).sqrt()), "signe du bruit prédit"),
    ("ddpm_sample", ddpm_with(shrink=lambda b: 1), "division par √(1 − β) est oubliée"),
    ("ddpm_sample", ddpm_with(part=lambda b, a: (1 - a).sqrt()), "retiré d'un coup"),
    ("ddpm_sample", ddpm_with(beta=lambda betas, t: betas[t]), "indice de temps est décalé d'un"),
    ("ddpm_sample", ddpm_with(now=lambda kept, t: kept[t - 1]), "indice de temps est décalé d'un"),
    ("ddpm_sample", ddpm_with(table=lambda b: torch.cumprod(1 - b, 0)), "indice de temps est décalé d'un"),
    ("ddpm_sample", ddpm_with(time=lambda t, n, x: torch.full((len(x),), (t - 1) / n, device=x.device)),
     "indice de temps est décalé d'un"),
    ("ddpm_sample", ddpm_with(fresh=lambda z, t: z[t - 1]), "indice de temps est décalé d'un"),
    ("ddpm_sample", ddpm_with(steps=lambda n: range(n, 1, -1)), "un pas manque"),
    ("ddpm_sample", ddpm_with(steps=lambda n: range(n - 1, 0, -1)), "un pas manque"),
    ("ddpm_sample", ddpm_with(steps=lambda n: range(1, n + 1)), "parcourue à l'envers"),
    ("ddpm_sample", ddpm_with(time=lambda t, n, x: torch.full((len(x),), t, device=x.device)),
     "temps n'est pas divisé par T"),
    ("ddpm_sample", ddpm_with(time=lambda t, n, x: torch.tensor(t / n, device=x.device)), "n'a pas la forme (N,)"),
    ("ddpm_sample", ddpm_with(time=lambda t, n, x: t / n), "n'a pas la forme (N,)"),
    ("ddpm_sample", ddpm_with(fresh=lambda z, t: torch.randn_like(z[t])), "son propre tirage"),

    ("ddim_step", stepped(levels=lambda t, s: (t, t - 1)), "`s` est ignoré"),
    ("ddim_step", stepped(signal=lambda b: b), "la racine est oubliée"),
    ("ddim_step", stepped(spread=lambda b: 1 - b), "la racine est oubliée"),
    ("ddim_step", stepped(clean=lambda x, e, a: (x - (1 - a) * e) / a.sqrt()), "la racine est oubliée"),
    ("ddim_step", stepped(clean=lambda x, e, a: x - (1 - a).sqrt() * e), "n'est pas divisée par √ᾱ_t"),
    ("ddim_step", stepped(clean=lambda x, e, a: (x + (1 - a).sqrt() * e) / a.sqrt()), "signe du bruit prédit"),
    ("ddim_step", stepped(signal=lambda b: 1, spread=lambda b: 0), "bruit n'est pas remis"),
    ("ddim_step", stepped(levels=lambda t, s: (t, t)), "on reste au pas de départ"),
    ("ddim_step", lambda x, eps, t, s, a: x, "on reste au pas de départ"),
    ("ddim_step", stepped(levels=lambda t, s: (s, t)), "départ et l'arrivée"),
    ("ddim_step", stepped(signal=lambda b: (1 - b).sqrt(), spread=lambda b: b.sqrt()), "échangés à l'arrivée"),
    ("ddim_step", stepped(levels=lambda t, s: (t - 1, s - 1)), "indice de temps est décalé d'un"),
    ("ddim_step", stepped(levels=lambda t, s: (t, s + 1)), "indice de temps est décalé d'un"),
    ("ddim_step", ddpm_mean, "moyenne de DDPM"),
    ("ddim_step", stepped(clean=lambda x, e, a: x), "bruit prédit n'est pas retiré"),

    ("from_v", v_by(lambda v, x, a, s: a * x + s * v, lambda v, x, a, s: s * x + a * v),
     "signe de v est faux dans x_0"),
    ("from_v", v_by(lambda v, x, a, s: a * x - s * v, lambda v, x, a, s: s * x - a * v), "signe de v est faux dans ε"),
    ("from_v", v_by(lambda v, x, a, s: a * x + s * v, lambda v, x, a, s: s * x - a * v), "deux signes de v"),
    ("from_v", v_by(lambda v, x, a, s: a * v - s * x, lambda v, x, a, s: a * x + s * v), "recalculé, pas inversé"),
    ("from_v", v_by(lambda v, x, a, s: s * x - a * v, lambda v, x, a, s: a * x + s * v), "coefficients sont échangés"),
    ("from_v", v_by(lambda v, x, a, s: s * x + a * v, lambda v, x, a, s: a * x - s * v), "x_0 et ε sont échangés"),
    ("from_v", v_by(lambda v, x, a, s: (x - s * v) / a, lambda v, x, a, s: v), "v est pris pour ε"),
    ("from_v", v_by(lambda v, x, a, s: x - s * v, lambda v, x, a, s: x + a * v), "vitesse du chemin droit"),
    ("from_v", v_by(lambda v, x, a, s: x - s * v / a, lambda v, x, a, s: x + a * v / s), "division de trop"),
    ("from_v", v_by(lambda v, x, a, s: a * x - s * v, lambda v, x, a, s: s * x + a * v, lambda c, x: c),
     "pas les dimensions d'un exemple"),
    ("from_v", lambda *a: tuple(from_v(*a)), "de type tuple"),
    ("from_v", lambda v, *a: from_v(v.detach(), *a), "gradient coupé"),

    ("flow_pair", flowed(lambda x, e, t: t * x + (1 - t) * e, lambda x, e, t: x - e), "chemin est à l'envers"),
    ("flow_pair", flowed(lambda x, e, t: t * x + (1 - t) * e), "chemin est à l'envers"),
    ("flow_pair", flowed(speed=lambda x, e, t: x - e), "signe de la vitesse"),
    ("flow_pair", flowed(speed=lambda x, e, t: (e - x) / (1 - t)), "vitesse dépend de t"),
    ("flow_pair", flowed(speed=lambda x, e, t: (1 - t) * e - t * x), "prédiction v"),
    ("flow_pair", flowed(speed=lambda x, e, t: e), "bruit, ou la donnée"),
    ("flow_pair", flowed(speed=lambda x, e, t: e - (1 - t) * x - t * e), "comptée depuis x_t"),
    ("flow_pair", flowed(point=lambda x, e, t: (1 - t).sqrt() * x + t.sqrt() * e), "chemin n'est pas droit"),
    ("flow_pair", flowed(point=lambda x, e, t: x + t * e), "donnée n'est pas atténuée"),
    ("flow_pair", lambda *a: flow_pair(*a)[[1, 0]], "sont échangés"),
    ("flow_pair", flowed(shape=lambda t, x: t), "pas les dimensions d'un exemple"),
    ("flow_pair", lambda *a: tuple(flow_pair(*a)), "de type tuple"),

    ("guide", lambda c, u, w: (1 - w) * c + w * u, "mauvais côté"),
    ("guide", lambda c, u, w: guide(u, c, w), "mauvais côté"),
    ("guide", lambda c, u, w: w * c + (1 - w) * u, "w est compté autrement"),
    ("guide", lambda c, u, w: c + w * (c + u), "est ajoutée"),
    ("guide", lambda c, u, w: w * c - w * u, "le 1 de 1 + w"),
    ("guide", lambda c, u, w: (1 + w) * c, "n'est pas retranchée"),
    ("guide", lambda c, u, w: (1 + w) * c - u, "coefficients ne font pas 1"),
    ("guide", lambda c, u, w: (c + w * u) / (1 + w), "une moyenne"),
    ("guide", lambda c, u, w: c + (c - u), "w est ignoré"),

    ("repaint", pasted(mix=lambda n, x, m: (1 - m) * n + m * x), "masque est inversé"),
    ("repaint", pasted(known_at=lambda k, e, a: k), "partie connue n'est pas bruitée"),
    ("repaint", pasted(known_at=lambda k, e, a: a.sqrt() * k), "le bruit est oublié"),
    ("repaint", pasted(shift=1), "indice de temps est décalé d'un"),
    ("repaint", pasted(shift=-1), "indice de temps est décalé d'un"),
    ("repaint", pasted(known_at=lambda k, e, a: a * k + (1 - a) * e), "la racine est oubliée"),
    ("repaint", pasted(known_at=lambda k, e, a: (1 - a).sqrt() * k + a.sqrt() * e), "coefficients sont échangés"),
    ("repaint", pasted(mix=lambda n, x, m: m * n + x), "trou n'est pas protégé"),
    ("repaint", pasted(mix=lambda n, x, m: x.clone()), "rien n'est collé"),
    ("repaint", pasted(mix=lambda n, x, m: m * n), "le trou est vide"),
    ("repaint", pasted(mix=lambda n, x, m: n), "toute l'image est remplacée"),
    ("repaint", noise_everywhere, "masque ne porte que"),
    ("repaint", pasted(known_at=lambda k, e, a: a.sqrt() * (2 * k - 1) + (1 - a).sqrt() * e), "une seconde fois"),
    ("repaint", lambda x, known, mask, s, e, a: x.mul_(1 - mask).add_(mask * known), "modifie son argument"),
]

# Erreurs communes à plusieurs exercices, écrites à la main pour l'un d'eux seulement.
SHARED = ()

# Ce qu'aucun indice ne doit montrer.
SECRETS = ("cumprod",)
