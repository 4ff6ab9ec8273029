"""Réponses aux exercices du chapitre 3 (VAE), justes et fausses, écrites comme le ferait un étudiant."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

# --- Réponses justes, écrites comme le ferait un étudiant ---------------------------------------------------


def kl(mu_q, logvar_q, mu_p, logvar_p):
    ratio = (logvar_q.exp() + (mu_q - mu_p)**2) / logvar_p.exp()
    return 0.5 * (logvar_p - logvar_q + ratio - 1).sum(dim=1)


def kl_standard(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)


def reparameterize(mu, logvar, noise):
    return mu + (0.5 * logvar).exp() * noise


def log_likelihood(logits, x):
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1)


def elbo(logits, x, mu, logvar):
    return log_likelihood(logits, x) - kl_standard(mu, logvar)


def importance_bound(log_w):
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


def slerp(a, b, t):
    cosine = torch.dot(a, b) / (a.norm() * b.norm())
    omega = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(omega) < 1e-4:
        return (1 - t) * a + t * b
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)


def rate_bits(mu, logvar):
    return kl_standard(mu, logvar) / math.log(2)


def free_bits(kl, lam):
    return kl.mean(dim=0).clamp(min=lam).sum()


def active_units(mu, threshold=0.01):
    return int((mu.var(dim=0) > threshold).sum())


RIGHT = {f.__name__: f for f in (
    kl, reparameterize, elbo, importance_bound, slerp, rate_bits, free_bits, active_units)}


# --- Autres réponses justes ---------------------------------------------------------------------------------


def python_slerp(a, b, t):
    cosine = float(a @ b / (a.norm() * b.norm()))
    if cosine > 0.9995:
        return torch.lerp(a, b, t)
    omega = math.acos(max(-1.0, min(1.0, cosine)))
    return math.sin((1 - t) * omega) / math.sin(omega) * a + math.sin(t * omega) / math.sin(omega) * b


def bound_by_hand(log_w):
    high = log_w.amax(0, keepdim=True)
    return (high + (log_w - high).exp().mean(0, keepdim=True).log())[0]


ALSO_RIGHT = [
    ("slerp", python_slerp),
    ("importance_bound", bound_by_hand),
    ("kl", lambda mq, vq, mp, vp: kl_divergence(Normal(mq, (vq / 2).exp()), Normal(mp, (vp / 2).exp())).sum(1)),
    ("elbo", lambda lo, x, m, v: Bernoulli(logits=lo).log_prob(x).sum((1, 2, 3)) - kl_standard(m, v)),
    ("free_bits", lambda k, lam: torch.maximum(k.mean(0), torch.full_like(k[0], lam)).sum()),
    ("active_units", lambda m, threshold=0.01: (m.var(0) > threshold).sum()),
]

# Justes, avec une remarque : (exercice, fonction, mots de la remarque).
REMARKED = [
    ("reparameterize", lambda m, v, e: m - (0.5 * v).exp() * e, "Vous soustrayez le bruit"),
]


# --- Réponses fausses : (exercice, fonction, mots que l'indice doit contenir) -------------------------------


def naive_slerp(a, b, t, omega=None):
    omega = torch.acos(torch.dot(a, b) / (a.norm() * b.norm())) if omega is None else omega
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)


def without_gradient(mu, logvar, noise):
    with torch.no_grad():
        return reparameterize(mu, logvar, noise)


def global_maximum(log_w):
    high = log_w.max()
    return high + (log_w - high).exp().mean(0).log()


WRONG = [
    ("kl", lambda *a: -kl(*a), "signe est opposé"),
    ("kl", lambda *a: 2 * kl(*a), "½ est oublié"),
    ("kl", lambda mq, vq, mp, vp: 0.5 * (vp.log() - vq.log() + (vq + (mq - mp)**2) / vp - 1).sum(1),
     "log-variance est prise pour la variance"),
    ("kl", lambda mq, vq, mp, vp: 0.5 * (vp - vq + (vq + (mq - mp)**2) / vp - 1).sum(1),
     "log-variance est prise pour la variance"),
    ("kl", lambda mq, vq, mp, vp: kl_divergence(Normal(mq, vq), Normal(mp, vp)).sum(1),
     "log-variance est prise pour l'écart-type"),
    ("kl", lambda mq, vq, mp, vp: (vp.log() - vq.log() + (vq**2 + (mq - mp)**2) / (2 * vp**2) - 0.5).sum(1),
     "log-variance est prise pour l'écart-type"),
    ("kl", lambda mq, vq, mp, vp: kl_divergence(Normal(mq, vq.exp()), Normal(mp, vp.exp())).sum(1),
     "variance est prise pour l'écart-type"),
    ("kl", lambda mq, vq, mp, vp: kl(mq, vq / 2, mp, vp / 2) + 0.25 * (vp - vq).sum(1),
     "écart-type est pris pour la variance"),
    ("kl", lambda *a: kl(*a) / a[0].shape[1], "moyenne sur les dimensions"),
    ("kl", lambda *a: kl(*a).sum(), "somme sur le lot"),
    ("kl", lambda *a: kl(*a).mean(), "moyenne sur le lot"),
    ("kl", lambda mq, vq, mp, vp: 0.5 * (vp - vq + (vq.exp() + (mq - mp)**2) / vp.exp() - 1).sum(0),
     "mauvaise dimension"),
    ("kl", lambda mq, vq, mp, vp: kl(mp, vp, mq, vq), "rôles de q et de p"),
    ("kl", lambda mq, vq, mp, vp: 0.5 * (vp - vq + (vq.exp() + (mq - mp)**2) / vp.exp()).sum(1),
     "−1 est oublié"),
    ("kl", lambda mq, vq, mp, vp: 0.5 * (vq - vp + (vq.exp() + (mq - mp)**2) / vp.exp() - 1).sum(1),
     "logarithmes sont échangés"),
    ("kl", lambda mq, vq, mp, vp: 0.5 * (vp - vq + vq.exp() / vp.exp() + (mq - mp)**2 - 1).sum(1),
     "pas divisé par la variance"),
    ("kl", lambda mq, vq, mp, vp: kl_standard(mq, vq), "loi p est ignorée"),
    ("kl", lambda *a: kl(*(x.detach() for x in a)), "gradient coupé"),
    ("kl", lambda mq, vq, mp, vp: kl(mq, vq, mp.detach(), vp), "`mu_p`"),

    ("reparameterize", lambda m, v, e: m + v * e, "log-variance est prise pour l'écart-type"),
    ("reparameterize", lambda m, v, e: m + v.exp() * e, "variance est prise pour l'écart-type"),
    ("reparameterize", lambda m, v, e: m + v.sqrt() * e, "log-variance est prise pour la variance"),
    ("reparameterize", lambda m, v, e: m, "bruit est ignoré"),
    ("reparameterize", lambda m, v, e: m + e, "écart-type est ignoré"),
    ("reparameterize", lambda m, v, e: (0.5 * v).exp() * e, "moyenne est ignorée"),
    ("reparameterize", lambda m, v, e: (0.5 * v).exp() * (m + e), "moyenne est multipliée"),
    ("reparameterize", lambda m, v, e: reparameterize(m, v, e).detach(), "gradient coupé"),
    ("reparameterize", without_gradient, "gradient coupé"),
    ("reparameterize", lambda m, v, e: reparameterize(m.detach(), v, e), "`mu`"),
    ("reparameterize", lambda m, v, e: reparameterize(m, v.data, e), "`logvar`"),
    ("reparameterize", lambda m, v, e: reparameterize(m, v, torch.randn_like(m)), "son propre tirage"),

    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) + kl_standard(m, v), "signe du KL"),
    ("elbo", lambda lo, x, m, v: -log_likelihood(lo, x) - kl_standard(m, v), "signe de la vraisemblance"),
    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) / 784 - kl_standard(m, v), "pèse 784 fois trop"),
    ("elbo", lambda lo, x, m, v: -F.binary_cross_entropy_with_logits(lo, x) - kl_standard(m, v),
     "moyennée sur les pixels"),
    ("elbo", lambda lo, x, m, v: -F.binary_cross_entropy_with_logits(lo, x, reduction="sum")
     - kl_standard(m, v),
     "sommée sur tout le lot"),
    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) - kl_standard(m, v) / m.shape[1],
     "KL est moyenné sur les dimensions latentes"),
    ("elbo", lambda *a: -elbo(*a), "c'est la perte"),
    ("elbo", lambda *a: elbo(*a).mean(), "moyenne ou somme sur le lot"),
    ("elbo", lambda lo, x, m, v: -F.binary_cross_entropy(lo, x, reduction="none").flatten(1).sum(1)
     - kl_standard(m, v), "logits sont pris pour des probabilités"),
    ("elbo", lambda lo, x, m, v: Bernoulli(lo.flatten(1)).log_prob(x.flatten(1)).sum(1) - kl_standard(m, v),
     "logits sont pris pour des probabilités"),
    ("elbo", lambda lo, x, m, v: (x * lo.log() + (1 - x) * (1 - lo).log()).sum((1, 2, 3)) - kl_standard(m, v),
     "logits sont pris pour des probabilités"),
    ("elbo", lambda lo, x, m, v: elbo(lo.sigmoid(), x, m, v), "sigmoïde est appliquée deux fois"),
    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) - 0.5 * (m**2 + v - 1 - v.log()).sum(1),
     "log-variance est prise pour la variance"),
    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) - 0.5 * (m**2 + v**2 - 1 - (v**2).log()).sum(1),
     "log-variance est prise pour l'écart-type"),
    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) - kl_divergence(
        Normal(m, v), Normal(torch.zeros_like(m), torch.ones_like(m))).sum(1),
     "log-variance est prise pour l'écart-type"),
    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) - 2 * kl_standard(m, v), "½ est oublié"),
    ("elbo", lambda lo, x, m, v: log_likelihood(lo, x) - 0.5 * (m**2 + v.exp() - v).sum(1), "−1 est oublié"),
    ("elbo", lambda lo, x, m, v: (x * lo.sigmoid().log() + (1 - x) * (1 - lo.sigmoid()).log()).sum((1, 2, 3))
     - kl_standard(m, v), "débordement"),
    ("elbo", lambda lo, x, m, v: -F.binary_cross_entropy(lo.sigmoid(), x, reduction="none").sum((1, 2, 3))
     - kl_standard(m, v), "débordement"),
    ("elbo", lambda lo, x, m, v: elbo(lo, x, m.detach(), v), "gradient coupé"),

    ("importance_bound", lambda w: w.mean(0), "moyenne des logarithmes"),
    ("importance_bound", lambda w: torch.logsumexp(w, 0), "−ln K est oublié"),
    ("importance_bound", lambda w: torch.logsumexp(w, 0) - len(w), "−K au lieu de −ln K"),
    ("importance_bound", lambda w: torch.logsumexp(w, 0) / len(w), "−K au lieu de −ln K"),
    ("importance_bound", lambda w: torch.logsumexp(w, 0) + math.log(len(w)), "+ln K"),
    ("importance_bound", lambda w: torch.logsumexp(w, 0) - math.log(w.shape[1]), "N au lieu de K"),
    ("importance_bound", lambda w: torch.logsumexp(w, 1) - math.log(w.shape[1]), "mauvais axe"),
    ("importance_bound", lambda w: torch.logsumexp(w, (0, 1)) - math.log(w.numel()), "le lot est mêlé"),
    ("importance_bound", lambda w: importance_bound(w).mean(), "moyenne ou somme sur le lot"),
    ("importance_bound", lambda w: -importance_bound(w), "signe est opposé"),
    ("importance_bound", lambda w: w.exp().mean(0).log(), "débordement"),
    ("importance_bound", global_maximum, "débordement"),

    ("slerp", lambda a, b, t: (1 - t) * a + t * b, "interpolation linéaire"),
    ("slerp", lambda a, b, t: slerp(b, a, t), "sens de t est inversé"),
    ("slerp", lambda a, b, t: naive_slerp(a, b, t, torch.acos(torch.dot(a, b))), "n'est pas normalisé"),
    ("slerp", lambda a, b, t: naive_slerp(a, b, t, torch.acos(torch.dot(a, b).clamp(-1, 1))),
     "n'est pas normalisé"),
    ("slerp", lambda a, b, t: slerp(a, b, t) / slerp(a, b, t).norm(), "résultat est normalisé"),
    ("slerp", lambda a, b, t: slerp(a / a.norm(), b / b.norm(), t), "résultat est normalisé"),
    ("slerp", lambda a, b, t: naive_slerp(a, b, t, F.cosine_similarity(a, b, dim=0)), "pris pour l'angle"),
    ("slerp", lambda a, b, t: slerp(a, b, t) * torch.sin(torch.acos(F.cosine_similarity(a, b, dim=0))),
     "division par sin Ω"),
    ("slerp", lambda a, b, t: torch.cos((1 - t) * torch.acos(F.cosine_similarity(a, b, dim=0))) * a
     + torch.cos(t * torch.acos(F.cosine_similarity(a, b, dim=0))) * b, "cosinus au lieu de sinus"),
    ("slerp", naive_slerp, "presque colinéaires"),

    ("rate_bits", kl_standard, "nats au lieu de bits"),
    ("rate_bits", lambda m, v: kl_standard(m, v) * math.log(2), "multiplication par ln 2"),
    ("rate_bits", lambda m, v: rate_bits(m, v) / 784, "bits par pixel"),
    ("rate_bits", lambda m, v: rate_bits(m, v) / m.shape[1], "moyenne sur les dimensions latentes"),
    ("rate_bits", lambda m, v: (m**2 + v.exp() - 1 - v).sum(1) / math.log(2), "½ est oublié"),
    ("rate_bits", lambda m, v: 0.5 * (m**2 + v.exp() - v).sum(1) / math.log(2), "−1 est oublié"),
    ("rate_bits", lambda m, v: 0.5 * (m**2 + v - 1 - v.log()).sum(1) / math.log(2),
     "log-variance est prise pour la variance"),
    ("rate_bits", lambda m, v: rate_bits(m, v).mean(), "moyenne ou somme sur le lot"),
    ("rate_bits", lambda m, v: 0.5 * (1 + v - m**2 - v.exp()).sum(1) / math.log(2), "signe est opposé"),

    ("free_bits", lambda k, lam: k.clamp(min=lam).mean(0).sum(), "avant la moyenne"),
    ("free_bits", lambda k, lam: k.sum(1).mean().clamp(min=lam), "seuil porte sur le KL total"),
    ("free_bits", lambda k, lam: k.sum(1).clamp(min=lam).mean(), "seuil porte sur le KL total"),
    ("free_bits", lambda k, lam: k.mean(0).clamp(max=lam).sum(), "minimum au lieu de maximum"),
    ("free_bits", lambda k, lam: k.mean(0).clamp(min=lam).mean(), "moyenne sur les dimensions"),
    ("free_bits", lambda k, lam: (k.mean(0) + lam).sum(), "seuil est ajouté"),
    ("free_bits", lambda k, lam: F.relu(k.mean(0) - lam).sum(), "seuil est retranché"),
    ("free_bits", lambda k, lam: k.mean(0).sum(), "seuil est oublié"),
    ("free_bits", lambda k, lam: k.sum(0).clamp(min=lam).sum(), "somme sur le lot"),
    ("free_bits", lambda k, lam: k.mean(1).clamp(min=lam).sum(), "axes sont échangés"),
    ("free_bits", lambda k, lam: torch.tensor([max(lam, m.item()) for m in k.mean(0)], dtype=k.dtype).sum(),
     "gradient coupé"),
    ("free_bits", lambda k, lam: k.mean(0).clamp(min=lam), "forme attendue ()"),

    ("active_units", lambda mu, threshold=0.01: int((mu.var(dim=1) > threshold).sum()),
     "variance sur les coordonnées"),
    ("active_units", lambda mu, threshold=0.01: int((mu.std(dim=0) > threshold).sum()), "écart-type au lieu"),
    ("active_units", lambda mu, threshold=0.01: int((mu.mean(dim=0).abs() > threshold).sum()),
     "moyenne au lieu de variance"),
    ("active_units", lambda mu, threshold=0.01: int((mu.norm(dim=0) > threshold).sum()),
     "moyenne au lieu de variance"),
    ("active_units", lambda mu, threshold=0.01: int((mu.var(dim=0) < threshold).sum()), "unités inactives"),
    ("active_units", lambda mu, threshold=0.01: int((mu.var(dim=0) > 0.01).sum()), "seuil est ignoré"),
    ("active_units", lambda mu, threshold=0.01: int(mu.var() > threshold), "toutes les valeurs ensemble"),
    ("active_units", lambda mu, threshold=0.01: len(mu.var(dim=0) > threshold), "toutes les unités"),
    ("active_units", lambda mu, threshold=0.01: mu.var(dim=0) > threshold, "doit être un entier"),
    ("active_units", lambda mu, threshold: active_units(mu, threshold), "threshold=0.01"),
]

# Erreurs communes à plusieurs exercices : écrites à la main pour `kl` seulement.
SHARED = ("dans le KL, ",)

# Ce qu'aucun indice ne doit montrer.
SECRETS = ("logsumexp",)
