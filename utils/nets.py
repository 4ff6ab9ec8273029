"""Réseaux communs à plusieurs chapitres ; ni perte, ni échantillonneur."""

import itertools

from torch import nn


def mlp(*sizes: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Perceptron : (…, sizes[0]) → (…, sizes[-1]), une activation entre deux couches linéaires."""
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])
