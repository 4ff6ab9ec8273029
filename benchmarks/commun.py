"""Ce que les bancs d'essai ont en commun : remplir un budget de secondes de CPU, garder et montrer une mesure.

Le budget est en secondes de CPU d'un seul fil : quelques pas étalonnent le coût d'un pas, `fit` fait ensuite le
nombre de pas qui remplit le budget, et la durée réelle est notée. Ceux que l'on compare passent l'un après l'autre
dans la même course. Chaque banc garde ses mesures dans benchmarks/results ; avec COURS_BUDGET=test, chaque budget
est ramené à deux secondes et rien n'est gardé. La variable COURS_DATA dit où sont les fichiers bruts de MNIST
(voir data/README.md).
"""

import argparse
import copy
import datetime
import json
import pathlib
import platform
import time
import types

import torch

from utils import checkpoints, config, training

TRIAL = config.budget_name() == "test"
COSTLY = ("bfloat16", "clip", "ema")  # les réglages de `fit` qui changent le coût d'un pas


def calibrate(model, make_step, batches, **options) -> float:
    """Secondes de CPU par pas d'entraînement, mesurées sur une copie du modèle après un tour de chauffe."""
    trial = copy.deepcopy(model)
    for steps in (10, 5 if TRIAL else 100):
        began = time.process_time()
        training.fit(trial, make_step(trial), batches, steps, **options)
    return (time.process_time() - began) / steps


def trained(model, make_step, batches, seconds: float, **options) -> dict:
    """Entraîne `model` pendant `seconds` secondes de CPU ; rend ce que cela a demandé.

    `make_step(model)` rend le pas que demande `fit` ; `options` : celles de `fit`.
    """
    cost = calibrate(model, make_step, batches, **{key: options[key] for key in COSTLY if key in options})
    # 3 % de marge : le budget est un plafond, et l'étalonnage n'est pas parfait.
    steps = int(0.97 * (2 if TRIAL else seconds) / cost)
    began = time.process_time()
    training.fit(model, make_step(model), batches, steps, **options)
    return {"parametres": parameters(model), "budget_cpu_s": seconds,
            "cpu_s": round(time.process_time() - began, 1), "pas": steps, "lot": batches.size, **options}


def parameters(model) -> int:
    """Nombre de paramètres d'un réseau."""
    return sum(p.numel() for p in model.parameters())


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


def main(results: pathlib.Path, groups: dict[str, tuple[str, dict]], *packages: types.ModuleType) -> None:
    """Ligne de commande d'un banc : une option par groupe de mesures, toutes sans option.

    `groups` : option → (ce qu'elle mesure, {nom de la mesure: fonction qui la fait}).
    """
    parser = argparse.ArgumentParser()
    for option, (text, _) in groups.items():
        parser.add_argument(f"--{option}", action="store_true", help=text)
    chosen = vars(parser.parse_args())
    torch.set_num_threads(1)
    for option, (_, jobs) in groups.items():
        for name, job in jobs.items() if chosen[option] or not any(chosen.values()) else ():
            values = job()
            if not TRIAL:
                record(results, name, values, *packages)
            print(f"\n{name}\n\n{table(values)}\n", flush=True)
