"""Ce que les bancs d'essai ont en commun : remplir un budget de secondes de CPU, garder et montrer une mesure."""

import copy
import datetime
import json
import pathlib
import platform
import time
import types

import torch

from utils import checkpoints, config, training


def calibrate(model, make_step, batches, steps: int = 60, **options) -> float:
    """Secondes de CPU par pas d'entraînement, mesurées sur une copie du modèle après un tour de chauffe.

    `make_step(model)` rend le pas que demande `fit` ; `options` : celles de `fit` qui changent le coût d'un pas.
    """
    trial = copy.deepcopy(model)
    for n in (10, steps):
        began = time.process_time()
        training.fit(trial, make_step(trial), batches, n, **options)
    return (time.process_time() - began) / steps


def fill(model, make_step, batches, seconds: float, cost: float, **options) -> dict:
    """Entraîne `model` pendant `seconds` secondes de CPU, à `cost` secondes par pas ; rend ce que cela a demandé."""
    # 3 % de marge : le budget est un plafond, et l'étalonnage n'est pas parfait.
    steps = int(0.97 * seconds / cost)
    began = time.process_time()
    training.fit(model, make_step(model), batches, steps, **options)
    return {"budget_cpu_s": seconds, "cpu_s": round(time.process_time() - began, 1), "pas": steps,
            "lot": batches.size, **options}


def known(results: pathlib.Path) -> dict:
    """Les mesures déjà gardées."""
    return json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}


def record(results: pathlib.Path, name: str, values: dict, *packages: types.ModuleType) -> None:
    """Garde une mesure, avec sa date, la machine et les versions."""
    setting = {"date": datetime.date.today().isoformat(), "machine": config.hardware(), "fils": 1,
               "python": platform.python_version(),
               **{package.__name__: package.__version__ for package in (torch, *packages)}}
    content = json.dumps(known(results) | {name: setting | values}, ensure_ascii=False, indent=1, sort_keys=True)
    checkpoints.write_bytes(results, (content + "\n").encode())


def table(values: dict) -> str:
    """Tableau Markdown à deux colonnes, nombres à virgule."""
    rows = [f"| {name.replace('_', ' ')} | " + (str(value).replace(".", ",") if isinstance(value, float)
            else str(value)) + " |" for name, value in values.items()]
    return "\n".join(["| grandeur | valeur |", "|---|---|", *rows])
