"""Le temps d'un geste sur un curseur et celui d'une démonstration, rapportés à ce qu'ils ne peuvent éviter.

    python benchmarks/gestes.py             tout (cinq minutes)
    python benchmarks/gestes.py --curseurs  une seule mesure ; de même --demonstrations

Un geste, tel que `widgets.explore` le traite (la fonction, le dessin, l'image PNG), est rapporté à un nouveau dessin de
la même figure, sans rien calculer. Une démonstration (du lancement à toutes ses figures prêtes) est rapportée à un
Voilà nu, dont le carnet n'a qu'une cellule vide, lancé juste avant. Les secondes dépendent de la machine ; les
rapports, beaucoup moins.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import cours  # noqa: E402
import demo  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import nbformat  # noqa: E402

import notebooks  # noqa: E402
from utils import lab, plots, widgets  # noqa: E402

TURNS = 2 if lab.TRIAL else 7
VOILA = """import sys
sys.path[:0] = [{scripts!r}]
import pathlib
import demo
demo.FOLDER = pathlib.Path({folder!r})
server = demo.server({{"{name}": "essai"}}, 8970)
server.start()
"""


def sliders(target: notebooks.Target) -> list:
    """Curseurs qui répondent en direct dans la démonstration d'un chapitre : (fonction, positions marquantes)."""
    seen, space = [], {}
    with (mock.patch.object(widgets, "explore", lambda f, keys, **_: seen.append((f, keys))),
          mock.patch.object(widgets, "display"), mock.patch.object(plots, "display")):
        for cell in notebooks.code_cells(demo.build(target))[1:]:  # la première est le préambule
            exec(cell.source, space)
    return seen


def gesture(f, keys: list[dict]) -> tuple[float, float]:
    """Secondes médianes d'un geste, et d'un nouveau dessin de la même figure."""
    first = f(**keys[0])
    plots.png(first)
    frame, moves, redraws = widgets.common_frame(first), [], []
    for key in (keys * TURNS)[:TURNS]:
        began = time.perf_counter()
        figure = widgets.pin(f(**key), frame)
        plots.png(figure)
        moves.append(time.perf_counter() - began)
        began = time.perf_counter()
        plots.png(figure)
        redraws.append(time.perf_counter() - began)
    plt.close("all")
    return statistics.median(moves), statistics.median(redraws)


def measure_sliders() -> dict:
    """Par chapitre, ses curseurs : millisecondes et rapport, du plus prompt au plus lent."""
    rows = {}
    for target in notebooks.students(ROOT):
        times = {f.__name__: gesture(f, keys) for f, keys in sliders(target)}
        ratios = sorted(move / redraw for move, redraw in times.values())
        slowest = max(times, key=lambda name: times[name][0])
        rows[target.chapter.name] = {
            "curseurs": len(times), "rapport_mediane": round(statistics.median(ratios), 2),
            "rapport_max": round(ratios[-1], 2), "plus_lent": slowest, "plus_lent_ms": round(1000 * times[slowest][0])}
    return {"curseurs": rows, "gestes_par_curseur": TURNS}


def ready(folder: pathlib.Path, name: str) -> float:
    """Secondes du lancement de Voilà sur le carnet `name` de `folder` à la fin de sa page."""
    code = VOILA.format(scripts=str(ROOT / "scripts"), folder=str(folder), name=name)
    began = time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:8970/voila/render/{name}", timeout=300) as page:
                    page.read()
                return time.perf_counter() - began
            except ConnectionError:
                time.sleep(0.05)
            except OSError as error:  # urllib enveloppe le refus d'une adresse pas encore servie
                if not isinstance(getattr(error, "reason", None), ConnectionError):
                    raise
                time.sleep(0.05)
    finally:
        server.terminate()
        server.wait()


def measure_demonstrations() -> dict:
    """Par chapitre : secondes jusqu'à la page complète, et rapport à un Voilà nu."""
    cours.confine()
    rows = {}
    with tempfile.TemporaryDirectory(prefix="essai-", dir=ROOT / ".jupyter") as place:
        folder = pathlib.Path(place)
        for target in notebooks.students(ROOT):
            built = demo.build(target)
            bare = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")], metadata=built.metadata)
            seconds = {}
            for kind, notebook in (("nu", bare), ("demonstration", built)):
                notebooks.write(folder / f"{kind}.ipynb", notebook)
                seconds[kind] = ready(folder, f"{kind}.ipynb")
            rows[target.chapter.name] = {"secondes": round(seconds["demonstration"], 1),
                                         "secondes_voila_nu": round(seconds["nu"], 1),
                                         "rapport": round(seconds["demonstration"] / seconds["nu"], 2)}
    return {"demonstrations": rows}


if __name__ == "__main__":
    lab.bench("gestes", {"curseurs": ("temps d'un geste sur chaque curseur", {"curseurs": measure_sliders}),
                         "demonstrations": ("temps d'une démonstration", {"demonstrations": measure_demonstrations})})
