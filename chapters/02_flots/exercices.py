"""Exercices du chapitre 2 (flots normalisants) : entrées, oracles, erreurs classiques.

Les oracles passent par un autre chemin que la formule demandée : jacobien entier, méthode de Newton,
`torch.distributions`, comparaison valeur par valeur. Chaque indice nomme l'erreur et dit ce qu'elle change,
sans donner la ligne à écrire.
"""

import math
import statistics

import torch
import torch.nn.functional as F
from torch.distributions import Normal
from torch.distributions.transforms import AffineTransform, ComposeTransform, SigmoidTransform

from utils.exercises import Mistake, Spec, generator, normal, same, uniform

LEVELS = 256


def _mask(*bits: int) -> torch.Tensor:
    return torch.tensor(bits, dtype=torch.float64, device="cpu")


# Une coordonnée sur deux, les deux premières, une répartition quelconque.
_MASKS = (_mask(1, 0, 1, 0), _mask(1, 1, 0, 0, 0), _mask(0, 1, 1, 0, 1, 0))


# --- 1. Inverse d'un couplage affine ------------------------------------------------------------------------


def coupling_inverse(z, mask, weight_s, weight_t):
    """Antécédent de z par la transformation directe (2.5) : (N, D)."""
    def forward(x):
        kept = x * mask
        scale = torch.exp(torch.tanh(kept @ weight_s))
        return kept + (1 - mask) * (x * scale + kept @ weight_t)

    # Un pas de Newton parti de z suffit : les coordonnées gardées y sont déjà justes, et la transformation
    # est affine en les autres.
    slopes = torch.func.vmap(torch.func.jacrev(forward))(z)
    return z + torch.linalg.solve(slopes, (z - forward(z))[..., None])[..., 0]


def _undo(z, s, t):
    return (z - t) * torch.exp(-s)


def _merge(x, z, mask):
    return torch.where(mask.bool(), z, x)


def _inverse_with(undo=_undo, read=lambda z, m: z * m, merge=_merge, scale=torch.tanh):
    """Inverse dont une étape est fausse : lire les coordonnées gardées, défaire, remettre à leur place."""
    def wrong(z, mask, weight_s, weight_t):
        kept = read(z, mask)
        return merge(undo(z, scale(kept @ weight_s), kept @ weight_t), z, mask)
    return wrong


def _coupling_cases():
    rng, cases = generator(0), []
    for n, mask in zip((5, 1, 4), _MASKS, strict=True):
        cases.append((normal(rng, n, len(mask)), mask, *(normal(rng, len(mask), len(mask)) for _ in range(2))))
    return cases


COUPLING_INVERSE = Spec(
    oracle=coupling_inverse,
    cases=_coupling_cases,
    mistakes={
        "l'inverse multiplie aussi par exp(s)": Mistake(
            (_inverse_with(lambda z, s, t: (z - t) * torch.exp(s)),
             _inverse_with(lambda z, s, t: (z + t) * torch.exp(s))),
            "Une coordonnée que l'aller a étirée, votre retour l'étire encore. L'aller multiplie par exp(s) : "
            "que fait le retour ?"),
        "c'est la transformation directe": Mistake(
            _inverse_with(lambda z, s, t: z * torch.exp(s) + t),
            "Vous appliquez (2.5) à z. On demande le chemin du retour : défaire chaque opération, dans "
            "l'ordre inverse."),
        "le décalage t est soustrait après la division": Mistake(
            _inverse_with(lambda z, s, t: z * torch.exp(-s) - t),
            "À l'aller, t s'ajoute en dernier ; au retour, c'est donc lui qu'on retire en premier."),
        "le décalage t est ajouté au lieu d'être soustrait": Mistake(
            (_inverse_with(lambda z, s, t: (z + t) * torch.exp(-s)),
             _inverse_with(lambda z, s, t: z * torch.exp(-s) + t)),
            "L'aller a déjà ajouté t ; le retour doit l'enlever."),
        "division par s au lieu de exp(s)": Mistake(
            _inverse_with(lambda z, s, t: (z - t) / s),
            "s est le logarithme de l'échelle : il peut être nul ou négatif, l'échelle jamais."),
        "le masque est oublié à l'entrée du réseau": Mistake(
            _inverse_with(read=lambda z, m: z),
            "Votre réseau voit aussi les coordonnées transformées. Au retour elles ne sont pas encore "
            "connues : ce qu'il lit dans z n'est plus ce qu'il lisait dans x, et s et t sont faux."),
        "le masque est inversé à l'entrée du réseau": Mistake(
            _inverse_with(read=lambda z, m: z * (1 - m)),
            "Le réseau lit les coordonnées qui ont changé. Lesquelles sont les mêmes dans x et dans z ?"),
        "le masque n'est pas complémenté en sortie": Mistake(
            _inverse_with(merge=lambda x, z, m: _merge(z, x, m)),
            "Vous transformez les coordonnées que le réseau a lues et laissez les autres telles quelles : "
            "ce sont celles où le masque vaut 0 qui changent."),
        "le masque est inversé partout": Mistake(
            lambda z, mask, *weights: coupling_inverse(z, 1 - mask, *weights),
            "Le masque vaut 1 sur les coordonnées qui passent telles quelles, 0 sur celles qu'on transforme."),
        "toutes les coordonnées sont transformées": Mistake(
            _inverse_with(merge=lambda x, z, m: x),
            "Les coordonnées où le masque vaut 1 n'ont pas changé à l'aller : le retour doit les rendre "
            "intactes."),
        "les coordonnées gardées sont perdues": Mistake(
            _inverse_with(merge=lambda x, z, m: _merge(x, 0 * z, m)),
            "Votre résultat vaut 0 là où le masque vaut 1. Ces coordonnées ne sont pas transformées, mais "
            "elles font partie de x."),
        "les coordonnées gardées sont comptées deux fois": Mistake(
            (_inverse_with(merge=lambda x, z, m: z * m + x),
             _inverse_with(merge=lambda x, z, m: z * m + _merge(x, z, m))),
            "Vous ajoutez les coordonnées gardées à un tenseur qui les contient déjà, transformées ou non : "
            "il faut y mettre 0 d'abord."),
        "la tangente hyperbolique est oubliée": Mistake(
            _inverse_with(scale=lambda s: s),
            "L'énoncé borne s entre −1 et 1 : l'aller et le retour doivent calculer le même s."),
        "la tangente hyperbolique est appliquée aussi à t": Mistake(
            _inverse_with(lambda z, s, t: (z - torch.tanh(t)) * torch.exp(-s)),
            "Seule l'échelle est bornée ; le décalage t reste quelconque."),
        "les matrices sont transposées": Mistake(
            lambda z, mask, w_s, w_t: coupling_inverse(z, mask, w_s.T, w_t.T),
            "L'énoncé multiplie les lignes par la matrice, à droite. `F.linear` et `nn.Linear` la "
            "transposent d'abord."),
        "les deux matrices sont échangées": Mistake(
            lambda z, mask, w_s, w_t: coupling_inverse(z, mask, w_t, w_s),
            "`weight_s` donne l'échelle, `weight_t` le décalage."),
    },
)


# --- 2. Log-déterminant d'un couplage -----------------------------------------------------------------------


def coupling_log_det(s, mask):
    """ln|det| du jacobien entier, diagonal aux dérivées croisées près : (N,), en nats."""
    return torch.linalg.slogdet(torch.diag_embed(torch.where(mask.bool(), 1.0, s.exp())))[1]


def _log_det_with(term):
    """Log-déterminant dont le terme de chaque coordonnée est faux."""
    return lambda s, mask: term(s, mask).sum(1)


COUPLING_LOG_DET = Spec(
    oracle=coupling_log_det,
    cases=lambda: [(normal(generator(1), n, len(mask)), mask) for n, mask in zip((5, 1, 4), _MASKS, strict=True)],
    gradients=("s",),
    mistakes={
        "le signe est opposé": Mistake(
            lambda s, m: -coupling_log_det(s, m),
            "C'est le log-déterminant de l'inverse, de z vers x. Dans le sens x → z, un s positif étire, donc "
            "augmente le volume."),
        "moyenne sur les dimensions": Mistake(
            (lambda s, m: ((1 - m) * s).mean(1), lambda s, m: coupling_log_det(s, m) / (1 - m).sum()),
            "Les facteurs d'échelle se multiplient, donc leurs logarithmes s'ajoutent. Avec une moyenne, la "
            "densité ne s'intègre plus à 1."),
        "le masque est oublié": Mistake(
            lambda s, m: s.sum(1),
            "Vous comptez aussi les coordonnées gardées. Elles passent telles quelles : quelle est leur "
            "dérivée, et le logarithme de cette dérivée ?"),
        "le masque est inversé": Mistake(
            lambda s, m: (m * s).sum(1),
            "Vous comptez les coordonnées gardées, dont la dérivée vaut 1, et ignorez celles qui changent."),
        "c'est le déterminant, pas son logarithme": Mistake(
            lambda s, m: coupling_log_det(s, m).exp(),
            "Votre produit d'exponentielles est juste, mais la vraisemblance demande son logarithme ; sur 784 "
            "pixels, le produit déborderait."),
        "les exponentielles sont additionnées": Mistake(
            (_log_det_with(lambda s, m: (1 - m) * s.exp()), _log_det_with(lambda s, m: ((1 - m) * s).exp())),
            "Un déterminant de matrice triangulaire est le produit de la diagonale, pas sa somme ; et l'on "
            "en veut le logarithme."),
        "logarithme d'une somme d'exponentielles": Mistake(
            (lambda s, m: ((1 - m) * s.exp()).sum(1).log(), lambda s, m: ((1 - m) * s).exp().sum(1).log()),
            "Le déterminant est le produit des échelles : c'est le logarithme d'un produit qu'il faut, pas "
            "celui d'une somme."),
        "valeur absolue de chaque s": Mistake(
            _log_det_with(lambda s, m: (1 - m) * s.abs()),
            "La valeur absolue porte sur le déterminant, qui est ici toujours positif. Un s négatif contracte "
            "le volume : il doit compter négativement."),
        "le log2 est pris pour ln": Mistake(
            lambda s, m: coupling_log_det(s, m) / math.log(2),
            "Le chapitre compte en nats : le logarithme est népérien, comme l'exponentielle qui porte s."),
        "moyenne ou somme sur le lot": Mistake(
            (lambda s, m: coupling_log_det(s, m).mean(), lambda s, m: coupling_log_det(s, m).sum()),
            "Chaque exemple a son log-déterminant : rendez les N valeurs."),
        "somme sur la mauvaise dimension": Mistake(
            lambda s, m: ((1 - m) * s).sum(0),
            "La dimension 0 est celle des exemples ; les coordonnées sont dans la dimension 1."),
    },
)


# --- 3. Masques de MADE -------------------------------------------------------------------------------------


def made_mask(degrees_in, degrees_out, is_output):
    """Liens permis par (2.9), un par un : booléens (n_out, n_in)."""
    rows = [[k < i if is_output else k <= i for k in degrees_in.tolist()] for i in degrees_out.tolist()]
    return torch.tensor(rows, device=degrees_in.device)


def _made_with(hidden, output):
    """Masque dont les comparaisons, pour une couche cachée et pour la sortie, sont données."""
    def wrong(degrees_in, degrees_out, is_output):
        compare = output if is_output else hidden
        return compare(degrees_out[:, None], degrees_in)
    return wrong


def _made_cases():
    """Entrée → cachée, cachée → cachée, cachée → sortie, couches de même taille, ordre des variables renversé."""
    sizes = [([1, 2, 3, 4], [1, 2, 3, 1, 2, 3], False), ([2, 1, 3, 1, 2], [1, 3, 3, 2], False),
             ([1, 2, 3, 1, 2, 3], [1, 2, 3, 4], True), ([3, 1, 2], [1, 2, 2], False), ([2, 1, 1], [3, 2, 1], True)]
    return [(*(torch.tensor(degrees, device="cpu") for degrees in pair), last) for *pair, last in sizes]


def _by_index(degrees_in, degrees_out, is_output):
    ones = torch.ones(len(degrees_out), len(degrees_in), device=degrees_in.device)
    return ones.tril(-1 if is_output else 0)


MADE_MASK = Spec(
    oracle=made_mask,
    cases=_made_cases,
    mistakes={
        "la variable x_i se voit elle-même": Mistake(
            _made_with(torch.ge, torch.ge),
            "Avec ≥ jusqu'à la sortie, l'unité de sortie i lit une unité cachée qui a vu x_i. La diagonale du "
            "jacobien n'est plus celle qu'on croit, et ce que rend le modèle n'est plus une densité."),
        "l'inégalité est stricte aussi dans les couches cachées": Mistake(
            _made_with(torch.gt, torch.gt),
            "Rien ne fuit, mais à chaque couche l'information perd un rang : les unités de degré 1 ne voient "
            "plus rien, et les sorties ignorent des variables auxquelles elles ont droit."),
        "les deux inégalités sont échangées": Mistake(
            _made_with(torch.gt, torch.ge),
            "L'inégalité stricte est pour une seule des deux sortes de couches : celle où x_i ne doit pas "
            "rencontrer la sortie i."),
        "l'inégalité est renversée": Mistake(
            (_made_with(torch.le, torch.lt), _made_with(torch.le, torch.le), _made_with(torch.lt, torch.lt)),
            "Vos liens vont des grands degrés vers les petits : la première sortie verrait presque toutes les "
            "variables, et la dernière aucune."),
        "1 et 0 sont échangés": Mistake(
            lambda *a: ~made_mask(*a),
            "Votre masque vaut 1 là où le lien est interdit : le poids y serait gardé."),
        "le masque est transposé": Mistake(
            (lambda *a: made_mask(*a).T, lambda *a: _made_with(torch.le, torch.lt)(*a).T),
            "Une ligne par unité de sortie de la couche, une colonne par unité d'entrée, comme le poids de "
            "`nn.Linear`."),
        "il manque une dimension à la comparaison": Mistake(
            (lambda k, i, last: i > k if last else i >= k, lambda k, i, last: k < i if last else k <= i),
            "Vous comparez deux vecteurs place à place. Il faut comparer chaque degré de sortie à chaque "
            "degré d'entrée : l'un des deux doit devenir une colonne."),
        "les numéros des unités sont pris pour leurs degrés": Mistake(
            _by_index,
            "Une matrice triangulaire suppose les unités rangées par degré croissant et une seule par degré. "
            "Ce sont les degrés reçus qu'il faut comparer."),
    },
)


# --- 4. Masques alternés ------------------------------------------------------------------------------------


def alternate_masks(mask, depth):
    """Masque de chaque couche, coordonnée par coordonnée : booléens (depth, dim)."""
    rows = [[(bit == 1) == (layer % 2 == 0) for bit in mask.tolist()] for layer in range(depth)]
    return torch.tensor(rows, device=mask.device)


def _masks_with(row):
    """Masques dont la ligne `row(mask, layer, depth)` est fausse."""
    return lambda mask, depth: torch.stack([row(mask, layer, depth) for layer in range(depth)])


ALTERNATE_MASKS = Spec(
    oracle=alternate_masks,
    cases=lambda: list(zip(_MASKS, (4, 5, 3), strict=True)),
    mistakes={
        "masque non alterné": Mistake(
            _masks_with(lambda m, layer, depth: m),
            "Toutes vos couches gardent les mêmes coordonnées : celles-là traversent le flot entier sans "
            "jamais changer, et aucune profondeur n'y peut rien."),
        "le masque ne change qu'une fois": Mistake(
            (_masks_with(lambda m, layer, depth: m if layer == 0 else 1 - m),
             _masks_with(lambda m, layer, depth: m if layer < depth / 2 else 1 - m),
             _masks_with(lambda m, layer, depth: m if layer < depth // 2 else 1 - m)),
            "Deux couches de suite au même masque n'en valent guère qu'une : une composée de deux "
            "transformations affines, commandées par les mêmes coordonnées, est encore affine."),
        "l'alternance commence par le complément": Mistake(
            _masks_with(lambda m, layer, depth: m if layer % 2 else 1 - m),
            "Le masque donné est celui de la première couche, d'indice 0."),
        "le masque est décalé au lieu d'être complémenté": Mistake(
            (_masks_with(lambda m, layer, depth: m.roll(layer)),
             _masks_with(lambda m, layer, depth: m.roll(layer % 2))),
            "Un décalage ne donne le complément que si les 1 et les 0 alternent. Ailleurs, une coordonnée "
            "peut être gardée deux fois de suite."),
        "le masque donné est ignoré": Mistake(
            lambda mask, depth: torch.stack([(torch.arange(len(mask), device=mask.device) + i) % 2 == 0
                                             for i in range(depth)]),
            "Vous écrivez 1, 0, 1, 0… quel que soit `mask`. Un flot d'images peut garder la moitié des "
            "canaux, ou les cases noires d'un damier."),
        "−m au lieu de 1 − m": Mistake(
            _masks_with(lambda m, layer, depth: -m if layer % 2 else m),
            "Un masque ne contient que des 0 et des 1 : le complément de 1 est 0, celui de 0 est 1."),
        "une couche sur deux n'a plus de masque": Mistake(
            (_masks_with(lambda m, layer, depth: 0 * m if layer % 2 else m),
             _masks_with(lambda m, layer, depth: 0 * m + 1 if layer % 2 else m)),
            "Un masque tout à 0 ne laisse rien à lire au réseau ; tout à 1, il ne laisse rien à transformer."),
        "le résultat est transposé": Mistake(
            lambda *a: alternate_masks(*a).T,
            "Une ligne par couche, une colonne par coordonnée."),
        "une couche de trop ou de moins": Mistake(
            (lambda mask, depth: alternate_masks(mask, depth + 1),
             lambda mask, depth: alternate_masks(mask, depth - 1)),
            "Comptez les lignes : une par couche, la première comprise."),
    },
)


# --- 5. Log-densité en pixels d'un modèle écrit dans l'espace logit -----------------------------------------


def logit_log_prob(log_pz, x, alpha):
    """ln p(x) à partir de ln p(z), z = logit(α + (1 − 2α) x) : (N,), en nats."""
    to_logit = ComposeTransform([AffineTransform(alpha, 1 - 2 * alpha), SigmoidTransform().inv])
    return log_pz + to_logit.log_abs_det_jacobian(x, to_logit(x)).flatten(1).sum(1)


def _log_slope(x, alpha):
    """ln de la pente de la transformation (2.14) en chaque pixel : (N, D)."""
    y = alpha + (1 - 2 * alpha) * x.flatten(1)
    return math.log(1 - 2 * alpha) - y.log() - (1 - y).log()


def _logit_with(change):
    """Log-densité dont le log-déterminant est faux."""
    return lambda log_pz, x, alpha: log_pz + change(x, alpha)


def _logit_slope_of(y, slope):
    """Log-densité où le logit est pris en y(x, α), et la pente de y comptée pour slope(α)."""
    return _logit_with(lambda x, alpha: (
        math.log(slope(alpha)) - y(x, alpha).log() - (1 - y(x, alpha)).log()).flatten(1).sum(1))


def _logit_cases():
    """Des pixels noirs (x = 0 exactement), et le petit α du chapitre."""
    rng, cases = generator(2), []
    for shape, alpha in (((5, 1, 3, 3), 0.05), ((1, 1, 2, 4), 1e-6), ((4, 3, 2, 2), 0.02)):
        x = uniform(rng, *shape) * (uniform(rng, *shape) < 0.8)
        cases.append((normal(rng, shape[0], scale=5.0), x, alpha))
    return cases


LOGIT_LOG_PROB = Spec(
    oracle=logit_log_prob,
    cases=_logit_cases,
    gradients=("log_pz",),
    mistakes={
        "le terme du logit est oublié": Mistake(
            lambda log_pz, x, alpha: log_pz.clone(),
            "Vous rendez la densité de z. Celle de x en diffère par la pente de la transformation, énorme "
            "près du noir et du blanc."),
        "le signe du log-déterminant est faux": Mistake(
            (_logit_with(lambda x, alpha: -_log_slope(x, alpha).sum(1)),
             _logit_with(lambda x, alpha: (2 * math.log(1 - 2 * alpha) - _log_slope(x, alpha)).sum(1))),
            "Le logit étire : un petit intervalle de x devient un grand intervalle de z, et sa pente dépasse "
            "partout 2. Son logarithme est donc positif, et il s'ajoute dans le sens x → z."),
        "le facteur 1 − 2α est oublié": Mistake(
            _logit_with(lambda x, alpha: (_log_slope(x, alpha) - math.log(1 - 2 * alpha)).sum(1)),
            "Le pixel est d'abord resserré dans [α, 1 − α], puis passé au logit : deux transformations, deux "
            "pentes."),
        "le facteur 1 − 2α n'est compté qu'une fois": Mistake(
            _logit_with(lambda x, alpha: (_log_slope(x, alpha) - math.log(1 - 2 * alpha)).sum(1)
                        + math.log(1 - 2 * alpha)),
            "Chaque pixel est resserré : ce facteur apparaît une fois par pixel dans le déterminant."),
        "1 − α au lieu de 1 − 2α": Mistake(
            _logit_slope_of(lambda x, alpha: alpha + (1 - alpha) * x, lambda alpha: 1 - alpha),
            "Un pixel blanc tomberait sur 1, où le logit est infini : il faut garder la marge α des deux "
            "côtés."),
        "la marge α est oubliée": Mistake(
            (_logit_slope_of(lambda x, alpha: x, lambda alpha: 1.0),
             _logit_slope_of(lambda x, alpha: x, lambda alpha: 1 - 2 * alpha)),
            "Vous prenez la pente du logit en x. Un pixel noir la rend infinie ; c'est au pixel resserré par "
            "α qu'elle se calcule."),
        "les pixels sont pris pour des logits": Mistake(
            (_logit_with(lambda x, alpha: -(F.logsigmoid(x) + F.logsigmoid(-x)).flatten(1).sum(1)),
             _logit_with(lambda x, alpha: (math.log(1 - 2 * alpha) - F.logsigmoid(x)
                                           - F.logsigmoid(-x)).flatten(1).sum(1))),
            "x est un pixel entre 0 et 1, pas la coordonnée z : la sigmoïde n'a pas à lui être appliquée."),
        "c'est la pente, pas son logarithme": Mistake(
            (_logit_with(lambda x, alpha: _log_slope(x, alpha).exp().sum(1)),
             _logit_with(lambda x, alpha: _log_slope(x, alpha).sum(1).exp())),
            "Une log-densité s'ajoute à un logarithme de pente."),
        "moyenne sur les dimensions": Mistake(
            _logit_with(lambda x, alpha: _log_slope(x, alpha).mean(1)),
            "Le jacobien est diagonal : son déterminant est le produit des D pentes, son logarithme leur "
            "somme."),
        "le log2 est pris pour ln": Mistake(
            _logit_with(lambda x, alpha: _log_slope(x, alpha).sum(1) / math.log(2)),
            "`log_pz` est en nats : vous lui ajoutez des bits."),
        "le log-déterminant est pris sur tout le lot": Mistake(
            (_logit_with(lambda x, alpha: _log_slope(x, alpha).sum()),
             _logit_with(lambda x, alpha: _log_slope(x, alpha).mean())),
            "Chaque image a son log-déterminant : sommez ses pixels, pas les images entre elles."),
        "moyenne ou somme sur le lot": Mistake(
            (lambda *a: logit_log_prob(*a).mean(), lambda *a: logit_log_prob(*a).sum()),
            "Chaque image a sa log-densité : rendez les N valeurs."),
    },
)


# --- 6. Bits par dimension ----------------------------------------------------------------------------------


def bits_per_dim(log_px, dims):
    """−log2 de la probabilité moyenne (géométrique) d'une valeur de pixel : (N,)."""
    return -torch.log2(torch.exp(log_px / dims) / LEVELS)


def _bits(log_px, dims, offset):
    return offset - log_px / (dims * math.log(2))


def _densities(dims: int, *bits: float) -> tuple:
    """Log-densités d'images qui coûtent `bits` par dimension, et leur nombre de dimensions."""
    cost = torch.tensor(bits, dtype=torch.float64, device="cpu")
    return (math.log2(LEVELS) - cost) * dims * math.log(2), dims


BITS_PER_DIM = Spec(
    oracle=bits_per_dim,
    # De l'image bien prédite à celle que l'uniforme (8 bits) battrait.
    cases=lambda: [_densities(784, 1.1, 1.3, 2.2), _densities(12, 9.5), _densities(3072, 0.4, 3.5, 7.2, 10.0)],
    gradients=("log_px",),
    mistakes={
        "la déquantification est oubliée": Mistake(
            (lambda lp, d: _bits(lp, d, 0.0), lambda lp, d: -lp / d),
            "C'est le coût d'une densité sur [0, 1[, qui peut être négatif. Pour une densité uniforme, on doit "
            "trouver 8 bits : un pixel a 256 valeurs."),
        "le log2 est pris pour ln": Mistake(
            (lambda lp, d: math.log2(LEVELS) - lp / d, lambda lp, d: _bits(lp, d, math.log(LEVELS))),
            "Vous mêlez des bits et des nats. `log_px` est un logarithme népérien ; le nombre de niveaux, lui, "
            "se compte ici en bits."),
        "nats au lieu de bits": Mistake(
            lambda lp, d: bits_per_dim(lp, d) * math.log(2),
            "C'est le bon compte, en nats par dimension : un bit est une information de ln 2 nat."),
        "multiplication par ln 2 au lieu d'une division": Mistake(
            lambda lp, d: math.log2(LEVELS) - lp * math.log(2) / d,
            "Un bit vaut 0,693 nat : un même message compte plus de bits que de nats."),
        "le signe de la log-densité est faux": Mistake(
            lambda lp, d: math.log2(LEVELS) - _bits(lp, d, 0.0),
            "Une image plus probable coûte moins de bits ; chez vous, elle en coûte plus."),
        "le signe de la déquantification est faux": Mistake(
            lambda lp, d: _bits(lp, d, -math.log2(LEVELS)),
            "Un bruit uniforme a une densité de 1 sur [0, 1[ : il doit coûter +8 bits par dimension, pas −8."),
        "le signe est opposé": Mistake(
            lambda lp, d: -bits_per_dim(lp, d), "On demande un coût, positif ; vous rendez une log-probabilité."),
        "D est oublié": Mistake(
            lambda lp, d: math.log2(LEVELS) - lp / math.log(2),
            "Vous retranchez de 8 bits par pixel la log-densité de l'image entière."),
        "bits par image": Mistake(
            lambda lp, d: d * bits_per_dim(lp, d),
            "C'est le coût de l'image ; on le demande ramené à une dimension."),
        "la déquantification n'est comptée qu'une fois": Mistake(
            lambda lp, d: _bits(lp, d, math.log2(LEVELS) / d),
            "Chacun des D pixels est divisé par 256 : ce facteur apparaît D fois dans la densité de l'image, "
            "donc une fois par dimension."),
        "255 niveaux au lieu de 256": Mistake(
            lambda lp, d: _bits(lp, d, math.log2(LEVELS - 1)),
            "De 0 à 255, un pixel a 256 valeurs."),
        "256 au lieu de son logarithme": Mistake(
            lambda lp, d: _bits(lp, d, float(LEVELS)),
            "Désigner une valeur parmi 256 coûte le logarithme de ce nombre."),
        "moyenne ou somme sur le lot": Mistake(
            (lambda *a: bits_per_dim(*a).mean(), lambda *a: bits_per_dim(*a).sum()),
            "Chaque image a son coût : rendez les N valeurs."),
    },
)


# --- 7. Initialisation d'actnorm ----------------------------------------------------------------------------


def actnorm(x):
    """Log-échelle et décalage de chaque canal, par la bibliothèque standard : (2, C)."""
    channels = [channel.flatten().tolist() for channel in x.unbind(1)]
    scales = [1 / statistics.stdev(values) for values in channels]
    shifts = [-statistics.fmean(values) * scale for values, scale in zip(channels, scales, strict=True)]
    return torch.tensor([[math.log(scale) for scale in scales], shifts], dtype=x.dtype, device=x.device)


def _statistics(x, correction=1):
    """Moyenne et écart-type de chaque canal : (C,) chacun."""
    std, mean = torch.std_mean(x, (0, 2, 3), correction=correction)
    return mean, std


def _actnorm_with(log_scale=lambda mean, std: -std.log(), shift=lambda mean, a: -mean * a.exp(),
                  moments=_statistics):
    """Initialisation dont les statistiques, la log-échelle ou le décalage sont faux."""
    def wrong(x):
        mean, std = moments(x)
        a = log_scale(mean, std)
        return torch.stack([a, shift(mean, a)])
    return wrong


def _actnorm_given(pair):
    """Initialisation fausse, de la moyenne et de l'écart-type justes de chaque canal."""
    return lambda x: torch.stack(pair(*_statistics(x)))


def _moments_over(dims):
    """Moyenne et écart-type pris sur `dims` : un couple par image, ou par pixel."""
    return lambda x: torch.std_mean(x, dims)[::-1]


def _averaged(x, dims, others):
    """Statistiques prises sur `dims`, puis moyennées sur le reste : (C,) chacune."""
    std, mean = torch.std_mean(x, dims)
    return mean.mean(others), std.mean(others)


def _actnorm_cases():
    """Canaux de moyennes et d'échelles très inégales, aucune proche de 1."""
    rng, cases = generator(3), []
    for shape in ((4, 3, 2, 5), (3, 4, 3, 3), (2, 2, 4, 2)):
        scale = torch.tensor([0.2, 3.0, 6.0, 0.4], dtype=torch.float64, device="cpu")[:shape[1], None, None]
        mean = torch.tensor([-1.0, 2.0, 0.5, 0.7], dtype=torch.float64, device="cpu")[:shape[1], None, None]
        cases.append((mean + scale * normal(rng, *shape),))
    return cases


ACTNORM = Spec(
    oracle=actnorm,
    cases=_actnorm_cases,
    accepted={
        "vous divisez par n": Mistake(
            _actnorm_with(moments=lambda x: _statistics(x, correction=0)),
            "Vous divisez la somme des carrés par n, le nombre de valeurs du canal ; `torch.std` divise par "
            "n − 1. Sur un lot d'images, la différence ne se voit pas."),
    },
    mistakes={
        "le décalage n'est pas mis à l'échelle": Mistake(
            _actnorm_given(lambda mean, std: (-std.log(), -mean)),
            "Dans z = x ⊙ exp(a) + b, le décalage vient après l'échelle : la moyenne qu'il doit annuler est "
            "celle de x ⊙ exp(a), pas celle de x."),
        "le décalage est multiplié par σ au lieu d'être divisé": Mistake(
            _actnorm_given(lambda mean, std: (-std.log(), -mean * std)),
            "Quelle est la moyenne de x ⊙ exp(a), quand exp(a) est l'inverse de l'écart-type ?"),
        "le signe du décalage est faux": Mistake(
            (_actnorm_given(lambda mean, std: (-std.log(), mean / std)),
             _actnorm_given(lambda mean, std: (-std.log(), mean))),
            "Votre décalage double la moyenne au lieu de l'annuler."),
        "le signe de la log-échelle est faux": Mistake(
            (_actnorm_with(lambda mean, std: std.log()),
             _actnorm_given(lambda mean, std: (std.log(), -mean / std)),
             _actnorm_given(lambda mean, std: (std.log(), -mean))),
            "Un canal d'écart-type 10 doit être contracté ; le vôtre est multiplié par 10."),
        "la variance est prise pour l'écart-type": Mistake(
            (_actnorm_with(lambda mean, std: -2 * std.log()),
             _actnorm_given(lambda mean, std: (-2 * std.log(), -mean / std))),
            "Multiplié par c, un canal voit sa variance multipliée par c². Quel c la ramène à 1 ?"),
        "l'échelle n'est pas en logarithme": Mistake(
            (_actnorm_given(lambda mean, std: (1 / std, -mean / std)),
             _actnorm_given(lambda mean, std: (std, -mean / std)),
             _actnorm_given(lambda mean, std: (std, -mean)), _actnorm_given(lambda mean, std: (std, mean))),
            "La première ligne du résultat est a, dont l'exponentielle est l'échelle ; le log-déterminant en "
            "a besoin sous cette forme."),
        "le log2 est pris pour ln": Mistake(
            (_actnorm_with(lambda mean, std: -std.log2()),
             _actnorm_given(lambda mean, std: (-std.log2(), -mean / std))),
            "L'échelle est exp(a) : le logarithme est népérien."),
        "la moyenne n'est pas retirée de la variance": Mistake(
            (_actnorm_with(lambda mean, root: -root.log(), moments=lambda x: (
                x.mean((0, 2, 3)), x.square().mean((0, 2, 3)).sqrt())),
             _actnorm_with(lambda mean, norm: -norm.log(), moments=lambda x: (
                 x.mean((0, 2, 3)), x.transpose(0, 1).flatten(1).norm(dim=1)))),
            "La racine du carré moyen (ou la norme) n'est l'écart-type que d'un canal déjà centré."),
        "statistiques par pixel": Mistake(
            (_actnorm_with(moments=_moments_over(0)),
             _actnorm_with(moments=lambda x: _averaged(x, 0, (1, 2)))),
            "Vous prenez les statistiques de chaque position. Une échelle par canal sert à toutes les "
            "positions : la moyenne et l'écart-type portent aussi sur la hauteur et la largeur."),
        "statistiques par image": Mistake(
            (_actnorm_with(moments=_moments_over((2, 3))),
             _actnorm_with(moments=lambda x: _averaged(x, (2, 3), 0))),
            "Vous prenez les statistiques image par image. La couche est la même pour toutes : elles portent "
            "sur le lot entier."),
        "statistiques du lot entier, canaux mêlés": Mistake(
            _actnorm_with(moments=lambda x: (x.mean().expand(x.shape[1]), x.std().expand(x.shape[1]))),
            "Chaque canal a sa propre échelle : les vôtres sont toutes égales."),
        "mauvaises dimensions": Mistake(
            (_actnorm_with(moments=_moments_over((1, 2, 3))), _actnorm_with(moments=_moments_over(1)),
             _actnorm_with(moments=_moments_over((0, 1, 2))), _actnorm_with(moments=_moments_over((0, 1)))),
            "Les canaux sont dans la dimension 1 : c'est la seule qui doit rester."),
        "l'échelle et le décalage sont échangés": Mistake(
            lambda x: actnorm(x).flip(0), "La première ligne est la log-échelle a, la seconde le décalage b."),
    },
)


# --- 8. Log-déterminant d'une convolution 1 × 1 -------------------------------------------------------------


def conv1x1_log_det(weight, height, width):
    """ln|det| du jacobien entier, de CHW × CHW : scalaire, en nats."""
    same_place = torch.eye(height * width, dtype=weight.dtype, device=weight.device)
    entire = torch.einsum("ab,pq->apbq", weight, same_place)               # (C, HW, C, HW)
    return torch.linalg.slogdet(entire.flatten(2).flatten(0, 1))[1]


def _conv_with(formula):
    """Log-déterminant faux, de W et du nombre de positions."""
    return lambda weight, height, width: formula(weight, height * width)


def _conv_cases():
    """Déterminants des deux signes, diagonales aussi ; H·W diffère de H + W."""
    rng, cases = generator(4), []
    for channels, height, width, sign in ((3, 2, 5, 1), (4, 3, 4, -1), (2, 1, 3, -1), (2, 3, 3, 1)):
        weight = normal(rng, channels, channels, scale=1.5)
        weight[0] *= sign * weight.det().sign()
        cases.append((weight, height, width))
    return cases


def _conv_is_stable(f):
    """Matrices de 48 canaux en float32, cent fois trop petites ou trop grandes : det = 10^∓96."""
    rotation = torch.linalg.qr(normal(generator(5), 48, 48))[0]
    for scale in (0.01, 100.0):
        if not same(f((scale * rotation).float(), 2, 3), 6 * 48 * math.log(scale), rtol=1e-4):
            return ("Débordement : le déterminant d'une matrice de 48 canaux peut valoir 1e-96, qui s'arrondit à "
                    "0 en float32 (ou 1e96, qui s'arrondit à l'infini). Il ne faut pas former le déterminant : "
                    "additionnez des logarithmes, par une factorisation de W, ou trouvez la fonction de PyTorch "
                    "qui le fait.")
    return None


CONV1X1_LOG_DET = Spec(
    oracle=conv1x1_log_det,
    cases=_conv_cases,
    gradients=("weight",),
    properties=(_conv_is_stable,),
    mistakes={
        "le facteur H·W est oublié": Mistake(
            _conv_with(lambda w, n: w.det().abs().log()),
            "C'est le log-déterminant pour un seul pixel. La même matrice agit à chaque position de l'image, et "
            "toutes comptent."),
        "H + W au lieu de H·W": Mistake(
            lambda w, height, width: (height + width) * w.det().abs().log(),
            "Comptez les positions d'une image de H lignes et W colonnes."),
        "une seule dimension de l'image est comptée": Mistake(
            (lambda w, height, width: height * w.det().abs().log(),
             lambda w, height, width: width * w.det().abs().log()),
            "La matrice agit à toutes les positions, en hauteur et en largeur."),
        "un facteur C de trop": Mistake(
            _conv_with(lambda w, n: n * len(w) * w.det().abs().log()),
            "Le déterminant de W tient déjà compte de ses C canaux : il n'y a plus qu'à compter les positions."),
        "la valeur absolue est oubliée": Mistake(
            (_conv_with(lambda w, n: n * w.det().log()), _conv_with(lambda w, n: (w.det() ** n).log())),
            "Le déterminant peut être négatif : la matrice retourne alors l'espace, ce qui ne change rien aux "
            "volumes, mais un nombre négatif n'a pas de logarithme."),
        "la valeur absolue porte sur le logarithme": Mistake(
            (_conv_with(lambda w, n: n * w.det().abs().log().abs()),
             _conv_with(lambda w, n: n * w.det().log().abs())),
            "Une matrice qui contracte l'espace a un log-déterminant négatif ; le vôtre ne l'est jamais."),
        "le log2 est pris pour ln": Mistake(
            _conv_with(lambda w, n: n * w.det().abs().log2()),
            "Le chapitre compte en nats : le logarithme est népérien."),
        "la diagonale de W est prise pour ses valeurs propres": Mistake(
            (_conv_with(lambda w, n: n * w.diagonal().abs().log().sum()),
             _conv_with(lambda w, n: n * w.diagonal().log().sum())),
            "Le produit de la diagonale n'est le déterminant que d'une matrice triangulaire. Glow factorise W "
            "précisément pour s'y ramener."),
        "le signe est opposé": Mistake(
            lambda *a: -conv1x1_log_det(*a),
            "C'est le log-déterminant de l'inverse, de z vers x."),
        "le logarithme est oublié": Mistake(
            (_conv_with(lambda w, n: n * w.det().abs()), _conv_with(lambda w, n: n * w.det()),
             _conv_with(lambda w, n: w.det().abs() ** n), _conv_with(lambda w, n: w.det() ** n)),
            "On demande le logarithme du déterminant : les positions s'y ajoutent, au lieu de se multiplier."),
        "moyenne sur les dimensions": Mistake(
            _conv_with(lambda w, n: n * w.det().abs().log() / len(w)),
            "Vous divisez par le nombre de canaux. Un log-déterminant est une somme sur toutes les dimensions."),
        "c'est le signe du déterminant": Mistake(
            (_conv_with(lambda w, n: n * w.det().sign()), _conv_with(lambda w, n: w.det().sign())),
            "Vous rendez ±1, à un facteur près : la fonction que vous appelez rend deux résultats, le signe et "
            "autre chose."),
    },
)


# --- 9. Température -----------------------------------------------------------------------------------------


def temper(noise, mean, log_scale, temperature):
    """Quantile de N(mean, (T exp(log_scale))²) au niveau qu'a `noise` sous N(0, 1) : (N, D)."""
    level = Normal(torch.zeros_like(noise), torch.ones_like(noise)).cdf(noise)
    return Normal(mean, temperature * log_scale.exp()).icdf(level)


def _temper_cases():
    rng = generator(6)
    return [(normal(rng, n, d), normal(rng, d), normal(rng, d, scale=0.7), t)
            for n, d, t in ((5, 3, 0.7), (1, 4, 1.6), (4, 4, 0.3))]


TEMPER = Spec(
    oracle=temper,
    cases=_temper_cases,
    accepted={
        "vous soustrayez le bruit": Mistake(
            lambda e, m, a, t: 2 * m - temper(e, m, a, t),
            "La loi de x est la même, puisque z et −z ont la même loi ; l'usage est de l'ajouter."),
    },
    mistakes={
        "T² au lieu de T": Mistake(
            lambda e, m, a, t: temper(e, m, a, t**2),
            "T² est la variance de z. Multiplié par c, un bruit de variance 1 a pour variance c² : quel c "
            "donne T² ?"),
        "√T au lieu de T": Mistake(
            lambda e, m, a, t: temper(e, m, a, math.sqrt(t)),
            "Vous prenez T pour la variance de z ; c'est son écart-type."),
        "T divise au lieu de multiplier": Mistake(
            lambda e, m, a, t: temper(e, m, a, 1 / t),
            "À basse température, les tirages doivent se resserrer autour de la moyenne ; les vôtres "
            "s'étalent."),
        "T est appliquée à x entier": Mistake(
            lambda e, m, a, t: t * temper(e, m, a, 1.0),
            "La température réduit le bruit, pas l'image : quand T tend vers 0, x doit tendre vers la "
            "moyenne, pas vers 0."),
        "T multiplie la moyenne": Mistake(
            lambda e, m, a, t: temper(e, t * m, a, 1.0),
            "La température règle la dispersion des tirages, pas leur centre."),
        "T est oubliée": Mistake(
            lambda e, m, a, t: temper(e, m, a, 1.0),
            "Vos tirages sont ceux de T = 1, quelle que soit la température."),
        "T est appliquée à la log-échelle": Mistake(
            (lambda e, m, a, t: temper(e, m, t * a, 1.0), lambda e, m, a, t: temper(e, m, a + t, 1.0)),
            "La température porte sur le code z ; les paramètres du flot ne changent pas."),
        "la log-échelle est prise pour l'échelle": Mistake(
            (lambda e, m, a, t: m + a * t * e, lambda e, m, a, t: m + a.abs() * t * e),
            "`log_scale` peut être négatif ; c'est de son exponentielle que le flot étire z."),
        "le sens du flot est inversé": Mistake(
            (lambda e, m, a, t: temper(e, m, -a, t), lambda e, m, a, t: (t * e - m) * torch.exp(-a),
             lambda e, m, a, t: t * (e - m) * torch.exp(-a)),
            "Tirer, c'est aller du code z à la donnée x. Vous allez dans l'autre sens, en partie au moins."),
        "la moyenne est mise à l'échelle": Mistake(
            (lambda e, m, a, t: (t * e + m) * a.exp(), lambda e, m, a, t: t * (e + m) * a.exp()),
            "L'échelle multiplie le bruit seul ; la moyenne, elle, ne fait que déplacer."),
        "la moyenne est oubliée": Mistake(
            lambda e, m, a, t: temper(e, 0 * m, a, t),
            "Vos tirages sont centrés en 0 ; ceux du flot le sont en `mean`."),
        "le bruit est oublié": Mistake(
            (lambda e, m, a, t: temper(0 * e + 1, m, a, t), lambda e, m, a, t: 0 * e + m),
            "Tous vos exemples sont égaux : ce n'est plus un tirage."),
    },
)


EXERCISES = {
    "coupling_inverse": COUPLING_INVERSE, "coupling_log_det": COUPLING_LOG_DET, "made_mask": MADE_MASK,
    "alternate_masks": ALTERNATE_MASKS, "logit_log_prob": LOGIT_LOG_PROB, "bits_per_dim": BITS_PER_DIM,
    "actnorm": ACTNORM, "conv1x1_log_det": CONV1X1_LOG_DET, "temper": TEMPER,
}
