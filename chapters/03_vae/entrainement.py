"""Entraîne et mesure les modèles livrés du chapitre 3 : python -m chapters.03_vae.entrainement [nom ...]

Sans nom, tous ; voir `utils.lab`.
"""

import torch

from utils import checkpoints, config, data, lab, training
from utils.chapters import load_chapter

CHAPTER = "03_vae"
vae = load_chapter(CHAPTER)


@torch.no_grad()
def bound(model, x, k: int) -> float:
    """Borne (3.13) à `k` tirages, moyenne sur les images binaires `x` (N, 1, 28, 28), en nats."""
    bounds = [vae.importance_bound(torch.cat([vae.importance_log_weights(model, batch, 50) for _ in range(k // 50)]))
              for batch in training.progress(x.split(50), f"borne K = {k}")]
    return torch.cat(bounds).mean().item()


def elbo_scores(model, x, *condition) -> dict:
    """ELBO et KL moyens sur `x`, arrondis au centième de nat."""
    elbo, kl = vae.test_elbo(model, x, *condition)
    return {f"elbo_test_{len(x)}": round(elbo, 2), f"kl_test_{len(x)}": round(kl, 2)}


def importance_step(model, k: int):
    """Pas d'entraînement sur la borne (3.13) à `k` tirages."""
    return lambda x: -vae.importance_bound(vae.importance_log_weights(model, torch.bernoulli(x), k)).mean()


CONV_SETTINGS = {"blocks": 1}
# Tirages K de la borne (1 : l'ELBO), taille des lots, pas, taux d'apprentissage, moyenne des poids.
CONV_PHASES = ((1, 128, 25_000, 3e-3, None), (5, 64, 25_000, 1e-3, 0.999))


def train_conv(name: str) -> None:
    """Le grand modèle : l'ELBO d'abord, une borne plus serrée ensuite."""
    torch.manual_seed(0)
    model = vae.ConvVAE(**CONV_SETTINGS).to(config.device)
    x = data.load_full("mnist")[0]
    seconds = 0.0
    for k, size, n_steps, lr, ema in CONV_PHASES:
        step = vae.vae_step(model) if k == 1 else importance_step(model, k)
        seconds += lab.fit_once(f"{name}_k{k}", model, step, data.Batches(x, size=size), n_steps, lr=lr, ema=ema,
                                   bfloat16=True)
    checkpoints.round_to_half(model)
    x_test = data.load_full("mnist", "test")[0]
    scores = elbo_scores(model, x_test)
    torch.manual_seed(0)
    binary = torch.bernoulli(x_test)
    n, k = (50, 50) if lab.TRIAL else (10_000, 50)
    scores[f"bound_k{k}_test_{n}"] = round(bound(model, binary[:n], k), 2)
    phases = " ; ".join(f"K = {k} : {n} pas de {size} images" for k, size, n, *_ in CONV_PHASES)
    lab.deliver(CHAPTER, name, model, CONV_SETTINGS, f"{phases} ; mnist complet, un fil", seconds, scores)


def train_small(name: str, cls: str, settings: dict, n_steps: int, dataset="mnist", beta=1.0, labels=False) -> None:
    """Un petit VAE, entraîné par l'ELBO sur un jeu complet."""
    torch.manual_seed(0)
    model = getattr(vae, cls)(**settings).to(config.device)
    kept = slice(None) if labels else slice(1)
    seconds = lab.fit(name, model, vae.vae_step(model, beta),
                         data.Batches(*data.load_full(dataset)[kept], size=128), n_steps, lr=2e-3)
    checkpoints.round_to_half(model)
    lab.deliver(CHAPTER, name, model, settings, f"{n_steps} pas de 128 images, {dataset} complet", seconds,
                   elbo_scores(model, *data.load_full(dataset, "test")[kept]))


def train_vq(name: str) -> None:
    """Le VQ-VAE, dictionnaire placé sur les données."""
    torch.manual_seed(0)
    model = vae.VQVAE().to(config.device)
    x = data.load_full("mnist")[0]
    vae.seed_codebook(model, x[:100])
    n_steps = 6000
    seconds = lab.fit(name, model, lambda x: vae.vq_loss(model, torch.bernoulli(x))[0].mean(),
                         data.Batches(x, size=128), n_steps, lr=2e-3)
    checkpoints.round_to_half(model)
    torch.manual_seed(0)
    with torch.no_grad():
        x_test = torch.bernoulli(data.load_full("mnist", "test")[0])
        logits, k = zip(*((model.decode(model.codebook(k)), k)
                          for k in (model.encode(batch)[1] for batch in x_test.split(500))), strict=True)
        reconstruction = vae.log_likelihood(torch.cat(logits), x_test).mean().item()
    lab.deliver(CHAPTER, name, model, {}, f"{n_steps} pas de 128 images, mnist complet", seconds,
                   {"reconstruction_test_10000": round(reconstruction, 2),
                    "perplexity_test_10000": round(vae.perplexity(torch.cat(k), 64), 1)})


RECIPES = {
    "vae_conv_mnist": train_conv,
    "vae_2d_mnist": lambda name: train_small(name, "MLPVAE", {"latent_dim": 2, "hidden": 200}, 20_000),
    "cvae_mnist": lambda name: train_small(name, "ConditionalVAE", {}, 15_000, labels=True),
    "vae_fashion": lambda name: train_small(name, "MLPVAE", {"latent_dim": 20, "hidden": 200}, 15_000,
                                            dataset="fashion_mnist"),
    "vqvae_mnist": train_vq,
} | {
    f"vae_beta_{beta}_mnist": lambda name, beta=beta: train_small(
        name, "MLPVAE", {"latent_dim": 10, "hidden": 64}, 8000, beta=float(beta))
    for beta in ("0.1", "0.5", "1", "2", "5", "20")
}


if __name__ == "__main__":
    lab.train(RECIPES)
