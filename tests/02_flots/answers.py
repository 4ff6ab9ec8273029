"""Réponses aux exercices du chapitre 2 (flots), justes et fausses, écrites comme le ferait un étudiant."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal

# --- Réponses justes, écrites comme le ferait un étudiant ---------------------------------------------------


def coupling_inverse(z, mask, weight_s, weight_t):
    kept = z * mask
    s, t = torch.tanh(kept @ weight_s), kept @ weight_t
    return kept + (1 - mask) * (z - t) * torch.exp(-s)


def coupling_log_det(s, mask):
    return ((1 - mask) * s).sum(dim=1)


def made_mask(degrees_in, degrees_out, is_output):
    if is_output:
        return (degrees_out[:, None] > degrees_in).float()
    return (degrees_out[:, None] >= degrees_in).float()


def alternate_masks(mask, depth):
    return torch.stack([mask if i % 2 == 0 else 1 - mask for i in range(depth)])


def log_slope(x, alpha):
    y = alpha + (1 - 2 * alpha) * x
    return (math.log(1 - 2 * alpha) - torch.log(y) - torch.log1p(-y)).flatten(1)


def logit_log_prob(log_pz, x, alpha):
    return log_pz + log_slope(x, alpha).sum(dim=1)


def bits_per_dim(log_px, dims):
    return 8 - log_px / (dims * math.log(2))


def actnorm(x):
    std, mean = torch.std_mean(x, dim=(0, 2, 3))
    return torch.stack([-torch.log(std), -mean / std])


def conv1x1_log_det(weight, height, width):
    return height * width * torch.linalg.slogdet(weight).logabsdet


def temper(noise, mean, log_scale, temperature):
    return mean + torch.exp(log_scale) * temperature * noise


RIGHT = {f.__name__: f for f in (
    coupling_inverse, coupling_log_det, made_mask, alternate_masks, logit_log_prob, bits_per_dim, actnorm,
    conv1x1_log_det, temper)}


# --- Autres réponses justes ---------------------------------------------------------------------------------


def inverse_like_the_chapter(z, mask, weight_s, weight_t):
    s, t = torch.tanh((z * mask) @ weight_s) * (1 - mask), (z * mask) @ weight_t * (1 - mask)
    return (z - t) / s.exp()


def mask_by_loops(degrees_in, degrees_out, is_output):
    mask = torch.zeros(len(degrees_out), len(degrees_in), device=degrees_in.device)
    for row, i in enumerate(degrees_out):
        for column, k in enumerate(degrees_in):
            if i > k or (not is_output and i == k):
                mask[row, column] = 1
    return mask


def masks_one_by_one(mask, depth):
    rows = [mask]
    for _ in range(depth - 1):
        rows.append(1 - rows[-1])
    return torch.stack(rows)


def logit_by_sigmoid(log_pz, x, alpha):
    z = torch.logit(alpha + (1 - 2 * alpha) * x)
    slope = torch.sigmoid(z) * torch.sigmoid(-z) / (1 - 2 * alpha)
    return log_pz - slope.log().sum(dim=(1, 2, 3))


def actnorm_by_loop(x):
    result = x.new_zeros(2, x.shape[1])
    for c in range(x.shape[1]):
        result[0, c] = -x[:, c].var().log() / 2
        result[1, c] = -x[:, c].mean() * result[0, c].exp()
    return result


def log_det_by_lu(weight, height, width):
    upper = torch.linalg.lu(weight)[2]
    return height * width * upper.diagonal().abs().log().sum()


ALSO_RIGHT = [
    ("coupling_inverse", inverse_like_the_chapter),
    ("coupling_log_det", lambda s, mask: s[:, mask == 0].sum(1)),
    ("coupling_log_det", lambda s, mask: (s.exp() * (1 - mask) + mask).log().sum(1)),
    ("made_mask", mask_by_loops),
    ("made_mask", lambda k, i, last: i[:, None] >= k + int(last)),
    ("made_mask", lambda k, i, last: (k[None] < i[:, None] + (not last)).int()),
    ("alternate_masks", masks_one_by_one),
    ("alternate_masks", lambda mask, depth: (mask[None] + torch.arange(depth, device=mask.device)[:, None]) % 2),
    ("alternate_masks", lambda mask, depth: torch.stack([mask.bool() ^ bool(i % 2) for i in range(depth)])),
    ("logit_log_prob", logit_by_sigmoid),
    ("bits_per_dim", lambda lp, d: (d * math.log(256) - lp) / (d * math.log(2))),
    ("actnorm", actnorm_by_loop),
    ("actnorm", lambda x: torch.stack([-(x.std((0, 2, 3)) + 1e-6).log(),
                                       -x.mean((0, 2, 3)) / (x.std((0, 2, 3)) + 1e-6)])),
    ("conv1x1_log_det", log_det_by_lu),
    ("conv1x1_log_det", lambda w, height, width: height * width * torch.linalg.svdvals(w).log().sum()),
    ("temper", lambda e, m, a, t: Normal(0, 1).icdf(Normal(0, 1).cdf(e)) * t * a.exp() + m),
]

# Justes, avec une remarque : (exercice, fonction, mots de la remarque).
REMARKED = [
    ("actnorm", lambda x: torch.stack([-0.5 * x.var((0, 2, 3), correction=0).log(),
                                       -x.mean((0, 2, 3)) / x.var((0, 2, 3), correction=0).sqrt()]),
     "par n, le nombre de valeurs"),
    ("temper", lambda e, m, a, t: m - a.exp() * t * e, "Vous soustrayez le bruit"),
]


# --- Réponses fausses : (exercice, fonction, mots que l'indice doit contenir) -------------------------------


def nets(seen, weight_s, weight_t):
    return torch.tanh(seen @ weight_s), seen @ weight_t


def inverse_by(undo):
    """Bonne lecture, bon rangement, mais `undo(z, s, t)` pour défaire."""
    def f(z, mask, ws, wt):
        return z * mask + (1 - mask) * undo(z, *nets(z * mask, ws, wt))
    return f


def unmasked_input(z, mask, ws, wt):
    s, t = nets(z, ws, wt)
    return z * mask + (1 - mask) * (z - t) * torch.exp(-s)


def unmasked_input_masked_output(z, mask, ws, wt):
    s, t = torch.tanh(z @ ws) * (1 - mask), z @ wt * (1 - mask)
    return (z - t) * torch.exp(-s)


def flipped_input(z, mask, ws, wt):
    s, t = nets(z * (1 - mask), ws, wt)
    return z * mask + (1 - mask) * (z - t) * torch.exp(-s)


def flipped_output(z, mask, ws, wt):
    s, t = nets(z * mask, ws, wt)
    return z * (1 - mask) + mask * (z - t) * torch.exp(-s)


def flipped_everywhere(z, mask, ws, wt):
    s, t = nets(z * (1 - mask), ws, wt)
    return z * (1 - mask) + mask * (z - t) * torch.exp(-s)


def all_changed(z, mask, ws, wt):
    s, t = nets(z * mask, ws, wt)
    return (z - t) * torch.exp(-s)


def kept_lost(z, mask, ws, wt):
    s, t = nets(z * mask, ws, wt)
    return (1 - mask) * (z - t) * torch.exp(-s)


def kept_twice(z, mask, ws, wt):
    s, t = nets(z * mask, ws, wt)
    return z * mask + (z - t) * torch.exp(-s)


def kept_twice_like_the_chapter(z, mask, ws, wt):
    return z * mask + inverse_like_the_chapter(z, mask, ws, wt)


def without_tanh(z, mask, ws, wt):
    kept = z * mask
    return kept + (1 - mask) * (z - kept @ wt) * torch.exp(-(kept @ ws))


def tanh_everywhere(z, mask, ws, wt):
    kept = z * mask
    return kept + (1 - mask) * (z - torch.tanh(kept @ wt)) * torch.exp(-torch.tanh(kept @ ws))


def linear_layers(z, mask, ws, wt):
    kept = z * mask
    s, t = torch.tanh(F.linear(kept, ws)), F.linear(kept, wt)
    return kept + (1 - mask) * (z - t) * torch.exp(-s)


def one_way_masks(mask, depth):
    masks = mask.repeat(depth, 1)
    masks[1:] = 1 - mask
    return masks


def half_and_half(mask, depth):
    return torch.cat([mask.expand(depth // 2, -1), (1 - mask).expand(depth - depth // 2, -1)])


def parity_masks(mask, depth):
    return torch.tensor([[(i + j + 1) % 2 for j in range(len(mask))] for i in range(depth)], device=mask.device)


def emptied_masks(mask, depth):
    masks = mask.repeat(depth, 1)
    masks[1::2] = 0
    return masks


def filled_masks(mask, depth):
    masks = mask.repeat(depth, 1)
    masks[1::2] = 1
    return masks


def logit_of(y):
    return -(torch.log(y) + torch.log(1 - y)).flatten(1).sum(1)


def per_image(x):
    return torch.stack([-x.std((2, 3)).log(), -x.mean((2, 3)) / x.std((2, 3))])


def averaged_over_images(x):
    mean, std = x.mean((2, 3)).mean(0), x.std((2, 3)).mean(0)
    return torch.stack([-std.log(), -mean / std])


def per_pixel(x):
    return torch.stack([-x.std(0).log(), -x.mean(0) / x.std(0)])


def averaged_over_pixels(x):
    mean, std = x.mean(0).mean((1, 2)), x.std(0).mean((1, 2))
    return torch.stack([-std.log(), -mean / std])


def one_scale(x):
    a = -x.std().log()
    return torch.stack([a, -x.mean() * a.exp()])[:, None].repeat(1, x.shape[1])


def uncentered(x):
    scale = 1 / (x**2).mean((0, 2, 3)).sqrt()
    return torch.stack([scale.log(), -x.mean((0, 2, 3)) * scale])


def wrong_axes(x):
    return torch.stack([-x.std((1, 2, 3)).log(), -x.mean((1, 2, 3)) / x.std((1, 2, 3))])


def stats(x):
    return x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3))


def actnorm_by(scale_and_shift):
    """Bonnes statistiques par canal, mais `scale_and_shift(mean, std)` pour en faire a et b."""
    return lambda x: torch.stack(scale_and_shift(*stats(x)))


def cumulative_log_det(weight, height, width):
    log_det = 0.0
    for _ in range(height):
        for _ in range(width):
            log_det = log_det + torch.log(torch.abs(torch.det(weight)))
    return log_det


WRONG = [
    ("coupling_inverse", inverse_by(lambda z, s, t: (z - t) * torch.exp(s)), "l'inverse multiplie aussi par exp(s)"),
    ("coupling_inverse", inverse_by(lambda z, s, t: z * s.exp() + t), "transformation directe"),
    ("coupling_inverse", inverse_by(lambda z, s, t: z / s.exp() - t), "le décalage t est soustrait après la division"),
    ("coupling_inverse", inverse_by(lambda z, s, t: (z + t) / s.exp()), "décalage t est ajouté"),
    ("coupling_inverse", inverse_by(lambda z, s, t: (z - t) / s), "division par s"),
    ("coupling_inverse", unmasked_input, "masque est oublié à l'entrée"),
    ("coupling_inverse", unmasked_input_masked_output, "masque est oublié à l'entrée"),
    ("coupling_inverse", flipped_input, "masque est inversé à l'entrée"),
    ("coupling_inverse", flipped_output, "pas complémenté en sortie"),
    ("coupling_inverse", flipped_everywhere, "masque est inversé partout"),
    ("coupling_inverse", all_changed, "toutes les coordonnées sont transformées"),
    ("coupling_inverse", kept_lost, "coordonnées gardées sont perdues"),
    ("coupling_inverse", kept_twice, "comptées deux fois"),
    ("coupling_inverse", kept_twice_like_the_chapter, "comptées deux fois"),
    ("coupling_inverse", without_tanh, "tangente hyperbolique est oubliée"),
    ("coupling_inverse", tanh_everywhere, "appliquée aussi à t"),
    ("coupling_inverse", linear_layers, "matrices sont transposées"),
    ("coupling_inverse", lambda z, m, ws, wt: coupling_inverse(z, m, wt, ws), "matrices sont échangées"),
    ("coupling_inverse", lambda z, m, ws, wt: coupling_inverse(z, m, ws, wt)[:, m == 0], "forme attendue"),

    ("coupling_log_det", lambda s, m: -((1 - m) * s).sum(1), "signe est opposé"),
    ("coupling_log_det", lambda s, m: ((1 - m) * s).mean(1), "moyenne sur les dimensions"),
    ("coupling_log_det", lambda s, m: s[:, m == 0].mean(1), "moyenne sur les dimensions"),
    ("coupling_log_det", lambda s, m: s.sum(1), "masque est oublié"),
    ("coupling_log_det", lambda s, m: (m * s).sum(1), "masque est inversé"),
    ("coupling_log_det", lambda s, m: s[:, m == 0].exp().prod(1), "pas son logarithme"),
    ("coupling_log_det", lambda s, m: s[:, m == 0].exp().sum(1), "exponentielles sont additionnées"),
    ("coupling_log_det", lambda s, m: ((1 - m) * s).exp().sum(1), "exponentielles sont additionnées"),
    ("coupling_log_det", lambda s, m: s[:, m == 0].logsumexp(1), "logarithme d'une somme"),
    ("coupling_log_det", lambda s, m: ((1 - m) * s).abs().sum(1), "valeur absolue"),
    ("coupling_log_det", lambda s, m: s[:, m == 0].exp().prod(1).log2(), "le log2 est pris pour ln"),
    ("coupling_log_det", lambda s, m: ((1 - m) * s).sum(), "moyenne ou somme sur le lot"),
    ("coupling_log_det", lambda s, m: ((1 - m) * s).sum(1).mean(), "moyenne ou somme sur le lot"),
    ("coupling_log_det", lambda s, m: ((1 - m) * s).sum(0), "mauvaise dimension"),
    ("coupling_log_det", lambda s, m: coupling_log_det(s.detach(), m), "gradient coupé"),

    ("made_mask", lambda k, i, last: (i[:, None] >= k).float(), "la variable x_i se voit elle-même"),
    ("made_mask", lambda k, i, last: (i[:, None] > k).float(), "stricte aussi dans les couches cachées"),
    ("made_mask", lambda k, i, last: i[:, None] >= k if last else i[:, None] > k, "inégalités sont échangées"),
    ("made_mask", lambda k, i, last: made_mask(k, i, not last), "inégalités sont échangées"),
    ("made_mask", lambda k, i, last: i[:, None] < k if last else i[:, None] <= k, "inégalité est renversée"),
    ("made_mask", lambda k, i, last: (i[:, None] <= k).float(), "inégalité est renversée"),
    ("made_mask", lambda k, i, last: 1 - made_mask(k, i, last), "1 et 0 sont échangés"),
    ("made_mask", lambda k, i, last: made_mask(k, i, last).T, "masque est transposé"),
    ("made_mask", lambda k, i, last: k[:, None] > i if last else k[:, None] >= i, "masque est transposé"),
    ("made_mask", lambda k, i, last: (i > k).float() if last else (i >= k).float(), "manque une dimension"),
    ("made_mask", lambda k, i, last: torch.ones(len(i), len(k), device="cpu").tril(-int(last)),
     "numéros des unités"),
    ("made_mask", lambda k, i, last: made_mask(k, i, last).tolist(), "de type list"),
    ("made_mask", lambda k, i, last: made_mask(k, i, last) * (k > 1), "is_output = False"),

    ("alternate_masks", lambda m, depth: m.repeat(depth, 1), "masque non alterné"),
    ("alternate_masks", one_way_masks, "ne change qu'une fois"),
    ("alternate_masks", half_and_half, "ne change qu'une fois"),
    ("alternate_masks", lambda m, depth: alternate_masks(1 - m, depth), "commence par le complément"),
    ("alternate_masks", lambda m, depth: torch.stack([torch.roll(m, i) for i in range(depth)]), "décalé au lieu"),
    ("alternate_masks", parity_masks, "masque donné est ignoré"),
    ("alternate_masks", lambda m, depth: torch.stack([(-1) ** i * m for i in range(depth)]), "−m au lieu de 1 − m"),
    ("alternate_masks", emptied_masks, "n'a plus de masque"),
    ("alternate_masks", filled_masks, "n'a plus de masque"),
    ("alternate_masks", lambda m, depth: torch.stack(list(alternate_masks(m, depth)), dim=1), "transposé"),
    ("alternate_masks", lambda m, depth: alternate_masks(m, depth + 1), "une couche de trop"),
    ("alternate_masks", lambda m, depth: alternate_masks(m, depth)[:-1], "une couche de trop ou de moins"),
    ("alternate_masks", lambda m, depth: [m if i % 2 == 0 else 1 - m for i in range(depth)], "de type list"),

    ("logit_log_prob", lambda lp, x, alpha: lp, "terme du logit est oublié"),
    ("logit_log_prob", lambda lp, x, alpha: lp - log_slope(x, alpha).sum(1), "signe du log-déterminant"),
    ("logit_log_prob", lambda lp, x, alpha: lp + (math.log(1 - 2 * alpha) * x[0].numel())
     - logit_of(alpha + (1 - 2 * alpha) * x), "signe du log-déterminant"),
    ("logit_log_prob", lambda lp, x, alpha: lp + logit_of(alpha + (1 - 2 * alpha) * x),
     "facteur 1 − 2α est oublié"),
    ("logit_log_prob", lambda lp, x, alpha: lp + logit_of(alpha + (1 - 2 * alpha) * x) + math.log(1 - 2 * alpha),
     "n'est compté qu'une fois"),
    ("logit_log_prob", lambda lp, x, alpha: lp + logit_of(alpha + (1 - alpha) * x)
     + x[0].numel() * math.log(1 - alpha), "1 − α au lieu de 1 − 2α"),
    ("logit_log_prob", lambda lp, x, alpha: lp + logit_of(x), "la marge α est oubliée"),
    ("logit_log_prob", lambda lp, x, alpha: lp - (F.logsigmoid(x) + F.logsigmoid(-x)).sum((1, 2, 3)),
     "pris pour des logits"),
    ("logit_log_prob", lambda lp, x, alpha: lp + log_slope(x, alpha).exp().sum(1), "pas son logarithme"),
    ("logit_log_prob", lambda lp, x, alpha: lp + log_slope(x, alpha).mean(1), "moyenne sur les dimensions"),
    ("logit_log_prob", lambda lp, x, alpha: lp + log_slope(x, alpha).exp().log2().sum(1), "le log2 est pris pour ln"),
    ("logit_log_prob", lambda lp, x, alpha: lp + log_slope(x, alpha).sum(), "pris sur tout le lot"),
    ("logit_log_prob", lambda lp, x, alpha: logit_log_prob(lp, x, alpha).mean(), "moyenne ou somme sur le lot"),
    ("logit_log_prob", lambda lp, x, alpha: logit_log_prob(lp.detach(), x, alpha), "gradient coupé"),

    ("bits_per_dim", lambda lp, d: -lp / (d * math.log(2)), "déquantification est oubliée"),
    ("bits_per_dim", lambda lp, d: -lp / d, "déquantification est oubliée"),
    ("bits_per_dim", lambda lp, d: 8 - lp / d, "le log2 est pris pour ln"),
    ("bits_per_dim", lambda lp, d: math.log(256) - lp / d / math.log(2), "le log2 est pris pour ln"),
    ("bits_per_dim", lambda lp, d: math.log(256) - lp / d, "nats au lieu de bits"),
    ("bits_per_dim", lambda lp, d: 8 - lp * math.log(2) / d, "multiplication par ln 2"),
    ("bits_per_dim", lambda lp, d: 8 + lp / (d * math.log(2)), "signe de la log-densité"),
    ("bits_per_dim", lambda lp, d: -8 - lp / (d * math.log(2)), "signe de la déquantification"),
    ("bits_per_dim", lambda lp, d: lp / (d * math.log(2)) - 8, "signe est opposé"),
    ("bits_per_dim", lambda lp, d: 8 - lp / math.log(2), "D est oublié"),
    ("bits_per_dim", lambda lp, d: (d * math.log(256) - lp) / math.log(2), "bits par image"),
    ("bits_per_dim", lambda lp, d: (math.log(256) - lp) / (d * math.log(2)), "comptée qu'une fois"),
    ("bits_per_dim", lambda lp, d: math.log2(255) - lp / (d * math.log(2)), "255 niveaux"),
    ("bits_per_dim", lambda lp, d: 256 - lp / (d * math.log(2)), "256 au lieu de son logarithme"),
    ("bits_per_dim", lambda lp, d: bits_per_dim(lp, d).mean(), "moyenne ou somme sur le lot"),
    ("bits_per_dim", lambda lp, d: bits_per_dim(lp.data, d), "gradient coupé"),

    ("actnorm", actnorm_by(lambda mean, std: (-std.log(), -mean)), "décalage n'est pas mis à l'échelle"),
    ("actnorm", actnorm_by(lambda mean, std: (-std.log(), -mean * std)), "multiplié par σ"),
    ("actnorm", actnorm_by(lambda mean, std: (-std.log(), mean / std)), "signe du décalage"),
    ("actnorm", actnorm_by(lambda mean, std: (std.log(), -mean / std)), "signe de la log-échelle"),
    ("actnorm", actnorm_by(lambda mean, std: (std.log(), -mean * std)), "signe de la log-échelle"),
    ("actnorm", actnorm_by(lambda mean, std: (-(std**2).log(), -mean / std**2)), "prise pour l'écart-type"),
    ("actnorm", actnorm_by(lambda mean, std: (-(std**2).log(), -mean / std)), "prise pour l'écart-type"),
    ("actnorm", actnorm_by(lambda mean, std: (1 / std, -mean / std)), "n'est pas en logarithme"),
    ("actnorm", actnorm_by(lambda mean, std: (std, mean)), "n'est pas en logarithme"),
    ("actnorm", actnorm_by(lambda mean, std: (-std.log2(), -mean / std)), "le log2 est pris pour ln"),
    ("actnorm", uncentered, "moyenne n'est pas retirée"),
    ("actnorm", per_pixel, "statistiques par pixel"),
    ("actnorm", averaged_over_pixels, "statistiques par pixel"),
    ("actnorm", per_image, "statistiques par image"),
    ("actnorm", averaged_over_images, "statistiques par image"),
    ("actnorm", one_scale, "canaux mêlés"),
    ("actnorm", wrong_axes, "mauvaises dimensions"),
    ("actnorm", actnorm_by(lambda mean, std: (-mean / std, -std.log())), "sont échangés"),
    ("actnorm", lambda x: tuple(actnorm(x)), "de type tuple"),
    ("actnorm", lambda x: actnorm(x.sub_(0.5)), "modifie son argument `x`"),

    ("conv1x1_log_det", lambda w, height, width: w.det().abs().log(), "facteur H·W est oublié"),
    ("conv1x1_log_det", lambda w, height, width: torch.slogdet(w)[1], "facteur H·W est oublié"),
    ("conv1x1_log_det", lambda w, height, width: (height + width) * torch.slogdet(w)[1], "H + W au lieu de H·W"),
    ("conv1x1_log_det", lambda w, height, width: width * torch.slogdet(w)[1], "une seule dimension"),
    ("conv1x1_log_det", lambda w, height, width: len(w) * height * width * torch.slogdet(w)[1], "facteur C"),
    ("conv1x1_log_det", lambda w, height, width: height * width * torch.det(w).log(), "valeur absolue est oubliée"),
    ("conv1x1_log_det", lambda w, height, width: height * width * torch.logdet(w), "valeur absolue est oubliée"),
    ("conv1x1_log_det", lambda w, height, width: height * width * torch.logdet(w).abs(), "porte sur le logarithme"),
    ("conv1x1_log_det", lambda w, height, width: height * width * w.det().abs().log2(), "le log2 est pris pour ln"),
    ("conv1x1_log_det", lambda w, height, width: height * width * torch.diag(w).abs().log().sum(), "diagonale de W"),
    ("conv1x1_log_det", lambda w, height, width: -height * width * torch.slogdet(w)[1], "signe est opposé"),
    ("conv1x1_log_det", lambda w, height, width: height * width * w.det().abs(), "logarithme est oublié"),
    ("conv1x1_log_det", lambda w, height, width: w.det().abs() ** (height * width), "logarithme est oublié"),
    ("conv1x1_log_det", lambda w, height, width: height * width * torch.slogdet(w)[1] / w.shape[0],
     "moyenne sur les dimensions"),
    ("conv1x1_log_det", lambda w, height, width: height * width * torch.slogdet(w)[0], "signe du déterminant"),
    ("conv1x1_log_det", lambda w, height, width: height * width * w.det().abs().log(), "débordement"),
    ("conv1x1_log_det", cumulative_log_det, "débordement"),
    ("conv1x1_log_det", lambda w, height, width: conv1x1_log_det(w.detach(), height, width), "gradient coupé"),
    ("conv1x1_log_det", lambda w, height, width: conv1x1_log_det(w, height, width).item(), "de type float"),

    ("temper", lambda e, m, a, t: m + a.exp() * t**2 * e, "T² au lieu de T"),
    ("temper", lambda e, m, a, t: m + a.exp() * t**0.5 * e, "√T au lieu de T"),
    ("temper", lambda e, m, a, t: m + a.exp() * e / t, "T divise"),
    ("temper", lambda e, m, a, t: t * (m + a.exp() * e), "appliquée à x entier"),
    ("temper", lambda e, m, a, t: t * m + a.exp() * e, "T multiplie la moyenne"),
    ("temper", lambda e, m, a, t: m + a.exp() * e, "T est oubliée"),
    ("temper", lambda e, m, a, t: m + (t * a).exp() * e, "appliquée à la log-échelle"),
    ("temper", lambda e, m, a, t: m + a * t * e, "log-échelle est prise pour l'échelle"),
    ("temper", lambda e, m, a, t: (t * e - m) * torch.exp(-a), "sens du flot"),
    ("temper", lambda e, m, a, t: m + t * e / a.exp(), "sens du flot"),
    ("temper", lambda e, m, a, t: a.exp() * (t * e + m), "moyenne est mise à l'échelle"),
    ("temper", lambda e, m, a, t: a.exp() * t * e, "moyenne est oubliée"),
    ("temper", lambda e, m, a, t: m.expand_as(e), "bruit est oublié"),
    ("temper", lambda e, m, a, t: m + t * a.exp() * torch.randn_like(e), "son propre tirage"),
]

# Erreurs communes à plusieurs exercices, écrites à la main pour l'un d'eux seulement : aucune ici.
SHARED = ()

# Ce qu'aucun indice ne doit montrer.
SECRETS = ("slogdet",)
