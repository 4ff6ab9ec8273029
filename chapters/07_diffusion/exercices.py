"""Exercices du chapitre 7 (modèles de diffusion) : entrées, oracles, erreurs classiques.

Les oracles passent par un autre chemin que la formule demandée : une somme de logarithmes à la place d'un produit,
un angle à la place de deux racines, le gain d'un filtre de Kalman à la place de la loi a posteriori, un système
linéaire à la place d'une inversion à la main. Chaque indice nomme l'erreur et dit ce qu'elle change, sans donner
la ligne à écrire.
"""

import math

import torch

from utils.exercises import Mistake, Spec, generator, normal, same, uniform

_SHAPES = ("le coefficient n'a pas les dimensions d'un exemple",
           "PyTorch aligne les formes par la droite : un coefficient de forme (N,) rencontre les colonnes de l'image, "
           "pas le lot. S'il y avait autant de colonnes que d'images, il n'y aurait même pas d'erreur. Il faut des "
           "dimensions de taille 1 derrière N.")


class _Net(float):
    """Réseau d'essai : un nombre que l'on peut appeler. Les indices peuvent ainsi le citer parmi les entrées."""

    def __call__(self, x, t):
        return torch.tanh(self * x) + torch.sin(3 * t)[:, None]


class _Constant(_Net):
    """Réseau qui répond partout le même nombre, si grand que le bruit de la cible n'y compte plus."""

    def __call__(self, x, t):
        return torch.full_like(x, float(self))


def _rows(v, x):
    """(N,) → (N, 1, …), pour multiplier x (N, …)."""
    return v.view(-1, *[1] * (x.dim() - 1))


def _betas(rng, n_steps: int):
    """Variances d'une chaîne courte : assez grandes pour qu'un pas de décalage se voie."""
    return uniform(rng, n_steps, low=0.03, high=0.35)


def _kept(betas):
    """ᾱ_0 = 1, ᾱ_1, …, ᾱ_T, par une boucle : (T + 1,)."""
    kept = [1.0]
    for beta in betas.tolist():
        kept.append(kept[-1] * (1 - beta))
    return torch.tensor(kept, dtype=betas.dtype, device=betas.device)


def _steps(rng, n: int, last: int, *fixed: int):
    """n pas entiers entre 1 et `last` ; les premiers sont imposés."""
    t = torch.randint(1, last + 1, (n,), generator=rng, device="cpu")
    t[:len(fixed)] = torch.tensor(fixed[:n], dtype=t.dtype, device="cpu")
    return t


def _keep(x):
    return x


# --- 1. ᾱ à partir des β ------------------------------------------------------------------------------------


def alpha_bars(betas):
    """ᾱ_0, …, ᾱ_T, par une somme de logarithmes : (T,) → (T + 1,)."""
    return torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)]).exp()


def _after_one(values):
    return torch.cat([values.new_ones(1), values])


ALPHA_BARS = Spec(
    oracle=alpha_bars,
    cases=lambda: [(_betas(generator(seed), n),) for seed, n in ((0, 6), (1, 1), (2, 11))],
    mistakes={
        "c'est le produit des β": Mistake(
            (lambda b: b.cumprod(0), lambda b: _after_one(b.cumprod(0))),
            "β est la part de bruit ajoutée à chaque pas ; ce qui se multiplie de pas en pas est la part de signal "
            "gardée. Votre suite tombe à 0 dès les premiers pas."),
        "ᾱ_0 est oublié": Mistake(
            lambda b: alpha_bars(b)[1:],
            "Il manque le premier terme : au pas 0, rien n'a encore été bruité. Sans lui, l'indice t désignerait le "
            "pas t + 1, et toute la chaîne serait décalée."),
        "ᾱ_0 n'est pas 1": Mistake(
            (lambda b: torch.cat([b.new_zeros(1), alpha_bars(b)[1:]]),
             lambda b: torch.cat([(1 - b[:1]), alpha_bars(b)[1:]])),
            "Au pas 0, l'image est intacte : un produit qui n'a aucun terme a une valeur, la même pour tout plan."),
        "l'indice est décalé d'un": Mistake(
            lambda b: alpha_bars(b)[:-1],
            "Votre dernier terme est celui du pas T − 1 : le dernier β n'a servi à rien. Le résultat a un terme de "
            "plus que `betas`."),
        "β est pris pour ᾱ : le produit est oublié": Mistake(
            (lambda b: 1 - b, lambda b: _after_one(1 - b)),
            "1 − β_t est ce que garde le seul pas t. ᾱ_t est ce qui reste après tous les pas, du premier à celui-là."),
        "c'est une somme au lieu d'un produit": Mistake(
            (lambda b: 1 - b.cumsum(0), lambda b: _after_one(1 - b.cumsum(0))),
            "Tant que les β sont minuscules, on ne voit pas la différence ; ensuite votre ᾱ devient négatif. Chaque "
            "pas garde une fraction de ce qui restait."),
        "une racine de trop": Mistake(
            (lambda b: alpha_bars(b).sqrt(), lambda b: alpha_bars(b).sqrt()[1:]),
            "La racine de ᾱ_t est le coefficient α_t de l'image dans (7.3). On demande ᾱ_t lui-même."),
        "c'est la part du bruit": Mistake(
            lambda b: 1 - alpha_bars(b),
            "1 − ᾱ_t est la variance du bruit, qui part de 0. ᾱ_t est la part du signal, qui part de 1."),
        "le produit est fait à l'envers": Mistake(
            (lambda b: alpha_bars(b.flip(0)), lambda b: _after_one((1 - b).flip(0).cumprod(0).flip(0))),
            "Le premier β est celui du premier pas : le produit part du début de la chaîne, c'est-à-dire de l'image."),
        "seul le produit total est rendu": Mistake(
            lambda b: (1 - b).prod(),
            "C'est ᾱ_T. On veut la suite entière, un terme par pas, pour pouvoir sauter à n'importe lequel."),
    },
)


# --- 2. x_t en une fois -------------------------------------------------------------------------------------


def q_sample(images, t, noise, alpha_bar):
    """x_t par l'angle θ dont le cosinus carré est ᾱ_t, image par image : même forme que les images."""
    angles = [math.acos(2 * alpha_bar[i].item() - 1) / 2 for i in t.tolist()]
    return torch.stack([math.cos(a) * (x - (1 - x)) + math.sin(a) * e
                        for a, x, e in zip(angles, images, noise, strict=True)])


def _noised(signal=torch.sqrt, spread=lambda a: (1 - a).sqrt(), scale=lambda x: 2 * x - 1, index=_keep, after=_keep):
    """Bruitage dont un coefficient, l'échelle ou l'indice est faux."""
    def wrong(images, t, noise, alpha_bar):
        a = _rows(alpha_bar[index(t)], images)
        return after(signal(a) * scale(images) + spread(a) * noise)
    return wrong


def _flat_noised(image_first):
    """Coefficients de forme (N,) : exception, sauf pour un lot d'une image."""
    def wrong(images, t, noise, alpha_bar):
        a, x = alpha_bar[t], 2 * images - 1
        return x * a.sqrt() + noise * (1 - a).sqrt() if image_first else a.sqrt() * x + (1 - a).sqrt() * noise
    return wrong


def _image_cases():
    """Des lots de tailles diverses, le premier et le dernier pas compris."""
    rng, cases = generator(3), []
    for shape, last in (((5, 1, 3, 4), 7), ((1, 2, 2, 3), 5), ((3, 1, 4, 5), 9)):
        x = uniform(rng, *shape)
        cases.append((x, _steps(rng, shape[0], last, 2, 1, last), normal(rng, *shape), _kept(_betas(rng, last))))
    return cases


Q_SAMPLE = Spec(
    oracle=q_sample,
    cases=_image_cases,
    mistakes={
        "les images ne sont pas ramenées à [−1, 1]": Mistake(
            _noised(scale=_keep),
            "Le bruit est centré en 0, vos images en ½ : à la fin de la chaîne tout va bien, mais le réseau "
            "travaillerait sur des images décalées, deux fois moins contrastées que le bruit ne le suppose."),
        "les images ne sont ramenées qu'à moitié": Mistake(
            (_noised(scale=lambda x: x - 0.5), _noised(scale=lambda x: 2 * x)),
            "Il faut changer l'échelle et le centre : le noir va en −1, le blanc en 1."),
        "la racine est oubliée": Mistake(
            (_noised(signal=_keep), _noised(spread=lambda a: 1 - a), _noised(signal=_keep, spread=lambda a: 1 - a)),
            "ᾱ et 1 − ᾱ sont des variances : ce sont les carrés des deux coefficients qui font 1. Avec les "
            "vôtres, la variance de x_t changerait au fil de la chaîne."),
        "la racine est mal placée": Mistake(
            _noised(spread=lambda a: 1 - a.sqrt()),
            "Le coefficient du bruit est la racine d'une différence, et non la différence des racines : ce sont les "
            "carrés des deux coefficients qui font 1."),
        "les deux coefficients sont échangés": Mistake(
            _noised(lambda a: (1 - a).sqrt(), torch.sqrt),
            "Aux premiers pas, votre x_t est presque du bruit pur : la chaîne va à l'envers. ᾱ part de 1 ; c'est la "
            "part de l'image."),
        "l'image n'est pas atténuée": Mistake(
            _noised(signal=torch.ones_like),
            "Vous ajoutez du bruit sans réduire l'image : au dernier pas elle serait encore là tout entière, et x_t "
            "n'arriverait jamais à N(0, I)."),
        "l'indice de temps est décalé d'un": Mistake(
            (_noised(index=lambda t: t - 1), _noised(index=lambda t: t + 1)),
            "`alpha_bar` commence par ᾱ_0 = 1 : le pas t est exactement à l'indice t. Avec t − 1, le premier pas ne "
            "bruite rien ; avec t + 1, le dernier sort du tableau."),
        "le résultat est ramené à [0, 1]": Mistake(
            _noised(after=lambda x: (x + 1) / 2),
            "C'est x_t que le réseau doit voir. On ne revient à [0, 1] que pour afficher une image finie."),
        "le résultat est écrêté": Mistake(
            (_noised(after=lambda x: x.clamp(-1, 1)), _noised(after=lambda x: x.clamp(0, 1))),
            "Un x_t bruité sort de [−1, 1], et c'est normal : l'écrêter change sa loi, qui n'est plus gaussienne."),
        _SHAPES[0]: Mistake((_flat_noised(False), _flat_noised(True)), _SHAPES[1]),
    },
)


# --- 3. La moyenne de la loi a posteriori -------------------------------------------------------------------


def posterior_mean(x, x0, t, betas):
    """E[x_{t−1} | x_t, x_0] : une observation bruitée corrige une loi a priori (gain de Kalman) : forme de x."""
    kept = _kept(betas)
    before, beta = _rows(kept[t - 1], x), _rows(betas[t - 1], x)
    guess, variance, slope = before.sqrt() * x0, 1 - before, (1 - beta).sqrt()
    gain = variance * slope / (slope**2 * variance + beta)
    return guess + gain * (x - slope * guess)


def _posterior(of_x0=lambda b, before, a: before.sqrt() * b / (1 - a),
               of_x=lambda b, before, a: (1 - b).sqrt() * (1 - before) / (1 - a),
               beta_at=lambda t: t - 1, kept=_kept, at=_keep, before_at=lambda t: t - 1):
    """Moyenne a posteriori dont un coefficient ou un indice est faux."""
    def wrong(x, x0, t, betas):
        table = kept(betas)
        b, before, a = (_rows(v, x) for v in (betas[beta_at(t)], table[before_at(t)], table[at(t)]))
        return of_x0(b, before, a) * x0 + of_x(b, before, a) * x
    return wrong


def _flat_posterior(x_first):
    def wrong(x, x0, t, betas):
        b, before, a = betas[t - 1], _kept(betas)[t - 1], _kept(betas)[t]
        first, second = before.sqrt() * b / (1 - a), (1 - b).sqrt() * (1 - before) / (1 - a)
        return x0 * first + x * second if x_first else first * x0 + second * x
    return wrong


def _posterior_cases():
    rng, cases = generator(4), []
    for shape, last in (((5, 1, 3, 4), 7), ((1, 2, 2, 3), 5), ((3, 1, 4, 5), 9)):
        t = _steps(rng, shape[0], last, 3, 1, last)
        cases.append((normal(rng, *shape), uniform(rng, *shape, low=-1.0), t, _betas(rng, last)))
    return cases


POSTERIOR_MEAN = Spec(
    oracle=posterior_mean,
    cases=_posterior_cases,
    mistakes={
        "ᾱ est pris au pas t dans les deux termes": Mistake(
            (_posterior(before_at=_keep), _posterior(of_x0=lambda b, before, a: a.sqrt() * b / (1 - a)),
             _posterior(of_x=lambda b, before, a: (1 - b).sqrt())),
            "C'est x_{t−1} que l'on cherche : ce que l'on sait de lui par x_0 fait intervenir ᾱ_{t−1}. Au pas 1, la "
            "moyenne doit être x_0 lui-même."),
        "l'indice de temps est décalé d'un": Mistake(
            (_posterior(beta_at=_keep), _posterior(at=lambda t: t - 1, before_at=lambda t: t - 2),
             _posterior(beta_at=lambda t: t - 2), lambda x, x0, t, betas: posterior_mean(x, x0, t - 1, betas)),
            "`betas` commence par β_1, à l'indice 0, et ᾱ par ᾱ_0 = 1 : les deux tableaux ne se lisent pas avec le "
            "même indice."),
        "ᾱ_0 = 1 est oublié": Mistake(
            (_posterior(kept=lambda b: (1 - b).cumprod(0), at=lambda t: t - 1, before_at=lambda t: t - 2),
             _posterior(kept=lambda b: (1 - b).cumprod(0))),
            "Votre suite commence par ᾱ_1. Au pas 1, « le terme d'avant » a l'indice −1, et PyTorch rend le dernier, "
            "ᾱ_T, sans rien dire (ou bien c'est le pas T qui sort du tableau)."),
        "β est pris pour ᾱ": Mistake(
            (_posterior(kept=lambda b: _after_one(1 - b)),
             _posterior(kept=lambda b: torch.cat([b.new_zeros(1), b]))),
            "Il manque le produit : ᾱ_t est ce qui reste après tous les pas, 1 − β_t ce que garde le seul pas t."),
        "les deux coefficients sont échangés": Mistake(
            lambda x, x0, t, betas: posterior_mean(x0, x, t, betas),
            "Au pas 1, il n'y a plus qu'à lire la réponse : la moyenne doit être x_0. La vôtre est x_1."),
        "la racine est oubliée": Mistake(
            (_posterior(of_x0=lambda b, before, a: before * b / (1 - a)),
             _posterior(of_x=lambda b, before, a: (1 - b) * (1 - before) / (1 - a)),
             _posterior(lambda b, before, a: before * b / (1 - a),
                        lambda b, before, a: (1 - b) * (1 - before) / (1 - a))),
            "Les coefficients qui multiplient une image sont √ᾱ et √(1 − β) ; ceux qui comparent deux incertitudes "
            "sont des variances, sans racine."),
        "la racine est prise aussi sur les variances": Mistake(
            (_posterior(lambda b, before, a: before.sqrt() * b / (1 - a).sqrt(),
                        lambda b, before, a: (1 - b).sqrt() * (1 - before) / (1 - a).sqrt()),
             _posterior(lambda b, before, a: before.sqrt() * b.sqrt() / (1 - a).sqrt(),
                        lambda b, before, a: (1 - b).sqrt() * (1 - before).sqrt() / (1 - a).sqrt())),
            "β_t, 1 − ᾱ_{t−1} et 1 − ᾱ_t sont des variances, et une gaussienne pèse ses sources par leurs variances."),
        "le dénominateur est oublié": Mistake(
            _posterior(lambda b, before, a: before.sqrt() * b, lambda b, before, a: (1 - b).sqrt() * (1 - before)),
            "Les deux sources d'information se partagent un total, 1 − ᾱ_t : sans lui, la moyenne est bien trop "
            "petite au début de la chaîne."),
        "c'est la moyenne du processus direct": Mistake(
            (_posterior(lambda b, before, a: 0 * a, lambda b, before, a: (1 - b).sqrt()),
             _posterior(lambda b, before, a: before.sqrt(), lambda b, before, a: 0 * a),
             _posterior(lambda b, before, a: a.sqrt(), lambda b, before, a: 0 * a)),
            "Vous n'employez que l'un des deux : ce qu'on sait de x_{t−1} vient de x_0 et de x_t à la fois."),
        _SHAPES[0]: Mistake((_flat_posterior(False), _flat_posterior(True)), _SHAPES[1]),
    },
)


# --- 4. La perte --------------------------------------------------------------------------------------------


def loss(net, x0, alpha_bar):
    """Perte (7.11) : la moyenne des carrés, le bruit étant tiré par un angle ; scalaire."""
    last = len(alpha_bar) - 1
    t = (torch.rand(len(x0), dtype=x0.dtype, device=x0.device) * last).floor().long() + 1
    angle = _rows(torch.acos(2 * alpha_bar[t] - 1) / 2, x0)
    noise = torch.randn_like(x0)
    gap = net(angle.cos() * x0 + angle.sin() * noise, t.to(x0) / last) - noise
    return gap.square().sum() / gap.numel()


class _Spy(_Net):
    """Réseau affine d'une seule pente, qui garde ce qu'on lui montre."""

    def __init__(self, value):
        self.slope = torch.tensor(float(value), dtype=torch.float64, device="cpu", requires_grad=True)
        self.seen = []

    def __call__(self, x, t):
        self.seen.append((x, t))
        return self.slope * x + 0.1


_LAST = 10   # pas de la chaîne d'épreuve


def _loss_is_right(f):
    """Fait tourner la perte sur un grand lot, retrouve t et le bruit dans ce qu'a vu le réseau, puis recalcule."""
    rng, n = generator(5), 6000
    x0, alpha_bar, net = uniform(rng, n, 1, 2, 2, low=0.7), _kept(_betas(rng, _LAST)), _Spy(0.7)
    f(net, x0[:5], alpha_bar)
    if len(net.seen) != 1:
        return f"Pour 5 images, le réseau est appelé {len(net.seen)} fois ; une suffit, sur le lot entier."
    net.seen.clear()
    torch.manual_seed(0)
    result = f(net, x0, alpha_bar)
    x, t = net.seen[0]
    if x.shape != x0.shape:
        return "Le réseau doit voir x_t, de la forme de `x0`."
    if hint := _times_are_right(t, n):
        return hint
    steps, x = (t.detach().double() * _LAST).round().long().clamp(0, _LAST), x.detach()
    hint, noise = _noising(x, x0, steps, alpha_bar)
    return hint or _target(net, result, x, x0, noise, _rows(alpha_bar[steps], x0))


def _times_are_right(t, n):
    """Dit ce qui cloche dans les temps que voit le réseau ; None si tout va."""
    if not isinstance(t, torch.Tensor) or t.numel() == 1 or (t == t.flatten()[0]).all():
        return ("Un seul t pour tout le lot : chaque pas d'entraînement ne verrait qu'un niveau de bruit, et le "
                "gradient sauterait d'un niveau à l'autre. Chaque exemple a le sien.")
    if t.shape != (n,):
        return f"Le réseau attend un temps par exemple, de forme (N,) ; il reçoit la forme {tuple(t.shape)}."
    steps = t.detach().double() * _LAST
    if t.max() > 1.5:
        return ("Le temps n'est pas divisé par T : le réseau compte le temps de 0 à 1, comme tous ceux du chapitre ; "
                "il reçoit un numéro de pas.")
    if not same(steps, steps.round(), rtol=1e-3):
        return "Le temps donné au réseau n'est pas celui d'un pas : un entier, de 1 à T, divisé par T."
    if steps.min() < 0.5:
        return ("L'indice de temps est décalé d'un : le réseau reçoit parfois le temps 0, celui de l'image intacte, où "
                "il n'y a pas de bruit à prédire. Les pas vont de 1 à T.")
    if steps.max() < _LAST - 0.5:
        return ("L'indice de temps est décalé d'un : le pas T n'est jamais tiré (la borne haute d'un tirage d'entiers "
                "est exclue), alors que l'échantillonnage part de là.")
    share = torch.bincount(steps.round().long(), minlength=_LAST + 1)[1:] * _LAST / n
    if share.min() < 0.7 or share.max() > 1.3:
        return "t n'est pas uniforme : certains niveaux de bruit sont plus souvent tirés que d'autres."
    return None


# Façons de fabriquer x_t à partir de (x0, ᾱ_{t−1}, ᾱ_t, ᾱ_{t+1}) : (signal, écart-type du bruit), et l'indice.
_NOISINGS = [
    (lambda x, u, a, d: (a.sqrt() * x, (1 - a).sqrt()), None),
    (lambda x, u, a, d: (a * x, (1 - a).sqrt()), "root"),
    (lambda x, u, a, d: (a.sqrt() * x, 1 - a), "root"),
    (lambda x, u, a, d: (a * x, 1 - a), "root"),
    (lambda x, u, a, d: ((1 - a).sqrt() * x, a.sqrt()), "Les deux coefficients sont échangés : au premier pas, votre "
     "x_t est presque du bruit pur. ᾱ est la part de l'image."),
    (lambda x, u, a, d: (x, (1 - a).sqrt()), "L'image n'est pas atténuée : au dernier pas, elle est encore là tout "
     "entière."),
    (lambda x, u, a, d: (u.sqrt() * x, (1 - u).sqrt()), "shift"),
    (lambda x, u, a, d: (d.sqrt() * x, (1 - d).sqrt()), "shift"),
    (lambda x, u, a, d: (a.sqrt() * (2 * x - 1), (1 - a).sqrt()), "`x0` est déjà dans [−1, 1] : vous l'y ramenez une "
     "seconde fois."),
    (lambda x, u, a, d: ((a / u).sqrt() * x, (1 - a / u).sqrt()), "β est pris pour ᾱ : vous ne faites que le seul pas "
     "t, à partir de l'image. Il faut tous les pas, du premier à celui-là."),
]
_SHORT = {
    "root": "La racine est oubliée : ᾱ et 1 − ᾱ sont des variances, et x_t n'a pas la loi (7.3).",
    "shift": "L'indice de temps est décalé d'un : le niveau de bruit de x_t n'est pas celui du temps que reçoit le "
             "réseau. `alpha_bar` commence par ᾱ_0 = 1.",
}


def _noising(x, x0, steps, alpha_bar):
    """Un indice et None, ou None et le bruit de x_t, retrouvé en inversant le bruitage."""
    u, a, d = (_rows(alpha_bar[(steps + k).clamp(max=len(alpha_bar) - 1)], x0) for k in (-1, 0, 1))
    for make, hint in _NOISINGS:
        signal, spread = make(x0, u, a, d)
        noise = (x - signal) / spread.clamp(min=1e-9)
        if _is_standard(noise[steps > 1], steps[steps > 1]):
            return _SHORT.get(hint, hint), noise
    if same(x, x0):
        return "Le réseau ne voit pas x_t, mais l'image intacte : il n'y a pas de bruit à y trouver.", None
    noise = (x - a.sqrt() * x0) / (1 - a).sqrt()
    if same(noise, noise[:1].expand_as(noise)):
        return "Un seul bruit pour tout le lot : chaque exemple, chaque pixel, a le sien.", None
    if same(noise, noise[:, :, :1, :1].expand_as(noise)):
        return "Un seul nombre de bruit par image : chaque pixel a le sien.", None
    if noise.min() > -1e-6 and noise.max() < 1 + 1e-6 and abs(noise.mean() - 0.5) < 0.02:
        return "Le bruit est uniforme, entre 0 et 1 : il doit être gaussien, centré, de variance 1.", None
    return ("Le réseau ne voit pas x_t : avec le temps qu'il reçoit, (7.3) demande un mélange de `x0` et d'un bruit de "
            "N(0, I), tiré par vous, aux coefficients de ce temps."), None


def _is_standard(noise, steps):
    """Le bruit est-il, à chaque pas, centré et de variance 1, et indépendant d'un exemple à l'autre ?"""
    if same(noise, noise[:1].expand_as(noise)) or same(noise, noise[:, :, :1, :1].expand_as(noise)):
        return False
    groups = [noise[steps == k].flatten() for k in range(2, _LAST + 1)]
    return all(abs(g.mean()) < 0.12 and abs(g.std() - 1) < 0.1 for g in groups)


def _target(net, result, x, x0, noise, a):
    """Dit ce qui cloche dans la cible ou dans le gradient ; None si tout va."""
    out = net.slope * x + 0.1
    wanted = (out - noise).square().mean()
    if not same(wanted, result):
        targets = {"l'image x_0": x0, "x_t": x, "v": a.sqrt() * noise - (1 - a).sqrt() * x0, "ε − x_0": noise - x0,
                   "l'opposé du bruit": -noise, "le bruit multiplié par son coefficient": (1 - a).sqrt() * noise,
                   "zéro": 0 * noise, "le score": -noise / (1 - a).sqrt()}
        for name, target in targets.items():
            if same((out - target).square().mean(), result):
                return f"La cible n'est pas le bruit : vous demandez au réseau {name}. (7.11) lui demande ε."
        return ("La cible n'est pas le bruit qui est dans x_t : est-il tiré deux fois ? Le réseau ne peut pas deviner "
                "un bruit qui n'est nulle part dans son entrée.")
    expected, = torch.autograd.grad(wanted, net.slope)
    if result.requires_grad:
        found, = torch.autograd.grad(result, net.slope, allow_unused=True, materialize_grads=True)
        if same(expected, found):
            return None
    return ("Gradient coupé : la valeur est juste, mais rien ne remonte jusqu'aux poids du réseau. Ni `no_grad` ni "
            "`detach` dans une perte.")


def _loss_cases():
    rng, cases = generator(6), []
    for value, shape, last in ((2e7, (5, 1, 2, 3), 6), (-1e7, (1, 2, 3, 2), 4), (3e7, (4, 1, 2, 2), 12)):
        cases.append((_Constant(value), uniform(rng, *shape, low=-1.0), _kept(_betas(rng, last))))
    return cases


LOSS = Spec(
    oracle=loss,
    # Les tirages sont ceux de l'étudiant : les valeurs ne se comparent que là où le bruit est négligeable.
    cases=_loss_cases,
    properties=(_loss_is_right,),
    mistakes={
        "somme au lieu de moyenne": Mistake(
            (lambda net, x0, alpha_bar: x0.numel() * loss(net, x0, alpha_bar),
             lambda net, x0, alpha_bar: x0[0].numel() * loss(net, x0, alpha_bar),
             lambda net, x0, alpha_bar: len(x0) * loss(net, x0, alpha_bar)),
            "Votre perte grandit avec la taille du lot ou de l'image, et le pas d'apprentissage avec elle."),
        "la moyenne est incomplète": Mistake(
            (lambda net, x0, alpha_bar: loss(net, x0, alpha_bar).expand(len(x0)),
             lambda net, x0, alpha_bar: loss(net, x0, alpha_bar).expand_as(x0)),
            "La perte est un seul nombre, la moyenne sur le lot et sur les pixels."),
        "le carré est oublié": Mistake(
            lambda net, x0, alpha_bar: loss(net, x0, alpha_bar).sqrt(),
            "Le minimum d'un écart absolu est une médiane. Celui d'un carré est une moyenne, l'espérance de ε sachant "
            "x_t : c'est elle qui donne le score."),
        "un facteur ½ de trop": Mistake(
            lambda net, x0, alpha_bar: loss(net, x0, alpha_bar) / 2,
            "Le minimum est au même endroit, mais (7.11) n'a pas de ½."),
    },
)


# --- 5. Le score --------------------------------------------------------------------------------------------


def score(eps, t, alpha_bar):
    """Pente de ln N(x ; √ᾱ x_0, (1 − ᾱ) I) en x = √ᾱ x_0 + √(1 − ᾱ) ε, par différentiation automatique."""
    with torch.enable_grad():
        variance = _rows(1 - alpha_bar[t], eps).detach()
        x = (variance.sqrt() * eps.detach()).requires_grad_()                             # ici x_0 = 0
        return torch.autograd.grad((-0.5 * x.square() / variance).sum(), x)[0]


def _score_with(formula, index=_keep):
    return lambda eps, t, alpha_bar: formula(eps, _rows(alpha_bar[index(t)], eps))


def _flat_score(eps, t, alpha_bar):
    return -eps / (1 - alpha_bar[t]).sqrt()


def _score_cases():
    rng, cases = generator(7), []
    for shape, last in (((5, 1, 3, 4), 7), ((1, 2, 2, 3), 5), ((4, 3), 9)):
        cases.append((normal(rng, *shape), _steps(rng, shape[0], last, 2, 1, last), _kept(_betas(rng, last))))
    return cases


SCORE = Spec(
    oracle=score,
    cases=_score_cases,
    mistakes={
        "le signe du score est faux": Mistake(
            _score_with(lambda e, a: e / (1 - a).sqrt()),
            "Le score montre où la densité augmente, donc du côté des données ; le bruit, lui, en éloigne. Avec votre "
            "signe, la dynamique de Langevin fuirait les images."),
        "la racine est oubliée": Mistake(
            (_score_with(lambda e, a: -e / (1 - a)), _score_with(lambda e, a: e / (1 - a))),
            "On divise x_t − √ᾱ x_0 par une variance ; mais ε en est déjà le quotient par l'écart-type. Il ne reste "
            "qu'une puissance à faire."),
        "la division par σ est oubliée": Mistake(
            (_score_with(lambda e, a: -e), _score_with(lambda e, a: -e * (1 - a).sqrt())),
            "Plus le bruit est petit, plus la densité est piquée, et plus le score est grand : près de l'image, le "
            "même ε doit donner une pente bien plus raide."),
        "la division est faite par le coefficient de l'image": Mistake(
            (_score_with(lambda e, a: -e / a.sqrt()), _score_with(lambda e, a: -e * a.sqrt()),
             _score_with(lambda e, a: -e / a)),
            "La largeur de la cloche autour de √ᾱ x_0 est celle du bruit, σ_t, pas le coefficient α_t de l'image."),
        "l'indice de temps est décalé d'un": Mistake(
            (_score_with(lambda e, a: -e / (1 - a).sqrt(), lambda t: t - 1),
             _score_with(lambda e, a: -e / (1 - a).sqrt(), lambda t: t + 1)),
            "`alpha_bar` commence par ᾱ_0 = 1 : le pas t est à l'indice t. Avec t − 1, le score du premier pas est "
            "infini."),
        _SHAPES[0]: Mistake(_flat_score, _SHAPES[1]),
    },
)


# --- 6. Le plongement du temps ------------------------------------------------------------------------------


def _angles(t, dim, scale=1000.0, exponent=lambda k, half: -k / half):
    k = torch.arange(dim // 2, dtype=t.dtype, device=t.device)
    return scale * t[:, None] * 10_000.0 ** exponent(k, dim // 2)


def time_embedding(t, dim):
    """Parties réelle et imaginaire d'exponentielles complexes, de fréquences en échelle logarithmique : (N, dim)."""
    half = dim // 2
    frequencies = torch.logspace(0, -4 * (half - 1) / half, half, dtype=t.dtype, device=t.device)
    waves = torch.exp(1j * torch.outer(1000 * t, frequencies))
    return torch.cat([waves.real, waves.imag], dim=1)


def _waves(*args, first=torch.cos, second=torch.sin, join=lambda a, b: torch.cat([a, b], dim=1), **options):
    def wrong(t, dim):
        angles = _angles(t, dim, *args, **options)
        return join(first(angles), second(angles))
    return wrong


def _unshaped(t, dim):
    """t (N,) contre les fréquences (dim / 2,) : exception, sauf pour un lot d'un exemple."""
    angles = 1000 * t * 10_000.0 ** (-torch.arange(dim // 2, dtype=t.dtype, device=t.device) / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()])


def _unshaped_wide(t, dim):
    angles = 1000 * t * 10_000.0 ** (-torch.arange(dim // 2, dtype=t.dtype, device=t.device) / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _times(*values):
    return torch.tensor(values, dtype=torch.float64, device="cpu")


TIME_EMBEDDING = Spec(
    oracle=time_embedding,
    # Des temps petits : à ceux-là, des fréquences calculées en float32 sont aussi justes.
    cases=lambda: [(_times(0.0, 0.001, 0.0026, 0.0052, 0.0009), 8), (_times(0.0035,), 6), (_times(0.002, 0.004), 12)],
    accepted={
        "vos fréquences vont jusqu'à 1/10 000 compris": Mistake(
            _waves(exponent=lambda k, half: -k / (half - 1)),
            "C'est ainsi que comptent Vaswani et al. dans leur code, puis Ho et al. : l'exposant y est divisé par "
            "dim / 2 − 1. (7.17) s'arrête juste avant ; un réseau apprend aussi bien avec l'un qu'avec l'autre, mais "
            "pas avec l'un après l'autre."),
    },
    mistakes={
        "les deux moitiés sont confondues": Mistake(
            (_waves(first=torch.sin), _waves(second=torch.cos)),
            "Vos deux moitiés sont la même fonction des mêmes angles : la seconde n'apprend rien au réseau. Il faut un "
            "cosinus et un sinus pour repérer un point sur un cercle."),
        "les deux moitiés sont échangées": Mistake(
            _waves(first=torch.sin, second=torch.cos),
            "Ce plongement apprendrait aussi bien, mais l'énoncé met les cosinus d'abord : un réseau déjà entraîné n'y "
            "comprendrait plus rien, et aucune erreur de forme ne le dirait."),
        "les cosinus et les sinus sont entrelacés": Mistake(
            _waves(join=lambda a, b: torch.stack([a, b], dim=2).flatten(1)),
            "L'énoncé met tous les cosinus, puis tous les sinus ; les vôtres alternent."),
        "le facteur 1000 est oublié": Mistake(
            _waves(1.0),
            "Avec t entre 0 et 1, vos angles sont minuscules : les sinus valent presque 0, les cosinus presque 1, et "
            "deux temps voisins se ressemblent trop pour que le réseau les distingue."),
        "un facteur 2π de trop": Mistake(
            (_waves(2000 * math.pi), _waves(2 * math.pi)),
            "(7.17) n'a pas de 2π : les fréquences y sont des pulsations."),
        "les fréquences croissent": Mistake(
            _waves(exponent=lambda k, half: k / half),
            "Les fréquences vont de 1 vers 1/10 000 : les vôtres montent, et les plus hautes changent du tout au tout "
            "entre deux pas voisins."),
        "l'exposant est mal compté": Mistake(
            (_waves(exponent=lambda k, half: -k / (2 * half)), _waves(exponent=lambda k, half: -2 * k / half),
             _waves(exponent=lambda k, half: -(k + 1) / half)),
            "Il y a dim / 2 fréquences, de 1 (k = 0) à presque 1/10 000 (la dernière). Les vôtres s'arrêtent trop tôt, "
            "trop tard, ou ne partent pas de 1."),
        "les fréquences ne sont pas en progression géométrique": Mistake(
            (lambda t, dim: _both_of(1000 * t[:, None] * torch.arange(dim // 2, dtype=t.dtype, device=t.device)),
             lambda t, dim: _both_of(1000 * t[:, None] * torch.linspace(
                 1, 1e-4, dim // 2, dtype=t.dtype, device=t.device))),
            "De l'une à la suivante, le rapport est constant : c'est ce qui donne à la fois des ondes lentes, pour "
            "situer t en gros, et des ondes rapides, pour le préciser."),
        "il y a deux fois trop de fréquences": Mistake(
            (lambda t, dim: time_embedding(t, 2 * dim), lambda t, dim: time_embedding(t, 2 * dim)[:, :dim]),
            "Chaque fréquence donne deux nombres : il n'en faut que dim / 2."),
        "les moitiés sont mises l'une sous l'autre": Mistake(
            _waves(join=lambda a, b: torch.cat([a, b], dim=0)),
            "Le premier axe est celui des exemples : les sinus vont à droite des cosinus."),
        "t n'est pas une colonne": Mistake(
            (_unshaped, _unshaped_wide),
            "Chaque temps doit rencontrer chaque fréquence : il faut une table (N, dim / 2), donc un axe de taille 1 "
            "derrière N."),
    },
)


def _both_of(angles):
    return torch.cat([angles.cos(), angles.sin()], dim=1)


# --- 7. La boucle de DDPM -----------------------------------------------------------------------------------


def ddpm_sample(net, x, noise, betas):
    """De x_T à x_0 : à chaque pas, une estimation de x_0, la moyenne a posteriori, et du bruit sauf à la fin."""
    kept, last = _kept(betas), len(betas)
    for t in range(last, 0, -1):
        a = kept[t].item()
        eps = net(x, x.new_full((len(x),), t / last))
        x0 = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        x = posterior_mean(x, x0, torch.full((len(x),), t, device=x.device), betas)
        x = x + math.sqrt(betas[t - 1].item()) * noise[t] * (t > 1)
    return x


def _ddpm(part=lambda b, before, a: b / (1 - a).sqrt(), shrink=lambda b, before, a: (1 - b).sqrt(),
          spread=lambda b, before, a: b.sqrt(), noisy=lambda t: t > 1, order=lambda last: range(last, 0, -1),
          time=lambda t, last: t / last, kept=_kept, beta_at=lambda t: t - 1, kept_at=_keep, noise_at=_keep,
          shape=lambda x, value: x.new_full((len(x),), value)):
    """Boucle dont un coefficient, un indice, l'ordre, le temps ou le bruit est faux."""
    def wrong(net, x, noise, betas):
        table, last = kept(betas), len(betas)
        for t in order(last):
            b, before, a = betas[beta_at(t)], table[kept_at(t) - 1], table[kept_at(t)]
            x = (x - part(b, before, a) * net(x, shape(x, time(t, last)))) / shrink(b, before, a)
            x = x + spread(b, before, a) * noise[noise_at(t)] if noisy(t) else x
        return x
    return wrong


def _ddpm_cases():
    rng, cases = generator(8), []
    for gain, n, dim, last in ((0.7, 4, 3, 5), (1.3, 1, 2, 3), (0.4, 3, 5, 8)):
        cases.append((_Net(gain), normal(rng, n, dim), normal(rng, last + 1, n, dim), _betas(rng, last)))
    return cases


def _posterior_std(b, before, a):
    return (b * (1 - before) / (1 - a)).sqrt()


DDPM_SAMPLE = Spec(
    oracle=ddpm_sample,
    cases=_ddpm_cases,
    accepted={
        "vous ajoutez le bruit de la loi a posteriori": Mistake(
            _ddpm(spread=_posterior_std),
            "Sa variance, (7.8), est un peu plus petite que β_t ; Ho et al. essaient les deux et n'y voient guère de "
            "différence. Elle s'annule d'elle-même au dernier pas."),
    },
    mistakes={
        "du bruit est ajouté au dernier pas": Mistake(
            (_ddpm(noisy=lambda t: True), _ddpm(noisy=lambda t: True, noise_at=lambda t: t - 1)),
            "Le pas qui mène à x_0 rend sa moyenne : le bruit que vous y ajoutez ne sera plus jamais retiré, et toutes "
            "vos images ont du grain."),
        "aucun bruit n'est ajouté": Mistake(
            _ddpm(noisy=lambda t: False),
            "Sans bruit neuf, cette moyenne-là n'est pas le pas de DDIM : chaque pas se contracte vers le centre des "
            "données, et les images sont fades et floues."),
        "β est pris pour ᾱ": Mistake(
            (_ddpm(part=lambda b, before, a: b / b.sqrt()), _ddpm(kept=lambda b: _after_one(1 - b)),
             _ddpm(kept=lambda b: torch.cat([b.new_zeros(1), b]))),
            "L'écart-type du bruit contenu dans x_t vient de tous les pas déjà faits : il s'écrit avec le produit ᾱ_t, "
            "et non avec le seul β_t."),
        "la racine est oubliée": Mistake(
            (_ddpm(part=lambda b, before, a: b / (1 - a)), _ddpm(shrink=lambda b, before, a: 1 - b),
             _ddpm(spread=lambda b, before, a: b),
             _ddpm(lambda b, before, a: b / (1 - a), lambda b, before, a: 1 - b, lambda b, before, a: b)),
            "β_t est une variance : le bruit ajouté a pour écart-type sa racine. De même, l'image est divisée par la "
            "racine de 1 − β_t, et ε par celle de 1 − ᾱ_t."),
        "β_t a une racine de trop": Mistake(
            _ddpm(part=lambda b, before, a: (b / (1 - a)).sqrt()),
            "Devant ε, c'est la variance β_t elle-même, divisée par l'écart-type σ_t : voyez (7.7) et (7.14)."),
        "le signe du bruit prédit est faux": Mistake(
            _ddpm(part=lambda b, before, a: -b / (1 - a).sqrt()),
            "Vous ajoutez le bruit prédit au lieu de l'ôter. Le score, lui, s'ajoute ; mais il est de signe contraire "
            "à ε."),
        "la division par √(1 − β) est oubliée": Mistake(
            (_ddpm(shrink=lambda b, before, a: torch.ones_like(b)),
             _ddpm(shrink=lambda b, before, a: 1 / (1 - b).sqrt())),
            "Chaque pas du bruitage a atténué l'image ; il faut la regonfler d'autant, ou elle finit grise."),
        "tout le bruit est retiré d'un coup": Mistake(
            (_ddpm(part=lambda b, before, a: (1 - a).sqrt(), shrink=lambda b, before, a: a.sqrt()),
             _ddpm(part=lambda b, before, a: (1 - a).sqrt())),
            "C'est l'estimation de x_0. Un pas de la chaîne ne retire que la part de bruit d'un pas."),
        "l'indice de temps est décalé d'un": Mistake(
            (_ddpm(beta_at=_keep), _ddpm(kept_at=lambda t: t - 1), _ddpm(kept=lambda b: (1 - b).cumprod(0)),
             _ddpm(time=lambda t, last: (t - 1) / last), _ddpm(noise_at=lambda t: t - 1),
             _ddpm(time=lambda t, last: (t - 1) / last, noise_at=lambda t: t - 1),
             _ddpm(kept_at=lambda t: t - 1, time=lambda t, last: (t - 1) / last, noise_at=lambda t: t - 1)),
            "`betas` commence par β_1, à l'indice 0 ; ᾱ par ᾱ_0 = 1. Au pas t, le réseau doit recevoir t / T, et le "
            "bruit est `noise[t]`."),
        "un pas manque": Mistake(
            (_ddpm(order=lambda last: range(last, 1, -1)), _ddpm(order=lambda last: range(last - 1, 0, -1))),
            "Il y a T pas, de t = T à t = 1 compris : comptez les tours de votre boucle."),
        "la chaîne est parcourue à l'envers": Mistake(
            (_ddpm(order=lambda last: range(1, last + 1)), _ddpm(order=lambda last: range(1, last))),
            "On part de x_T, du bruit : t descend de T à 1."),
        "le temps n'est pas divisé par T": Mistake(
            (_ddpm(time=lambda t, last: t), _ddpm(time=lambda t, last: t - 1)),
            "Les réseaux du chapitre comptent le temps de 0 à 1 ; vous leur donnez un numéro de pas."),
        "le temps donné au réseau n'a pas la forme (N,)": Mistake(
            (_ddpm(shape=lambda x, value: x.new_tensor(value)), _ddpm(shape=lambda x, value: value)),
            "Le réseau attend un temps par exemple, même quand tous sont égaux."),
    },
)


# --- 8. Un pas de DDIM --------------------------------------------------------------------------------------


def ddim_step(x, eps, t, s, alpha_bar):
    """Dans les coordonnées x / α, le pas est une translation le long de ε : forme de x."""
    a, b = alpha_bar[t].item(), alpha_bar[s].item()
    return math.sqrt(b) * (x / math.sqrt(a) + (math.sqrt(1 / b - 1) - math.sqrt(1 / a - 1)) * eps)


def _ddim(clean=lambda x, e, a: (x - (1 - a).sqrt() * e) / a.sqrt(), signal=torch.sqrt,
          spread=lambda b: (1 - b).sqrt(), leave=lambda t, s: t, arrive=lambda t, s: s):
    """Pas dont l'estimation de x_0, un coefficient ou un indice est faux."""
    def wrong(x, eps, t, s, alpha_bar):
        a, b = alpha_bar[leave(t, s)], alpha_bar[arrive(t, s)]
        return signal(b) * clean(x, eps, a) + spread(b) * eps
    return wrong


def _ddpm_mean(x, eps, t, s, alpha_bar):
    """Moyenne du pas de DDPM de t à s."""
    a, b = alpha_bar[t], alpha_bar[s]
    return (x - (1 - a / b) / (1 - a).sqrt() * eps) / (a / b).sqrt()


def _ddim_cases():
    rng, cases = generator(9), []
    for shape, last, t, s in (((3, 1, 2, 4), 9, 7, 3), ((1, 5), 6, 6, 5), ((4, 2), 8, 5, 0), ((2, 3), 12, 10, 1)):
        cases.append((normal(rng, *shape), normal(rng, *shape), t, s, _kept(_betas(rng, last))))
    return cases


DDIM_STEP = Spec(
    oracle=ddim_step,
    cases=_ddim_cases,
    mistakes={
        "`s` est ignoré : le pas ne va qu'à t − 1": Mistake(
            _ddim(arrive=lambda t, s: t - 1),
            "Tout l'intérêt de DDIM est de sauter des pas : on arrive au pas s, quel qu'il soit."),
        "la racine est oubliée": Mistake(
            (_ddim(signal=_keep), _ddim(spread=lambda b: 1 - b), _ddim(signal=_keep, spread=lambda b: 1 - b),
             _ddim(clean=lambda x, e, a: (x - (1 - a) * e) / a.sqrt()),
             _ddim(clean=lambda x, e, a: (x - (1 - a).sqrt() * e) / a),
             _ddim(lambda x, e, a: (x - (1 - a) * e) / a, _keep, lambda b: 1 - b)),
            "ᾱ et 1 − ᾱ sont des variances ; les coefficients de l'image et du bruit sont leurs racines, au départ "
            "comme à l'arrivée."),
        "l'estimation de x_0 n'est pas divisée par √ᾱ_t": Mistake(
            (_ddim(clean=lambda x, e, a: x - (1 - a).sqrt() * e),
             _ddim(clean=lambda x, e, a: a.sqrt() * (x - (1 - a).sqrt() * e)),
             _ddim(clean=lambda x, e, a: x / a.sqrt() - (1 - a).sqrt() * e)),
            "x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε : pour en tirer x_0, il faut ôter le bruit, puis regonfler ce qui reste."),
        "le signe du bruit prédit est faux": Mistake(
            (_ddim(clean=lambda x, e, a: (x + (1 - a).sqrt() * e) / a.sqrt()), _ddim(spread=lambda b: -(1 - b).sqrt())),
            "Pour estimer x_0, on ôte le bruit ; pour revenir au niveau s, on le remet. Vous avez fait l'un des deux à "
            "l'envers."),
        "le bruit n'est pas remis": Mistake(
            (_ddim(signal=torch.ones_like, spread=torch.zeros_like), _ddim(spread=torch.zeros_like)),
            "Votre résultat n'a plus de bruit du tout : ce n'est pas un point du niveau s, sauf si s = 0. Le pas "
            "suivant attend un x_s bruité."),
        "on reste au pas de départ": Mistake(
            (_ddim(arrive=lambda t, s: t), _ddim(leave=lambda t, s: s)),
            "Vous rendez x tel quel : x_0 s'estime au niveau t, puis se bruite au niveau s."),
        "le départ et l'arrivée sont échangés": Mistake(
            _ddim(leave=lambda t, s: s, arrive=lambda t, s: t),
            "Votre pas remonte vers le bruit. C'est le niveau t qui sert à estimer x_0, et le niveau s qu'on "
            "rejoint."),
        "les coefficients sont échangés à l'arrivée": Mistake(
            _ddim(signal=lambda b: (1 - b).sqrt(), spread=torch.sqrt),
            "Au pas 0, il ne doit rester que l'image : c'est elle que multiplie √ᾱ_s."),
        "l'indice de temps est décalé d'un": Mistake(
            (_ddim(leave=lambda t, s: t - 1), _ddim(arrive=lambda t, s: s + 1), _ddim(arrive=lambda t, s: s - 1),
             _ddim(leave=lambda t, s: t - 1, arrive=lambda t, s: s - 1),
             _ddim(leave=lambda t, s: t + 1, arrive=lambda t, s: s + 1)),
            "`alpha_bar` commence par ᾱ_0 = 1 : les niveaux t et s sont aux indices t et s."),
        "c'est la moyenne de DDPM": Mistake(
            (_ddpm_mean, lambda x, eps, t, s, alpha_bar: _ddpm_mean(x, eps, t, t - 1, alpha_bar)),
            "Cette moyenne laisse exprès moins de bruit qu'il n'en faut au niveau s, car DDPM en rajoute du neuf. "
            "DDIM n'en tire pas : il garde celui qu'il a prédit."),
        "le bruit prédit n'est pas retiré": Mistake(
            (_ddim(clean=lambda x, e, a: x), _ddim(clean=lambda x, e, a: x / a.sqrt()),
             _ddim(clean=lambda x, e, a: x / a.sqrt(), spread=torch.zeros_like)),
            "x_t n'est pas une estimation de x_0 : il contient encore le bruit que le réseau vient de prédire."),
    },
)


# --- 9. La prédiction v -------------------------------------------------------------------------------------


def from_v(v, x, alpha, sigma):
    """x_0 et ε, solutions d'un système de deux équations par exemple : (2, N, …)."""
    matrix = torch.stack([torch.stack([alpha, sigma], dim=1), torch.stack([-sigma, alpha], dim=1)], dim=1)   # (N, 2, 2)
    both = torch.stack([x.flatten(1), v.flatten(1)], dim=1)                                                  # (N, 2, D)
    return torch.linalg.solve(matrix, both).transpose(0, 1).reshape(2, *x.shape)


def _v_with(of_x0=lambda v, x, a, s: a * x - s * v, of_eps=lambda v, x, a, s: s * x + a * v, shape=_rows):
    return lambda v, x, alpha, sigma: torch.stack([
        f(v, x, shape(alpha, x), shape(sigma, x)) for f in (of_x0, of_eps)])


def _v_cases():
    rng, cases = generator(10), []
    for shape in ((5, 1, 3, 4), (1, 2, 2, 3), (4, 3)):
        angle = uniform(rng, shape[0], low=0.2, high=1.4)
        cases.append((normal(rng, *shape), normal(rng, *shape), angle.cos(), angle.sin()))
    return cases


FROM_V = Spec(
    oracle=from_v,
    cases=_v_cases,
    gradients=("v",),
    mistakes={
        "le signe de v est faux dans x_0": Mistake(
            (_v_with(of_x0=lambda v, x, a, s: a * x + s * v), _v_with(of_x0=lambda v, x, a, s: s * v - a * x)),
            "Vérifiez sur le bruit pur, α = 0 et σ = 1 : v y vaut l'opposé de x_0."),
        "le signe de v est faux dans ε": Mistake(
            (_v_with(of_eps=lambda v, x, a, s: s * x - a * v), _v_with(of_eps=lambda v, x, a, s: a * v - s * x)),
            "Vérifiez près de l'image, α = 1 et σ = 0 : v y vaut ε."),
        "les deux signes de v sont faux": Mistake(
            _v_with(lambda v, x, a, s: a * x + s * v, lambda v, x, a, s: s * x - a * v),
            "Vous supposez v = σ x_0 − α ε. (7.20) est de signe contraire."),
        "c'est v recalculé, pas inversé": Mistake(
            (_v_with(lambda v, x, a, s: a * v - s * x, lambda v, x, a, s: a * x + s * v),
             _v_with(lambda v, x, a, s: a * v - s * x)),
            "Vous appliquez (7.20) à (x, v). Il faut la renverser : deux équations, deux inconnues, x_0 et ε."),
        "les coefficients sont échangés": Mistake(
            (_v_with(lambda v, x, a, s: s * x - a * v, lambda v, x, a, s: a * x + s * v),
             _v_with(of_x0=lambda v, x, a, s: s * x - a * v), _v_with(of_eps=lambda v, x, a, s: a * x + s * v)),
            "Quand α = 1 et σ = 0, il n'y a pas de bruit : l'estimation de x_0 doit être x."),
        "x_0 et ε sont échangés": Mistake(
            lambda v, x, alpha, sigma: from_v(v, x, alpha, sigma).flip(0),
            "L'énoncé demande x_0 d'abord, puis ε."),
        "v est pris pour ε": Mistake(
            (_v_with(lambda v, x, a, s: (x - s * v) / a, lambda v, x, a, s: v),
             _v_with(of_x0=lambda v, x, a, s: (x - s * v) / a)),
            "Le réseau ne prédit pas le bruit, mais un mélange de bruit et d'image (7.20)."),
        "v est pris pour la vitesse du chemin droit": Mistake(
            (_v_with(lambda v, x, a, s: x - s * v, lambda v, x, a, s: x + a * v),
             _v_with(lambda v, x, a, s: (x - s * v) / (a + s), lambda v, x, a, s: (x + a * v) / (a + s))),
            "Ce serait juste si le réseau prédisait ε − x_0. Ici les deux coefficients sont ceux du cercle, "
            "α² + σ² = 1."),
        "une division de trop": Mistake(
            _v_with(lambda v, x, a, s: (a * x - s * v) / a, lambda v, x, a, s: (s * x + a * v) / s),
            "Le déterminant du système est α² + σ², qui vaut 1 : il n'y a rien à diviser, et c'est tout l'intérêt de v "
            "quand α ou σ approche de 0."),
        _SHAPES[0]: Mistake(
            (_v_with(shape=lambda c, x: c),
             _v_with(lambda v, x, a, s: x * a - v * s, lambda v, x, a, s: x * s + v * a, lambda c, x: c)), _SHAPES[1]),
    },
)


# --- 10. Un couple de l'appariement de flots ----------------------------------------------------------------


def flow_pair(x0, noise, t):
    """Le point et la vitesse du chemin droit, la vitesse par une différence de deux points : (2, N, …)."""
    point = torch.stack([torch.lerp(a, b, w) for a, b, w in zip(x0, noise, t.tolist(), strict=True)])
    end, start = torch.lerp(x0, noise, 1.0), torch.lerp(x0, noise, 0.0)
    return torch.stack([point, end - start])


def _pair(point=lambda x, e, t: (1 - t) * x + t * e, speed=lambda x, e, t: e - x, shape=_rows):
    return lambda x0, noise, t: torch.stack([f(x0, noise, shape(t, x0)) for f in (point, speed)])


def _flow_cases():
    rng, cases = generator(11), []
    for shape in ((5, 1, 3, 4), (1, 2, 2, 3), (4, 3)):
        cases.append((uniform(rng, *shape, low=-1.0), normal(rng, *shape), uniform(rng, shape[0], low=0.1, high=0.95)))
    return cases


FLOW_PAIR = Spec(
    oracle=flow_pair,
    cases=_flow_cases,
    mistakes={
        "le chemin est à l'envers": Mistake(
            (_pair(lambda x, e, t: t * x + (1 - t) * e, lambda x, e, t: x - e),
             _pair(lambda x, e, t: t * x + (1 - t) * e)),
            "Chez vous, t = 0 est le bruit : c'est la convention de beaucoup d'articles, pas celle du chapitre, où "
            "t = 0 est la donnée. Mêlée à un échantillonneur qui descend de 1 à 0, elle partirait des images."),
        "le signe de la vitesse est faux": Mistake(
            _pair(speed=lambda x, e, t: x - e),
            "La vitesse est la dérivée du point par rapport à t. Quand t augmente, dans quel sens va-t-il ?"),
        "la vitesse dépend de t": Mistake(
            (_pair(speed=lambda x, e, t: (e - x) / t), _pair(speed=lambda x, e, t: (e - x) / (1 - t)),
             _pair(speed=lambda x, e, t: t * e - (1 - t) * x)),
            "Le chemin est droit et parcouru à vitesse constante : dérivez le point par rapport à t, et t disparaît."),
        "c'est la prédiction v": Mistake(
            (_pair(speed=lambda x, e, t: (1 - t) * e - t * x),
             _pair(speed=lambda x, e, t: (1 - t**2).sqrt() * e - t * x)),
            "v = α ε − σ x_0 est la vitesse d'un point qui tourne sur un cercle (7.20). Sur le chemin droit, elle est "
            "différente."),
        "la cible est le bruit, ou la donnée": Mistake(
            (_pair(speed=lambda x, e, t: e), _pair(speed=lambda x, e, t: x)),
            "L'appariement de flots ne prédit ni l'un ni l'autre, mais leur différence."),
        "la vitesse est comptée depuis x_t": Mistake(
            (_pair(speed=lambda x, e, t: e - ((1 - t) * x + t * e)),
             _pair(speed=lambda x, e, t: ((1 - t) * x + t * e) - x)),
            "C'est le chemin qui reste à parcourir, ou celui déjà fait ; divisé par le temps qu'il demande, il "
            "donnerait la vitesse."),
        "le chemin n'est pas droit": Mistake(
            (_pair(point=lambda x, e, t: (1 - t).sqrt() * x + t.sqrt() * e),
             _pair(point=lambda x, e, t: (1 - t**2).sqrt() * x + t * e),
             _pair(point=lambda x, e, t: (1 - t) * x + t.sqrt() * e)),
            "Vous gardez des racines, comme dans (7.3). Ici la variance n'a pas à rester à 1 : les deux coefficients "
            "font 1 eux-mêmes."),
        "la donnée n'est pas atténuée": Mistake(
            _pair(point=lambda x, e, t: x + t * e),
            "En t = 1, il ne doit plus rester que le bruit."),
        "le point et la vitesse sont échangés": Mistake(
            lambda *a: flow_pair(*a).flip(0), "L'énoncé demande le point x_t d'abord, puis la vitesse."),
        _SHAPES[0]: Mistake(
            (_pair(shape=lambda c, x: c), _pair(lambda x, e, t: x * (1 - t) + e * t, shape=lambda c, x: c),
             _pair(lambda x, e, t: x + t * (e - x), shape=lambda c, x: c)), _SHAPES[1]),
    },
)


# --- 11. Le guidage -----------------------------------------------------------------------------------------


def guide(conditional, unconditional, w):
    """Extrapolation au-delà de la prédiction conditionnelle, par une interpolation de poids 1 + w : même forme."""
    return torch.lerp(unconditional, conditional, 1.0 + w)


def _guide_cases():
    rng = generator(12)
    return [(normal(rng, *shape), normal(rng, *shape), w)
            for shape, w in (((3, 1, 2, 2), 1.5), ((1, 4), 0.0), ((2, 3), 4.0), ((2, 2), 0.3))]


GUIDE = Spec(
    oracle=guide,
    cases=_guide_cases,
    mistakes={
        "le guidage extrapole du mauvais côté": Mistake(
            (lambda c, u, w: c - w * (c - u), lambda c, u, w: u - w * (c - u), lambda c, u, w: (1 + w) * u - w * c),
            "Votre prédiction s'éloigne de ce que demande l'étiquette, et d'autant plus que w est grand. On part de la "
            "prédiction conditionnelle, et l'on s'éloigne de celle qui ignore l'étiquette."),
        "w est compté autrement : w = 0 ignore l'étiquette": Mistake(
            lambda c, u, w: u + w * (c - u),
            "C'est l'autre convention, où w = 1 veut dire « pas de guidage » : celle de beaucoup de codes. Le chapitre "
            "suit Ho et Salimans : w = 0 rend la prédiction conditionnelle telle quelle."),
        "la prédiction sans étiquette est ajoutée": Mistake(
            (lambda c, u, w: c + w * (c + u), lambda c, u, w: c + w * u),
            "Deux prédictions égales doivent le rester : c'est leur différence qu'on amplifie, ce que l'étiquette "
            "apporte de plus."),
        "le 1 de 1 + w est oublié": Mistake(
            (lambda c, u, w: w * (c - u), lambda c, u, w: w * c - u),
            "Quand les deux prédictions sont égales, l'étiquette ne dit rien, et le guidage ne doit rien changer : vos "
            "deux coefficients doivent faire 1."),
        "la prédiction sans étiquette n'est pas retranchée": Mistake(
            (lambda c, u, w: (1 + w) * c, lambda c, u, w: c + w * c + 0 * u),
            "Vous grossissez toute la prédiction, et x_t sortirait de la chaîne. Seul ce que l'étiquette apporte de "
            "plus doit être amplifié."),
        "les coefficients ne font pas 1": Mistake(
            (lambda c, u, w: (1 + w) * c - u, lambda c, u, w: c - w * u, lambda c, u, w: (1 + w) * (c - u)),
            "Quand les deux prédictions sont égales, le guidage ne doit rien changer."),
        "c'est une moyenne": Mistake(
            (lambda c, u, w: (c + w * u) / (1 + w), lambda c, u, w: (w * c + u) / (1 + w)),
            "Une moyenne reste entre les deux prédictions ; le guidage va au-delà de la prédiction conditionnelle."),
        "w est ignoré": Mistake(
            (lambda c, u, w: 2 * c - u, lambda c, u, w: c.clone(), lambda c, u, w: u.clone()),
            "Le résultat doit dépendre de w."),
    },
)


# --- 12. Le pas de masque de RePaint ------------------------------------------------------------------------


def repaint(x, known, mask, s, noise, alpha_bar):
    """x où les pixels connus sont remplacés, un par un, par leur version bruitée au niveau s : même forme."""
    angle = math.acos(2 * alpha_bar[s].item() - 1) / 2
    pasted, where = x.clone(), mask.expand_as(x) > 0.5
    pasted[where] = (math.cos(angle) * known + math.sin(angle) * noise)[where]
    return pasted


def _pasted(signal=torch.sqrt, spread=lambda a: (1 - a).sqrt(), at=_keep, keep=lambda m: m, other=lambda m: 1 - m,
            scale=_keep):
    """Collage dont le bruitage, le masque ou l'indice est faux."""
    def wrong(x, known, mask, s, noise, alpha_bar):
        a = alpha_bar[at(s)]
        return keep(mask) * (signal(a) * scale(known) + spread(a) * noise) + other(mask) * x
    return wrong


def _repaint_cases():
    rng, cases = generator(13), []
    for shape, last, s in (((3, 1, 4, 5), 8, 4), ((1, 2, 3, 3), 6, 1), ((2, 1, 4, 4), 9, 7), ((2, 1, 3, 2), 5, 0)):
        mask = (uniform(rng, shape[0], 1, *shape[2:]) < 0.5).double()
        mask[:, :, 0, 0], mask[:, :, -1, -1] = 0.0, 1.0
        cases.append((normal(rng, *shape), uniform(rng, *shape, low=-1.0), mask, s, normal(rng, *shape),
                      _kept(_betas(rng, last))))
    return cases


def _one(m):
    return torch.ones_like(m)


REPAINT = Spec(
    oracle=repaint,
    cases=_repaint_cases,
    mistakes={
        "le masque est inversé": Mistake(
            _pasted(keep=lambda m: 1 - m, other=lambda m: m),
            "Vous collez l'image dans le trou, et laissez le modèle refaire ce que l'on connaît. Ici le masque vaut 1 "
            "là où l'image est connue."),
        "la partie connue n'est pas bruitée": Mistake(
            _pasted(signal=torch.ones_like, spread=torch.zeros_like),
            "Le réseau verrait, au même temps, un bord net et un trou bruité : une image qu'il n'a jamais vue à "
            "l'entraînement. Les deux parties doivent être au même niveau."),
        "le bruit est oublié": Mistake(
            _pasted(spread=torch.zeros_like),
            "L'image connue est atténuée comme il faut, mais sans bruit : ce n'est pas un point du niveau s."),
        "l'indice de temps est décalé d'un": Mistake(
            (_pasted(at=lambda s: s + 1), _pasted(at=lambda s: s - 1)),
            "x est arrivé au niveau s : la partie connue doit y être aussi. Au niveau d'avant le pas, elle serait plus "
            "bruitée que le trou ; et au pas 0, elle ne serait pas l'image."),
        "la racine est oubliée": Mistake(
            (_pasted(signal=_keep), _pasted(spread=lambda a: 1 - a), _pasted(signal=_keep, spread=lambda a: 1 - a)),
            "ᾱ et 1 − ᾱ sont des variances ; les deux coefficients de (7.3) sont leurs racines."),
        "les deux coefficients sont échangés": Mistake(
            _pasted(lambda a: (1 - a).sqrt(), torch.sqrt),
            "Au pas 0, la partie connue doit être l'image exacte : la vôtre serait du bruit pur."),
        "le trou n'est pas protégé": Mistake(
            (_pasted(other=_one), _pasted(keep=_one), _pasted(keep=_one, other=_one)),
            "Les deux parties s'additionnent au lieu de se partager l'image : chaque pixel vient d'un seul côté."),
        "rien n'est collé": Mistake(
            (lambda x, known, mask, s, noise, alpha_bar: x.clone(),
             lambda x, known, mask, s, noise, alpha_bar: (1 - mask) * x,
             lambda x, known, mask, s, noise, alpha_bar: mask * x),
            "La partie connue doit venir de `known`, bruitée au niveau s."),
        "le trou est vide": Mistake(
            _pasted(other=torch.zeros_like),
            "Hors de la partie connue, il faut garder ce que le modèle a proposé, x."),
        "toute l'image est remplacée": Mistake(
            (_pasted(keep=_one, other=torch.zeros_like),
             lambda x, known, mask, s, noise, alpha_bar: _pasted(keep=_one, other=torch.zeros_like)(
                 x, mask * known, mask, s, noise, alpha_bar)),
            "Vous avez perdu ce que le modèle a proposé dans le trou, x."),
        "le masque ne porte que sur l'image, ou que sur le bruit": Mistake(
            (lambda x, known, mask, s, noise, alpha_bar: mask * alpha_bar[s].sqrt() * known + (1 - mask) * x
             + (1 - alpha_bar[s]).sqrt() * noise,
             lambda x, known, mask, s, noise, alpha_bar: mask * known + (1 - mask) * x
             + (1 - alpha_bar[s]).sqrt() * noise,
             lambda x, known, mask, s, noise, alpha_bar: alpha_bar[s].sqrt() * (mask * known + (1 - mask) * x)
             + (1 - alpha_bar[s]).sqrt() * noise),
            "Le x du trou est déjà au niveau s : vous le bruitez une seconde fois. Le masque s'applique à l'image "
            "connue, une fois bruitée."),
        "les images sont ramenées une seconde fois à [−1, 1]": Mistake(
            _pasted(scale=lambda x: 2 * x - 1), "`known` y est déjà : l'énoncé le dit."),
    },
)


EXERCISES = {
    "alpha_bars": ALPHA_BARS, "q_sample": Q_SAMPLE, "posterior_mean": POSTERIOR_MEAN, "loss": LOSS, "score": SCORE,
    "time_embedding": TIME_EMBEDDING, "ddpm_sample": DDPM_SAMPLE, "ddim_step": DDIM_STEP, "from_v": FROM_V,
    "flow_pair": FLOW_PAIR, "guide": GUIDE, "repaint": REPAINT,
}
