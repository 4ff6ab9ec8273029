"""Appareil, budget et graine : ce que chaque chapitre règle dans sa première cellule."""

import contextlib
import os
import pathlib
import random
import sys

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUDGETS = ("test", "rapide", "complet")


def _pick_device() -> torch.device:
    forced = os.environ.get("COURS_DEVICE")
    if forced:
        try:
            return torch.device(forced)
        except RuntimeError as error:
            raise ValueError(f"COURS_DEVICE vaut « {forced} » ; choisissez cpu, cuda ou mps.") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


device = _pick_device()


def budget_name() -> str:
    """Nom du budget de calcul en cours : « test », « rapide » ou « complet ».

    Il vient de la variable d'environnement COURS_BUDGET ; par défaut « complet » sur un GPU et
    « rapide » ailleurs. Lève ValueError si la variable porte un autre nom.
    """
    name = os.environ.get("COURS_BUDGET") or ("complet" if device.type == "cuda" else "rapide")
    if name not in BUDGETS:
        raise ValueError(f"COURS_BUDGET vaut « {name} » ; choisissez parmi : {', '.join(BUDGETS)}.")
    return name


def budget(*, test, rapide, complet):
    """Celle des trois valeurs qui correspond au budget en cours (voir `budget_name`)."""
    return {"test": test, "rapide": rapide, "complet": complet}[budget_name()]


def seed_everything(seed: int = 0) -> None:
    """Fixe les graines de Python, de NumPy et de PyTorch (tous les appareils)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def budget_steps(*, test: int, rapide: int, complet: int) -> int:
    """Nombre de pas du budget en cours, au plus ce que dit la variable COURS_PAS, si elle est posée.

    Pas d'entraînement, ou répétitions d'un calcul qui prendrait des heures sans GPU (images à engendrer, à juger). Les
    tests jouent ainsi la branche « complet » de chaque carnet.
    """
    wanted, most = budget(test=test, rapide=rapide, complet=complet), os.environ.get("COURS_PAS")
    return min(wanted, int(most)) if most else wanted


@contextlib.contextmanager
def randomness_kept():
    """Ce que l'on tire dans ce contexte ne change rien aux tirages suivants de Python, de NumPy et de PyTorch."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def frozen() -> bool:
    """Vrai quand le constructeur des carnets fige les sorties (COURS_FIGE=1) : ni barre, ni widget."""
    return bool(os.environ.get("COURS_FIGE"))


def fast_bfloat16(where: torch.device) -> bool:
    """Vrai si `where` calcule plus vite en bfloat16 qu'en float32 : GPU récents, CPU à unités matricielles AMX.

    Un GPU qui ne fait qu'émuler bfloat16 (T4) va plus vite en float32. Si PyTorch ne
    dit pas ce que sait faire le CPU, la réponse est non.
    """
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return where.type == "cpu" and bool(capabilities.get("amx_bf16"))


def hardware() -> str:
    """Description courte de la machine, telle qu'elle accompagne chaque mesure du cours."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    cores = os.cpu_count()
    units = " avec AMX" if fast_bfloat16(device) else ""
    return f"{cores} cœur{'s' if cores > 1 else ''}{units}, sans GPU" if device.type == "cpu" else "GPU Apple (mps)"


def setup(seed: int = 0) -> None:
    """Fixe les graines et dit sur quoi le chapitre va tourner."""
    seed_everything(seed)
    python = ".".join(map(str, sys.version_info[:2]))
    print(f"Appareil : {device} ({hardware()}) · budget : {budget_name()}"
          f" · Python {python} · PyTorch {torch.__version__.split('+')[0]}")
