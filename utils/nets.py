"""Réseaux communs à plusieurs chapitres ; ni perte, ni échantillonneur."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn


def mlp(*sizes: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Perceptron : (…, sizes[0]) → (…, sizes[-1]), une activation entre deux couches linéaires."""
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


def time_embedding(t: torch.Tensor, dim: int) -> torch.Tensor:
    """Temps t (N,) dans [0, 1] → (N, dim) : cosinus puis sinus de 1 000 t à dim / 2 fréquences, de 1 à 1 / 10 000.

    Vaswani et al. (2017), §3.5, avec le temps à la place de la position ; Ho et al. (2020) le comptent de 0 à 1 000.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = 1000 * t[:, None] * frequencies                                  # (N, dim / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class _TimedResidual(nn.Module):
    """Bloc résiduel (N, n_in, H, W) → (N, n_out, H, W) que le temps règle par une échelle et un décalage."""

    def __init__(self, n_in: int, n_out: int, time_dim: int):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, padding=1))
        self.time = nn.Linear(time_dim, 2 * n_out)
        self.norm = nn.GroupNorm(8, n_out)
        self.last = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        for weight in self.last.parameters():
            nn.init.zeros_(weight)  # au départ, le bloc est l'identité

    def forward(self, x, emb):
        scale, shift = self.time(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.norm(self.first(x)) * (1 + scale) + shift
        return self.skip(x) + self.last(F.silu(h))


class _Attention(nn.Module):
    """Attention entre les positions d'une carte (N, C, H, W), à une tête, ajoutée à l'entrée."""

    def __init__(self, n: int):
        super().__init__()
        self.norm, self.qkv, self.out = nn.GroupNorm(8, n), nn.Conv2d(n, 3 * n, 1), nn.Conv2d(n, n, 1)
        for weight in self.out.parameters():
            nn.init.zeros_(weight)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)      # (N, 1, HW, C)
        h = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.out(h.unflatten(2, x.shape[2:]))


class UNet(nn.Module):
    """U-Net à deux niveaux : x (N, n_in, 28, 28), t (N,) dans [0, 1], y (N,) classes → (N, n_out, 28, 28).

    Les pixels sont d'abord rangés par carrés de 2 × 2 (14 × 14, quatre fois plus de canaux) : trois fois plus
    rapide qu'à pleine résolution. `classes` : nombre d'étiquettes, plus une, de numéro `classes`, qui dit « aucune » ;
    0 pour un réseau sans étiquette. Ronneberger et al. (2015) ; temps et attention : Ho et al. (2020).
    """

    def __init__(self, n_in: int = 1, n_out: int = 1, widths: tuple[int, int] = (32, 64), classes: int = 0,
                 time_dim: int = 128):
        super().__init__()
        a, b = widths
        self.time_dim = time_dim
        self.time = nn.Sequential(nn.Linear(time_dim, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim), nn.SiLU())
        self.label = nn.Embedding(classes + 1, time_dim) if classes else None
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * n_in, a, 3, padding=1))      # (N, a, 14, 14)
        self.down = nn.ModuleList([_TimedResidual(a, a, time_dim), _TimedResidual(b, b, time_dim)])
        self.shrink = nn.Conv2d(a, b, 3, stride=2, padding=1)                                       # (N, b, 7, 7)
        self.middle = nn.ModuleList([_TimedResidual(b, b, time_dim), _TimedResidual(b, b, time_dim)])
        self.attention = _Attention(b)
        self.up = nn.ModuleList([_TimedResidual(2 * b, b, time_dim), _TimedResidual(2 * a, a, time_dim)])
        self.grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1))
        self.leave = nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, 4 * n_out, 3, padding=1),
                                   nn.PixelShuffle(2))
        for weight in self.leave[2].parameters():
            nn.init.zeros_(weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        emb = self.time(time_embedding(t, self.time_dim))
        if self.label is not None:
            none = torch.full_like(t, self.label.num_embeddings - 1, dtype=torch.int64)
            emb = emb + self.label(none if y is None else y)
        high = self.down[0](self.enter(x), emb)                                                     # (N, a, 14, 14)
        low = self.down[1](self.shrink(high), emb)                                                  # (N, b, 7, 7)
        h = self.middle[1](self.attention(self.middle[0](low, emb)), emb)
        h = self.up[0](torch.cat([h, low], dim=1), emb)
        h = self.up[1](torch.cat([self.grow(h), high], dim=1), emb)
        return self.leave(h)
