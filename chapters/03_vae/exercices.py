"""Exercices du chapitre 3 (VAE) : entrées, oracles, erreurs classiques.

Les oracles viennent de `torch.distributions` ou d'une formule en double précision. Chaque indice nomme
l'erreur et dit ce qu'elle change, sans donner la ligne à écrire.
"""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

from utils.exercises import Mistake, Spec, generator, normal, same, uniform

PIXELS = 784


# --- Entrées ------------------------------------------------------------------------------------------------


def _gaussians(count: int) -> list[tuple]:
    """Jeux de `count` couples (moyenne, log-variance) : signes mêlés, lot de 1, log-variances positives."""
    rng = generator(0)
    cases = [[normal(rng, n, d) for _ in range(2 * count)] for n, d in ((5, 3), (1, 4))]
    cases.append([make(rng, 4, 6) for _ in range(count) for make in (normal, lambda *a: uniform(*a) + 0.2)])
    return [tuple(case) for case in cases]


# --- KL : les erreurs communes à plusieurs exercices --------------------------------------------------------


def _kl_standard(mu, logvar):
    """KL de chaque coordonnée à N(0, 1), en nats : (N, d)."""
    scale = logvar.exp().sqrt()
    return kl_divergence(Normal(mu, scale), Normal(torch.zeros_like(mu), torch.ones_like(scale)))


def _keep(v):
    return v


# Ce qu'on lit de travers dans logvar : couples (variance, logarithme de la variance), et l'indice.
_READINGS = {
    "la log-variance est prise pour la variance": (
        [(_keep, _keep), (_keep, torch.log)],
        "`logvar` contient ln σ², qui peut être négatif ; la formule demande aussi σ² lui-même."),
    "la log-variance est prise pour l'écart-type": (
        [(torch.square, _keep), (torch.square, lambda v: v.square().log()),
         (torch.square, lambda v: 2 * v.log()),
         (lambda v: Normal(torch.zeros_like(v), v).variance, lambda v: 2 * v.log())],
        "`logvar` contient ln σ², pas σ : son carré n'est pas une variance, et il peut être négatif."),
    "l'écart-type est pris pour la variance": (
        [(lambda v: (v / 2).exp(), _keep)],
        "exp(logvar / 2) est σ ; la formule demande σ²."),
    "la variance est prise pour l'écart-type": (
        [(lambda v: (2 * v).exp(), _keep), (lambda v: (2 * v).exp(), lambda v: 2 * v)],
        "exp(logvar) est déjà σ² : l'élever au carré donne σ⁴."),
}
_HALF = ("le facteur ½ est oublié",
         "Votre KL vaut le double. D'où vient le ½ dans l'exposant d'une gaussienne ?")
_ONE = ("le −1 est oublié",
        "Pour q = p, le KL doit valoir 0 ; le vôtre vaut d/2. Il manque une constante par coordonnée.")


def _standard_with(variance, log):
    """KL de chaque coordonnée à N(0, 1) où logvar est mal lu."""
    return lambda m, v: 0.5 * (m**2 + variance(v) - 1 - log(v))


# KL à N(0, I) : nom de l'erreur → (façons de rendre un KL faux par coordonnée, indice).
_WRONG_STANDARD = {
    **{name: ([_standard_with(*reading) for reading in readings], hint)
       for name, (readings, hint) in _READINGS.items()},
    _HALF[0]: ([lambda m, v: 2 * _kl_standard(m, v)], _HALF[1]),
    _ONE[0]: ([lambda m, v: _kl_standard(m, v) + 0.5], _ONE[1]),
}


# --- 1. KL entre deux gaussiennes diagonales ----------------------------------------------------------------


def kl(mu_q, logvar_q, mu_p, logvar_p):
    """KL(q ‖ p) entre gaussiennes diagonales : (N,), en nats."""
    return _kl_terms(mu_q, logvar_q, mu_p, logvar_p).sum(1)


def _kl_terms(mq, vq, mp, vp):
    return kl_divergence(Normal(mq, vq.exp().sqrt()), Normal(mp, vp.exp().sqrt()))


def _kl_with(reading_q, reading_p):
    """KL où logvar est lu de travers, dans q ou dans p."""
    def wrong(mq, vq, mp, vp):
        (variance_q, log_q), (variance_p, log_p) = reading_q, reading_p
        ratio = (variance_q(vq) + (mq - mp)**2) / variance_p(vp)
        return 0.5 * (log_p(vp) - log_q(vq) + ratio - 1).sum(1)
    return wrong


def _misread(readings):
    """Chaque lecture fausse, faite pour q et p, pour q seul, pour p seul."""
    right = (torch.exp, _keep)
    return [_kl_with(*pair) for bad in readings for pair in ((bad, bad), (bad, right), (right, bad))]


KL = Spec(
    oracle=kl,
    cases=lambda: _gaussians(2),
    gradients=("mu_q", "logvar_q", "mu_p", "logvar_p"),
    mistakes={
        "le signe est opposé": Mistake(
            lambda *a: -kl(*a),
            "Une divergence n'est jamais négative. Est-ce ln(q/p) ou ln(p/q) dont on prend l'espérance "
            "sous q ?"),
        _HALF[0]: Mistake(lambda *a: 2 * kl(*a), _HALF[1]),
        _ONE[0]: Mistake(lambda *a: kl(*a) + a[0].shape[1] / 2, _ONE[1]),
        **{name: Mistake(_misread(readings), hint) for name, (readings, hint) in _READINGS.items()},
        "moyenne sur les dimensions": Mistake(
            lambda *a: _kl_terms(*a).mean(1),
            "Les coordonnées sont indépendantes sous q et sous p, donc leurs KL s'ajoutent. Une moyenne "
            "divise par d et affaiblit d'autant ce terme dans l'ELBO."),
        "somme sur le lot": Mistake(
            lambda *a: kl(*a).sum(),
            "Chaque image a son KL : additionnez les d coordonnées, pas les N images."),
        "moyenne sur le lot": Mistake(
            (lambda *a: kl(*a).mean(), lambda *a: _kl_terms(*a).mean()),
            "Chaque image a son KL : la moyenne sur les N images viendra plus tard, dans la perte."),
        "somme sur la mauvaise dimension": Mistake(
            lambda *a: _kl_terms(*a).sum(0),
            "La dimension 0 est celle des images ; les coordonnées latentes sont dans la dimension 1."),
        "les rôles de q et de p sont échangés": Mistake(
            lambda mq, vq, mp, vp: kl(mp, vp, mq, vq),
            "Vous calculez KL(p ‖ q). La divergence n'est pas symétrique : l'espérance se prend sous q."),
        "les deux logarithmes sont échangés": Mistake(
            lambda mq, vq, mp, vp: kl(mq, vq, mp, vp) + (vq - vp).sum(1),
            "Quand p est très large, q s'y perd et le KL doit croître comme ln(σ_p/σ_q) ; le vôtre décroît."),
        "l'écart des moyennes n'est pas divisé par la variance de p": Mistake(
            lambda mq, vq, mp, vp: kl(mq, vq, mq, vp) + 0.5 * ((mq - mp)**2).sum(1),
            "Un même écart entre les moyennes compte d'autant moins que p est large."),
        "la loi p est ignorée": Mistake(
            lambda mq, vq, mp, vp: _kl_standard(mq, vq).sum(1),
            "C'est le KL à N(0, I). Ici p a sa propre moyenne et sa propre variance."),
    },
)


# --- 2. Reparamétrisation -----------------------------------------------------------------------------------


def reparameterize(mu, logvar, noise):
    """Quantile de N(mu, exp(logvar)) au niveau qu'a `noise` sous N(0, 1) : (N, d)."""
    uniform = Normal(torch.zeros_like(noise), torch.ones_like(noise)).cdf(noise)
    return Normal(mu, logvar.exp().sqrt()).icdf(uniform)


REPARAMETERIZE = Spec(
    oracle=reparameterize,
    cases=lambda: [(mu, logvar, normal(generator(1), *mu.shape)) for mu, logvar in _gaussians(1)],
    gradients=("mu", "logvar"),
    accepted={
        "vous soustrayez le bruit": Mistake(
            lambda m, v, e: 2 * m - reparameterize(m, v, e),
            "La loi de z est la même, puisque ε et −ε ont la même loi ; l'usage est de l'ajouter."),
    },
    mistakes={
        "la log-variance est prise pour l'écart-type": Mistake(
            lambda m, v, e: m + v * e,
            "`logvar` contient ln σ² ; c'est par σ que le bruit se multiplie."),
        "la variance est prise pour l'écart-type": Mistake(
            lambda m, v, e: m + v.exp() * e,
            "exp(logvar) est σ². Un bruit de variance 1 multiplié par c a pour variance c² : quel c "
            "donne σ² ?"),
        "la log-variance est prise pour la variance": Mistake(
            lambda m, v, e: m + v.sqrt() * e,
            "La racine de `logvar` n'existe pas quand ln σ² est négatif. Il faut d'abord quitter le "
            "logarithme."),
        "le bruit est ignoré": Mistake(
            (lambda m, v, e: m.clone(), lambda m, v, e: m + (v / 2).exp()),
            "Le résultat ne dépend pas de ε : ce n'est plus un tirage, l'autoencodeur redevient "
            "déterministe."),
        "l'écart-type est ignoré": Mistake(
            lambda m, v, e: m + e,
            "Toutes vos lois ont la variance 1 : l'encodeur ne règle plus l'incertitude de chaque "
            "coordonnée."),
        "la moyenne est ignorée": Mistake(
            lambda m, v, e: (v / 2).exp() * e,
            "Vos tirages sont tous centrés en 0 : l'image n'est plus codée nulle part."),
        "la moyenne est multipliée par l'écart-type": Mistake(
            lambda m, v, e: (m + e) * (v / 2).exp(),
            "L'écart-type met à l'échelle le bruit seul ; la moyenne, elle, ne fait que déplacer."),
    },
)


# --- 3. ELBO à partir des logits ----------------------------------------------------------------------------


def _log_likelihood(logits, x):
    """ln p(x | z), un terme par pixel : (N, 784)."""
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).flatten(1)


def elbo(logits, x, mu, logvar):
    """Log-vraisemblance de Bernoulli moins KL à N(0, I) : (N,), en nats."""
    return _log_likelihood(logits, x).sum(1) - _kl_standard(mu, logvar).sum(1)


def _elbo_with(likelihood):
    """ELBO dont seule la log-vraisemblance est fausse."""
    return lambda logits, x, m, v: likelihood(logits, x) - _kl_standard(m, v).sum(1)


def _elbo_pixels(term):
    """ELBO dont seul le terme de chaque pixel est faux."""
    return _elbo_with(lambda logits, x: term(logits, x).flatten(1).sum(1))


def _elbo_kl(term):
    """ELBO dont seul le KL de chaque coordonnée est faux."""
    return lambda logits, x, m, v: _log_likelihood(logits, x).sum(1) - term(m, v).sum(1)


def _elbo_cases():
    rng, cases = generator(2), []
    for mu, logvar in _gaussians(1):
        x = (uniform(rng, len(mu), 1, 28, 28) < 0.4).double()
        cases.append((normal(rng, *x.shape, scale=2.0), x, mu, logvar))
    # Des logits qui pourraient être des probabilités : l'erreur qui les confond s'y calcule sans exception.
    cases.append((uniform(rng, *x.shape, low=0.1, high=0.9), x, mu, logvar))
    return cases


def _elbo_is_stable(f):
    """Logits de ±200 en float32 : un réseau sûr de lui, à raison puis à tort."""
    x = (torch.arange(2 * PIXELS, device="cpu") % 3 == 0).float().view(2, 1, 28, 28)
    mu = torch.zeros(2, 3, device="cpu")
    for sign in (1, -1):
        logits = sign * 200 * (2 * x - 1)
        if not same(f(logits, x, mu, mu), elbo(logits, x, mu, mu), rtol=1e-4):
            return ("Débordement : avec des logits de ±200, la sigmoïde s'arrondit à 0 ou à 1 et son "
                    "logarithme vaut −∞ (ou s'arrête à −100 dans `F.binary_cross_entropy`). Passez des "
                    "logits à la log-vraisemblance sans faire étape par les probabilités : PyTorch a une "
                    "fonction pour cela.")
    return None


ELBO = Spec(
    oracle=elbo,
    cases=_elbo_cases,
    gradients=("logits", "mu", "logvar"),
    properties=(_elbo_is_stable,),
    mistakes={
        "le signe du KL est faux": Mistake(
            lambda logits, x, m, v: _log_likelihood(logits, x).sum(1) + _kl_standard(m, v).sum(1),
            "Vous ajoutez le KL. C'est un coût : plus q s'éloigne de la loi a priori, plus la borne doit "
            "baisser."),
        "le signe de la vraisemblance est faux": Mistake(
            _elbo_with(lambda logits, x: -_log_likelihood(logits, x).sum(1)),
            "L'entropie croisée est l'opposé de la log-vraisemblance ; sous des Bernoulli, celle-ci est "
            "négative."),
        "c'est la perte, opposée de l'ELBO": Mistake(
            lambda *a: -elbo(*a),
            "Le signe est opposé. On minimise la perte −ELBO ; ici, on demande la borne, qu'on maximise."),
        "la vraisemblance est moyennée sur les pixels": Mistake(
            (_elbo_with(lambda logits, x: _log_likelihood(logits, x).mean(1)),
             _elbo_with(lambda logits, x: _log_likelihood(logits, x).mean()),
             lambda logits, x, m, v: _log_likelihood(logits, x).mean() - _kl_standard(m, v).sum(1).mean()),
            "Les log-vraisemblances des 784 pixels s'ajoutent. Avec leur moyenne, le KL pèse 784 fois trop "
            "et la loi a posteriori s'effondre."),
        "la vraisemblance est sommée sur tout le lot": Mistake(
            _elbo_with(lambda logits, x: _log_likelihood(logits, x).sum()),
            "Chaque image a sa borne : sommez les pixels d'une image, pas les images entre elles."),
        "le KL est moyenné sur les dimensions latentes": Mistake(
            _elbo_kl(lambda m, v: _kl_standard(m, v) / m.shape[1]),
            "Les KL des coordonnées s'ajoutent ; leur moyenne divise le coût du code par d, et la borne n'en "
            "est plus une."),
        "moyenne ou somme sur le lot": Mistake(
            (lambda *a: elbo(*a).mean(), lambda *a: elbo(*a).sum()),
            "Chaque image a sa borne ; c'est la perte qui en prendra la moyenne."),
        "les logits sont pris pour des probabilités": Mistake(
            (_elbo_pixels(lambda logits, x: x * logits.log() + (1 - x) * (1 - logits).log()),
             _elbo_pixels(lambda logits, x: -F.binary_cross_entropy(logits, x, reduction="none")),
             _elbo_with(lambda logits, x: -F.binary_cross_entropy(logits, x, reduction="sum")),
             _elbo_pixels(lambda logits, x: Bernoulli(logits).log_prob(x))),
            "Un logit est un réel quelconque, ln(p / (1 − p)) ; il sort du réseau avant la sigmoïde."),
        "la sigmoïde est appliquée deux fois": Mistake(
            _elbo_pixels(lambda logits, x: _log_likelihood(logits.sigmoid(), x)),
            "La fonction qui attend des logits applique déjà la sigmoïde : vos probabilités restent entre ½ "
            "et 0,73."),
        **{f"dans le KL, {name}": Mistake([_elbo_kl(wrong) for wrong in ways], hint)
           for name, (ways, hint) in _WRONG_STANDARD.items()},
    },
)


# --- 4. Borne pondérée par importance -----------------------------------------------------------------------


def importance_bound(log_w):
    """ln de la moyenne des poids sur la dimension 0 : (N,), en nats."""
    high = log_w.double().amax(0)
    return ((log_w.double() - high).exp().mean(0).log() + high).to(log_w)


def _bound_is_stable(f):
    """Poids d'images réelles, en float32 : exp(−90) y perd ses chiffres, exp(−600) y vaut 0."""
    levels = torch.tensor([-90.0, -250.0, -600.0, 100.0], device="cpu")
    log_w = levels + normal(generator(4), 64, 4, scale=3.0).float()
    if same(f(log_w), importance_bound(log_w), rtol=1e-5):
        return None
    return ("Débordement : les log-poids d'une image vont de −90 à −600, leur exponentielle s'arrondit à 0 "
            "en float32 (et à l'infini au-delà de 88). Sortez du logarithme le plus grand log-poids de "
            "chaque image avant l'exponentielle, ou trouvez la fonction de PyTorch qui le fait.")


IMPORTANCE_BOUND = Spec(
    oracle=importance_bound,
    cases=lambda: [(normal(generator(3), k, n, scale=2.0),) for k, n in ((8, 3), (5, 1), (4, 4), (1, 2))],
    gradients=("log_w",),
    properties=(_bound_is_stable,),
    mistakes={
        "moyenne des logarithmes": Mistake(
            lambda w: w.mean(0),
            "C'est l'estimation de l'ELBO par K tirages, plus bas. La borne demandée est le logarithme de la "
            "moyenne des poids : les deux opérations ne commutent pas (Jensen)."),
        "le −ln K est oublié": Mistake(
            lambda w: w.logsumexp(0),
            "C'est le logarithme de la somme des poids : il grandit avec K même si tous les poids sont "
            "égaux."),
        "−K au lieu de −ln K": Mistake(
            (lambda w: w.logsumexp(0) - w.shape[0], lambda w: w.logsumexp(0) / w.shape[0]),
            "Diviser les poids par K change leur logarithme d'une constante, qui n'est pas K ; et ce n'est "
            "pas non plus diviser le logarithme par K."),
        "+ln K au lieu de −ln K": Mistake(
            lambda w: w.logsumexp(0) + math.log(w.shape[0]),
            "Le signe est inversé : avec des poids tous égaux à w, la borne doit valoir ln w."),
        "N au lieu de K dans le logarithme": Mistake(
            lambda w: w.logsumexp(0) - math.log(w.shape[1]),
            "La moyenne porte sur les K tirages d'une image, pas sur les N images."),
        "mauvais axe": Mistake(
            (lambda w: w.logsumexp(1) - math.log(w.shape[1]), lambda w: w.logsumexp(1) - math.log(w.shape[0]),
             lambda w: w.logsumexp(1), lambda w: w.mean(1)),
            "Les K tirages sont dans la dimension 0, les N images dans la dimension 1."),
        "le lot est mêlé dans le logarithme": Mistake(
            (lambda w: w.flatten().logsumexp(0) - math.log(w.numel()), lambda w: w.flatten().logsumexp(0)),
            "Vous moyennez les poids de toutes les images ensemble : la plus probable écrase les autres. Une "
            "borne par image."),
        "moyenne ou somme sur le lot": Mistake(
            (lambda w: importance_bound(w).mean(), lambda w: importance_bound(w).sum()),
            "Chaque image a sa borne : rendez les N valeurs."),
        "le signe est opposé": Mistake(
            lambda w: -importance_bound(w), "On demande la borne, pas la perte."),
    },
)


# --- 5. Interpolation sphérique -----------------------------------------------------------------------------


def slerp(a, b, t):
    """Interpolation sphérique, par l'arc de cercle : (d,)."""
    # Formule de Kahan, précise même pour un angle minuscule.
    omega = 2 * torch.atan2((a / a.norm() - b / b.norm()).norm(), (a / a.norm() + b / b.norm()).norm())
    if omega < 1e-6:
        return a + t * (b - a)
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)


def _arc(a, b, t, omega):
    return torch.sin((1 - t) * omega) / torch.sin(omega) * a + torch.sin(t * omega) / torch.sin(omega) * b


def _cosine(a, b):
    return a @ b / (a.norm() * b.norm())


def _slerp_cases():
    """Normes inégales, de produit inférieur à 1 : un produit scalaire non normalisé reste dans [−1, 1]."""
    rng, cases = generator(5), []
    for d, t in ((3, 0.3), (20, 0.8), (2, 0.1)):
        a, b = normal(rng, d), normal(rng, d)
        cases.append((0.6 * a / a.norm(), 1.4 * b / b.norm(), t))
    return cases


def _slerp_when_collinear(f):
    """Vecteurs égaux, proportionnels ou presque, en float32 et en float64 : sin Ω y vaut 0 ou presque."""
    rng = generator(6)
    for dtype in (torch.float32, torch.float64):
        for _ in range(10):
            a = normal(rng, 20).to(dtype)
            for b in (a.clone(), 2 * a, a + 1e-7 * normal(rng, 20).to(dtype)):
                if not same(f(a, b, 0.25), 0.75 * a + 0.25 * b, rtol=1e-3):
                    return ("Vecteurs presque colinéaires : Ω est presque nul, sin Ω aussi, et 0/0 donne NaN "
                            "(l'arrondi peut même pousser le cosinus au-delà de 1). À cette limite l'arc est "
                            "un segment : traitez ce cas à part, par l'interpolation linéaire.")
    return None


SLERP = Spec(
    oracle=slerp,
    cases=_slerp_cases,
    properties=(_slerp_when_collinear,),
    mistakes={
        "interpolation linéaire": Mistake(
            lambda a, b, t: torch.lerp(a, b, t),
            "Le segment coupe à travers la boule, où N(0, I) ne met presque aucune masse en grande "
            "dimension. Les poids doivent suivre l'angle."),
        "le sens de t est inversé": Mistake(
            lambda a, b, t: slerp(a, b, 1 - t), "En t = 0 il faut trouver a, et en t = 1, b."),
        "le produit scalaire n'est pas normalisé": Mistake(
            (lambda a, b, t: _arc(a, b, t, (a @ b).acos()),
             lambda a, b, t: _arc(a, b, t, (a @ b / a.norm()).acos()),
             lambda a, b, t: _arc(a, b, t, (a @ b / b.norm()).acos()),
             lambda a, b, t: _arc(a, b, t, (a @ b / (a @ a * (b @ b))).acos())),
            "Le produit a·b n'est le cosinus de l'angle que pour des vecteurs de norme 1 ; ici il faut tenir "
            "compte des deux normes, une fois chacune."),
        "le résultat est normalisé": Mistake(
            (lambda a, b, t: F.normalize(slerp(a, b, t), dim=0),
             lambda a, b, t: slerp(F.normalize(a, dim=0), F.normalize(b, dim=0), t)),
            "Votre résultat est de norme 1. En t = 0 il faut trouver a lui-même, avec sa norme (environ √d "
            "pour un tirage de N(0, I))."),
        "le cosinus est pris pour l'angle": Mistake(
            lambda a, b, t: _arc(a, b, t, _cosine(a, b)),
            "Le produit a·b divisé par les normes donne cos Ω ; la formule demande Ω."),
        "la division par sin Ω est oubliée": Mistake(
            lambda a, b, t: slerp(a, b, t) * (1 - _cosine(a, b)**2).sqrt(),
            "En t = 0, votre premier poids vaut sin Ω au lieu de 1."),
        "cosinus au lieu de sinus": Mistake(
            lambda a, b, t: (_cosine(a, b).acos() * (1 - t)).cos() * a + (_cosine(a, b).acos() * t).cos() * b,
            "En t = 0, le poids de b doit être nul."),
    },
)


# --- 6. Débit en bits ---------------------------------------------------------------------------------------


def rate_bits(mu, logvar):
    """KL à N(0, I), en bits par image : (N,)."""
    return _kl_standard(mu, logvar).sum(1) / math.log(2)


RATE_BITS = Spec(
    oracle=rate_bits,
    cases=lambda: _gaussians(1),
    mistakes={
        "nats au lieu de bits": Mistake(
            lambda *a: rate_bits(*a) * math.log(2),
            "Votre KL vient d'un logarithme népérien. Un bit est une information de ln 2 nat : "
            "convertissez."),
        "multiplication par ln 2 au lieu d'une division": Mistake(
            lambda *a: rate_bits(*a) * math.log(2)**2,
            "Un bit vaut 0,693 nat : il y a donc plus de bits que de nats, pas moins."),
        "bits par pixel": Mistake(
            lambda *a: rate_bits(*a) / PIXELS,
            "Vous divisez par 784. On demande le débit de l'image entière."),
        "moyenne sur les dimensions latentes": Mistake(
            (lambda m, v: rate_bits(m, v) / m.shape[1], lambda m, v: _kl_standard(m, v).mean(1)),
            "Pour transmettre le code il faut transmettre toutes ses coordonnées : leurs coûts s'ajoutent."),
        "moyenne ou somme sur le lot": Mistake(
            (lambda *a: rate_bits(*a).mean(), lambda *a: rate_bits(*a).sum()),
            "Chaque image a son débit : rendez les N valeurs."),
        "le signe est opposé": Mistake(
            lambda *a: -rate_bits(*a), "Un débit est positif : un KL n'est jamais négatif."),
        **{f"dans le KL, {name}": Mistake(
               [lambda m, v, wrong=wrong: wrong(m, v).sum(1) / math.log(2) for wrong in ways], hint)
           for name, (ways, hint) in _WRONG_STANDARD.items()},
    },
)


# --- 7. Bits gratuits ---------------------------------------------------------------------------------------


def free_bits(kl, lam):
    """Somme sur les coordonnées de max(lam, KL moyen du lot) : scalaire, en nats."""
    averages = kl.sum(0) / kl.shape[0]
    return sum((value if value > lam else torch.full_like(value, lam)) for value in averages)


def _free_bits_cases():
    """KL dont les moyennes encadrent le seuil ; le dernier seuil dépasse le total."""
    rng, cases = generator(7), []
    scale = torch.tensor([0.05, 0.3, 0.6, 1.0, 3.0, 4.0], dtype=torch.float64, device="cpu")
    for n, lam in ((6, 0.5), (1, 0.7), (4, 0.25), (5, 20.0)):
        cases.append((-scale * uniform(rng, n, 6, low=0.05).log(), lam))
    return cases


FREE_BITS = Spec(
    oracle=free_bits,
    cases=_free_bits_cases,
    gradients=("kl",),
    mistakes={
        "le seuil est appliqué avant la moyenne": Mistake(
            lambda k, lam: k.clamp(min=lam).mean(0).sum(),
            "Vous seuillez chaque image. Une coordonnée peut être inutile à une image et précieuse à une "
            "autre : le seuil porte sur son KL moyen dans le lot."),
        "le seuil porte sur le KL total": Mistake(
            (lambda k, lam: k.mean(0).sum().clamp(min=lam), lambda k, lam: k.sum(1).clamp(min=lam).mean(),
             lambda k, lam: k.mean(0).sum().clamp(min=lam * k.shape[1])),
            "Un seul seuil sur la somme n'empêche pas des coordonnées de s'éteindre, pourvu que d'autres "
            "paient : chaque coordonnée a droit à son λ."),
        "minimum au lieu de maximum": Mistake(
            lambda k, lam: k.mean(0).clamp(max=lam).sum(),
            "Vous plafonnez le KL : une coordonnée très utile ne coûterait plus rien de plus. C'est en "
            "dessous de λ que la pénalité ne doit plus changer."),
        "moyenne sur les dimensions": Mistake(
            lambda k, lam: k.mean(0).clamp(min=lam).mean(),
            "Les coûts des coordonnées s'ajoutent, comme dans le KL qu'ils remplacent."),
        "le seuil est ajouté": Mistake(
            (lambda k, lam: (k.mean(0) + lam).sum(), lambda k, lam: k.mean(0).sum() + lam),
            "Ajouter une constante ne change aucun gradient : rien ne protège plus les coordonnées faibles."),
        "le seuil est retranché": Mistake(
            (lambda k, lam: (k.mean(0) - lam).clamp(min=0).sum(), lambda k, lam: (k.mean(0) - lam).sum()),
            "Une coordonnée sous le seuil doit coûter λ, pas 0 (ni moins) : la borne garderait sinon une "
            "valeur trop haute."),
        "le seuil est oublié": Mistake(
            lambda k, lam: k.mean(0).sum(), "C'est le KL ordinaire : λ n'intervient pas."),
        "somme sur le lot au lieu de la moyenne": Mistake(
            lambda k, lam: k.sum(0).clamp(min=lam).sum(),
            "Le KL d'une coordonnée grandirait avec la taille du lot, et le seuil ne servirait plus à rien."),
        "les axes sont échangés": Mistake(
            (lambda k, lam: k.mean(1).clamp(min=lam).sum(), lambda k, lam: k.sum(1).clamp(min=lam).sum()),
            "Les images sont dans la dimension 0, les coordonnées dans la dimension 1."),
    },
)


# --- 8. Unités actives --------------------------------------------------------------------------------------


def active_units(mu, threshold=0.01):
    """Nombre de coordonnées dont la variance sur les images dépasse le seuil."""
    return sum(float(((column - column.mean()) ** 2).mean()) > threshold for column in mu.unbind(1))


def _units(seed: int, n: int, variances: list[float], shifts: list[float]) -> torch.Tensor:
    """Moyennes (n, d) dont la coordonnée j a exactement la moyenne shifts[j] et la variance variances[j]."""
    z = normal(generator(seed), n, len(variances))
    z = (z - z.mean(0)) / z.std(0, correction=0)
    return z * torch.tensor(variances, dtype=z.dtype, device="cpu").sqrt() + torch.tensor(
        shifts, dtype=z.dtype, device="cpu")


def _units_cases():
    """Variances actives, mortes, et entre le seuil et son carré ; des coordonnées mortes loin de 0."""
    many = _units(8, 40, [1.0, 0.5, 0.05] + [0.002] * 4 + [1e-6] * 6, [0.0] * 7 + [2.0] * 5 + [0.0])
    other = _units(9, 30, [2.0, 1.0, 0.3, 0.3, 0.02] + [1e-3] * 2, [0.0] * 5 + [-1.5, 0.05])
    return [(many,), (other,), (other, 0.25), (_units(10, 20, [1e-5] * 3, [0.0, 0.0, 3.0]),)]


def _count(statistic):
    """Compte des coordonnées dont `statistic(mu)` dépasse le seuil."""
    return lambda mu, threshold=0.01: int((statistic(mu) > threshold).sum())


ACTIVE_UNITS = Spec(
    oracle=active_units,
    cases=_units_cases,
    mistakes={
        "variance sur les coordonnées": Mistake(
            _count(lambda mu: mu.var(1)),
            "Vous prenez la variance dans chaque image, entre ses coordonnées, et comptez des images. Une "
            "unité est active si son code change d'une image à l'autre."),
        "écart-type au lieu de variance": Mistake(
            _count(lambda mu: mu.std(0)),
            "Le seuil de Burda et al. porte sur la variance ; un écart-type de 0,05 le dépasse, sa variance "
            "de 0,0025 non."),
        "moyenne au lieu de variance": Mistake(
            (_count(lambda mu: mu.mean(0).abs()), _count(lambda mu: mu.mean(0)),
             _count(lambda mu: mu.mean(0)**2), _count(lambda mu: mu.abs().mean(0)),
             _count(lambda mu: (mu**2).mean(0)), _count(lambda mu: mu.norm(dim=0))),
            "Une coordonnée peut être loin de 0 et pourtant la même pour toutes les images : elle ne dit "
            "alors rien de x. C'est sa dispersion qui compte."),
        "ce sont les unités inactives": Mistake(
            lambda mu, threshold=0.01: int((mu.var(0) <= threshold).sum()),
            "Vous comptez celles dont la variance reste sous le seuil."),
        "le seuil est ignoré": Mistake(
            lambda mu, threshold=0.01: active_units(mu),
            "L'argument `threshold` doit changer le compte."),
        "la variance de toutes les valeurs ensemble": Mistake(
            lambda mu, threshold=0.01: int(mu.var() > threshold),
            "Une seule variance pour tout le tableau ne distingue pas les coordonnées."),
        "toutes les unités sont comptées": Mistake(
            lambda mu, threshold=0.01: mu.shape[1],
            "Vous rendez la longueur du test ; il faut compter celles qui passent le seuil."),
    },
)


EXERCISES = {
    "kl": KL, "reparameterize": REPARAMETERIZE, "elbo": ELBO, "importance_bound": IMPORTANCE_BOUND,
    "slerp": SLERP, "rate_bits": RATE_BITS, "free_bits": FREE_BITS, "active_units": ACTIVE_UNITS,
}
