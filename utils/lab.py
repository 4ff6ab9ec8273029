"""Le laboratoire : entraîner, mesurer et livrer les modèles d'un chapitre, hors des carnets.

Dans le dossier d'un chapitre, `entrainement.py` donne des recettes à `train`, `banc.py` des mesures à `bench` :

    python -m chapters.NN_slug.entrainement [modèle ...]     tous, sans nom ; interrompue, la même commande reprend
    python -m chapters.NN_slug.banc [--groupe ...]           tous les groupes de mesures, sans option

Les jeux complets sont lus par `utils.data.load_full` ; la variable COURS_DATA dit où sont leurs fichiers bruts (voir
data/README.md). Avec COURS_BUDGET=test, ce n'est qu'un essai : quelques pas, deux secondes par mesure, et rien n'est
gardé.

Le budget d'une mesure est en secondes de CPU d'un seul fil : quelques pas étalonnent le coût d'un pas, `fit` fait
ensuite le nombre de pas qui remplit le budget, et la durée réelle est notée. Ceux que l'on compare passent l'un après
l'autre dans la même course.
"""

import argparse
import copy
import datetime
import json
import platform
import sys
import time
import types
from collections.abc import Callable

import torch

from utils import checkpoints, config, training

RESULTS = config.ROOT / "benchmarks"
TRIAL = config.budget_name() == "test"
COSTLY = ("bfloat16", "clip", "ema")  # les réglages de `fit` qui changent le coût d'un pas


# --- Livrer des modèles -----------------------------------------------------------------------------


def fit(name: str, model, step, batches, n_steps: int, **options) -> float:
    """`training.fit` repris sous `name` (un essai n'en garde rien) ; ses secondes. Interrompu, tout s'arrête."""
    history = training.fit(model, step, batches, 5 if TRIAL else n_steps, name=None if TRIAL else name, **options)
    if not history.finished:
        sys.exit(f"{name} : entraînement interrompu, rien n'est livré. La même commande reprend.")
    return history.seconds


def fit_once(name: str, model, step, batches, n_steps: int, **options) -> float:
    """`fit` pour une phase que l'on ne refait pas, une fois finie, si la suite a été interrompue ; ses secondes."""
    done = training.RUNS / f"{name}_fini.safetensors"
    recipe = repr((n_steps, batches.fingerprint(), sorted(options.items())))
    if done.exists() and not TRIAL:
        weights, facts = checkpoints.read(done)
        if facts["recipe"] == recipe:
            model.load_state_dict(weights)
            return float(facts["seconds"])
    seconds = fit(name, model, step, batches, n_steps, **options)
    if not TRIAL:
        checkpoints.write(done, model.state_dict(), {"seconds": str(seconds), "recipe": recipe})
    return seconds


def deliver(chapter: str, name: str, model, settings: dict, budget: str, seconds: float, scores: dict) -> None:
    """Inscrit au manifeste le modèle et ses mesures, sauf dans un essai."""
    print(name, scores, flush=True)
    if not TRIAL:
        checkpoints.save_model(name, model, chapter=chapter, config=settings, budget=budget,
                               hardware=config.hardware(), seconds=seconds, scores=scores)


def train(recipes: dict[str, Callable[[str], None]]) -> None:
    """Ligne de commande d'un `entrainement.py` : entraîne les modèles nommés, tous sans nom."""
    names = sys.argv[1:]
    unknown = set(names) - set(recipes)
    if unknown:
        sys.exit(f"Modèle inconnu : {', '.join(sorted(unknown))}. Au choix : {', '.join(recipes)}.")
    config.setup()
    for name in names or recipes:
        recipes[name](name)


# --- Mesurer ----------------------------------------------------------------------------------------


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


def record(bench: str, name: str, values: dict, *packages: types.ModuleType) -> None:
    """Garde une mesure dans benchmarks/`bench`.json, avec sa date, la machine et les versions."""
    path = RESULTS / f"{bench}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    setting = {"date": datetime.date.today().isoformat(), "machine": config.hardware(), "fils": 1,
               "python": platform.python_version(),
               **{package.__name__: package.__version__ for package in (torch, *packages)}}
    content = json.dumps(known | {name: setting | values}, ensure_ascii=False, indent=1, sort_keys=True)
    checkpoints.write_bytes(path, (content + "\n").encode())


def table(values: dict) -> str:
    """Tableau Markdown à deux colonnes, nombres à virgule."""
    rows = [f"| {name.replace('_', ' ')} | " + (str(value).replace(".", ",") if isinstance(value, float)
            else str(value)) + " |" for name, value in values.items()]
    return "\n".join(["| grandeur | valeur |", "|---|---|", *rows])


def bench(name: str, groups: dict[str, tuple[str, dict]], *packages: types.ModuleType) -> None:
    """Ligne de commande d'un banc : une option par groupe de mesures, toutes sans option.

    `name` : celui du chapitre, et du fichier de mesures. `groups` : option → (ce qu'elle mesure, {nom de la mesure :
    fonction qui la fait}). `packages` : ceux dont la version compte.
    """
    parser = argparse.ArgumentParser()
    for option, (text, _) in groups.items():
        parser.add_argument(f"--{option}", action="store_true", help=text)
    chosen = vars(parser.parse_args())
    torch.set_num_threads(1)
    for option, (_, jobs) in groups.items():
        for measure, job in jobs.items() if chosen[option] or not any(chosen.values()) else ():
            values = job()
            if not TRIAL:
                record(name, measure, values, *packages)
            print(f"\n{measure}\n\n{table(values)}\n", flush=True)
