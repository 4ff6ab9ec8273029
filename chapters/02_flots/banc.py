"""Les chiffres du chapitre 2, mesurés avec un seul fil de CPU, face à la bibliothèque zuko.

    python -m chapters.02_flots.banc                    tout (une vingtaine de minutes)
    python -m chapters.02_flots.banc --lunes            une mesure

Même optimiseur, même précision et mêmes données pour ceux que l'on compare ; voir `utils.lab`.
"""

import functools
import statistics
import time

import torch
import zuko
from torch import nn

from utils import checkpoints, config, data, lab, metrics
from utils.chapters import load_chapter

flots, evaluation = load_chapter("02_flots"), load_chapter("08_evaluation")


class Peer(nn.Module):
    """Un flot de zuko, interrogé comme ceux du chapitre ; `before` : couche du chapitre appliquée d'abord."""

    def __init__(self, flow, before=None):
        super().__init__()
        self.flow, self.before = flow, before

    def log_prob(self, x):
        if self.before is None:
            return self.flow().log_prob(x)
        z, log_det = self.before(x)
        return self.flow().log_prob(z) + log_det

    @torch.no_grad()
    def sample(self, n):
        z = self.flow().sample((n,))
        return z if self.before is None else self.before.inverse(z)


# --- Deux lunes -------------------------------------------------------------------------------------

LR_MOONS, SIZE_MOONS = 2e-3, 256
MOONS = {
    "real_nvp": lambda: flots.real_nvp(),
    "spline_flow": lambda: flots.spline_flow(),
    "maf": lambda: flots.maf(),
    # Même profondeur que le nôtre ; NSF est autorégressif, avec ses réglages par défaut.
    "zuko_realnvp": lambda: Peer(zuko.flows.RealNVP(2, transforms=8)),
    "zuko_nsf": lambda: Peer(zuko.flows.NSF(2)),
}


@torch.no_grad()
def excess(flow, toy, x) -> dict:
    """Écart à l'entropie exacte, en nats, sur les points `x` ; et le même, chaque point comparé à sa vraie densité."""
    log_px = torch.cat([flow.log_prob(batch) for batch in x.split(2000)]).double()
    gap = toy.log_prob(x.double()) - log_px
    return {"ecart_entropie_nats": round(-log_px.mean().item() - toy.entropy(100_000)[0], 4),
            "ecart_apparie_nats": round(gap.mean().item(), 4),
            "erreur_type_appariee": round((gap.std() / len(x)**0.5).item(), 4), "points_test": len(x)}


def measure_moons(name: str) -> dict:
    """Un flot sur les deux lunes, une minute."""
    config.seed_everything()
    toy = data.toy("two_moons")
    x_train, x_test = (toy.sample(n, torch.Generator("cpu").manual_seed(seed), device="cpu")
                       for n, seed in ((200_000, 1), (20_000, 2)))
    flow = MOONS[name]()
    facts = lab.trained(flow, flots.flow_step, data.Batches(x_train, size=SIZE_MOONS), 60, lr=LR_MOONS, clip=10.0)
    return facts | excess(flow, toy, x_test)


# --- Images -----------------------------------------------------------------------------------------


def pixel_step(model):
    """Un pas sur des pixels déquantifiés : l'opposé de la log-densité moyenne, en nats par dimension."""
    return lambda x, *_: -model.log_prob(flots.dequantize(x)).mean() / x[0].numel()


@torch.no_grad()
def bits_on_test(model, flat: bool = False) -> dict:
    """Bits par dimension (2.15) sur le test complet de MNIST, déquantifié avec une graine fixe."""
    x = data.load_full("mnist", "test", device="cpu")[0][:200 if lab.TRIAL else None]
    x = flots.dequantize(x.flatten(1) if flat else x, torch.Generator("cpu").manual_seed(0))
    log_px = torch.cat([model.log_prob(batch) for batch in x.split(500)]).double()
    return {f"bits_par_dim_test_{len(x)}": round(flots.bits_per_dim(log_px, 784).mean().item(), 3)}


def measure_glow() -> dict:
    """Le Glow du chapitre, cinq minutes."""
    config.seed_everything()
    model = flots.Glow()
    batches = data.Batches(data.load_full("mnist", device="cpu")[0], size=64)
    facts = lab.trained(model, pixel_step, batches, 300, lr=1e-3, clip=0.1, bfloat16=True)
    return facts | bits_on_test(model)


@torch.no_grad()
def frechet(draw, n: int = 2000) -> dict:
    """Distance de Fréchet de `n` échantillons au test embarqué, et part des échantillons aux pixels tous finis."""
    torch.manual_seed(0)
    images = draw(n).view(n, 1, 28, 28)
    finite = images.flatten(1).isfinite().all(dim=1)
    images = images.nan_to_num(0.0).clamp(0, 1)
    net = checkpoints.load_model("features_mnist", torch.device("cpu"))
    real = data.load("mnist", "test", device="cpu")[0]
    distance = evaluation.frechet_distance(metrics.features(net, real), metrics.features(net, images))
    return {f"frechet_{n}": round(distance, 2), "part_finie": round(finite.double().mean().item(), 4)}


def measure_codes() -> dict:
    """Autoencodeur et RealNVP sur ses codes, puis un RealNVP de zuko sur les pixels : trois minutes chacun."""
    config.seed_everything()
    x = data.load_full("mnist", device="cpu")[0][:2000 if lab.TRIAL else None]
    ours = flots.LatentFlow()
    autoencoder = lab.trained(ours.autoencoder, lambda model: flots.vae.vae_step(model, beta=0.1),
                                 data.Batches(x, size=128), 120, lr=2e-3, bfloat16=True)
    began = time.process_time()
    codes = torch.cat([ours.codes(batch) for batch in x.split(500)])
    codes_s = round(time.process_time() - began, 1)
    flow = lab.trained(ours.flow, flots.flow_step, data.Batches(codes, size=256), 180 - 120 - codes_s,
                          lr=1e-3, clip=10.0)
    mine = frechet(ours.sample)

    config.seed_everything()
    peer = Peer(zuko.flows.RealNVP(784, transforms=8, hidden_features=(512, 512)), flots.Logit())
    pixels = lab.trained(peer, pixel_step, data.Batches(x.flatten(1), size=128), 180, lr=1e-3, clip=0.1,
                            bfloat16=True)
    theirs = frechet(peer.sample)
    parts = {"autoencodeur": autoencoder, "flot": flow | mine,
             "zuko_pixels": pixels | theirs | bits_on_test(peer, flat=True)}
    facts = {f"{part}_{key}": value for part, values in parts.items() for key, value in values.items()}
    return facts | {"codes_cpu_s": codes_s, "cpu_s": round(autoencoder["cpu_s"] + codes_s + flow["cpu_s"], 1),
                    "rapport_frechet": round(theirs["frechet_2000"] / mine["frechet_2000"], 2)}


def measure_sampling(n: int = 64, repeats: int = 11) -> dict:
    """Secondes, à l'horloge, pour tirer `n` images du Glow livré sur deux fils : médiane de `repeats` essais."""
    torch.set_num_threads(2)
    model = checkpoints.load_model("glow_mnist", torch.device("cpu"))
    seconds = []
    for turn in range(repeats + 1):
        began = time.perf_counter()
        model.sample(n)
        if turn:  # le premier tirage chauffe les caches
            seconds.append(time.perf_counter() - began)
    torch.set_num_threads(1)
    return {"fils": 2, "images": n, "parametres": lab.parameters(model), "essais": repeats,
            "secondes_mediane": round(statistics.median(seconds), 3), "secondes_max": round(max(seconds), 3)}


if __name__ == "__main__":
    lab.bench("02_flots", {
        "lunes": ("deux lunes, une minute de CPU par flot, face à zuko",
                  {f"lunes_{name}": functools.partial(measure_moons, name) for name in MOONS}),
        "glow": ("Glow, cinq minutes de CPU", {"glow": measure_glow}),
        "codes": ("flot sur les codes, trois minutes, face à zuko", {"codes": measure_codes}),
        "debit": ("secondes pour 64 images du Glow livré", {"debit_glow": measure_sampling}),
    }, zuko)
