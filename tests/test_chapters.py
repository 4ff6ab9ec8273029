"""Chaque chapitre, exécuté cellule par cellule dans ce processus : appareil, curseurs, cellules rejouées."""

import ast
import symtable
import time
import types

import matplotlib.pyplot as plt
import pytest
from gpu_ready import FactoryGuard

from utils import chapters, config, plots, widgets

NAMES = sorted(path.stem for path in (config.ROOT / "chapters").glob("*.md"))
TWICE = 3.0  # secondes : une cellule plus longue n'est pas rejouée
SLOWEST = 0.2  # secondes entre un geste sur un curseur et la nouvelle figure, sur 2 cœurs


@pytest.fixture(scope="module", params=NAMES)
def played(request):
    """Le chapitre, chaque cellule exécutée deux fois de suite (les longues, une) sous le garde ; ses curseurs."""
    seen = []
    module = types.ModuleType(request.param)
    file = str(chapters.path(request.param))
    with pytest.MonkeyPatch.context() as patch, FactoryGuard():
        patch.setattr(widgets, "explore", lambda f, **options: seen.append((f, options)))
        # IPython n'étant pas là, `display` écrirait chaque image en base 64.
        patch.setattr(plots, "display", lambda *_, **__: None)
        patch.setattr(widgets, "display", lambda *_, **__: None)
        for cell in chapters.code_cells(request.param):
            if "solution" in cell.tags:
                continue
            code = compile("\n" * (cell.line - 1) + cell.source, file, "exec")
            began = time.perf_counter()
            exec(code, module.__dict__)
            if time.perf_counter() - began < TWICE:
                exec(code, module.__dict__)
    yield request.param, list({f.__name__: (f, options) for f, options in seen}.values())
    plt.close("all")


def _extremes(control) -> list:
    """Positions extrêmes et position de départ d'un curseur."""
    if hasattr(control, "min"):
        return [control.min, control.value, control.max]
    first, *_, last = (option[1] if isinstance(option, tuple) else option for option in control.options)
    return [first, control.value, last]


def test_every_slider_works_at_its_limits(played):
    """La fonction pure de chaque curseur tourne au minimum, au départ et au maximum de chaque commande."""
    name, seen = played
    assert len(seen) >= (1 if name.startswith("00") else 3), "il faut au moins trois figures interactives"
    for f, options in seen:
        controls = {key: value for key, value in options.items() if key not in ("alt", "keys")}
        start = {key: control.value for key, control in controls.items()}
        for key, control in controls.items():
            for value in _extremes(control):
                assert plots.png(f(**start | {key: value}))


def test_every_slider_answers_quickly(played):
    """Le plus prompt de sept gestes, comme `explore` les traite ; dessin et image PNG compris.

    Ce que la machine fait d'autre ne peut qu'allonger un geste : le plus prompt est ce qu'il coûte.
    """
    for f, options in played[1]:
        first = f(**options["keys"][0])
        plots.png(first)
        frame, times = widgets.common_frame(first), []
        for key in (options["keys"] * 7)[:7]:
            began = time.perf_counter()
            plots.png(widgets.pin(f(**key), frame))
            times.append(time.perf_counter() - began)
        assert min(times) < SLOWEST, f"{f.__name__} : {1000 * min(times):.0f} ms"


def test_cells_are_short():
    """Une idée par cellule : trente lignes au plus."""
    long = [f"{name}, ligne {cell.line} : {len(cell.source.splitlines())} lignes" for name in NAMES
            for cell in chapters.code_cells(name) if len(cell.source.splitlines()) > 30]
    assert not long, "\n".join(long)


def _read_and_bound(source: str) -> tuple[set[str], set[str], set[str]]:
    """Noms du carnet qu'une cellule lit, ceux qu'elle pose, et parmi ceux-ci les variables de ses boucles."""
    table = symtable.symtable(source, "cellule", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    read, scopes = {s.get_name() for s in table.get_symbols() if s.is_referenced()}, list(table.get_children())
    while scopes:
        scope = scopes.pop()
        read |= {s.get_name() for s in scope.get_symbols() if s.is_global()}
        scopes += scope.get_children()
    loops = set()
    todo = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.For):
            loops |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            todo += ast.iter_child_nodes(node)
    return read, bound, loops


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_reads_the_loop_variable_of_another(name):
    """Une boucle qui réemploie un nom du carnet le change pour toutes les cellules suivantes."""
    last, faults = {}, []
    for cell in chapters.code_cells(name):
        if "solution" in cell.tags:
            continue
        read, bound, loops = _read_and_bound(cell.source)
        faults += [f"ligne {cell.line} : « {n} » vient de la boucle de la ligne {last[n]}"
                   for n in sorted(read - bound) if last.get(n)]
        last |= {n: cell.line if n in loops else 0 for n in bound}
    assert not faults, "\n".join(faults)
