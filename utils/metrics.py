"""Caractéristiques d'images par un petit réseau ; les mesures qu'on en tire sont au chapitre 8."""

import torch
import torch.nn.functional as F
from torch import nn


class FeatureNet(nn.Module):
    """Petit classifieur de chiffres : images (N, 1, 28, 28) dans [0, 1] → logits (N, 10).

    `features` en donne l'avant-dernière couche, 64 nombres par image, où le cours compare des images.
    `scale` les ramène à une variance totale de 100 sur les images réelles de test.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        a, b = width, 2 * width
        self.body = nn.Sequential(
            nn.Conv2d(1, a, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(a), nn.ReLU(),   # (N, a, 14, 14)
            nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),             # (N, b, 7, 7)
            nn.Flatten(), nn.Linear(49 * b, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.dropout(self.body(x), 0.3, self.training))


@torch.no_grad()
def features(net: FeatureNet, x: torch.Tensor, size: int = 500) -> torch.Tensor:
    """Caractéristiques (N, 64), en float64 et sur le CPU, des images `x` (N, 1, 28, 28) dans [0, 1].

    Par lots de `size`. Lève ValueError si des valeurs sortent de [0, 1] (images dans [−1, 1], NaN…).
    """
    if not (x.min() >= -1e-4 and x.max() <= 1 + 1e-4):  # ainsi écrit, le test refuse aussi NaN
        raise ValueError(
            f"Les images doivent être dans [0, 1] ; les vôtres vont de {x.min():.2f} à {x.max():.2f}.")
    # float64 n'existe pas sur tous les GPU (mps) : les comparaisons se font sur le CPU.
    return (torch.cat([net.body(batch) for batch in x.split(size)]) * net.scale).cpu().double()
