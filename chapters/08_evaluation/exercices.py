"""Exercices du chapitre 8 (évaluation) : entrées, oracles, erreurs classiques.

Les oracles passent par un autre chemin que la formule demandée : la probabilité d'une case à la place d'une somme de
logarithmes, des entropies à la place d'une divergence, une norme nucléaire à la place d'une racine de matrice, des
boucles à la place de tableaux de distances, les racines d'un polynôme à la place d'une formule close. Chaque indice
nomme l'erreur et dit ce qu'elle change, sans donner la ligne à écrire.
"""

import itertools
import math

import torch

from utils.exercises import Mistake, Spec, generator, normal, same, uniform

# --- 1. Bits par dimension ----------------------------------------------------------------------------------

LEVELS = 256


def bits_per_dim(log_prob, dim, low, high):
    """−log2 de la probabilité moyenne (géométrique) d'une case de largeur (high − low) / 256 : (N,)."""
    return -torch.log2(torch.exp(log_prob / dim) * (high - low) / LEVELS)


def _bits(log_prob, dim, offset):
    return offset - log_prob / (dim * math.log(2))


def _densities(dim, low, high, *bits):
    """Log-densités d'images qui coûtent `bits` par dimension, dans [low, high[."""
    cost = torch.tensor(bits, dtype=torch.float64, device="cpu")
    return (math.log2(LEVELS / (high - low)) - cost) * dim * math.log(2), dim, low, high


BITS_PER_DIM = Spec(
    oracle=bits_per_dim,
    cases=lambda: [_densities(784, -1.0, 1.0, 1.1, 1.3, 2.2), _densities(12, 0.0, 1.0, 9.5),
                   _densities(48, -3.0, 2.0, 0.7, 3.5), _densities(20, -4.0, 4.0, 5.2, 7.1)],
    gradients=("log_prob",),
    mistakes={
        "la largeur d'une case est oubliée": Mistake(
            lambda lp, d, low, high: _bits(lp, d, 0.0),
            "Ce que vous rendez est le coût d'une densité : il change avec l'unité des pixels, et peut être négatif. "
            "Une probabilité est une densité multipliée par un volume."),
        "l'échelle des images est oubliée": Mistake(
            lambda lp, d, low, high: _bits(lp, d, math.log2(LEVELS)),
            "Vous supposez des pixels dans [0, 1[. Le même modèle, entraîné dans [−1, 1[, coûterait chez vous un bit "
            "de plus par dimension, sans avoir rien désappris."),
        "le terme d'échelle est du mauvais signe": Mistake(
            (lambda lp, d, low, high: _bits(lp, d, math.log2(LEVELS * (high - low))),
             lambda lp, d, low, high: _bits(lp, d, math.log2((high - low) / LEVELS))),
            "Plus la case est petite, moins la densité y place de probabilité, et plus il faut de bits. Une densité "
            "uniforme doit coûter 8 bits, quels que soient `low` et `high`."),
        "la largeur de l'intervalle est prise pour l'une de ses bornes": Mistake(
            (lambda lp, d, low, high: _bits(lp, d, math.log2(LEVELS / high)),
             lambda lp, d, low, high: _bits(lp, d, math.log2(LEVELS / max(abs(low), abs(high))))),
            "Entre −1 et 1, il y a 2, et non 1 : les 256 cases se partagent toute la longueur."),
        "nats au lieu de bits": Mistake(
            lambda lp, d, low, high: bits_per_dim(lp, d, low, high) * math.log(2),
            "C'est le bon compte, en nats par dimension : un bit est une information de ln 2 nat."),
        "bits et nats sont mêlés": Mistake(
            (lambda lp, d, low, high: math.log2(LEVELS / (high - low)) - lp / d,
             lambda lp, d, low, high: _bits(lp, d, math.log(LEVELS / (high - low)))),
            "`log_prob` est un logarithme népérien. Convertissez les deux termes, ou aucun avant la fin."),
        "multiplication par ln 2 au lieu d'une division": Mistake(
            lambda lp, d, low, high: math.log2(LEVELS / (high - low)) - lp * math.log(2) / d,
            "Un bit vaut 0,693 nat : un même message compte plus de bits que de nats."),
        "le signe de la log-densité est faux": Mistake(
            lambda lp, d, low, high: _bits(-lp, d, math.log2(LEVELS / (high - low))),
            "Une image plus probable coûte moins de bits ; chez vous, elle en coûte plus."),
        "le signe est opposé": Mistake(
            lambda lp, d, low, high: -bits_per_dim(lp, d, low, high),
            "On demande un coût, positif ; vous rendez une log-probabilité."),
        "D est oublié": Mistake(
            lambda lp, d, low, high: _bits(lp, 1, math.log2(LEVELS / (high - low))),
            "Vous comparez la log-densité de l'image entière à la largeur d'une case d'un seul pixel."),
        "bits par image": Mistake(
            lambda lp, d, low, high: d * bits_per_dim(lp, d, low, high),
            "C'est le coût de l'image ; on le demande ramené à une dimension."),
        "la largeur n'est comptée qu'une fois": Mistake(
            lambda lp, d, low, high: _bits(lp, d, math.log2(LEVELS / (high - low)) / d),
            "Une case de l'espace des images a D côtés : le volume est la largeur à la puissance D."),
        "moyenne ou somme sur le lot": Mistake(
            (lambda *a: bits_per_dim(*a).mean(), lambda *a: bits_per_dim(*a).sum()),
            "Chaque image a son coût : rendez les N valeurs."),
    },
)


# --- 2. Extraire les caractéristiques -----------------------------------------------------------------------

_SIZE = 100   # images par lot, au plus


class _Extractor(float):
    """Extracteur d'essai : un nombre que l'on peut appeler ; (n, 1, H, W) → (n, 3). Chaque pixel y compte."""

    def __call__(self, x):
        rows = x.flatten(1)
        return torch.stack([torch.sin(float(self) * (1 + rows).pow(k) @ self.weights(rows)) for k in (1, 2, 3)], dim=1)

    def weights(self, rows):
        return torch.linspace(0.05, 0.25, rows.shape[1], dtype=rows.dtype, device=rows.device)


def features(net, images, low, high):
    """Caractéristiques, par lots de 37 images, coupées avant d'être changées d'échelle : (N, D)."""
    batches = images.clamp(low, high).split(37)
    return torch.cat([torch.no_grad()(net)(batch / (high - low) - low / (high - low)) for batch in batches])


def _seen(prepare):
    """Le réseau voit les images préparées autrement."""
    return lambda net, images, low, high: net(prepare(images, low, high))


def _span(x, dims=None):
    low, high = (x.min(), x.max()) if dims is None else (x.amin(dims, True), x.amax(dims, True))
    return (x - low) / (high - low)


def _unit(x, low, high):
    return ((x - low) / (high - low)).clamp(0, 1)


def _images_cases():
    """Des images qui dépassent un peu leurs bornes, comme en rend un générateur ; le dernier lot est incomplet."""
    rng, cases = generator(1), []
    for gain, shape, low, high in ((0.7, (5, 1, 3, 4), -1.0, 1.0), (1.3, (1, 1, 2, 3), 0.0, 255.0),
                                   (0.9, (230, 1, 2, 2), -0.5, 1.5)):
        images = low + (high - low) * uniform(rng, *shape, low=-0.1, high=1.1)
        images[0, 0, 0, :2] = images.new_tensor([low - 0.05 * (high - low), high + 0.08 * (high - low)])
        cases.append((_Extractor(gain), images, low, high))
    return cases


class _Spy:
    """Extracteur à un poids, qui note la taille de ses lots."""

    def __init__(self):
        self.weight = torch.tensor(0.5, dtype=torch.float64, device="cpu", requires_grad=True)
        self.sizes = []

    def __call__(self, x):
        self.sizes.append(len(x))
        return self.weight * x.flatten(1)[:, :2]


def _batches_are_right(f):
    """Des lots assez petits, assez peu nombreux, et rien qui garde le graphe de calcul."""
    net = _Spy()
    result = f(net, uniform(generator(2), 2 * _SIZE + 30, 1, 2, 2), 0.0, 1.0)
    if max(net.sizes) > _SIZE:
        return (f"Le réseau reçoit {max(net.sizes)} images d'un coup : avec dix mille, la mémoire n'y suffirait pas. "
                f"Il en faut {_SIZE} au plus à la fois.")
    if len(net.sizes) > 20:
        return f"Le réseau est appelé {len(net.sizes)} fois pour 230 images : donnez-lui des lots, non une image."
    if result.requires_grad:
        return ("Les caractéristiques gardent leur graphe de calcul : toutes les couches intermédiaires de toutes les "
                "images restent en mémoire. On mesure, on n'entraîne pas.")
    return None


FEATURES = Spec(
    oracle=features,
    cases=_images_cases,
    properties=(_batches_are_right,),
    mistakes={
        "les images ne sont pas dans le bon intervalle": Mistake(
            _seen(lambda x, low, high: x),
            "Le réseau a appris sur des images dans [0, 1] ; il n'a jamais vu les vôtres, et n'a aucun moyen de le "
            "dire. La distance de Fréchet mesurerait surtout votre oubli."),
        "les images sont coupées au lieu d'être ramenées à [0, 1]": Mistake(
            _seen(lambda x, low, high: x.clamp(0, 1)),
            "Tous les pixels sous 0 deviennent noirs, tous ceux au-dessus de 1 deviennent blancs : il faut d'abord "
            "changer l'échelle."),
        "l'échelle est celle du lot": Mistake(
            (_seen(lambda x, low, high: _span(x)), _seen(lambda x, low, high: _span(x, (1, 2, 3)))),
            "Avec le minimum et le maximum observés, les caractéristiques d'une image dépendent de ses voisines, et un "
            "modèle aux images trop pâles est corrigé avant d'être jugé. Les bornes sont données."),
        "l'échelle est écrite en dur": Mistake(
            (_seen(lambda x, low, high: ((x + 1) / 2).clamp(0, 1)), _seen(lambda x, low, high: (x + 1) / 2),
             _seen(lambda x, low, high: (x / 255).clamp(0, 1)), _seen(lambda x, low, high: x / 255)),
            "Elle n'est juste que pour un intervalle : tous les modèles ne rendent pas leurs images dans le même. Les "
            "bornes sont `low` et `high`."),
        "le centre n'est pas déplacé": Mistake(
            (_seen(lambda x, low, high: (x / (high - low)).clamp(0, 1)), _seen(lambda x, low, high: x / (high - low)),
             _seen(lambda x, low, high: (x / high).clamp(0, 1)), _seen(lambda x, low, high: x / high)),
            "Un pixel à `low` doit devenir 0 : il faut changer l'échelle et l'origine."),
        "les dépassements ne sont pas coupés": Mistake(
            _seen(lambda x, low, high: (x - low) / (high - low)),
            "Un générateur dépasse parfois ses bornes ; l'écran et le fichier coupent ces pixels. Jugez l'image que "
            "l'on voit, celle que l'énoncé veut dans [0, 1]."),
        "les images sont ramenées à [−1, 1]": Mistake(
            (_seen(lambda x, low, high: 2 * _unit(x, low, high) - 1),
             _seen(lambda x, low, high: 2 * (x - low) / (high - low) - 1)),
            "C'est l'intervalle des générateurs et des débruiteurs. Celui de l'extracteur est [0, 1]."),
        "les images sont centrées et réduites": Mistake(
            _seen(lambda x, low, high: (x - x.mean()) / x.std()),
            "Cela efface la luminosité et le contraste que l'on voulait comparer. L'extracteur veut l'intervalle de "
            "son entraînement."),
        "le négatif des images est montré": Mistake(
            (_seen(lambda x, low, high: _unit(-x, -high, -low)), _seen(lambda x, low, high: (high - x) / (high - low))),
            "Votre `low` devient 1 : le réseau verrait de l'encre blanche sur fond noir là où il attend l'inverse."),
        "le dernier lot est oublié": Mistake(
            (lambda net, x, low, high: features(net, x[:len(x) // _SIZE * _SIZE or None], low, high),
             lambda net, x, low, high: features(net, x[:_SIZE], low, high)),
            "Il manque les dernières images : le dernier lot n'est pas plein, mais il compte. Avec l'extracteur, on ne "
            "jette rien."),
    },
)


# --- 3. Inception Score -------------------------------------------------------------------------------------


def inception_score(logits):
    """exp(H(y) − H(y | x)), par les entropies : scalaire."""
    p = logits.softmax(1)
    return (torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum() / len(p)).exp()


def _kl_rows(p, q):
    """KL(p_i ‖ q), ligne à ligne : (N,)."""
    return (p * (p.log() - q.log())).sum(1)


def _information(logits):
    return inception_score(logits).log()


def _score_with(formula, dim=1):
    return lambda logits: formula(logits.softmax(dim))


def _entropy(p, dim=-1):
    return torch.special.entr(p).sum(dim)


def _saturated_is_fine(f):
    """Des réponses si nettes que des probabilités valent exactement 0."""
    logits = 2000 * torch.eye(4, dtype=torch.float64, device="cpu").repeat(3, 1)
    result = f(logits)
    if not torch.isfinite(result).all():
        return ("Quand le réseau est sûr de lui, des probabilités valent exactement 0, et votre score n'est plus un "
                "nombre : 0 × ln 0 vaut 0 dans une entropie, mais NaN en machine. Prenez le logarithme avant que "
                "l'exponentielle n'ait tout écrasé, ou protégez-le.")
    if not same(result, logits.new_tensor(4.0), rtol=1e-4):
        return ("Avec des réponses certaines, réparties également sur 4 classes, le score doit valoir 4. La protection "
                "de votre logarithme est trop forte.")
    return None


def _logits_cases():
    rng = generator(3)
    return [(normal(rng, n, k, scale=s),) for n, k, s in ((6, 4, 1.5), (9, 3, 1.0), (4, 10, 2.0))]


INCEPTION_SCORE = Spec(
    oracle=inception_score,
    cases=_logits_cases,
    properties=(_saturated_is_fine,),
    mistakes={
        "la moyenne est prise après l'exponentielle": Mistake(
            _score_with(lambda p: _kl_rows(p, p.mean(0)).exp().mean()),
            "Le score est l'exponentielle d'une information mutuelle, donc d'une moyenne. Comme exp est convexe, la "
            "moyenne des exponentielles est toujours plus grande, et quelques images l'emportent sur toutes."),
        "l'exponentielle est oubliée": Mistake(
            _information,
            "C'est l'information mutuelle (8.3), en nats. Le score est son exponentielle, un nombre de classes, de 1 "
            "à K."),
        "l'information est en bits": Mistake(
            (lambda x: (_information(x) / math.log(2)).exp(), lambda x: 2 ** _information(x),
             lambda x: _information(x) / math.log(2)),
            "La base du logarithme et celle de l'exponentielle doivent être la même : sinon, le score dépasse le "
            "nombre de classes, ou ne l'atteint jamais."),
        "la divergence est à l'envers": Mistake(
            _score_with(lambda p: (p.mean(0) * (p.mean(0).log() - p.log())).sum(1).mean().exp()),
            "KL(p(y) ‖ p(y | x)) n'est pas l'information mutuelle, et explose dès qu'une réponse est sûre. C'est "
            "p(y | x) qui pèse les classes."),
        "le signe est opposé": Mistake(
            lambda x: 1 / inception_score(x),
            "Votre score est sous 1. L'entropie de la moyenne, que l'on veut grande, est diminuée de la moyenne des "
            "entropies, que l'on veut petite."),
        "les logits sont moyennés avant le softmax": Mistake(
            lambda x: (x.log_softmax(1).exp() * (x.log_softmax(1) - x.mean(0).log_softmax(0))).sum(1).mean().exp(),
            "p(y) est une moyenne de probabilités. Moyenner des logits donne une moyenne géométrique, qui n'est pas la "
            "loi des classes produites."),
        "le softmax est pris sur les images": Mistake(
            (_score_with(lambda p: _kl_rows(p, p.mean(0)).mean().exp(), dim=0),
             _score_with(lambda p: (_entropy(p.mean(0)) - _entropy(p).mean()).exp(), dim=0)),
            "Chaque image a sa loi sur les classes : c'est chaque ligne qui doit faire 1, pas chaque colonne."),
        "l'entropie des réponses est oubliée": Mistake(
            _score_with(lambda p: _entropy(p.mean(0)).exp()),
            "Vous ne mesurez que la diversité des classes. Un réseau qui hésiterait partout aurait le score parfait."),
        "l'entropie de la moyenne est oubliée": Mistake(
            (_score_with(lambda p: (-_entropy(p).mean()).exp()), _score_with(lambda p: _entropy(p).mean().exp())),
            "Vous ne mesurez que la netteté des réponses. Un modèle qui ne dessine que des 1 serait parfait."),
        "la loi des classes est supposée uniforme": Mistake(
            _score_with(lambda p: p.shape[1] * (-_entropy(p).mean()).exp()),
            "p(y) se mesure sur les images engendrées : c'est par lui que le score voit les classes manquantes."),
        "somme au lieu de moyenne sur les images": Mistake(
            lambda x: (len(x) * _information(x)).exp(),
            "L'information mutuelle est une espérance sur les images. La vôtre grandit avec leur nombre."),
        "moyenne au lieu de somme sur les classes": Mistake(
            (lambda x: (_information(x) / x.shape[1]).exp(), lambda x: (_information(x) / x.numel()).exp()),
            "Une divergence est une somme sur les classes, pesée par leurs probabilités. La moyenne ne porte que sur "
            "les images."),
        "le résultat n'est pas moyenné": Mistake(
            (_score_with(lambda p: _kl_rows(p, p.mean(0)).exp()), _score_with(lambda p: _kl_rows(p, p.mean(0)))),
            "Une information mutuelle est celle de l'ensemble des images : un seul nombre."),
        "seule la classe la plus probable est gardée": Mistake(
            lambda x: _entropy(torch.nn.functional.one_hot(x.argmax(1), x.shape[1]).to(x).mean(0)).exp(),
            "En gardant la classe gagnante, vous déclarez toutes les images parfaitement nettes : les hésitations du "
            "réseau sont la moitié du score."),
    },
)


# --- 4. Distance de Fréchet ---------------------------------------------------------------------------------


def frechet(real, fake):
    """La trace de la racine est la norme nucléaire du produit croisé des écarts aux moyennes : scalaire."""
    a, b = ((x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (real, fake))
    shift = real.mean(0) - fake.mean(0)
    return shift @ shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.matrix_norm(a @ b.T, "nuc")


def _root(c):
    values, vectors = torch.linalg.eigh(c)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _trace_root(a, b):
    half = _root(a)
    return torch.linalg.eigvalsh(half @ b @ half).clamp(min=0).sqrt().sum()


def _frechet(shift=lambda m: m @ m, cross=_trace_root, factor=-2.0, cov=lambda x: x.T.cov(),
             spread=lambda a, b: a.trace() + b.trace(), after=lambda d: d):
    """Distance dont un terme, une covariance ou un signe est faux."""
    def wrong(real, fake):
        a, b = cov(real), cov(fake)
        return after(shift(real.mean(0) - fake.mean(0)) + spread(a, b) + factor * cross(a, b))
    return wrong


def _one_triangle(side):
    return lambda a, b: torch.linalg.eigvalsh(a @ b, UPLO=side).clamp(min=0).sqrt().sum()


def _eigh_root(a, b):
    values, vectors = torch.linalg.eigh(a @ b)
    return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).trace()


def _symmetrized(a, b):
    return torch.linalg.eigvalsh((a @ b + b @ a) / 2).clamp(min=0).sqrt().sum()


def _second_moment(x):
    return x.T @ x / (len(x) - 1)


def _few_points():
    """Six points en 200 dimensions, et les mêmes à peine décalés : presque toutes les valeurs propres sont nulles."""
    real = normal(generator(5), 6, 200) * torch.linspace(0.2, 3.0, 200, dtype=torch.float64, device="cpu") + 1
    return real, real.flip(0) + 0.15


def _singular_is_fine(f):
    """Moins de points que de dimensions, en float64 puis en float32 : la racine y reste-t-elle juste ?"""
    real, fake = _few_points()
    expected = float(frechet(real, fake))
    exact, rough = f(real, fake), f(real.float(), fake.float())
    if not (torch.isfinite(exact).all() and torch.isfinite(rough).all()):
        return ("Avec moins de points que de dimensions, votre distance est NaN : la plupart des valeurs propres sont "
                "nulles, l'arrondi en rend quelques-unes un peu négatives, et leur racine n'est plus réelle.")
    gaps = [abs(float(d) / expected - 1) for d in (exact, rough)]
    said = [f"Sur six points de 200 dimensions, et les mêmes à peine décalés, votre distance se trompe de {g:.0%}"
            .replace("%", " %") for g in gaps]
    if gaps[0] > 0.01:
        return (f"{said[0]}, même en float64 : la covariance y est singulière, et ce que vous ajoutez pour l'éviter, "
                "ou ce que vous inversez, compte.")
    if gaps[1] > 0.01:
        return (f"La racine perd sa partie imaginaire en silence. {said[1]} dès que les caractéristiques sont en "
                "float32. Presque toutes les valeurs propres devraient être nulles ; l'arrondi les disperse autour de "
                "0. Les négatives ont une racine imaginaire, que l'on ôte sans rien dire ; les positives restent, et "
                "leurs racines s'ajoutent. Le remède est la précision : convertissez en float64 d'abord.")
    return None


def _point_sets(seed, *shapes):
    """Deux nuages de lois différentes, de tailles différentes ; les coordonnées sont corrélées."""
    rng, cases = generator(seed), []
    for n, m, dim in shapes:
        mix, other = normal(rng, dim, dim), normal(rng, dim, dim)
        cases.append((normal(rng, n, dim) @ mix + normal(rng, dim), normal(rng, m, dim) @ other))
    return cases


FRECHET = Spec(
    oracle=frechet,
    cases=lambda: _point_sets(4, (9, 7, 3), (6, 12, 2), (15, 11, 5)),
    properties=(_singular_is_fine,),
    mistakes={
        "la covariance est divisée par N": Mistake(
            (_frechet(cov=lambda x: x.T.cov(correction=0)),
             lambda real, fake: _frechet(cov=lambda x: (x - x.mean(0)).T @ (x - x.mean(0)) / len(real))(real, fake)),
            "La moyenne a été estimée sur les mêmes points : diviser par N sous-estime la variance. C'est la "
            "convention sans biais, N − 1, qu'emploient les bibliothèques ; vos chiffres ne se comparent à rien."),
        "le signe du terme croisé est faux": Mistake(
            _frechet(factor=2.0),
            "La distance d'un ensemble à lui-même doit être nulle : la racine croisée se retranche des deux traces."),
        "le facteur 2 est oublié": Mistake(
            _frechet(factor=-1.0),
            "La distance d'un ensemble à lui-même doit être nulle : il y a deux traces à compenser."),
        "le terme croisé est oublié": Mistake(
            _frechet(factor=0.0), "La distance d'un ensemble à lui-même serait le double de sa variance totale."),
        "les moyennes sont oubliées": Mistake(
            _frechet(shift=lambda m: 0.0),
            "Deux nuages de même forme, éloignés l'un de l'autre, seraient chez vous à distance nulle."),
        "l'écart des moyennes n'est pas au carré": Mistake(
            (_frechet(shift=lambda m: m.norm()), _frechet(shift=lambda m: m.abs().sum())),
            "Les autres termes sont des variances, donc des carrés : la norme de l'écart l'est aussi."),
        "l'écart des moyennes est moyenné": Mistake(
            _frechet(shift=lambda m: m.square().mean()),
            "Une norme au carré est une somme sur les dimensions, comme la trace."),
        "le signe des moyennes est faux": Mistake(
            _frechet(shift=lambda m: -(m @ m)), "Éloigner les deux nuages doit augmenter la distance."),
        "la racine est prise du produit, qui n'est pas symétrique": Mistake(
            (_frechet(cross=_one_triangle("L")), _frechet(cross=_one_triangle("U")), _frechet(cross=_eigh_root),
             _frechet(cross=_symmetrized)),
            "Un produit de deux matrices symétriques ne l'est pas. `eigh` n'en lit qu'un triangle et suppose l'autre ; "
            "symétriser le produit en change aussi les valeurs propres. Ni l'un ni l'autre n'avertit."),
        "la racine est prise élément par élément": Mistake(
            (_frechet(cross=lambda a, b: (a @ b).sqrt().trace()),
             _frechet(cross=lambda a, b: (a @ b).diagonal().clamp(min=0).sqrt().sum()),
             _frechet(cross=lambda a, b: (a @ b).abs().sqrt().trace()),
             _frechet(cross=lambda a, b: (a.sqrt() @ b.sqrt()).trace())),
            "La racine d'une matrice est la matrice dont le carré la redonne. La racine de chaque élément n'est la "
            "même que pour une matrice diagonale."),
        "les corrélations sont oubliées": Mistake(
            _frechet(cross=lambda a, b: (a.diagonal() * b.diagonal()).sqrt().sum()),
            "Vous ne gardez que les variances : deux nuages inclinés en sens contraires seraient confondus."),
        "les deux racines sont prises séparément": Mistake(
            _frechet(cross=lambda a, b: (_root(a) @ _root(b)).trace()),
            "Le produit des racines n'est la racine du produit que si les deux matrices commutent."),
        "la racine du produit est oubliée": Mistake(
            _frechet(cross=lambda a, b: (a @ b).trace()),
            "Sans elle, le terme croisé a la dimension d'une variance au carré : la distance d'un ensemble à lui-même "
            "n'est plus nulle."),
        "une racine de trop": Mistake(
            _frechet(after=lambda d: d.clamp(min=0).sqrt()),
            "L'usage, qui est aussi celui du chapitre, est de donner le carré de la distance de Wasserstein."),
        "les points ne sont pas centrés": Mistake(
            (_frechet(cov=_second_moment), _frechet(cov=lambda x: x.T @ x / len(x))),
            "La covariance se compte autour de la moyenne ; sans quoi l'écart des moyennes est compté deux fois."),
        "les lignes et les colonnes sont échangées": Mistake(
            (_frechet(cov=torch.cov), _frechet(cov=torch.cov, cross=lambda a, b: (a @ b).trace())),
            "`torch.cov` veut les variables en lignes ; vos caractéristiques sont en colonnes. Votre covariance est "
            "celle des images entre elles, de taille N × N."),
        "c'est l'écart des covariances": Mistake(
            (_frechet(spread=lambda a, b: (a - b).square().sum(), factor=0.0),
             _frechet(spread=lambda a, b: (a - b).norm(), factor=0.0)),
            "La norme de C_r − C_g n'est pas la distance de Wasserstein : celle-ci compare des écarts-types, donc des "
            "racines."),
    },
)


# --- 5. KID -------------------------------------------------------------------------------------------------


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid(real, fake):
    """MMD² non biaisée, couple de points par couple de points : scalaire."""
    def k(x, y):
        return (sum(u * v for u, v in zip(x, y, strict=True)) / len(x) + 1) ** 3
    total = [torch.stack([k(x, y) for x, y in itertools.combinations(points, 2)]).mean() for points in (real, fake)]
    return total[0] + total[1] - 2 * torch.stack([k(x, y) for x in real for y in fake]).mean()


def _off(matrix):
    return matrix.sum() - matrix.trace()


def _kid(kernel=_kernel, within=lambda k: _off(k) / (len(k) * (len(k) - 1)), other=None, cross=torch.mean, factor=-2.0,
         after=lambda d: d):
    """MMD² dont le noyau, un des trois termes ou un coefficient est faux ; `other` : le terme des images engendrées."""
    def wrong(real, fake):
        return after(within(kernel(real, real)) + (other or within)(kernel(fake, fake))
                     + factor * cross(kernel(real, fake)))
    return wrong


def _kid_cases():
    """Trois jeux de lois différentes ; puis un de même loi, où la valeur juste est négative."""
    rng = generator(7)
    draws = ((normal(rng, 5, 3), normal(rng, 6, 3)) for _ in range(100))
    return [*_point_sets(6, (6, 4, 3), (5, 8, 2), (7, 3, 4)), next(case for case in draws if kid(*case) < -0.1)]


KID = Spec(
    oracle=kid,
    cases=_kid_cases,
    mistakes={
        "la diagonale est gardée": Mistake(
            _kid(within=torch.mean),
            "Un point est infiniment semblable à lui-même : ces termes-là n'ont pas d'équivalent dans le terme croisé. "
            "Ils donnent une valeur positive même à deux échantillons de la même loi : c'est le biais que KID évite."),
        "la diagonale n'est ôtée que d'un ensemble": Mistake(
            (_kid(other=torch.mean), _kid(within=torch.mean, other=lambda k: _off(k) / (len(k) * (len(k) - 1)))),
            "Les deux ensembles sont traités de la même façon, réels comme engendrés."),
        "le compte des couples est faux": Mistake(
            (_kid(within=lambda k: _off(k) / len(k) ** 2), _kid(within=lambda k: k.sum() / (len(k) * (len(k) - 1))),
             _kid(within=lambda k: _off(k) / (len(k) * (len(k) - 1) / 2)),
             _kid(within=lambda k: k.triu(1).sum() / (len(k) * (len(k) - 1)))),
            "Une moyenne divise par le nombre de termes qu'elle additionne : combien de couples de points différents "
            "restent sans la diagonale ?"),
        "le signe du terme croisé est faux": Mistake(
            _kid(factor=2.0),
            "Plus les engendrés ressemblent aux réels, plus le terme croisé est grand, et plus la distance doit être "
            "petite."),
        "le facteur 2 est oublié": Mistake(
            _kid(factor=-1.0),
            "C'est le double produit d'un carré : pour deux échantillons de la même loi, les trois termes doivent se "
            "compenser."),
        "le terme croisé est oublié": Mistake(
            _kid(factor=0.0), "Rien ne compare plus les réels aux engendrés."),
        "la division par D est oubliée": Mistake(
            _kid(kernel=lambda x, y: (x @ y.T + 1) ** 3),
            "Sans elle, le noyau grandit comme le cube du nombre de caractéristiques, et deux extracteurs ne se "
            "comparent plus."),
        "la division est mal placée": Mistake(
            (_kid(kernel=lambda x, y: (x @ y.T / math.sqrt(x.shape[1]) + 1) ** 3),
             _kid(kernel=lambda x, y: ((x @ y.T + 1) / x.shape[1]) ** 3),
             _kid(kernel=lambda x, y: (x @ y.T / len(x) + 1) ** 3),
             _kid(kernel=lambda x, y: (x @ y.T + 1) ** 3 / x.shape[1])),
            "C'est le produit scalaire que l'on divise, par le nombre de caractéristiques, avant d'ajouter 1."),
        "le 1 du noyau est oublié": Mistake(
            _kid(kernel=lambda x, y: (x @ y.T / x.shape[1]) ** 3),
            "Sans lui, il ne reste que les moments d'ordre 3 : un écart des moyennes ou des variances peut passer "
            "inaperçu."),
        "le degré n'est pas 3": Mistake(
            (_kid(kernel=lambda x, y: (x @ y.T / x.shape[1] + 1) ** 2),
             _kid(kernel=lambda x, y: x @ y.T / x.shape[1] + 1),
             _kid(kernel=lambda x, y: x @ y.T / x.shape[1])),
            "Le degré du noyau dit jusqu'à quel moment les deux lois sont comparées : KID en compare trois."),
        "c'est la racine de la MMD²": Mistake(
            (_kid(after=torch.sqrt), _kid(after=lambda d: d.clamp(min=0).sqrt())),
            "L'estimateur sans biais peut être négatif : c'est la MMD² que l'on donne, sans racine."),
        "la valeur est rendue positive": Mistake(
            (_kid(after=lambda d: d.clamp(min=0)), _kid(after=torch.abs)),
            "Entre deux échantillons de la même loi, un estimateur sans biais est négatif une fois sur deux : le "
            "couper à 0 le rend biaisé."),
        "somme au lieu de moyenne": Mistake(
            (_kid(within=_off, cross=torch.sum), _kid(cross=torch.sum), _kid(within=torch.sum, cross=torch.sum)),
            "Une espérance s'estime par une moyenne ; avec des ensembles de tailles différentes, les sommes ne se "
            "comparent pas."),
        "seules les moyennes sont comparées": Mistake(
            lambda real, fake: _kid(within=torch.mean)(real.mean(0, True), fake.mean(0, True)),
            "Le noyau s'applique à chaque couple de points, et la moyenne vient après : autrement, tous les moments "
            "d'ordre supérieur sont perdus."),
    },
)


# --- 6. Précision et rappel ---------------------------------------------------------------------------------


def _distances(x, y):
    """Distances (N, M), par différences : aucun arrondi de produit scalaire."""
    return (x[:, None] - y[None]).norm(dim=2)


def precision_recall(real, fake, k):
    """Un point est couvert s'il est plus près d'un point que k autres points de son ensemble : (2,)."""
    def share(points, reference):
        nearer = _distances(reference, reference)[None] < _distances(points, reference)[:, :, None]     # (N, M, M)
        return (nearer.sum(2) - 1 < k).any(1).to(real).mean()
    return torch.stack([share(fake, real), share(real, fake)])


def _radii(x, k):
    """Distance de chaque point à son k-ième voisin, lui-même exclu : (N,)."""
    return _distances(x, x).sort(dim=1).values[:, min(k, len(x) - 1)]


def _shares(radius=lambda points, reference, k: _radii(reference, k),
            covered=lambda inside, gaps: inside.any(1).double().mean(), swap=False):
    """Précision et rappel dont le rayon, ou ce que l'on en fait, est faux."""
    def share(points, reference, k):
        gaps = _distances(points, reference)
        return covered(gaps <= radius(points, reference, k), gaps)

    def wrong(real, fake, k):
        both = [share(fake, real, k), share(real, fake, k)]
        return torch.stack(both[::-1] if swap else both)
    return wrong


def _balls(inside, gaps):
    """Nombre moyen de boules autour d'un point."""
    return inside.double().sum(1).mean()


def _nearest_only(inside, gaps):
    return inside.gather(1, gaps.argmin(1, keepdim=True)).double().mean()


def _cloud_cases():
    """Deux nuages qui se recouvrent en partie, l'un plus étalé que l'autre."""
    rng, cases = generator(8), []
    for n, m, dim, k, spread in ((40, 31, 2, 3, 0.6), (25, 37, 3, 5, 1.6), (30, 22, 2, 2, 0.8)):
        shift = uniform(rng, dim, low=0.4, high=0.9)
        cases.append((normal(rng, n, dim), spread * normal(rng, m, dim) + shift, k))
    return cases


PRECISION_RECALL = Spec(
    oracle=precision_recall,
    cases=_cloud_cases,
    mistakes={
        "la précision et le rappel sont échangés": Mistake(
            _shares(swap=True),
            "La précision juge les engendrés : combien tombent dans la variété des réels ? Le rappel juge le modèle "
            "sur les réels : combien tombent dans la sienne ?"),
        "le point se compte lui-même": Mistake(
            (_shares(lambda p, r, k: _radii(r, k - 1)), _shares(lambda p, r, k: _radii(r, k - 1), swap=True)),
            "Dans les distances d'un ensemble à lui-même, le plus proche voisin de chaque point est le point lui-même, "
            "à distance 0 : vos boules sont celles du voisin d'avant, trop petites."),
        "un voisin de trop": Mistake(
            _shares(lambda p, r, k: _radii(r, k + 1)),
            "Le point lui-même n'est ôté qu'une fois : vos boules sont celles du voisin suivant, trop grandes."),
        "le rayon est celui du point jugé": Mistake(
            _shares(lambda p, r, k: _radii(p, k)[:, None]),
            "La variété est faite des boules de l'ensemble de référence. En donnant une boule à chaque point jugé, un "
            "point aberrant, très loin de tout, aurait une boule immense."),
        "le rayon est compté dans l'autre ensemble": Mistake(
            (_shares(lambda p, r, k: _distances(r, p).sort(dim=1).values[:, k - 1]),
             _shares(lambda p, r, k: _distances(r, p).sort(dim=1).values[:, k])),
            "Le rayon d'une boule est la distance à un voisin du même ensemble ; sinon, des engendrés très loin des "
            "réels élargiraient les boules des réels jusqu'à eux."),
        "un seul rayon pour toutes les boules": Mistake(
            (_shares(lambda p, r, k: _radii(r, k).mean()), _shares(lambda p, r, k: _radii(r, k).max()),
             _shares(lambda p, r, k: _radii(r, k).median())),
            "Chaque point a son rayon, petit là où l'ensemble est dense, grand là où il est rare."),
        "seule la boule la plus proche est essayée": Mistake(
            _shares(covered=_nearest_only),
            "La boule d'un point plus lointain peut être plus grande, et contenir celui que l'on juge : il suffit "
            "d'une, n'importe laquelle."),
        "toutes les boules sont exigées": Mistake(
            _shares(covered=lambda inside, gaps: inside.all(1).double().mean()),
            "La variété est la réunion des boules, non leur intersection."),
        "c'est la couverture": Mistake(
            _shares(covered=lambda inside, gaps: inside.any(0).double().mean()),
            "Vous comptez les boules qui contiennent un point, non les points contenus dans une boule : l'axe n'est "
            "pas le bon."),
        "c'est la densité": Mistake(
            (lambda real, fake, k: _shares(covered=_balls)(real, fake, k) / k, _shares(covered=_balls),
             _shares(covered=lambda inside, gaps: inside.double().mean())),
            "Un point qui tombe dans dix boules n'est pas dix fois couvert : il l'est, ou non."),
        "k est ignoré": Mistake(
            (_shares(lambda p, r, k: _radii(r, 1)), _shares(lambda p, r, k: _radii(r, 3)),
             _shares(lambda p, r, k: _radii(r, 5))),
            "Le rayon va jusqu'au k-ième voisin, quel que soit k."),
        "ce sont des nombres, non des parts": Mistake(
            _shares(covered=lambda inside, gaps: inside.any(1).double().sum()),
            "La précision et le rappel sont entre 0 et 1 : divisez par le nombre de points jugés."),
        "la même part est rendue deux fois": Mistake(
            (lambda *a: precision_recall(*a)[[0, 0]], lambda *a: precision_recall(*a)[[1, 1]]),
            "Les rôles des deux ensembles s'échangent de l'une à l'autre."),
    },
)


# --- 7. L'audit du plus proche voisin -----------------------------------------------------------------------


def copy_ratio(fake, train, held_out):
    """Rapport des distances au plus proche voisin, image par image : (N,)."""
    return torch.stack([min((x - y).norm() for y in train) / min((x - y).norm() for y in held_out) for x in fake])


def _ratio(distance=_distances, nearest=lambda d: d.amin(1), of=lambda a, b: a / b):
    return lambda fake, train, held_out: of(nearest(distance(fake, train)), nearest(distance(fake, held_out)))


def _audit_cases():
    """Des images neuves, des copies à peine bruitées, et des images loin de tout."""
    rng, cases = generator(9), []
    for n, m, dim in ((6, 9, 4), (1, 5, 3), (8, 12, 2)):
        train, held_out = normal(rng, m, dim), normal(rng, m, dim)
        fake = normal(rng, n, dim)
        fake[n // 2:] = train[:n - n // 2] + 0.1 * normal(rng, n - n // 2, dim)
        cases.append((fake, train, held_out))
    return cases


COPY_RATIO = Spec(
    oracle=copy_ratio,
    cases=_audit_cases,
    mistakes={
        "le rapport est à l'envers": Mistake(
            _ratio(of=lambda a, b: b / a),
            "Chez vous, une copie a un rapport très grand. On veut qu'il tombe vers 0 : la distance à l'entraînement "
            "est au numérateur."),
        "le carré des distances": Mistake(
            (_ratio(of=lambda a, b: (a / b).square()), _ratio(of=lambda a, b: (b / a).square())),
            "Le rapport des carrés est le carré du rapport : le seuil de l'audit n'aurait plus le même sens."),
        "c'est une différence": Mistake(
            (_ratio(of=lambda a, b: a - b), _ratio(of=lambda a, b: b - a)),
            "Une différence dépend de l'échelle des caractéristiques, et de la rareté de l'image ; un rapport, non."),
        "la moyenne des distances est prise au lieu du minimum": Mistake(
            _ratio(nearest=lambda d: d.mean(1)),
            "Une copie n'est proche que d'une image. Dans une moyenne sur tout le jeu, elle disparaît."),
        "c'est le voisin le plus lointain": Mistake(
            _ratio(nearest=lambda d: d.amax(1)), "On cherche l'image dont la engendrée est peut-être la copie."),
        "le premier voisin est sauté": Mistake(
            _ratio(nearest=lambda d: d.sort(dim=1).values[:, 1]),
            "Les images jugées ne sont pas dans les ensembles : il n'y a pas de distance à soi-même à ôter. Vous "
            "sautez précisément l'image copiée."),
        "le minimum est pris sur les images engendrées": Mistake(
            _ratio(nearest=lambda d: d.amin(0)),
            "Vous avez une valeur par image réelle ; l'audit veut une valeur par image engendrée."),
        "le minimum est pris sur tout": Mistake(
            _ratio(nearest=lambda d: d.min()),
            "Chaque image engendrée a son plus proche voisin : rendez les N rapports."),
        "le résultat est moyenné": Mistake(
            (_ratio(of=lambda a, b: (a / b).mean()), _ratio(of=lambda a, b: a.mean() / b.mean()),
             _ratio(of=lambda a, b: (a / b).median())),
            "Quelques copies parmi mille images n'y paraîtraient pas : rendez les N rapports, et regardez-les."),
        "le jeu gardé à part est ignoré": Mistake(
            (_ratio(of=lambda a, b: a), _ratio(of=lambda a, b: b)),
            "Une distance seule ne dit rien : est-elle petite ? Il faut la comparer à celle d'images que le modèle n'a "
            "pas pu copier."),
        "le rapport est celui d'une part au total": Mistake(
            _ratio(of=lambda a, b: a / (a + b)),
            "Un modèle qui ne copie pas donnerait ½. Le rapport des deux distances vaut alors environ 1."),
        "ce n'est pas la distance euclidienne": Mistake(
            (_ratio(distance=lambda x, y: (x[:, None] - y[None]).abs().sum(2)),
             _ratio(distance=lambda x, y: (x[:, None] - y[None]).abs().amax(2))),
            "L'énoncé demande la distance euclidienne, comme dans la section 6."),
        "l'écart est moyenné avant la norme": Mistake(
            _ratio(distance=lambda x, y: (x[:, None] - y[None]).mean(2).abs()),
            "Des écarts de signes contraires se compensent : deux images très différentes paraîtraient confondues."),
    },
)


# --- 8. Un intervalle de confiance --------------------------------------------------------------------------


def wilson(hits, z):
    """Les deux racines de (p̂ − p)² = z² p (1 − p) / n, par une matrice compagne : (2,)."""
    n, p = len(hits), hits.mean().item()
    a, b, c = 1 + z * z / n, -(2 * p + z * z / n), p * p
    companion = hits.new_tensor([[0.0, -c / a], [1.0, -b / a]])
    return torch.linalg.eigvals(companion).real.sort().values


def _interval(center=lambda p, n, z: (p + z**2 / (2 * n)) / (1 + z**2 / n),
              half=lambda p, n, z: z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt() / (1 + z**2 / n),
              after=lambda v: v):
    """Intervalle dont le centre ou la demi-largeur est faux."""
    def wrong(hits, z):
        p, n = hits.mean(), len(hits)
        c, h = center(p, n, z), half(p, n, z)
        return after(torch.stack([c - h, c + h]))
    return wrong


def _p(p, n, z):
    return p


def _wald(p, n, z):
    return z * (p * (1 - p) / n).sqrt()


def _games(rng, *games):
    return [((torch.arange(n, device="cpu") < right)[torch.randperm(n, generator=rng, device="cpu")].double(), z)
            for right, n, z in games]


WILSON = Spec(
    oracle=wilson,
    cases=lambda: _games(generator(10), (13, 20, 1.96), (8, 8, 1.645), (3, 11, 2.576), (1, 2, 1.0)),
    mistakes={
        "c'est l'intervalle naïf, autour de la part observée": Mistake(
            (_interval(_p, _wald), _interval(_p, _wald, lambda v: v.clamp(0, 1))),
            "Avec 8 bonnes réponses sur 8, votre intervalle a une largeur nulle : huit coups suffiraient à une "
            "certitude. Ici, c'est la part inconnue p, et non celle que l'on a observée, qui donne l'écart-type."),
        "le centre n'est pas déplacé": Mistake(
            (_interval(center=_p), _interval(center=lambda p, n, z: p / (1 + z**2 / n))),
            "L'intervalle de Wilson n'est pas symétrique autour de la part observée : son centre est tiré vers ½, "
            "d'autant plus que les essais sont peu nombreux."),
        "z n'est pas au carré dans le centre": Mistake(
            _interval(center=lambda p, n, z: (p + z / (2 * n)) / (1 + z / n)),
            "L'équation à résoudre est au carré : n et z² y vont toujours ensemble."),
        "le dénominateur est oublié": Mistake(
            (lambda hits, z: _interval()(hits, z) * (1 + z**2 / len(hits)),
             _interval(half=lambda p, n, z: z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()),
             _interval(center=lambda p, n, z: p + z**2 / (2 * n))),
            "Le coefficient de p² dans l'équation est 1 + z²/n : les deux racines sont divisées par lui, et "
            "l'intervalle reste dans [0, 1]."),
        "la demi-largeur est celle de l'intervalle naïf": Mistake(
            (_interval(half=_wald), _interval(half=lambda p, n, z: _wald(p, n, z) / (1 + z**2 / n))),
            "Sous la racine, il y a deux termes. Celui qui manque reste quand toutes les réponses sont bonnes."),
        "la racine est oubliée": Mistake(
            (_interval(half=lambda p, n, z: z * (p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)),
             _interval(_p, lambda p, n, z: z * p * (1 - p) / n)),
            "La largeur d'un intervalle diminue comme 1/√n : c'est un écart-type, pas une variance."),
        "n est oublié": Mistake(
            (_interval(_p, lambda p, n, z: z * (p * (1 - p)).sqrt()),
             lambda hits, z: torch.stack([hits.mean() - z * hits.std(), hits.mean() + z * hits.std()])),
            "C'est la dispersion d'une réponse. Celle de la moyenne de n réponses est √n fois plus petite."),
        "z est ignoré": Mistake(
            (lambda hits, z: _interval()(hits, 1.96), lambda hits, z: _interval()(hits, 1.0)),
            "Le niveau de confiance est un argument : 1,96 donne 95 %, mais pas un autre z."),
        "les bornes sont dans l'ordre inverse": Mistake(
            _interval(after=lambda v: v.flip(0)), "L'énoncé demande la borne basse d'abord."),
        "c'est le centre et la demi-largeur": Mistake(
            (_interval(after=lambda v: torch.stack([v.mean(), (v[1] - v[0]) / 2])),
             _interval(after=lambda v: torch.stack([v.mean(), v[1] - v[0]]))),
            "L'énoncé demande les deux bornes."),
        "ce sont des nombres de réponses, non des parts": Mistake(
            (lambda hits, z: _interval()(hits, z) * len(hits), lambda hits, z: _interval()(hits, z) * 100),
            "Les bornes encadrent une part, entre 0 et 1."),
        "les échecs sont comptés": Mistake(
            lambda hits, z: _interval()(1 - hits, z), "`hits` vaut 1 quand la réponse est bonne."),
    },
)


EXERCISES = {
    "bits_per_dim": BITS_PER_DIM, "features": FEATURES, "inception_score": INCEPTION_SCORE, "frechet": FRECHET,
    "kid": KID, "precision_recall": PRECISION_RECALL, "copy_ratio": COPY_RATIO, "wilson": WILSON,
}
