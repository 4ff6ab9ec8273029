"""Réglages communs : petit budget, processeur, graines fixées, et rien d'écrit hors du dossier du cours."""

import os
import random

import cours

# Avant d'importer torch, et pour que les noyaux des carnets en héritent.
os.environ["COURS_BUDGET"] = "test"
os.environ.pop("COURS_FIGE", None)
os.environ.setdefault("COURS_DEVICE", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(cours.ROOT), os.environ.get("PYTHONPATH")]))
cours.confine()

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

# Pas par MPLBACKEND : les noyaux en hériteraient et n'afficheraient plus de figures.
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def same_start():
    """Chaque test part des mêmes graines, seul ou dans la suite."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def double():
    """Les mathématiques se vérifient en float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
