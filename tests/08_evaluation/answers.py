"""Réponses aux exercices du chapitre 8 (évaluation), justes et fausses, écrites comme par un étudiant."""

import math

import torch
import torch.nn.functional as F

# --- Réponses justes, écrites comme le ferait un étudiant ---------------------------------------------------


def bits_per_dim(log_prob, dim, low, high):
    return math.log2(256 / (high - low)) - log_prob / (dim * math.log(2))


def features(net, images, low, high):
    with torch.no_grad():
        return torch.cat([net(((batch - low) / (high - low)).clamp(0, 1)) for batch in images.split(100)])


def inception_score(logits):
    log_p = logits.log_softmax(1)
    log_marginal = log_p.logsumexp(0) - math.log(len(logits))
    return (log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp()


def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def trace_root(a, b):
    half = root(a)
    return torch.linalg.eigvalsh(half @ b @ half).clamp(min=0).sqrt().sum()


def frechet(real, fake):
    real, fake = real.double(), fake.double()
    a, b = real.T.cov(), fake.T.cov()
    return (real.mean(0) - fake.mean(0)).square().sum() + a.trace() + b.trace() - 2 * trace_root(a, b)


def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid(real, fake):
    n, m = len(real), len(fake)
    a, b = kernel(real, real), kernel(fake, fake)
    within = (a.sum() - a.trace()) / (n * (n - 1)) + (b.sum() - b.trace()) / (m * (m - 1))
    return within - 2 * kernel(real, fake).mean()


def covered(points, reference, k):
    radius = torch.cdist(reference, reference).kthvalue(k + 1, dim=1).values
    return (torch.cdist(points, reference) <= radius).any(1).double().mean()


def precision_recall(real, fake, k):
    return torch.stack([covered(fake, real, k), covered(real, fake, k)])


def copy_ratio(fake, train, held_out):
    return torch.cdist(fake, train).amin(1) / torch.cdist(fake, held_out).amin(1)


def wilson(hits, z):
    p, n = hits.mean(), len(hits)
    center = p + z**2 / (2 * n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()
    return torch.stack([center - half, center + half]) / (1 + z**2 / n)


RIGHT = {f.__name__: f for f in (
    bits_per_dim, features, inception_score, frechet, kid, precision_recall, copy_ratio, wilson)}


# --- Autres réponses justes ---------------------------------------------------------------------------------


def features_by_loop(net, images, low, high):
    images = torch.clamp((images - low) / (high - low), 0, 1)
    found = []
    for i in range(0, len(images), 64):
        found.append(net(images[i:i + 64]).detach())
    return torch.cat(found)


def score_by_entropies(logits):
    p = torch.softmax(logits, dim=1)
    mean = p.mean(dim=0)
    return torch.exp(torch.special.entr(mean).sum() - torch.special.entr(p).sum(dim=1).mean())


def score_with_tiny(logits):
    p = F.softmax(logits, dim=-1)
    return torch.exp((p * ((p + 1e-16).log() - (p.mean(0, keepdim=True) + 1e-16).log())).sum(-1).mean())


def frechet_as_torchmetrics(real, fake):
    real, fake = real.double(), fake.double()
    a, b = torch.cov(real.T), torch.cov(fake.T)
    values = torch.linalg.eigvals(a @ b)
    return ((real.mean(0) - fake.mean(0)) ** 2).sum() + torch.trace(a) + torch.trace(b) - 2 * values.sqrt().real.sum()


def frechet_by_hand(real, fake):
    real, fake = real.to(torch.float64), fake.to(torch.float64)
    a, b = ((x - x.mean(0)).T @ (x - x.mean(0)) / (len(x) - 1) for x in (real, fake))
    cross = torch.linalg.svdvals(root(a) @ root(b)).sum()
    return (real.mean(0) - fake.mean(0)).pow(2).sum() + (a + b).trace() - 2 * cross


def kid_by_mask(real, fake):
    def within(x):
        return kernel(x, x)[~torch.eye(len(x), dtype=torch.bool, device=x.device)].mean()
    return within(real) + within(fake) - 2 * kernel(real, fake).mean()


def kid_by_triangle(real, fake):
    def within(x):
        i, j = torch.triu_indices(len(x), len(x), 1, device=x.device)
        return kernel(x, x)[i, j].mean()
    return within(real) + within(fake) - 2 * kernel(real, fake).mean()


def manifold_by_topk(real, fake, k):
    def share(points, reference):
        gaps = torch.cdist(reference, reference)
        gaps.fill_diagonal_(float("inf"))
        radius = gaps.topk(k, dim=1, largest=False).values[:, -1]
        return (torch.cdist(points, reference) <= radius[None]).any(dim=1).to(real.dtype).mean()
    return torch.stack((share(fake, real), share(real, fake)))


def wilson_by_roots(hits, z):
    n, p = len(hits), hits.mean()
    a, b, c = 1 + z**2 / n, -(2 * p + z**2 / n), p**2
    gap = (b**2 - 4 * a * c).clamp(min=0).sqrt()
    return torch.stack([(-b - gap) / (2 * a), (-b + gap) / (2 * a)])


ALSO_RIGHT = [
    ("bits_per_dim", lambda lp, d, low, high: -(lp + d * math.log((high - low) / 256)) / (d * math.log(2))),
    ("bits_per_dim", lambda lp, d, low, high: 8 - math.log2(high - low) - lp / d / math.log(2)),
    ("features", features_by_loop),
    ("features", lambda net, x, low, high: torch.no_grad()(features)(net, x, low, high)),
    ("inception_score", score_by_entropies),
    ("inception_score", score_with_tiny),
    ("frechet", frechet_as_torchmetrics),
    ("frechet", frechet_by_hand),
    ("kid", kid_by_mask),
    ("kid", kid_by_triangle),
    ("precision_recall", manifold_by_topk),
    ("precision_recall", lambda real, fake, k: torch.stack([
        (torch.cdist(p, r) <= torch.cdist(r, r).sort(1)[0][:, k]).any(1).double().mean()
        for p, r in ((fake, real), (real, fake))])),
    ("copy_ratio", lambda fake, train, held: (fake[:, None] - train).norm(dim=-1).min(dim=1).values
     / (fake[:, None] - held).norm(dim=-1).min(dim=1).values),
    ("copy_ratio", lambda fake, train, held: (torch.cdist(train, fake).min(0)[0].log()
                                              - torch.cdist(held, fake).min(0)[0].log()).exp()),
    ("wilson", wilson_by_roots),
]

# Justes, avec une remarque : (exercice, fonction, mots de la remarque).
REMARKED = []


# --- Réponses fausses : (exercice, fonction, mots que l'indice doit contenir) -------------------------------


def shown(prepare):
    """Bon extracteur, à l'intervalle des images près."""
    def f(net, images, low, high):
        images = prepare(images, low, high)
        with torch.no_grad():
            return torch.cat([net(batch) for batch in images.split(100)])
    return f


def no_last_batch(net, images, low, high):
    images = ((images - low) / (high - low)).clamp(0, 1)
    size = min(100, len(images))
    return torch.cat([net(images[i:i + size]) for i in range(0, len(images) - size + 1, size)])


def with_graph(net, images, low, high):
    return torch.cat([net(((batch - low) / (high - low)).clamp(0, 1)) for batch in images.split(100)])


def score_with(formula, dim=1):
    """Bon score, à la formule près : elle reçoit p(y | x) et p(y)."""
    def f(logits):
        p = F.softmax(logits, dim=dim)
        return formula(p, p.mean(0))
    return f


def divergence(p, q):
    return (p * (torch.log(p) - torch.log(q))).sum(1)


def entropy(p):
    return -(p * p.log()).sum(-1)


def score_of_mean_logits(logits):
    p, q = logits.softmax(1), logits.mean(0).softmax(0)
    return divergence(p, q).mean().exp()


def frechet_with(cov=lambda x: x.T.cov(), shift=lambda m: m.square().sum(), cross=trace_root, sign=-2,
                 cast=torch.Tensor.double):
    """Bonne distance, à un terme près."""
    def f(real, fake):
        real, fake = cast(real), cast(fake)
        a, b = cov(real), cov(fake)
        return shift(real.mean(0) - fake.mean(0)) + a.trace() + b.trace() + sign * cross(a, b)
    return f


def in_place(x):
    return x


def naive_root(a, b):
    half = root(a)
    return torch.linalg.eigvalsh(half @ b @ half).sqrt().sum()


def product_root(a, b):
    """Racine de la matrice C_a C_b par ses vecteurs propres ; la partie imaginaire est ôtée."""
    values, vectors = torch.linalg.eig(a @ b)
    return (vectors * values.sqrt() @ torch.linalg.inv(vectors)).real.trace()


def offset_root(a, b):
    """Comme le code le plus répandu : une constante sur la diagonale, si la covariance est singulière."""
    if torch.linalg.matrix_rank(a) < len(a):
        a, b = (c + 1e-3 * torch.eye(len(c), dtype=c.dtype, device=c.device) for c in (a, b))
    return trace_root(a, b)


def eigvals_root(a, b):
    return torch.linalg.eigvals(a @ b).sqrt().real.sum()


def kid_with(k=kernel, within=lambda g: (g.sum() - g.trace()) / (len(g) * (len(g) - 1)), cross=-2, reduce=torch.mean):
    """Bon estimateur, à un terme près."""
    return lambda real, fake: within(k(real, real)) + within(k(fake, fake)) + cross * reduce(k(real, fake))


def kid_half_biased(real, fake):
    a = kernel(real, real)
    return (a.sum() - a.trace()) / (len(a) * (len(a) - 1)) + kernel(fake, fake).mean() - 2 * kernel(real, fake).mean()


def power(x, y, scale=lambda x: x.shape[1], one=1, degree=3):
    return (x @ y.T / scale(x) + one) ** degree


def manifold(radius=lambda p, r, k: torch.cdist(r, r).sort(1).values[:, k], reduce=lambda inside: inside.any(1)):
    """Bonne mesure, au rayon ou à la réduction près."""
    def share(points, reference, k):
        return reduce(torch.cdist(points, reference) <= radius(points, reference, k)).double().mean()
    return lambda real, fake, k: torch.stack([share(fake, real, k), share(real, fake, k)])


def nearest_ball(real, fake, k):
    def share(points, reference):
        radius = torch.cdist(reference, reference).sort(1).values[:, k]
        distance, nearest = torch.cdist(points, reference).min(1)
        return (distance <= radius[nearest]).double().mean()
    return torch.stack([share(fake, real), share(real, fake)])


def density(real, fake, k):
    return torch.stack([(torch.cdist(p, r) <= torch.cdist(r, r).sort(1).values[:, k]).double().sum(1).mean() / k
                        for p, r in ((fake, real), (real, fake))])


def counts(real, fake, k):
    return precision_recall(real, fake, k) * real.new_tensor([len(fake), len(real)])


def audited(nearest=lambda d: d.min(1).values, of=lambda a, b: a / b, distance=torch.cdist):
    return lambda fake, train, held_out: of(nearest(distance(fake, train)), nearest(distance(fake, held_out)))


def interval(center, half):
    def f(hits, z):
        p, n = hits.mean(), len(hits)
        return torch.stack([center(p, n, z) - half(p, n, z), center(p, n, z) + half(p, n, z)])
    return f


def wilson_center(p, n, z):
    return (p + z**2 / (2 * n)) / (1 + z**2 / n)


def wilson_half(p, n, z):
    return z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)


def standard_error(p, n, z):
    return z * (p * (1 - p) / n) ** 0.5


def observed(p, n, z):
    return p


WRONG = [
    ("bits_per_dim", lambda lp, d, low, high: -lp / (d * math.log(2)), "largeur d'une case est oubliée"),
    ("bits_per_dim", lambda lp, d, low, high: 8 - lp / (d * math.log(2)), "échelle des images est oubliée"),
    ("bits_per_dim", lambda lp, d, low, high: 8 + math.log2(high - low) - lp / (d * math.log(2)),
     "terme d'échelle est du mauvais signe"),
    ("bits_per_dim", lambda lp, d, low, high: 8 - math.log2(high) - lp / (d * math.log(2)), "l'une de ses bornes"),
    ("bits_per_dim", lambda lp, d, low, high: math.log(256 / (high - low)) - lp / d, "nats au lieu de bits"),
    ("bits_per_dim", lambda lp, d, low, high: math.log2(256 / (high - low)) - lp / d, "sont mêlés"),
    ("bits_per_dim", lambda lp, d, low, high: math.log2(256 / (high - low)) - lp * math.log(2) / d,
     "multiplication par ln 2"),
    ("bits_per_dim", lambda lp, d, low, high: math.log2(256 / (high - low)) + lp / (d * math.log(2)),
     "signe de la log-densité"),
    ("bits_per_dim", lambda lp, d, low, high: lp / (d * math.log(2)) - math.log2(256 / (high - low)),
     "le signe est opposé"),
    ("bits_per_dim", lambda lp, d, low, high: math.log2(256 / (high - low)) - lp / math.log(2), "D est oublié"),
    ("bits_per_dim", lambda lp, d, low, high: d * math.log2(256 / (high - low)) - lp / math.log(2), "bits par image"),
    ("bits_per_dim", lambda lp, d, low, high: (math.log2(256 / (high - low)) - lp / math.log(2)) / d,
     "comptée qu'une fois"),
    ("bits_per_dim", lambda *a: bits_per_dim(*a).mean(), "sur le lot"),
    ("bits_per_dim", lambda lp, *a: bits_per_dim(lp.detach(), *a), "gradient coupé"),
    ("bits_per_dim", lambda *a: bits_per_dim(*a).tolist(), "de type list"),

    ("features", shown(lambda x, low, high: x), "ne sont pas dans le bon intervalle"),
    ("features", lambda net, x, low, high: net(x), "ne sont pas dans le bon intervalle"),
    ("features", shown(lambda x, low, high: x.clamp(0, 1)), "coupées au lieu"),
    ("features", shown(lambda x, low, high: (x - x.min()) / (x.max() - x.min())), "échelle est celle du lot"),
    ("features", shown(lambda x, low, high: (x + 1) / 2), "échelle est écrite en dur"),
    ("features", shown(lambda x, low, high: (x / 255).clamp(0, 1)), "échelle est écrite en dur"),
    ("features", shown(lambda x, low, high: (x / (high - low)).clamp(0, 1)), "centre n'est pas déplacé"),
    ("features", shown(lambda x, low, high: (x - low) / (high - low)), "dépassements ne sont pas coupés"),
    ("features", shown(lambda x, low, high: ((x - low) / (high - low)).clamp(0, 1) * 2 - 1), "ramenées à [−1, 1]"),
    ("features", shown(lambda x, low, high: (x - x.mean()) / x.std()), "centrées et réduites"),
    ("features", shown(lambda x, low, high: 1 - ((x - low) / (high - low)).clamp(0, 1)), "négatif"),
    ("features", no_last_batch, "dernier lot est oublié"),
    ("features", lambda net, x, low, high: net(((x - low) / (high - low)).clamp(0, 1)).detach(), "images d'un coup"),
    ("features", lambda net, x, low, high: torch.no_grad()(lambda: torch.cat(
        [net(((i - low) / (high - low)).clamp(0, 1)[None]) for i in x]))(), "est appelé 230 fois"),
    ("features", with_graph, "graphe de calcul"),

    ("inception_score", score_with(lambda p, q: divergence(p, q).exp().mean()), "moyenne est prise après"),
    ("inception_score", score_with(lambda p, q: divergence(p, q).mean()), "exponentielle est oubliée"),
    ("inception_score", score_with(lambda p, q: torch.exp((p * (p.log2() - q.log2())).sum(1).mean())), "en bits"),
    ("inception_score", score_with(lambda p, q: (q * (q.log() - p.log())).sum(1).mean().exp()), "à l'envers"),
    ("inception_score", score_with(lambda p, q: (entropy(p).mean() - entropy(q)).exp()), "le signe est opposé"),
    ("inception_score", score_of_mean_logits, "logits sont moyennés"),
    ("inception_score", score_with(lambda p, q: divergence(p, q).mean().exp(), 0), "softmax est pris sur les images"),
    ("inception_score", score_with(lambda p, q: entropy(q).exp()), "entropie des réponses est oubliée"),
    ("inception_score", score_with(lambda p, q: (-entropy(p).mean()).exp()), "entropie de la moyenne est oubliée"),
    ("inception_score", score_with(lambda p, q: (math.log(len(q)) - entropy(p).mean()).exp()), "supposée uniforme"),
    ("inception_score", score_with(lambda p, q: divergence(p, q).sum().exp()), "somme au lieu de moyenne"),
    ("inception_score", score_with(lambda p, q: (p * (p / q).log()).mean().exp()), "moyenne au lieu de somme"),
    ("inception_score", score_with(lambda p, q: divergence(p, q).exp()), "n'est pas moyenné"),
    ("inception_score", lambda x: torch.special.entr(torch.bincount(x.argmax(1), minlength=x.shape[1]).to(x)
                                                     / len(x)).sum().exp(), "la plus probable"),
    ("inception_score", score_with(lambda p, q: divergence(p, q).mean().exp()), "plus un nombre"),
    ("inception_score", score_with(lambda p, q: divergence(p.clamp(1e-4), q.clamp(1e-4)).mean().exp()), "trop forte"),
    ("inception_score", lambda x: inception_score(x).item(), "de type float"),

    ("frechet", frechet_with(cov=lambda x: x.T.cov(correction=0)), "covariance est divisée par N"),
    ("frechet", frechet_with(cov=lambda x: (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)), "est divisée par N"),
    ("frechet", frechet_with(sign=2), "signe du terme croisé"),
    ("frechet", frechet_with(sign=-1), "facteur 2 est oublié"),
    ("frechet", frechet_with(sign=0), "terme croisé est oublié"),
    ("frechet", frechet_with(shift=lambda m: 0), "moyennes sont oubliées"),
    ("frechet", frechet_with(shift=lambda m: m.norm()), "n'est pas au carré"),
    ("frechet", frechet_with(shift=lambda m: m.square().mean()), "écart des moyennes est moyenné"),
    ("frechet", frechet_with(shift=lambda m: -m.square().sum()), "signe des moyennes"),
    ("frechet", frechet_with(cross=lambda a, b: torch.linalg.eigvalsh(a @ b).clamp(min=0).sqrt().sum()),
     "n'est pas symétrique"),
    ("frechet", frechet_with(cross=lambda a, b: root(a @ b).trace()), "n'est pas symétrique"),
    ("frechet", frechet_with(cross=lambda a, b: root((a @ b + (a @ b).T) / 2).trace()), "n'est pas symétrique"),
    ("frechet", frechet_with(cross=lambda a, b: torch.sqrt(a @ b).trace()), "élément par élément"),
    ("frechet", frechet_with(cross=lambda a, b: (a.diag() * b.diag()).sqrt().sum()), "corrélations sont oubliées"),
    ("frechet", frechet_with(cross=lambda a, b: (root(a) @ root(b)).trace()), "prises séparément"),
    ("frechet", frechet_with(cross=lambda a, b: (a @ b).trace()), "racine du produit est oubliée"),
    ("frechet", lambda real, fake: frechet(real, fake).sqrt(), "une racine de trop"),
    ("frechet", frechet_with(cov=lambda x: x.T @ x / (len(x) - 1)), "ne sont pas centrés"),
    ("frechet", frechet_with(cov=torch.cov), "lignes et les colonnes"),
    ("frechet", lambda real, fake: (real.mean(0) - fake.mean(0)).square().sum()
     + (real.T.cov() - fake.T.cov()).square().sum(), "écart des covariances"),
    ("frechet", frechet_with(cross=product_root, cast=in_place), "partie imaginaire en silence"),
    ("frechet", frechet_with(cross=eigvals_root, cast=in_place), "partie imaginaire en silence"),
    ("frechet", frechet_with(cast=in_place), "partie imaginaire en silence"),
    ("frechet", frechet_with(cross=naive_root), "votre distance est NaN"),
    ("frechet", frechet_with(cross=offset_root), "même en float64"),
    ("frechet", lambda real, fake: frechet(real, fake).item(), "de type float"),

    ("kid", kid_with(within=torch.mean), "diagonale est gardée"),
    ("kid", kid_half_biased, "n'est ôtée que d'un ensemble"),
    ("kid", kid_with(within=lambda g: (g.sum() - g.trace()) / len(g) ** 2), "compte des couples"),
    ("kid", kid_with(within=lambda g: g.sum() / (len(g) * (len(g) - 1))), "compte des couples"),
    ("kid", kid_with(within=lambda g: g.fill_diagonal_(0).mean()), "compte des couples"),
    ("kid", kid_with(cross=2), "signe du terme croisé"),
    ("kid", kid_with(cross=-1), "facteur 2 est oublié"),
    ("kid", kid_with(cross=0), "terme croisé est oublié"),
    ("kid", kid_with(lambda x, y: power(x, y, scale=lambda x: 1)), "division par D est oubliée"),
    ("kid", kid_with(lambda x, y: power(x, y, scale=len)), "division est mal placée"),
    ("kid", kid_with(lambda x, y: power(x, y, one=0)), "le 1 du noyau"),
    ("kid", kid_with(lambda x, y: power(x, y, degree=2)), "degré n'est pas 3"),
    ("kid", lambda real, fake: kid(real, fake).sqrt(), "racine de la MMD²"),
    ("kid", lambda real, fake: F.relu(kid(real, fake)), "valeur est rendue positive"),
    ("kid", kid_with(within=lambda g: g.sum() - g.trace(), reduce=torch.sum), "somme au lieu de moyenne"),
    ("kid", lambda real, fake: kid_with(within=torch.mean)(real.mean(0)[None], fake.mean(0)[None]),
     "seules les moyennes"),

    ("precision_recall", lambda real, fake, k: precision_recall(fake, real, k), "sont échangés"),
    ("precision_recall", lambda real, fake, k: precision_recall(real, fake, k - 1), "se compte lui-même"),
    ("precision_recall", manifold(lambda p, r, k: torch.cdist(r, r).topk(k, 1, False).values[:, -1]),
     "se compte lui-même"),
    ("precision_recall", lambda real, fake, k: precision_recall(real, fake, k + 1), "un voisin de trop"),
    ("precision_recall", manifold(lambda p, r, k: torch.cdist(p, p).kthvalue(k + 1).values[:, None]),
     "rayon est celui du point jugé"),
    ("precision_recall", manifold(lambda p, r, k: torch.cdist(p, r).kthvalue(k, dim=0).values),
     "compté dans l'autre ensemble"),
    ("precision_recall", manifold(lambda p, r, k: torch.cdist(r, r).kthvalue(k + 1).values.mean()), "un seul rayon"),
    ("precision_recall", nearest_ball, "seule la boule la plus proche"),
    ("precision_recall", manifold(reduce=lambda inside: inside.all(1)), "toutes les boules"),
    ("precision_recall", manifold(reduce=lambda inside: inside.any(0)), "couverture"),
    ("precision_recall", density, "densité"),
    ("precision_recall", lambda real, fake, k: precision_recall(real, fake, 3), "k est ignoré"),
    ("precision_recall", counts, "des nombres, non des parts"),
    ("precision_recall", lambda real, fake, k: precision_recall(real, fake, k)[0].expand(2), "deux fois"),
    ("precision_recall", lambda *a: tuple(precision_recall(*a)), "de type tuple"),

    ("copy_ratio", lambda fake, train, held: copy_ratio(fake, held, train), "à l'envers"),
    ("copy_ratio", lambda *a: copy_ratio(*a) ** 2, "carré des distances"),
    ("copy_ratio", audited(of=lambda a, b: a - b), "différence"),
    ("copy_ratio", audited(nearest=lambda d: d.mean(1)), "au lieu du minimum"),
    ("copy_ratio", audited(nearest=lambda d: d.max(1).values), "le plus lointain"),
    ("copy_ratio", audited(nearest=lambda d: d.kthvalue(2, dim=1).values), "premier voisin est sauté"),
    ("copy_ratio", audited(nearest=lambda d: d.min(0).values), "sur les images engendrées"),
    ("copy_ratio", audited(nearest=torch.min), "minimum est pris sur tout"),
    ("copy_ratio", lambda *a: copy_ratio(*a).mean(), "le résultat est moyenné"),
    ("copy_ratio", audited(of=lambda a, b: a), "gardé à part est ignoré"),
    ("copy_ratio", audited(of=lambda a, b: a / (a + b)), "part au total"),
    ("copy_ratio", audited(distance=lambda x, y: torch.cdist(x, y, p=1)), "distance euclidienne"),
    ("copy_ratio", audited(distance=lambda x, y: (x.mean(1)[:, None] - y.mean(1)).abs()), "avant la norme"),

    ("wilson", interval(observed, standard_error), "intervalle naïf, autour"),
    ("wilson", lambda hits, z: interval(observed, standard_error)(hits, z).clamp(0, 1), "intervalle naïf, autour"),
    ("wilson", interval(observed, wilson_half), "centre n'est pas déplacé"),
    ("wilson", interval(lambda p, n, z: (p + z / (2 * n)) / (1 + z / n), wilson_half), "z n'est pas au carré"),
    ("wilson", lambda hits, z: wilson(hits, z) * (1 + z**2 / len(hits)), "dénominateur est oublié"),
    ("wilson", interval(wilson_center, standard_error), "demi-largeur est celle de l'intervalle naïf"),
    ("wilson", interval(wilson_center, lambda p, n, z: z * (p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)),
     "la racine est oubliée"),
    ("wilson", interval(observed, lambda p, n, z: z * (p * (1 - p)) ** 0.5), "n est oublié"),
    ("wilson", lambda hits, z: wilson(hits, 1.96), "z est ignoré"),
    ("wilson", lambda hits, z: wilson(hits, -z), "ordre inverse"),
    ("wilson", lambda hits, z: torch.stack([wilson_center(hits.mean(), len(hits), z),
                                            wilson_half(hits.mean(), len(hits), z)]), "centre et la demi-largeur"),
    ("wilson", lambda hits, z: wilson(hits, z) * 100, "nombres de réponses"),
    ("wilson", lambda hits, z: wilson(1 - hits, z), "échecs sont comptés"),
    ("wilson", lambda hits, z: tuple(wilson(hits, z).tolist()), "de type tuple"),
]

# Erreurs communes à plusieurs exercices, écrites à la main pour l'un d'eux seulement.
SHARED = ()

# Ce qu'aucun indice ne doit montrer.
SECRETS = ("kthvalue", "log_softmax")
