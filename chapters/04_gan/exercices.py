"""Exercices du chapitre 4 (GAN) : entrées, oracles, erreurs classiques.

Les oracles passent par un autre chemin que la formule demandée : gradients écrits à la main là où l'étudiant
dérive, différentiation automatique là où il écrit le gradient, décomposition en valeurs singulières, somme
explicite à la place d'une récurrence. Chaque indice nomme l'erreur et dit ce qu'elle change, sans donner la
ligne à écrire.
"""

import math

import torch
import torch.nn.functional as F

from utils.exercises import Mistake, Spec, generator, normal, same, uniform

_HALF_SUM = ("vous faites la moyenne des deux termes", "Un facteur ½ sur toute la perte ne déplace pas son minimum : "
             "avec SGD il divise par deux le pas du discriminateur, avec Adam il ne change presque rien.")


# --- 1. Discriminateur optimal ------------------------------------------------------------------------------


def optimal_d(p, q):
    """Sigmoïde du logarithme du rapport des densités : même forme que p."""
    return torch.sigmoid(p.log() - q.log())


def _densities():
    """Densités quelconques, nulles d'un côté, et si loin des deux masses qu'elles sont minuscules."""
    rng = generator(0)
    grid = torch.linspace(-9, 9, 7, dtype=torch.float64, device="cpu")
    bells = [torch.exp(-0.5 * (grid - mean) ** 2) / math.sqrt(2 * math.pi) for mean in (-0.7, 0.4)]
    one_sided = [torch.tensor(row, dtype=torch.float64, device="cpu") for row in ([0.0, 0.5, 2.0], [1.5, 0.5, 0.0])]
    return [(uniform(rng, 5, high=3.0), uniform(rng, 5, high=3.0)), tuple(one_sided), tuple(bells),
            (uniform(rng, 1), uniform(rng, 1))]


OPTIMAL_D = Spec(
    oracle=optimal_d,
    cases=_densities,
    mistakes={
        "les deux densités sont échangées": Mistake(
            lambda p, q: optimal_d(q, p),
            "Votre discriminateur vaut 1 là où il n'y a que des faux : les étiquettes sont inversées. p est la "
            "densité des vraies données, q celle du générateur."),
        "c'est le rapport des densités": Mistake(
            (lambda p, q: p / q, lambda p, q: q / p),
            "Un rapport de densités va de 0 à l'infini ; D(x) est une probabilité. Quelle est celle que x soit "
            "vrai, s'il a autant de chances a priori de venir de p que de q ?"),
        "c'est le logit du discriminateur": Mistake(
            lambda p, q: p.log() - q.log(),
            "Voilà ce que doit rendre le réseau, un logit. On demande ici la probabilité qui lui correspond."),
        "sigmoïde de la différence des densités": Mistake(
            lambda p, q: torch.sigmoid(p - q),
            "Deux densités trente fois plus petites donneraient un autre discriminateur, alors que le rapport "
            "des chances serait le même. La sigmoïde attend un logarithme de rapport."),
        "sigmoïde du rapport des densités": Mistake(
            (lambda p, q: torch.sigmoid(p / q), lambda p, q: torch.sigmoid(q / p)),
            "Un rapport n'est jamais négatif : votre D ne descendrait jamais sous ½. La sigmoïde attend un "
            "logarithme de rapport."),
        "c'est la différence des densités": Mistake(
            (lambda p, q: p - q, lambda p, q: (p - q) / (p + q)),
            "Votre résultat peut être négatif ; D(x) est une probabilité, égale à ½ là où les deux densités "
            "sont égales."),
        "c'est une décision, pas une probabilité": Mistake(
            (lambda p, q: (p > q).to(p), lambda p, q: (p >= q).to(p), lambda p, q: (p > 0).to(p)),
            "Vous rendez la meilleure réponse par oui ou par non. Un D qui ne vaut que 0 ou 1 n'a plus de pente : "
            "le générateur n'en apprendrait rien."),
        "un facteur 2 de trop": Mistake(
            (lambda p, q: 2 * optimal_d(p, q), lambda p, q: optimal_d(p, q) / 2),
            "Là où les deux densités sont égales, D doit valoir ½, ni 1 ni ¼."),
        "p est seulement normalisée": Mistake(
            (lambda p, q: p / p.sum(), lambda p, q: p / p.max()),
            "Votre D ignore le générateur. Au point x, c'est à q qu'il faut comparer p, pas aux autres points."),
        "un ε au dénominateur": Mistake(
            tuple(lambda p, q, e=10.0**-k: p / (p + q + e) for k in range(4, 17)),
            "Loin des deux masses, p et q sont minuscules, mais leur rapport a un sens : votre ε y écrase D vers "
            "0, comme si tout y était faux. L'énoncé promet que p + q n'est jamais nul."),
    },
)


# --- 2. Perte du discriminateur -----------------------------------------------------------------------------


def d_loss(real, fake):
    """Entropie croisée, par PyTorch, des vrais étiquetés 1 et des faux étiquetés 0 : scalaire."""
    return (F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)))


def _logits(seed: int):
    """Lots de tailles inégales, logits des deux signes."""
    rng = generator(seed)
    return [(normal(rng, n, scale=2.0) + 0.5, normal(rng, m, scale=2.0) - 0.5) for n, m in ((5, 3), (1, 4), (6, 6))]


def _extreme(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device="cpu")


_OVERFLOW = ("Logits de ±300 : votre perte y est infinie, ou plafonnée, et son gradient est perdu. La sigmoïde s'y "
             "arrondit à 0 ou à 1 en float32 : ne la calculez pas avant le logarithme, mais prenez une fonction de "
             "PyTorch qui fait les deux d'un coup, à partir du logit.")


def _d_loss_is_stable(f):
    logits = _extreme(-300.0, 300.0)
    loss = f(logits, logits)
    return None if same(loss, 300.0, rtol=1e-4) or same(loss, 150.0, rtol=1e-4) else _OVERFLOW    # ½ compris


D_LOSS = Spec(
    oracle=d_loss,
    cases=lambda: _logits(1),
    gradients=("real", "fake"),
    properties=(_d_loss_is_stable,),
    accepted={
        _HALF_SUM[0]: Mistake(lambda real, fake: d_loss(real, fake) / 2, _HALF_SUM[1]),
    },
    mistakes={
        "les étiquettes sont échangées": Mistake(
            lambda real, fake: F.softplus(real).mean() + F.softplus(-fake).mean(),
            "Le discriminateur apprend à dire vrai devant un faux. Le générateur, qui cherche un grand logit, "
            "fuirait alors les données."),
        "la sigmoïde est appliquée deux fois": Mistake(
            (lambda real, fake: d_loss(real.sigmoid(), fake.sigmoid()),
             lambda real, fake: -real.sigmoid().sigmoid().log().mean() - (1 - fake.sigmoid().sigmoid()).log().mean()),
            "La fonction que vous appelez applique déjà la sigmoïde, et vous la lui donnez déjà faite. Un D doublement "
            "écrasé reste entre 0,5 et 0,73 : la perte ne descend jamais près de 0, et le gradient est minuscule."),
        "le logit est pris pour une probabilité": Mistake(
            lambda real, fake: -real.log().mean() - (1 - fake).log().mean(),
            "Un logit est un réel quelconque : son logarithme n'existe pas quand il est négatif. Le réseau n'a pas de "
            "sigmoïde à sa sortie, c'est à la perte de la faire."),
        "c'est la valeur du jeu, que le discriminateur maximise": Mistake(
            lambda real, fake: -d_loss(real, fake),
            "Le signe est opposé : `fit` descend la perte, et votre discriminateur apprendrait à se tromper."),
        "les deux lots ont la même étiquette": Mistake(
            (lambda real, fake: F.softplus(-real).mean() + F.softplus(-fake).mean(),
             lambda real, fake: F.softplus(real).mean() + F.softplus(fake).mean()),
            "Un discriminateur qui répond toujours la même chose aurait une perte nulle : il n'a plus rien à "
            "distinguer."),
        "un seul des deux lots compte": Mistake(
            (lambda real, fake: F.softplus(-real).mean() + 0 * fake.sum(),
             lambda real, fake: F.softplus(fake).mean() + 0 * real.sum()),
            "Sans l'un des deux termes, une réponse constante suffit : le discriminateur n'a plus rien à distinguer."),
        "somme au lieu de moyenne": Mistake(
            lambda real, fake: F.softplus(-real).sum() + F.softplus(fake).sum(),
            "Votre perte grandit avec le lot, et le pas avec elle. Chaque terme est une espérance : une moyenne."),
        "une seule moyenne sur les deux lots": Mistake(
            lambda real, fake: torch.cat([F.softplus(-real), F.softplus(fake)]).mean(),
            "Avec 64 vrais et 8 faux, les vrais compteraient huit fois plus. Le jeu est la somme de deux espérances, "
            "chacune sur son lot."),
        "le logarithme est oublié": Mistake(
            lambda real, fake: (1 - real.sigmoid()).mean() + fake.sigmoid().mean(),
            "C'est un taux d'erreur adouci. Sa pente s'annule quand D se trompe avec assurance, là où il faudrait le "
            "corriger le plus ; et son optimum n'est plus p/(p + q), mais une réponse tranchée, 0 ou 1."),
        "ce sont des moindres carrés": Mistake(
            (lambda real, fake: (real - 1).square().mean() + fake.square().mean(),
             lambda real, fake: (real.sigmoid() - 1).square().mean() + fake.sigmoid().square().mean(),
             lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2),
            "La perte des moindres carrés (LSGAN) existe, mais ce n'est pas (4.7), dont chaque terme est un "
            "logarithme."),
        "le log2 est pris pour ln": Mistake(
            lambda real, fake: d_loss(real, fake) / math.log(2),
            "Le chapitre compte en nats : au départ, D = ½ partout, la perte vaut 2 ln 2, pas 2."),
    },
)


# --- 3. Les deux pertes du générateur -----------------------------------------------------------------------


def g_losses(fake):
    """Perte saturante puis non saturante, par l'entropie croisée de PyTorch : (2,)."""
    saturating = -F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    return torch.stack([saturating, F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))])


def _both(saturating, other, reduce=torch.mean):
    """Les deux pertes, de deux fonctions d'un logit."""
    return lambda fake: torch.stack([reduce(saturating(fake)), reduce(other(fake))])


def _log_not_d(s):
    return -F.softplus(s)


def _minus_log_d(s):
    return F.softplus(-s)


def _g_losses_are_stable(f):
    return None if same(f(_extreme(-300.0, 300.0)), _extreme(-150.0, 150.0), rtol=1e-4) else _OVERFLOW


G_LOSSES = Spec(
    oracle=g_losses,
    cases=lambda: [(fake,) for _, fake in _logits(2)],
    gradients=("fake",),
    properties=(_g_losses_are_stable,),
    mistakes={
        "les deux pertes sont échangées": Mistake(
            _both(_minus_log_d, _log_not_d),
            "La première est celle du jeu, qui sature quand le discriminateur rejette tout ; la seconde est celle dont "
            "on se sert."),
        "les étiquettes sont échangées": Mistake(
            (_both(lambda s: F.logsigmoid(s), F.softplus), _both(_log_not_d, F.softplus),
             _both(lambda s: F.logsigmoid(s), _minus_log_d)),
            "Une de vos pertes, au moins, diminue quand le discriminateur démasque mieux les faux : le générateur "
            "l'aiderait au lieu de le tromper."),
        "le signe de la perte saturante est faux": Mistake(
            _both(F.softplus, _minus_log_d),
            "−ln(1 − D) est un terme de la perte du discriminateur. Le générateur veut le contraire : en minimisant "
            "la vôtre, il se ferait démasquer."),
        "le signe de la perte non saturante est faux": Mistake(
            (_both(_log_not_d, lambda s: F.logsigmoid(s)), _both(F.softplus, lambda s: F.logsigmoid(s))),
            "ln D grandit quand le discriminateur est trompé. On descend une perte : il faut son opposé."),
        "deux fois la même perte": Mistake(
            (_both(_log_not_d, _log_not_d), _both(_minus_log_d, _minus_log_d)),
            "Les deux pertes ont le même sens de variation, mais pas la même pente : l'une est ln(1 − D), l'autre "
            "−ln D."),
        "la sigmoïde est appliquée deux fois": Mistake(
            (lambda fake: g_losses(fake.sigmoid()),
             _both(lambda s: (1 - s.sigmoid().sigmoid()).log(), lambda s: -s.sigmoid().sigmoid().log())),
            "La fonction que vous appelez applique déjà la sigmoïde, et vous la lui donnez déjà faite. Même la perte "
            "non saturante sature alors : un faux bien démasqué ne reçoit presque plus de gradient."),
        "le logit est pris pour une probabilité": Mistake(
            _both(lambda s: (1 - s).log(), lambda s: -s.log()),
            "Un logit est un réel quelconque : il faut d'abord la sigmoïde. Le réseau n'en a pas à sa sortie."),
        "le logarithme est oublié": Mistake(
            (_both(lambda s: 1 - s.sigmoid(), lambda s: -s.sigmoid()),
             _both(lambda s: 1 - s.sigmoid(), lambda s: 1 - s.sigmoid()),
             _both(lambda s: -s, lambda s: -s)),
            "Les deux pertes sont des moyennes de logarithmes : sans eux, elles auraient la même pente, et plus rien "
            "ne les distinguerait."),
        "somme au lieu de moyenne": Mistake(
            _both(_log_not_d, _minus_log_d, torch.sum),
            "Votre perte grandit avec le lot, et le pas avec elle. Une espérance s'estime par une moyenne."),
        "logarithme de la moyenne au lieu de moyenne des logarithmes": Mistake(
            (lambda fake: torch.stack([(1 - fake.sigmoid().mean()).log(), -fake.sigmoid().mean().log()]),
             lambda fake: g_losses(fake.mean()[None])),
            "Le logarithme se prend exemple par exemple, avant la moyenne : c'est ce qui donne le plus de poids aux "
            "faux les mieux démasqués."),
        "la moyenne sur le lot est oubliée": Mistake(
            (lambda fake: torch.stack([_log_not_d(fake), _minus_log_d(fake)]),
             lambda fake: torch.stack([_log_not_d(fake), _minus_log_d(fake)], dim=1)),
            "Chaque perte est un seul nombre, la moyenne sur les exemples."),
        "le log2 est pris pour ln": Mistake(
            lambda fake: g_losses(fake) / math.log(2), "Le chapitre compte en nats : D = ½ donne ln 2, pas 1."),
    },
)


# --- 4. Quelques tours du jeu -------------------------------------------------------------------------------


def alternate(theta, psi, real, noise, lr):
    """Poids des deux joueurs après K tours, gradients écrits à la main : (2, D)."""
    for x, z in zip(real, noise, strict=True):
        fake = z + theta
        pull = (torch.sigmoid(-(x @ psi))[:, None] * x).mean(0)            # vers les vrais
        push = (torch.sigmoid(fake @ psi)[:, None] * fake).mean(0)         # loin des faux
        psi = psi + lr * (pull - push)
        theta = theta + lr * torch.sigmoid(-(fake @ psi)).mean() * psi
    return torch.stack([theta, psi])


def _slopes(loss, *weights):
    """Gradient de `loss(theta, psi)` par rapport à chacun."""
    leaves = [w.detach().clone().requires_grad_() for w in weights]
    return torch.autograd.grad(loss(*leaves), leaves, allow_unused=True, materialize_grads=True)


def _ordinary_turn(theta, psi, loss_d, loss_g, lr, past):
    psi = psi - lr * _slopes(loss_d, theta, psi)[1]
    return theta - lr * _slopes(loss_g, theta, psi)[0], psi


def _game(turn=_ordinary_turn, d=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
          g=lambda fake: F.softplus(-fake).mean(), batches=zip):
    """Partie dont un tour, une perte ou la suite des lots est faux ; `past` dure toute la partie."""
    def wrong(theta, psi, real, noise, lr):
        past = {}
        for x, z in batches(real, noise):
            theta, psi = turn(theta, psi, lambda t, p, x=x, z=z: d(x @ p, (z + t) @ p),
                              lambda t, p, z=z: g((z + t) @ p), lr, past)
        return torch.stack([theta, psi])
    return wrong


def _leaky_turn(theta, psi, loss_d, loss_g, lr, past):
    """Le gradient de la perte du discriminateur reste dans celui du générateur."""
    leak, slope = _slopes(loss_d, theta, psi)
    psi = psi - lr * slope
    return theta - lr * (leak + _slopes(loss_g, theta, psi)[0]), psi


def _together(theta, psi, loss_d, loss_g, lr, past):
    return theta - lr * _slopes(loss_g, theta, psi)[0], psi - lr * _slopes(loss_d, theta, psi)[1]


def _generator_first(theta, psi, loss_d, loss_g, lr, past):
    theta = theta - lr * _slopes(loss_g, theta, psi)[0]
    return theta, psi - lr * _slopes(loss_d, theta, psi)[1]


def _stale_for_d(theta, psi, loss_d, loss_g, lr, past):
    psi = psi - lr * _slopes(loss_d, past.setdefault("theta", theta), psi)[1]
    return theta - lr * _slopes(loss_g, theta, psi)[0], psi


def _stale_for_both(theta, psi, loss_d, loss_g, lr, past):
    first = past.setdefault("theta", theta)
    psi = psi - lr * _slopes(loss_d, first, psi)[1]
    return theta - lr * _slopes(loss_g, first, psi)[0], psi


def _one_loss(theta, psi, loss_d, loss_g, lr, past):
    both = _slopes(lambda t, p: loss_d(t, p) + loss_g(t, p), theta, psi)
    return theta - lr * both[0], psi - lr * both[1]


def _one_optimizer(leak):
    """Les deux jeux de poids bougent à chaque demi-tour ; `leak` : aussi θ, sur la perte du discriminateur."""
    def turn(theta, psi, loss_d, loss_g, lr, past):
        slopes = _slopes(loss_d, theta, psi)
        theta, psi = theta - leak * lr * slopes[0], psi - lr * slopes[1]
        slopes = _slopes(loss_g, theta, psi)
        return theta - lr * slopes[0], psi - lr * slopes[1]
    return turn


def _never_zeroed(leak):
    """Les gradients s'accumulent d'un demi-tour à l'autre ; `leak` : aussi celui de θ, sans `detach`."""
    def turn(theta, psi, loss_d, loss_g, lr, past):
        grads = past.setdefault("grads", [torch.zeros_like(theta), torch.zeros_like(psi)])
        of_theta, of_psi = _slopes(loss_d, theta, psi)
        grads[0], grads[1] = grads[0] + leak * of_theta, grads[1] + of_psi
        psi = psi - lr * grads[1]
        of_theta, of_psi = _slopes(loss_g, theta, psi)
        grads[0], grads[1] = grads[0] + of_theta, grads[1] + of_psi
        return theta - lr * grads[0], psi
    return turn


def _zeroed_for_g_only(theta, psi, loss_d, loss_g, lr, past):
    """Seul le gradient de θ est remis à zéro : celui de ψ garde ce qu'y a laissé la perte du générateur."""
    grad = past.get("grad", 0.0) + _slopes(loss_d, theta, psi)[1]
    psi = psi - lr * grad
    of_theta, of_psi = _slopes(loss_g, theta, psi)
    past["grad"] = grad + of_psi
    return theta - lr * of_theta, psi


def _uphill(theta, psi, loss_d, loss_g, lr, past):
    return _ordinary_turn(theta, psi, loss_d, loss_g, -lr, past)


def _frozen_generator(theta, psi, loss_d, loss_g, lr, past):
    return theta, _ordinary_turn(theta, psi, loss_d, loss_g, lr, past)[1]


def _frozen_discriminator(theta, psi, loss_d, loss_g, lr, past):
    return theta - lr * _slopes(loss_g, theta, psi)[0], psi


def _cut_generator(theta, psi, loss_d, loss_g, lr, past):
    """Le gradient demandé n'existe pas : le lot du générateur est détaché, ici aussi."""
    leaf, weights = theta.detach().clone().requires_grad_(), psi.detach().clone().requires_grad_()
    torch.autograd.grad(loss_g(leaf.detach(), weights), leaf)
    return theta, psi


def _sigmoid_first(d=True, g=True):
    """Partie où la sigmoïde est faite avant les pertes, qui la font déjà."""
    twice_d = torch.sigmoid if d else (lambda s: s)
    twice_g = torch.sigmoid if g else (lambda s: s)
    return _game(d=lambda real, fake: d_loss(twice_d(real), twice_d(fake)),
                 g=lambda fake: F.softplus(-twice_g(fake)).mean())


def _game_cases():
    """Un, deux et trois tours ; les deux nuages se recouvrent à peine, les pas sont grands."""
    rng, cases = generator(3), []
    for turns, n, dim, lr in ((1, 5, 2, 0.8), (3, 4, 3, 0.5), (2, 1, 2, 0.6)):
        real = normal(rng, turns, n, dim) + 1.0
        noise = normal(rng, turns, n, dim)
        cases.append((normal(rng, dim), normal(rng, dim), real, noise, lr))
    return cases


ALTERNATE = Spec(
    oracle=alternate,
    cases=_game_cases,
    mistakes={
        "`detach` est oublié": Mistake(
            _game(_leaky_turn),
            "Le gradient de la perte du discriminateur traverse le faux lot, atteint θ et s'y ajoute à celui du "
            "générateur : celui-ci apprend en partie à se faire démasquer. Le lot montré au discriminateur est une "
            "donnée, pas une fonction de θ."),
        "les étiquettes sont échangées": Mistake(
            (_game(d=lambda real, fake: d_loss(fake, real)),
             _game(d=lambda real, fake: d_loss(fake, real), g=lambda fake: F.softplus(fake).mean())),
            "Votre discriminateur apprend à donner un grand logit aux faux. Ou bien le générateur fuit les données, "
            "ou bien, s'il est inversé lui aussi, D vaut la probabilité d'être faux : ce n'est plus la convention du "
            "chapitre."),
        "le générateur vise l'étiquette des faux": Mistake(
            _game(g=lambda fake: F.softplus(fake).mean()),
            "Il descend la même perte que le discriminateur : il l'aide à démasquer ses propres images, et s'éloigne "
            "des données."),
        "la perte du générateur est la saturante": Mistake(
            _game(g=lambda fake: -F.softplus(fake).mean()),
            "L'énoncé demande (4.9). La vôtre, (4.8), va dans le même sens, mais sa pente s'annule quand le "
            "discriminateur démasque tout."),
        "le faux lot est réutilisé après que le générateur a bougé": Mistake(
            (_game(_stale_for_d), _game(_stale_for_both)),
            "Vos faux viennent du générateur du premier tour. Dès le deuxième, le discriminateur combat un adversaire "
            "qui n'existe plus : refaites les faux chaque fois que θ a changé."),
        "les deux joueurs bougent en même temps": Mistake(
            _game(_together),
            "Le discriminateur n'est pas mis à jour avant le générateur : celui-ci répond à l'ancien ψ (ou, si θ bouge "
            "d'abord, ψ est jugé sur un faux lot d'avant le mouvement). Le pas simultané tourne autour de l'équilibre "
            "et s'en éloigne ; l'alternance est ce qui le retient."),
        "le générateur joue avant le discriminateur": Mistake(
            _game(_generator_first),
            "Dans (4.13), le discriminateur joue d'abord ; le générateur répond au nouveau ψ. Dans l'autre ordre, son "
            "premier pas suit un discriminateur qui n'a encore rien appris."),
        "la sigmoïde est appliquée deux fois": Mistake(
            (_sigmoid_first(), _sigmoid_first(g=False), _sigmoid_first(d=False)),
            "La perte applique déjà la sigmoïde, et vous la lui donnez déjà faite. Le gradient est multiplié par "
            "D(1 − D), qui s'annule dès qu'un des joueurs gagne : la partie se fige."),
        "le générateur n'apprend pas": Mistake(
            (_game(_frozen_generator), _game(_cut_generator)),
            "Rien ne remonte jusqu'à θ. Le faux lot se détache pour le tour du discriminateur seulement ; pendant "
            "celui du générateur, le gradient doit traverser D puis arriver à G."),
        "le discriminateur n'apprend pas": Mistake(
            _game(_frozen_discriminator),
            "ψ ne change pas : le générateur ne fait que monter toujours la même pente."),
        "une seule perte pour les deux joueurs": Mistake(
            _game(_one_loss),
            "Vous additionnez les deux pertes avant de dériver : chacun descend aussi celle de l'autre. Dans un jeu, "
            "chaque joueur ne dérive que la sienne, par rapport à ses poids."),
        "les poids des deux joueurs bougent à chaque demi-tour": Mistake(
            (_game(_one_optimizer(1.0)), _game(_one_optimizer(0.0))),
            "Pendant le tour du générateur, votre discriminateur descend la perte du générateur : il apprend à se "
            "laisser tromper. Un optimiseur par joueur, ou un seul gradient à la fois."),
        "les gradients ne sont pas remis à zéro": Mistake(
            (_game(_never_zeroed(0.0)), _game(_never_zeroed(1.0)), _game(_zeroed_for_g_only)),
            "`backward` ajoute au gradient qui est déjà là : celui de ψ garde la trace de la perte du générateur, qui "
            "le traverse, et celle des tours d'avant."),
        "les pas vont vers le haut": Mistake(
            _game(_uphill), "Les deux pertes se minimisent : on retranche le gradient, on ne l'ajoute pas."),
        "la perte du discriminateur est divisée par deux": Mistake(
            _game(d=lambda real, fake: d_loss(real, fake) / 2),
            "Vous faites la moyenne de ses deux termes ; (4.7) les additionne. Le discriminateur avancerait deux fois "
            "moins vite."),
        "le discriminateur ne voit qu'un des deux lots": Mistake(
            (_game(d=lambda real, fake: F.softplus(-real).mean() + 0 * fake.sum()),
             _game(d=lambda real, fake: F.softplus(fake).mean() + 0 * real.sum())),
            "Il lui faut les deux : sans les faux, dire toujours vrai suffit, et sans les vrais, toujours faux."),
        "somme au lieu de moyenne": Mistake(
            _game(d=lambda real, fake: F.softplus(-real).sum() + F.softplus(fake).sum(),
                  g=lambda fake: F.softplus(-fake).sum()),
            "Le pas grandirait avec la taille du lot."),
        "le premier lot sert à tous les tours": Mistake(
            (_game(batches=lambda real, noise: [(real[0], noise[0])] * len(real)),
             _game(batches=lambda real, noise: [(real[k], noise[0]) for k in range(len(real))])),
            "`real` et `noise` contiennent K lots : chaque tour a les siens."),
        "un seul tour est joué": Mistake(
            (_game(batches=lambda real, noise: [(real[0], noise[0])]),
             _game(batches=lambda real, noise: [(real[-1], noise[-1])])),
            "Le premier axe de `real` et de `noise` est celui des tours : ψ et θ doivent avancer K fois."),
        "tous les lots sont mêlés en un": Mistake(
            (_game(batches=lambda real, noise: [(real.flatten(0, 1), noise.flatten(0, 1))]),
             _game(batches=lambda real, noise: [(real.flatten(0, 1), noise.flatten(0, 1))] * len(real))),
            "Le premier axe est celui des tours. Chaque tour se joue sur son lot, à partir des poids que lui laisse le "
            "précédent."),
        "θ et ψ sont échangés dans le résultat": Mistake(
            lambda *a: alternate(*a).flip(0), "Rendez θ en première ligne, ψ en seconde."),
    },
)


# --- 5. Modes couverts --------------------------------------------------------------------------------------


def count_modes(x, centers, std, share):
    """Nombre de centres assez visités, échantillon par échantillon : int."""
    hits = [0] * len(centers)
    for point in x.tolist():
        distances = [math.dist(point, center) for center in centers.tolist()]
        nearest = min(range(len(distances)), key=distances.__getitem__)
        hits[nearest] += distances[nearest] < 3 * std
    return sum(hit >= share * len(x) for hit in hits)


def _counted(good=lambda d, std: d < 3 * std, enough=lambda hits, share, n: hits >= share * n,
             among=lambda d, near: near):
    """Compte dont le rayon, le seuil, ou l'attribution d'un échantillon à un centre est faux."""
    def wrong(x, centers, std, share):
        distances = torch.cdist(x, centers)                                               # (N, K)
        near = F.one_hot(distances.argmin(1), len(centers)).bool()
        hits = (among(distances, near) & good(distances, std)).sum(0)
        return int(enough(hits, share, len(x)).sum())
    return wrong


def _by_coordinate(x, centers, std, share):
    inside = ((x[:, None] - centers).abs() < 3 * std).all(2)
    return int((inside.sum(0) >= share * len(x)).sum())


def _ring(rng, center, std, n, low, high, angle=None):
    """n points à une distance de `center` comprise entre low et high écarts-types, dans une direction ou toutes."""
    radius = std * uniform(rng, n, low=low, high=high)
    turn = uniform(rng, n, high=2 * math.pi) if angle is None else torch.full_like(radius, angle)
    return center + radius[:, None] * torch.stack([turn.cos(), turn.sin()], dim=1)


def _mode_cases():
    """Modes pleins, maigres, décalés, vides ; et des échantillons perdus entre les modes."""
    rng, cases = generator(4), []
    plans = [   # par mode : (nombre, distance minimale et maximale en écarts-types, direction)
        [(40, 0.0, 0.9, None), (30, 1.1, 1.6, None), (24, 1.8, 1.95, None), (20, 2.1, 2.9, None),
         (24, 3.3, 3.8, math.pi / 4), (30, 4.0, 5.0, None), (3, 0.0, 2.0, None), (9, 0.0, 2.0, None),
         (0, 0.0, 1.0, None), (50, 12.0, 16.0, None)],
        [(50, 1.8, 1.95, None), (40, 0.0, 0.9, None), (4, 0.0, 2.0, None), (8, 1.0, 2.0, None), (80, 5.5, 5.9, None),
         (16, 2.1, 2.8, None), (12, 1.9, 2.4, None), (14, 1.3, 1.6, None)],
        [(30, 0.0, 2.0, None), (20, 3.3, 3.8, math.pi / 4), (20, 3.2, 3.9, math.pi / 4), (20, 2.6, 2.9, None),
         (1, 0.0, 1.0, None)],
        [(10, 0.0, 1.6, None), (5, 0.0, 0.9, None), (5, 0.0, 0.9, None), (1, 0.0, 0.5, None), (80, 7.0, 9.0, None)],
    ]
    for plan, std, share in zip(plans, (0.1, 2.0, 0.5, 0.05), (0.05, 0.05, 0.02, 0.03), strict=True):
        angles = torch.arange(len(plan), dtype=torch.float64, device="cpu") * (2 * math.pi / len(plan))
        centers = 60 * std * torch.stack([angles.cos(), angles.sin()], dim=1)
        x = torch.cat([_ring(rng, centers[k], std, *mode) for k, mode in enumerate(plan)])
        cases.append((x[torch.randperm(len(x), generator=rng, device="cpu")], centers, std, share))
    return cases


COUNT_MODES = Spec(
    oracle=count_modes,
    cases=_mode_cases,
    mistakes={
        "le rayon est oublié": Mistake(
            _counted(good=lambda d, std: d < math.inf),
            "Vous donnez chaque échantillon à son centre le plus proche, si loin qu'il soit. Du bruit pur couvrirait "
            "tous les modes : un échantillon n'est bon qu'à moins de trois écarts-types."),
        "un seul échantillon suffit": Mistake(
            (_counted(enough=lambda hits, share, n: hits > 0), _counted(enough=lambda hits, share, n: hits >= share)),
            "Un mode où tombe un échantillon égaré n'est pas couvert : il lui faut la part `share` des échantillons."),
        "la part est prise sur les bons échantillons": Mistake(
            _counted(enough=lambda hits, share, n: hits >= share * hits.sum()),
            "Un générateur dont presque tout est raté s'en tirerait bien, sur le peu qui reste. `share` se rapporte à "
            "tous les échantillons, ratés compris."),
        "un écart-type au lieu de trois": Mistake(
            _counted(good=lambda d, std: d < std),
            "En dimension deux, plus de la moitié des tirages d'une gaussienne sont au-delà d'un écart-type : un "
            "générateur parfait serait mal noté."),
        "deux écarts-types au lieu de trois": Mistake(
            _counted(good=lambda d, std: d < 2 * std),
            "Le rayon de l'énoncé est de trois écarts-types."),
        "le carré de la distance est comparé à une distance": Mistake(
            (_counted(good=lambda d, std: d.square() < 3 * std), _counted(good=lambda d, std: d.square() < 3 * std**2),
             _counted(good=lambda d, std: d < 3 * std**2)),
            "Comparez une distance à un rayon, ou leurs carrés à tous deux : le 3 aussi s'élève au carré."),
        "l'écart-type est oublié": Mistake(
            _counted(good=lambda d, std: d < 3),
            "Un rayon de 3 n'a de sens que pour des modes d'écart-type 1."),
        "la distance est comparée coordonnée par coordonnée": Mistake(
            _by_coordinate,
            "Vous acceptez un carré autour du centre : ses coins sont à plus de quatre écarts-types. La distance est "
            "celle du plan."),
        "ce sont les modes perdus": Mistake(
            lambda x, centers, std, share: len(centers) - count_modes(x, centers, std, share),
            "On demande les modes couverts."),
        "ce sont les échantillons, pas les modes": Mistake(
            lambda x, centers, std, share: int((torch.cdist(x, centers).min(1).values < 3 * std).sum()),
            "Vous comptez les bons échantillons. Combien de centres se les partagent ?"),
        "tous les modes sont comptés": Mistake(
            lambda x, centers, std, share: len(centers),
            "`len` compte les centres, couverts ou non ; c'est la somme d'un masque qu'il faut."),
    },
)


# --- 6. Normalisation spectrale -----------------------------------------------------------------------------


def _sigma(weight, u, n_steps):
    """Estimation de σ après n_steps pas, écrite dans la base des vecteurs singuliers : scalaire."""
    left, values, _ = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    v = (values / values.max()) ** (2 * n_steps - 1) * (left.T @ u)                       # v, à un facteur près
    return (values * v).norm() / v.norm()


def spectral_normalize(weight, u, n_steps):
    """Poids divisés par leur estimation de σ : même forme."""
    return weight / _sigma(weight, u, n_steps)


def _unit(x):
    return x / x.norm()


def _powered(unit_v=_unit, unit_u=_unit, sigma=lambda w, u, v, old: u @ w @ v, steps=lambda n: n):
    """Normalisation dont un pas de l'itération ou l'estimation finale est faux."""
    def wrong(weight, u, n_steps):
        matrix = weight.flatten(1)
        for _ in range(steps(n_steps)):
            v = unit_v(matrix.T @ u)
            old, u = u, unit_u(matrix @ v)
        return weight / sigma(matrix, u, v, old)
    return wrong


def _same(x):
    return x


def _spectral_cases():
    """Deux matrices et un noyau de convolution, en trop peu de pas pour que l'itération ait convergé."""
    rng = generator(5)
    return [(normal(rng, *shape), _unit(normal(rng, shape[0])), n)
            for shape, n in (((5, 3), 1), ((3, 4), 3), ((4, 2, 3, 3), 2))]


SPECTRAL_NORMALIZE = Spec(
    oracle=spectral_normalize,
    cases=_spectral_cases,
    mistakes={
        "c'est σ, pas la matrice divisée par σ": Mistake(
            _sigma,
            "Rendez les poids normalisés, ceux que la couche emploie."),
        "la matrice est multipliée par σ": Mistake(
            lambda w, u, n: w * _sigma(w, u, n),
            "Une matrice déjà trop forte le serait davantage : pour que sa plus grande valeur singulière soit 1, on "
            "divise."),
        "c'est la norme de Frobenius": Mistake(
            lambda w, u, n: w / w.norm(),
            "La racine de la somme des carrés compte toutes les valeurs singulières : elle dépasse la plus grande, et "
            "la couche serait plus contractante que prévu, d'autant plus qu'elle est large."),
        "c'est la valeur singulière exacte": Mistake(
            lambda w, u, n: w / torch.linalg.matrix_norm(w.flatten(1), 2),
            "L'énoncé demande l'itération de la puissance à partir de u, en `n_steps` pas : une décomposition complète "
            "à chaque pas d'entraînement coûterait trop cher."),
        "un seul pas de l'itération": Mistake(
            _powered(steps=lambda n: 1),
            "Vous ignorez `n_steps`. Chaque pas rapproche u et v des vecteurs singuliers ; après un seul, σ est "
            "sous-estimé."),
        "un pas de trop": Mistake(
            _powered(steps=lambda n: n + 1), "Comptez les mises à jour de u : il en faut `n_steps`."),
        "u et v ne sont pas normalisés": Mistake(
            (_powered(_same, _same), _powered(_same, _unit), _powered(_unit, _same),
             _powered(_same, _same, lambda w, u, v, old: _unit(u) @ w @ v),
             lambda w, u, n: w / _sigma(w, u, n) ** 2),
            "uᵀWv ne vaut σ que pour deux vecteurs de norme 1. Sans cela l'estimation grandit à chaque pas comme une "
            "puissance de σ, et les poids s'effondrent."),
        "u n'est pas remis à jour avant d'estimer σ": Mistake(
            _powered(sigma=lambda w, u, v, old: old @ w @ v),
            "Votre u est en retard d'un demi-pas sur v : l'estimation est moins bonne, et ce n'est plus celle de "
            "(4.14)."),
        "W et sa transposée sont échangées": Mistake(
            (lambda w, u, n: w.flatten(1) @ u, lambda w, u, n: u @ w.flatten(1).T),
            "u vit dans l'espace de sortie de W : c'est la transposée qui le ramène à l'entrée."),
        "c'est le plus grand coefficient": Mistake(
            lambda w, u, n: w / w.abs().max(),
            "Une matrice de coefficients tous inférieurs à 1 peut étirer beaucoup : ce qu'on borne est "
            "l'étirement d'un vecteur."),
        "ligne par ligne": Mistake(
            lambda w, u, n: w / w.flatten(1).norm(dim=1).view(-1, *[1] * (w.dim() - 1)),
            "Vous normalisez chaque ligne (c'est la normalisation des poids). La matrice peut encore étirer un vecteur "
            "jusqu'à la racine du nombre de lignes."),
    },
)


# --- 7. Perte charnière -------------------------------------------------------------------------------------


def hinge_losses(real, fake):
    """Charnière du discriminateur, terme à terme, et perte linéaire du générateur : (2,)."""
    margins = torch.cat([(1 - real) / len(real), (1 + fake) / len(fake)])
    return torch.stack([torch.where(margins > 0, margins, 0 * margins).sum(), fake.mean().neg()])


def _hinge_with(d=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(), g=lambda fake: -fake.mean()):
    return lambda real, fake: torch.stack([d(real, fake), g(fake)])


HINGE_LOSSES = Spec(
    oracle=hinge_losses,
    cases=lambda: _logits(6),
    gradients=("real", "fake"),
    accepted={
        _HALF_SUM[0]: Mistake(
            lambda real, fake: hinge_losses(real, fake) / torch.tensor([2.0, 1.0], device=real.device),
            _HALF_SUM[1]),
    },
    mistakes={
        "le signe de la perte du générateur est faux": Mistake(
            _hinge_with(g=lambda fake: fake.mean()),
            "Le générateur veut une grande note, et l'on descend une perte : la vôtre le pousse là où le "
            "discriminateur est sûr de lui."),
        "les étiquettes sont échangées": Mistake(
            (_hinge_with(lambda real, fake: F.relu(1 + real).mean() + F.relu(1 - fake).mean()),
             _hinge_with(lambda real, fake: F.relu(1 + real).mean() + F.relu(1 - fake).mean(),
                         lambda fake: fake.mean())),
            "Votre discriminateur est content quand les vrais sont sous −1 et les faux au-dessus de 1."),
        "la marge est oubliée": Mistake(
            _hinge_with(lambda real, fake: F.relu(-real).mean() + F.relu(fake).mean()),
            "Sans marge, le bon signe suffit : une note constamment nulle a une perte nulle, et le générateur ne "
            "reçoit plus rien."),
        "le maximum est du mauvais côté": Mistake(
            (_hinge_with(lambda real, fake: (1 - real).clamp(max=0).mean() + (1 + fake).clamp(max=0).mean()),
             _hinge_with(lambda real, fake: F.relu(real - 1).mean() + F.relu(-1 - fake).mean()),
             _hinge_with(lambda real, fake: -(1 - real).clamp(max=0).mean() - (1 + fake).clamp(max=0).mean())),
            "Vous ne gardez que les exemples déjà bien classés. La charnière les ignore, et corrige les autres."),
        "il n'y a pas de maximum": Mistake(
            (_hinge_with(lambda real, fake: (1 - real).mean() + (1 + fake).mean()),
             _hinge_with(lambda real, fake: fake.mean() - real.mean())),
            "C'est la perte d'un critique de Wasserstein, sans contrainte ici : les notes partiraient à l'infini. La "
            "charnière cesse de pousser au-delà de la marge."),
        "le maximum porte sur la moyenne": Mistake(
            (_hinge_with(lambda real, fake: F.relu(1 - real.mean()) + F.relu(1 + fake.mean())),
             _hinge_with(lambda real, fake: F.relu((1 - real).mean() + (1 + fake).mean()))),
            "Un exemple très bien classé en rachèterait un mal classé. La marge se vérifie exemple par exemple, avant "
            "la moyenne."),
        "la charnière est mise aussi au générateur": Mistake(
            (_hinge_with(g=lambda fake: F.relu(1 - fake).mean()), _hinge_with(g=lambda fake: F.relu(-fake).mean())),
            "Le générateur n'a pas de marge : tant que le discriminateur change, il doit toujours pousser sa note."),
        "le signe de la marge est faux": Mistake(
            (_hinge_with(lambda real, fake: F.relu(-1 - real).mean() + F.relu(fake - 1).mean()),
             _hinge_with(lambda real, fake: F.relu(1 - real).mean() + F.relu(1 - fake).mean()),
             _hinge_with(lambda real, fake: F.relu(1 - real).mean() + F.relu(fake - 1).mean())),
            "Un vrai est à l'abri au-dessus de +1, un faux au-dessous de −1 : les deux marges sont de part et "
            "d'autre de zéro, et non confondues."),
        "le signe de la perte du discriminateur est faux": Mistake(
            _hinge_with(lambda real, fake: -F.relu(1 - real).mean() - F.relu(1 + fake).mean()),
            "Une charnière est positive, et nulle quand tout est bien classé : c'est elle qu'on descend."),
        "c'est l'entropie croisée": Mistake(
            _hinge_with(d_loss, lambda fake: F.softplus(-fake).mean()),
            "Vous avez écrit (4.7) et (4.9). La charnière est leur version anguleuse : nulle, et non petite, au-delà "
            "de la marge."),
        "la charnière est élevée au carré": Mistake(
            _hinge_with(lambda real, fake: F.relu(1 - real).square().mean() + F.relu(1 + fake).square().mean()),
            "Sa pente doit être constante en deçà de la marge."),
        "somme au lieu de moyenne": Mistake(
            _hinge_with(lambda real, fake: F.relu(1 - real).sum() + F.relu(1 + fake).sum(), lambda fake: -fake.sum()),
            "Votre perte grandit avec le lot, et le pas avec elle."),
        "les deux pertes sont échangées": Mistake(
            lambda real, fake: hinge_losses(real, fake).flip(0),
            "La première est celle du discriminateur, la seconde celle du générateur."),
    },
)


# --- 8. Un pas du critique de WGAN --------------------------------------------------------------------------


def _critic_loss(weight, real, fake):
    return (fake @ weight).mean() - (real @ weight).mean()


def clipped_step(weight, real, fake, lr, c):
    """Poids du critique linéaire après un pas de gradient, par différentiation automatique, et écrêtage : (D,)."""
    slope = _slopes(lambda w: _critic_loss(w, real, fake), weight)[0]
    moved = weight - lr * slope
    bound = torch.full_like(moved, c)
    return torch.minimum(torch.maximum(moved, -bound), bound)


def _step_with(loss=_critic_loss, before=lambda w, c: w, slope=lambda g, c: g, after=lambda w, c: w.clamp(-c, c),
               sign=1.0):
    """Pas du critique dont la perte, le sens ou l'écrêtage est faux."""
    def wrong(weight, real, fake, lr, c):
        start = before(weight, c)
        gradient = _slopes(lambda w: loss(w, real, fake), start)[0]
        return after(start - sign * lr * slope(gradient, c), c)
    return wrong


def _clip_cases():
    """Des poids partis dans les bornes et d'autres au-dehors ; des pas qui en sortent et d'autres non."""
    rng, cases = generator(7), []
    for n, m, dim, lr, c in ((5, 3, 12, 0.3, 0.4), (1, 2, 8, 0.02, 0.1), (4, 4, 16, 0.2, 0.3)):
        weight = uniform(rng, dim, low=-1.2 * c, high=1.2 * c)
        cases.append((weight, normal(rng, n, dim) + 0.5, normal(rng, m, dim), lr, c))
    return cases


CLIPPED_STEP = Spec(
    oracle=clipped_step,
    cases=_clip_cases,
    mistakes={
        "le critique est écrêté avant le pas": Mistake(
            _step_with(before=lambda w, c: w.clamp(-c, c), after=lambda w, c: w),
            "Le pas fait ressortir les poids de leurs bornes, et c'est ce critique-là, trop raide, qui servirait au "
            "générateur. L'écrêtage vient après la mise à jour."),
        "le signe de la perte du critique est faux": Mistake(
            _step_with(sign=-1.0),
            "Votre critique rapproche les deux notes, ou donne la plus grande aux faux : ce n'est plus une distance "
            "qu'il estime, et le générateur fuirait les données. Il veut une grande note sur les vrais."),
        "l'écrêtage est oublié": Mistake(
            _step_with(after=lambda w, c: w),
            "Rien ne borne plus la pente du critique : en multipliant ses poids par dix, il multiplie par dix son "
            "écart, sans rien apprendre. Sans contrainte, le dual (4.21) est infini."),
        "l'écrêtage se fait par la norme": Mistake(
            (_step_with(after=lambda w, c: w * min(1.0, c / float(w.norm()))),
             _step_with(after=lambda w, c: c * w / w.norm())),
            "Vous réduisez tous les poids ensemble. WGAN borne chaque poids séparément, sans toucher à ceux qui sont "
            "déjà entre −c et c."),
        "c'est le gradient qui est écrêté": Mistake(
            (_step_with(slope=lambda g, c: g.clamp(-c, c), after=lambda w, c: w),
             _step_with(slope=lambda g, c: g * min(1.0, c / float(g.norm())), after=lambda w, c: w)),
            "Borner le pas ne borne pas les poids : ils finissent par sortir, un peu plus tard. C'est le critique qui "
            "doit être lipschitzien, pas l'optimiseur."),
        "une seule des deux bornes": Mistake(
            (_step_with(after=lambda w, c: w.clamp(max=c)), _step_with(after=lambda w, c: w.clamp(min=-c)),
             _step_with(after=lambda w, c: w.clamp(0, c))),
            "Un poids très négatif rend le critique aussi raide qu'un poids très grand : l'intervalle est symétrique, "
            "de −c à c."),
        "le pas est appliqué deux fois, ou le taux oublié": Mistake(
            (lambda w, real, fake, lr, c: clipped_step(w, real, fake, 2 * lr, c),
             lambda w, real, fake, lr, c: clipped_step(w, real, fake, 1.0, c)),
            "Un seul pas, de longueur `lr` fois le gradient."),
        "c'est l'entropie croisée": Mistake(
            _step_with(lambda w, real, fake: d_loss(real @ w, fake @ w)),
            "Un critique n'a ni sigmoïde ni logarithme : sa perte (4.22) est la différence de deux moyennes de "
            "notes."),
        "un seul des deux lots compte": Mistake(
            (_step_with(lambda w, real, fake: -(real @ w).mean()), _step_with(lambda w, real, fake: (fake @ w).mean())),
            "Le critique mesure un écart entre deux lots : il lui faut les deux."),
        "somme au lieu de moyenne": Mistake(
            _step_with(lambda w, real, fake: (fake @ w).sum() - (real @ w).sum()),
            "Les deux lots n'ont pas la même taille : des sommes ne se comparent pas, et le pas grandirait avec le "
            "lot."),
        "c'est la valeur absolue de l'écart": Mistake(
            (_step_with(lambda w, real, fake: _critic_loss(w, real, fake).abs()),
             _step_with(lambda w, real, fake: -_critic_loss(w, real, fake).abs())),
            "Le critique doit donner la plus grande note aux vrais, dans ce sens-là ; une valeur absolue lui en laisse "
            "le choix, et le générateur ne sait plus vers où aller."),
    },
)


# --- 9. Où mesurer la pente du critique ---------------------------------------------------------------------


def penalty_points(real, fake):
    """Un point au hasard sur le segment qui joint chaque vrai à son faux, image par image : (N, C, H, W)."""
    levels = torch.rand(len(real), dtype=real.dtype, device=real.device).tolist()
    return torch.stack([torch.lerp(b, a, t) for a, b, t in zip(real, fake, levels, strict=True)])


def _badly_shaped(shape, image_first):
    """α qui n'a pas les dimensions d'une image : le produit échoue, ou tombe sur les colonnes."""
    def wrong(real, fake):
        alpha = torch.rand(*shape(len(real)), dtype=real.dtype, device=real.device)
        return real * alpha + fake * (1 - alpha) if image_first else alpha * real + (1 - alpha) * fake
    return wrong


def _blank(*shape):
    return torch.zeros(*shape, dtype=torch.float64, device="cpu")


def _points_are_on_their_segments(f):
    """Retrouve α par moindres carrés, image par image, puis regarde sa loi."""
    rng, n = generator(8), 1000
    real, fake = uniform(rng, n, 2, 2, 3, low=0.2), uniform(rng, n, 2, 2, 3, low=-1.0, high=-0.2)
    torch.manual_seed(0)
    x = f(real, fake)
    if x.shape != real.shape:
        return "Le résultat doit avoir la forme de `real`, pour un lot de n'importe quelle taille."
    x = x.detach().to(real)
    ends = torch.stack([real.flatten(1), fake.flatten(1)], dim=2)                         # (N, D, 2)
    both = torch.linalg.lstsq(ends, x.flatten(1)[..., None]).solution                     # (N, 2, 1)
    if same(ends @ both, x.flatten(1)[..., None]):
        return _weights_are_uniform(both[:, 0, 0], both[:, 1, 0])
    alpha = (x - fake) / (real - fake)                                                    # (N, C, H, W)
    if alpha.min() < -1e-6 or alpha.max() > 1 + 1e-6:
        return ("Vos points ne sont pas sur les segments qui joignent un vrai à un faux : la pente serait bornée là où "
                "le critique ne sert pas. Chaque point est une moyenne des deux images, de poids α et 1 − α.")
    if same(alpha, alpha[:, :, :1, :1].expand_as(alpha)):
        return ("α est tiré par canal. Tous les pixels d'une image, tous canaux compris, partagent le même α : sans "
                "cela le point n'est pas sur le segment.")
    return ("α est tiré par pixel. Chaque pixel mélange alors le vrai et le faux à sa façon : le point n'est pas sur "
            "le segment, mais quelque part dans la boîte qui l'entoure, et en grande dimension toujours près de son "
            "milieu. La pénalité borne la pente là où le transport ne passe pas. Un seul α par image.")


def _weights_are_uniform(of_real, of_fake):
    """Dit ce qui cloche dans les poids du vrai et du faux, un de chaque par image ; None si tout va."""
    if not same(of_real + of_fake, torch.ones_like(of_real)):
        return ("Les poids du vrai et du faux ne font pas 1 : vos points ne sont pas sur le segment qui les joint. "
                "Le même tirage sert aux deux.")
    for weight, kept in ((of_real, "vrais"), (of_fake, "faux")):
        if same(weight, torch.ones_like(weight)):
            return (f"Pénalité aux mauvais points : vous ne gardez que les {kept}. Le critique resterait libre d'être "
                    "raide entre les deux nuages, là même où passe le générateur. Il faut des points intermédiaires.")
    if same(of_real, of_real[:1].expand_as(of_real)):
        return ("Un seul α pour tout le lot : tous vos points sont à la même fraction du chemin, et la pente n'est "
                "jamais mesurée ailleurs dans le lot. Chaque image a son α.")
    if of_real.min() < -1e-6 or of_real.max() > 1 + 1e-6:
        return ("α sort de [0, 1] : une partie de vos points sont au-delà du vrai ou du faux, hors du segment. Quelle "
                "loi ne rend que des nombres entre 0 et 1 ?")
    if ((of_real < 1e-6) | (of_real > 1 - 1e-6)).all():
        return ("Pénalité aux mauvais points : chacun des vôtres est un vrai ou un faux, jamais un point entre les "
                "deux. C'est pourtant là que le critique peut être raide sans que rien ne le montre.")
    steps = (torch.arange(len(of_real), device=of_real.device) + 0.5) / len(of_real)
    if (of_real.sort().values - steps).abs().max() > 0.08:
        return ("α n'est pas uniforme : certaines parties du segment sont plus visitées que d'autres. L'énoncé demande "
                "la loi uniforme sur [0, 1].")
    return None


PENALTY_POINTS = Spec(
    oracle=penalty_points,
    # Le tirage est celui de l'étudiant : les valeurs ne se comparent que sur des images nulles.
    cases=lambda: [(_blank(*shape), _blank(*shape)) for shape in ((4, 1, 3, 5), (3, 2, 4, 5), (1, 1, 2, 2))],
    properties=(_points_are_on_their_segments,),
    mistakes={
        "α n'a pas les dimensions d'une image": Mistake(
            tuple(_badly_shaped(shape, image_first) for shape in (lambda n: (n,), lambda n: (n, 1))
                  for image_first in (False, True)),
            "PyTorch aligne les formes par la droite : un α de forme (N,) rencontre les colonnes de l'image, pas le "
            "lot. S'il y avait autant de colonnes que d'images, il n'y aurait même pas d'erreur : α serait tiré par "
            "pixel. Il faut des dimensions de taille 1 derrière N."),
        "les deux lots sont mis bout à bout": Mistake(
            (lambda real, fake: torch.cat([real, fake]), lambda real, fake: torch.cat([fake, real])),
            "Vous rendez 2N images, les vraies et les fausses. On veut N points entre les deux."),
    },
)


# --- 10. Pénalité de gradient -------------------------------------------------------------------------------


def _image_slopes(weight, v, x):
    """Gradient du critique par rapport à chaque image, écrit à la main : (N, D)."""
    return ((1 - torch.tanh(x.flatten(1) @ weight).square()) * v) @ weight.T


def gradient_penalty(weight, v, x):
    """Moyenne de (‖∇f‖ − 1)², développée en moments : scalaire."""
    squares = _image_slopes(weight, v, x).square().sum(1)
    return squares.mean() - 2 * squares.sqrt().mean() + 1


def _penalty_with(formula):
    """Pénalité fausse, du gradient (N, D) juste."""
    return lambda weight, v, x: formula(_image_slopes(weight, v, x))


def _channel_norms(weight, v, x):
    return (_image_slopes(weight, v, x).view_as(x).norm(dim=1) - 1).square().mean()


def _note(weight, v, x):
    return torch.tanh(x.flatten(1) @ weight) @ v


def _leafless(weight, v, x):
    """x n'est pas suivi par la différentiation automatique : exception."""
    return torch.autograd.grad(_note(weight, v, x).sum(), x)[0]


def _not_scalar(weight, v, x):
    """Gradient d'un vecteur de notes : exception, sauf pour un lot d'une image."""
    x = x.detach().clone().requires_grad_()
    return (torch.autograd.grad(_note(weight, v, x), x)[0].flatten(1).norm(dim=1) - 1).square().mean()


def _of_the_weights(weight, v, x):
    slopes = _slopes(lambda w, b: _note(w, b, x).sum(), weight, v)
    return (torch.cat([slope.flatten() for slope in slopes]).norm() - 1).square()


def _of_one_weight(which):
    return lambda weight, v, x: (
        _slopes(lambda w, b: _note(w, b, x).sum(), weight, v)[which].norm() - 1).square()


def _penalty_cases():
    """Des pentes au-dessous et au-dessus de 1."""
    rng, cases = generator(9), []
    for shape, hidden, scale in (((5, 1, 2, 3), 4, 0.9), ((1, 2, 2, 2), 3, 0.5), ((4, 3, 2, 2), 5, 0.35)):
        size = math.prod(shape[1:])
        cases.append((normal(rng, size, hidden, scale=scale), normal(rng, hidden), normal(rng, *shape, scale=0.7)))
    return cases


def _penalty_trains_the_critic(f):
    """La pénalité doit se dériver par rapport aux poids, et donner le bon gradient."""
    weight, v, x = _penalty_cases()[0]
    leaves = [weight.requires_grad_(), v.requires_grad_()]
    wanted = torch.autograd.grad(gradient_penalty(weight, v, x), leaves)
    result = f(weight, v, x)
    if result.requires_grad:
        found = torch.autograd.grad(result, leaves, allow_unused=True, materialize_grads=True)
        if all(same(a, b) for a, b in zip(wanted, found, strict=True)):
            return None
        if any(slope.any() for slope in found):
            return ("La valeur est juste, mais son gradient par rapport aux poids du critique est faux : une partie du "
                    "calcul est détachée.")
    return ("`create_graph` est oublié : la valeur est juste, mais rien ne remonte jusqu'aux poids du critique. La "
            "pénalité s'affiche, s'ajoute à la perte et ne contraint rien : le critique reste aussi raide qu'il veut. "
            "Le gradient par rapport à x doit garder le graphe qui l'a calculé, pour qu'on le dérive à son tour.")


GRADIENT_PENALTY = Spec(
    oracle=gradient_penalty,
    cases=_penalty_cases,
    properties=(_penalty_trains_the_critic,),
    mistakes={
        "la norme est prise sur le lot": Mistake(
            (_penalty_with(lambda g: (g.norm() - 1).square()),
             _penalty_with(lambda g: (g.mean(0).norm() - 1).square())),
            "Vous n'avez qu'une norme, celle de tous les gradients réunis (ou de leur moyenne). Elle vaut 1 quand "
            "chacun est de l'ordre de 1/√N : plus le lot est grand, plus le critique est aplati, et une image à "
            "pente énorme se cache parmi les autres. Une norme par image."),
        "la norme est prise par canal ou par pixel": Mistake(
            (_channel_norms, _penalty_with(lambda g: (g.abs() - 1).square().mean()),
             _penalty_with(lambda g: (g - 1).square().mean())),
            "Vous demandez que chaque pixel, ou chaque position, ait une pente de 1 : la pente de l'image serait alors "
            "de l'ordre de √D. La norme porte sur toutes les dimensions de l'image."),
        "la norme est prise sur la mauvaise dimension": Mistake(
            _penalty_with(lambda g: (g.norm(dim=0) - 1).square().mean()),
            "La dimension 0 est celle des images ; la norme se prend sur les pixels."),
        "norme au carré moins un": Mistake(
            _penalty_with(lambda g: (g.square().sum(1) - 1).square().mean()),
            "Il manque la racine. Le minimum est au même endroit, mais la pénalité d'une pente de 10 vaudrait 9 801 au "
            "lieu de 81 : un seul point raide emporterait tout le lot."),
        "le carré est oublié": Mistake(
            (_penalty_with(lambda g: (g.norm(dim=1) - 1).mean()),
             _penalty_with(lambda g: (g.norm(dim=1) - 1).abs().mean())),
            "Sans carré, une pente nulle serait récompensée ; avec une valeur absolue, on tire aussi fort sur une "
            "pente de 1,01 que sur une pente de 10."),
        "le 1 est oublié": Mistake(
            _penalty_with(lambda g: g.square().sum(1).mean()),
            "Vous tirez la pente vers 0, comme la pénalité R1 (4.15). Celle de WGAN-GP veut une pente "
            "de 1, la plus grande que le dual permette."),
        "un facteur ½ de trop": Mistake(
            lambda *a: gradient_penalty(*a) / 2,
            "Le ½ est celui de la pénalité R1 ; (4.23) n'en a pas. Le poids de la pénalité serait deux fois trop "
            "petit."),
        "le poids de la pénalité est compté": Mistake(
            lambda *a: 10 * gradient_penalty(*a),
            "L'énoncé demande la pénalité seule : c'est à l'appelant de la multiplier par 10."),
        "la pénalité n'est que d'un côté": Mistake(
            _penalty_with(lambda g: F.relu(g.norm(dim=1) - 1).square().mean()),
            "Vous ne punissez que les pentes supérieures à 1. Cette variante existe, et le théorème n'en demande pas "
            "plus ; mais (4.23) ramène aussi vers 1 les pentes trop faibles."),
        "la moyenne est prise avant le carré": Mistake(
            _penalty_with(lambda g: (g.norm(dim=1).mean() - 1).square()),
            "Une pente de 0 et une pente de 2 font 1 en moyenne, et votre pénalité est nulle. Le carré se prend image "
            "par image, avant la moyenne."),
        "somme au lieu de moyenne": Mistake(
            _penalty_with(lambda g: (g.norm(dim=1) - 1).square().sum()),
            "Le poids de la pénalité grandirait avec la taille du lot."),
        "c'est le gradient de la moyenne des notes": Mistake(
            _penalty_with(lambda g: (g.norm(dim=1) / len(g) - 1).square().mean()),
            "La moyenne divise par N le gradient de chaque image : une pente de 1 en paraît une de 1/N, et la "
            "pénalité pousse le critique à être N fois trop raide. La note de l'image i ne dépend que d'elle : "
            "quelle réduction du lot laisse son gradient intact ?"),
        "c'est la norme L1": Mistake(
            _penalty_with(lambda g: (g.abs().sum(1) - 1).square().mean()),
            "La distance du transport est euclidienne, et la norme du gradient aussi."),
        "c'est le gradient par rapport aux poids": Mistake(
            (_of_the_weights, _of_one_weight(0), _of_one_weight(1)),
            "Lipschitzien veut dire : quand l'image bouge un peu, la note bouge peu. C'est par rapport à x qu'il faut "
            "dériver ; les poids, eux, sont ce que la pénalité corrige."),
        "x n'est pas suivi": Mistake(
            _leafless,
            "PyTorch ne dérive que par rapport à un tenseur qui le demande : il faut le dire à x avant de calculer le "
            "note."),
        "la sortie dérivée n'est pas un scalaire": Mistake(
            _not_scalar,
            "Il y a N notes. Réduisez-les à un nombre sans mêler les gradients des images, ou donnez `grad_outputs`."),
    },
)


# --- 11. Moyenne mobile des poids ---------------------------------------------------------------------------


def ema(history, decay):
    """Moyenne mobile partie des premiers poids, en une seule somme pondérée : (P,)."""
    last = len(history) - 1
    shares = [decay**last] + [(1 - decay) * decay ** (last - t) for t in range(1, last + 1)]
    return torch.tensor(shares, dtype=history.dtype, device=history.device) @ history


def _ema_with(update, start=lambda history: history[0], rest=lambda history: history[1:]):
    """Moyenne mobile dont la récurrence ou le départ est faux."""
    def wrong(history, decay):
        mean = start(history)
        for w in rest(history):
            mean = update(mean, w, decay)
        return mean + 0 * history[0]
    return wrong


def _mix(mean, w, decay):
    return decay * mean + (1 - decay) * w


_from_zero = _ema_with(_mix, lambda history: 0 * history[0], lambda history: history)

EMA = Spec(
    oracle=ema,
    cases=lambda: [(normal(generator(10), steps, size), decay)
                   for steps, size, decay in ((6, 3, 0.9), (3, 5, 0.6), (1, 2, 0.99), (12, 1, 0.99))],
    accepted={
        "vous partez de zéro, et corrigez le biais": Mistake(
            lambda history, decay: _from_zero(history, decay) / (1 - decay ** len(history)),
            "Comme Adam, vous divisez par 1 − β^T : aucun pas ne pèse alors plus que sa part. L'énoncé part des "
            "premiers poids ; après quelques fois 1/(1 − β) pas, on ne voit plus la différence."),
    },
    mistakes={
        "les coefficients sont échangés": Mistake(
            lambda history, decay: ema(history, 1 - decay),
            "Avec β = 0,999, vos poids moyens changent presque entièrement à chaque pas : la moyenne ne lisse plus "
            "rien. C'est l'ancienne moyenne qui doit peser β."),
        "ce sont les derniers poids": Mistake(
            lambda history, decay: history[-1].clone(),
            "Vous n'avez fait aucune moyenne : les images trembleront d'un pas à l'autre, comme le jeu."),
        "la moyenne ne se souvient que d'un pas": Mistake(
            lambda history, decay: decay * history[max(len(history) - 2, 0)] + (1 - decay) * history[-1],
            "Vous mêlez les deux derniers poids. C'est la moyenne précédente, qui contient tout le passé, qu'il faut "
            "reprendre."),
        "c'est la moyenne ordinaire": Mistake(
            lambda history, decay: history.mean(0),
            "Les poids du début, quand le générateur ne savait rien, y comptent autant que les derniers, et pour "
            "toujours. La moyenne mobile les oublie."),
        "la moyenne part de zéro": Mistake(
            _from_zero,
            "Tant que β^T n'est pas petit, vos poids moyens sont tirés vers 0 : les premières images seraient celles "
            "d'un réseau presque éteint. L'énoncé part des premiers poids."),
        "le facteur 1 − β est oublié": Mistake(
            (_ema_with(lambda mean, w, decay: decay * mean + w),
             _ema_with(lambda mean, w, decay: mean + (1 - decay) * w), _ema_with(lambda mean, w, decay: mean + w)),
            "Les deux coefficients de (ancienne moyenne, nouveaux poids) doivent faire 1 : sinon la moyenne de poids "
            "constants n'est pas ces poids."),
        "l'histoire est lue à l'envers": Mistake(
            lambda history, decay: ema(history.flip(0), decay),
            "La première ligne est le début de l'entraînement : votre moyenne donne le plus de poids au passé "
            "lointain."),
        "moyenne sur les poids au lieu des pas": Mistake(
            (lambda history, decay: ema(history.T, decay), lambda history, decay: ema(history, decay).mean()),
            "Une ligne de `history` est un pas, une colonne un poids : on moyenne le long des pas, et chaque poids "
            "garde sa valeur."),
        "un pas est oublié": Mistake(
            (lambda history, decay: ema(history[:-1], decay) if len(history) > 1 else history[0].clone(),
             lambda history, decay: ema(history[1:], decay) if len(history) > 1 else history[0].clone()),
            "Chaque ligne de `history` compte : la première sert de départ, toutes les suivantes mettent la moyenne à "
            "jour."),
    },
)


EXERCISES = {
    "optimal_d": OPTIMAL_D, "d_loss": D_LOSS, "g_losses": G_LOSSES, "alternate": ALTERNATE, "count_modes": COUNT_MODES,
    "spectral_normalize": SPECTRAL_NORMALIZE, "clipped_step": CLIPPED_STEP, "penalty_points": PENALTY_POINTS,
    "gradient_penalty": GRADIENT_PENALTY, "hinge_losses": HINGE_LOSSES, "ema": EMA,
}
