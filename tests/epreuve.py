"""Dans le noyau d'un carnet que joue nbval : le garde du GPU, la seconde exécution, les curseurs, les solutions.

`install` s'accroche à l'interpréteur IPython. Après chaque cellule, sans rien changer à la suite du carnet (ni au
hasard, ni aux sorties), une ligne JSON du fichier COURS_EPREUVE dit ce qui a été fait et ce qui a manqué. Un noyau
suffit ainsi à ce qui demanderait quatre exécutions du chapitre.
"""

import ast
import itertools
import json
import os
import time
import traceback

from gpu_ready import FactoryGuard
from IPython.utils.capture import capture_output

from utils import chapters, config, plots, widgets
from utils.exercises import Verdict

TWICE = 3.0  # secondes : une cellule plus longue n'est pas rejouée


class Watch:
    """Ce qui suit les cellules d'un carnet, l'une après l'autre."""

    def __init__(self, shell, chapter: str, report: str):
        self.shell, self.report, self.began = shell, report, 0.0
        cells = chapters.code_cells(chapter)
        taught = [i for i, cell in enumerate(cells) if "solution" not in cell.tags]
        # Pour chaque cellule du carnet de l'étudiant, les solutions qui la suivent dans le chapitre.
        self.solutions = iter([[cell.source for cell in cells[i + 1:j]]
                               for i, j in itertools.pairwise([*taught, len(cells)])])
        self.sliders, self.explore = [], widgets.explore
        widgets.explore = self.record

    def record(self, f, **options):
        """Un curseur comme un autre, noté au passage."""
        self.sliders.append((f, options))
        return self.explore(f, **options)

    def before(self, info):
        """Une cellule commence."""
        self.began = time.perf_counter()

    def after(self, result):
        """Une cellule vient de finir."""
        seconds, solutions = time.perf_counter() - self.began, next(self.solutions)
        sliders, self.sliders = self.sliders, []
        said = {"secondes": round(seconds, 2), "rejouee": seconds < TWICE, "curseurs": len(sliders),
                "solutions": len(solutions), "fautes": []}
        with config.randomness_kept(), capture_output():
            if not result.success:
                said["fautes"].append(f"erreur : {result.error_in_exec!r}")
            if said["rejouee"]:
                again = self.shell.run_cell(result.info.raw_cell, silent=True)
                if not again.success:
                    said["fautes"].append(f"seconde exécution : {again.error_in_exec or again.error_before_exec!r}")
            for f, options in sliders:
                said["fautes"] += corners(f, options)
            for source in solutions:
                said["fautes"] += solved(source, dict(self.shell.user_ns))
        self.sliders = []
        with open(self.report, "a", encoding="utf-8") as file:
            file.write(json.dumps(said, ensure_ascii=False) + "\n")


def corners(f, options: dict) -> list[str]:
    """La fonction pure d'un curseur, au minimum, au départ et au maximum de chaque commande ; les échecs."""
    controls = {key: value for key, value in options.items() if key not in ("alt", "keys")}
    start, faults = {key: control.value for key, control in controls.items()}, []
    for key, control in controls.items():
        for value in extremes(control):
            try:
                plots.png(f(**start | {key: value}))
            except Exception:
                faults.append(f"curseur {f.__name__}, {key} = {value} : {traceback.format_exc(limit=-2)}")
    return faults


def extremes(control) -> list:
    """Positions extrêmes et position de départ d'une commande."""
    if hasattr(control, "min"):
        return [control.min, control.value, control.max]
    first, *_, last = (option[1] if isinstance(option, tuple) else option for option in control.options)
    return [first, control.value, last]


def solved(source: str, space: dict) -> list[str]:
    """Une cellule de solution, jouée à part du carnet : chaque `check` qu'elle finit par appeler dit « juste »."""
    faults = []
    try:
        for node in ast.parse(source).body:
            if not isinstance(node, ast.Expr):
                exec(compile(ast.Module([node], []), "<solution>", "exec"), space)
                continue
            value = eval(compile(ast.Expression(node.value), "<solution>", "eval"), space)
            if isinstance(value, Verdict) and value.status != "juste":
                faults.append(f"solution : {value!r}")
    except Exception:
        faults.append(f"solution : {traceback.format_exc(limit=-2)}")
    return faults


def install(shell) -> None:
    """Suit toutes les cellules que jouera `shell`, sous le garde du GPU."""
    watch = Watch(shell, os.environ["COURS_CHAPITRE"], os.environ["COURS_EPREUVE"])
    shell.events.register("pre_run_cell", watch.before)
    shell.events.register("post_run_cell", watch.after)
    FactoryGuard().__enter__()
