"""Les chiffres du chapitre 3, mesurés sur les 10 000 images de test de MNIST avec un seul fil de CPU.

    python -m chapters.03_vae.banc                  tout (une demi-heure)
    python -m chapters.03_vae.banc --mlp            une mesure, avec les images embarquées, puis avec MNIST complet

Voir `utils.lab`.
"""

import functools
import os
import statistics
import time
from unittest import mock

import torch
import torchvision

from utils import checkpoints, config, data, lab, training
from utils.chapters import load_chapter

IMAGES = {"embarquees": data.load, "completes": data.load_full}
SIZE = 128
vae = load_chapter("03_vae")


def elbo_step(model):
    """Un pas du chapitre : binarisation dynamique, puis l'opposé de l'ELBO moyen."""
    def step(x, *_):
        reconstruction, kl = vae.elbo_terms(model, torch.bernoulli(x))
        return (kl - reconstruction).mean()
    return step


@torch.no_grad()
def evaluate(model, k: int | None = None) -> dict[str, float]:
    """ELBO et, si `k` est donné, borne à k tirages, en nats ; test binarisé une fois (graine 0)."""
    torch.manual_seed(0)
    x = torch.bernoulli(data.load_full("mnist", "test")[0])
    elbo = torch.cat([torch.sub(*vae.elbo_terms(model, batch)) for batch in x.split(500)])
    values = {"elbo": elbo.mean().item()}
    if k:
        bounds = [vae.importance_bound(vae.importance_log_weights(model, batch, k)) for batch in x.split(40)]
        values[f"borne_k{k}"] = torch.cat(bounds).mean().item()
    return values


def trained(model, images: str, seconds: float, k: int | None = None, **options) -> dict:
    """Entraîne `model` pendant `seconds` secondes de CPU et rend ses scores, avec ce que cela a coûté."""
    batches = data.Batches(*IMAGES[images]("mnist"), size=SIZE)
    return {"images_entrainement": batches.n, **lab.trained(model, elbo_step, batches, seconds, **options),
            **{name: round(value, 2) for name, value in evaluate(model, k).items()}}


def measure_mlp(images: str) -> dict:
    """VAE dense 784–400–20, une minute."""
    config.seed_everything()
    return trained(vae.MLPVAE(), images, seconds=60, lr=2e-3)


def measure_conv(images: str) -> dict:
    """VAE convolutif, cinq minutes."""
    config.seed_everything()
    return trained(vae.ConvVAE(), images, seconds=300, k=64, lr=3e-3, bfloat16=True)


@torch.no_grad()
def measure_shipped(n: int = 300) -> dict:
    """Borne à K = 5 000 tirages du VAE convolutif livré sur les 10 000 images de test, estimée sans biais.

    K = 50 se calcule sur toutes les images ; ce que gagne K = 5 000 sur K = 50, qui varie peu d'une image à
    l'autre, se mesure sur `n` images tirées au hasard et s'ajoute (variable de contrôle).
    """
    model = checkpoints.load_model("vae_conv_mnist")
    values = {name: round(value, 2) for name, value in evaluate(model).items()}
    torch.manual_seed(0)
    x = torch.bernoulli(data.load_full("mnist", "test")[0])
    small = torch.cat([vae.importance_bound(vae.importance_log_weights(model, batch, 50)) for batch in x.split(50)])
    gains = []
    for batch in x[torch.randperm(len(x))[:n]].split(50):
        log_w = torch.stack([vae.importance_log_weights(model, batch, 50) for _ in range(100)])        # (100, 50, N)
        large = vae.importance_bound(log_w.flatten(0, 1))
        gains.append(large - torch.stack([vae.importance_bound(group) for group in log_w]).mean(0))
    gain = torch.cat(gains)
    return values | {"borne_k50": round(small.mean().item(), 2), "gain_k5000_sur_k50": round(gain.mean().item(), 2),
                     "images_du_gain": n, "erreur_type_du_gain": round((gain.std() / n**0.5).item(), 3),
                     "borne_k5000": round((small.mean() + gain.mean()).item(), 2)}


def plain_loop(model, batches, steps: int) -> None:
    """La boucle nue, avec l'optimiseur de `fit`, sur des lots que rend n'importe quel itérable."""
    step, optimizer = elbo_step(model), torch.optim.AdamW(model.parameters(), fused=True)
    for _, batch in zip(range(steps), batches, strict=False):
        optimizer.zero_grad(set_to_none=True)
        step(*batch).backward()
        optimizer.step()


def time_in_model(model, batches, steps: int) -> float:
    """Part du temps de CPU de `fit` passée dans le pas du chapitre (binarisation, propagation, perte), la
    rétropropagation et l'optimiseur (mise à jour et remise à zéro des gradients) ; le reste est la plomberie :
    lots, historique, barre, sauvegardes.
    """
    spent = 0.0

    def timed(function):
        def run(*args, **kwargs):
            nonlocal spent
            began = time.process_time()
            result = function(*args, **kwargs)
            spent += time.process_time() - began
            return result
        return run

    class Timed(torch.optim.AdamW):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.step, self.zero_grad = timed(self.step), timed(self.zero_grad)

    with (mock.patch.object(torch.Tensor, "backward", timed(torch.Tensor.backward)),
          mock.patch.object(torch.optim, "AdamW", Timed)):
        began = time.process_time()
        training.fit(model, timed(elbo_step(model)), batches, steps)
        return spent / (time.process_time() - began)


def measure_throughput(make, steps: int = 468, repeats: int = 5) -> dict:
    """Images par seconde de `fit` et d'un `DataLoader` usuel (0 et 2 processus), et part du modèle dans `fit`.

    Tous tournent à tour de rôle, sur le même modèle ; on garde la médiane de `repeats` tours. Le temps de
    CPU compare ce qui n'a qu'un fil, quoi que fasse la machine d'autre ; les deux processus auxiliaires, qui
    travaillent à côté, se jugent à l'horloge.
    """
    config.seed_everything()
    model = make()
    batches = data.Batches(*data.load_full("mnist"), size=SIZE)
    root = os.environ.get("COURS_DATA") or data.FOLDER / "torchvision"
    usual = torchvision.datasets.MNIST(root, transform=torchvision.transforms.ToTensor())
    loaders = [torch.utils.data.DataLoader(usual, SIZE, shuffle=True, num_workers=n) for n in (0, 2)]
    contenders = {
        "fit": lambda: training.fit(model, elbo_step(model), batches, steps),
        "dataloader": lambda: plain_loop(model, loaders[0], steps),
        "dataloader_2_processus": lambda: plain_loop(model, loaders[1], steps),
    }
    wall, cpu = ({name: [] for name in contenders} for _ in range(2))
    shares = []
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            began = time.perf_counter(), time.process_time()
            run()
            if turn:  # le premier tour chauffe les caches
                wall[name].append(time.perf_counter() - began[0])
                cpu[name].append(time.process_time() - began[1])
        shares.append(time_in_model(model, batches, steps))
    wall, cpu = ({name: statistics.median(values) for name, values in clock.items()} for clock in (wall, cpu))
    return {
        **{f"images_par_s_{name}": round(steps * SIZE / wall[name]) for name in contenders},
        **{f"images_par_s_cpu_{name}": round(steps * SIZE / cpu[name]) for name in ("fit", "dataloader")},
        "rapport_cpu_fit_sur_dataloader": round(cpu["dataloader"] / cpu["fit"], 2),
        "rapport_fit_sur_dataloader": round(wall["dataloader"] / wall["fit"], 2),
        "rapport_fit_sur_dataloader_2_processus": round(wall["dataloader_2_processus"] / wall["fit"], 2),
        "part_du_modele_dans_fit": round(statistics.median(shares), 3), "tours": repeats, "pas": steps}


if __name__ == "__main__":
    lab.bench("03_vae", {
        "mlp": ("VAE dense, une minute de CPU",
                {f"mlp_{images}": functools.partial(measure_mlp, images) for images in IMAGES}),
        "conv": ("VAE convolutif, cinq minutes de CPU",
                 {f"conv_{images}": functools.partial(measure_conv, images) for images in IMAGES}),
        "debit": ("images par seconde, face à un DataLoader",
                  {"debit_mlp": functools.partial(measure_throughput, vae.MLPVAE),
                   "debit_conv": functools.partial(measure_throughput, vae.ConvVAE, steps=60)}),
        "livre": ("borne à 5 000 tirages du modèle livré (dix minutes)", {"livre": measure_shipped}),
    }, torchvision)
