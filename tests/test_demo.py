"""Les démonstrations projetées : ce qu'elles montrent, sans rien entraîner."""

import ast
import functools
import subprocess
import sys

import demo
import nbformat
import pytest
from ecran import published

import notebooks
from utils import plots, widgets

TARGETS = notebooks.students(notebooks.ROOT)


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request):
    """Le carnet de l'étudiant, pour chaque chapitre."""
    return request.param


def shown(notebook):
    """Ce que dit la démonstration de chacune de ses figures."""
    return [cell.metadata.demo for cell in notebook.cells if "demo" in cell.metadata]


def test_shows_every_figure_and_three_alive(target):
    """Aucune figure ne manque, trois au moins (une pour le panorama) répondent à un noyau, toutes sont décrites."""
    facts = shown(demo.build(target))
    figures = [one for one in demo.statements(notebooks.generate(target, "").cells) if one.figure]
    assert len(facts) == len(figures)
    assert sum(one["live"] for one in facts) >= (1 if target.chapter.numero == 0 else 3)
    assert all(one["title"] and one["alt"] for one in facts)


def test_trains_nothing(target):
    """Ni entraînement, ni ébauche, ni solution, ni calcul qui dépende du budget."""
    source = notebooks.generate(target, "")
    exercises = [cell.source for cell in source.cells if {"exercice", "solution"} & set(notebooks.tags(cell))]
    functions = {node.name for text in exercises for node in ast.walk(ast.parse(text))
                 if isinstance(node, ast.FunctionDef)}
    costly = demo.costly_functions([one.tree for one in demo.statements(source.cells)])
    for cell in notebooks.code_cells(demo.build(target)):
        tree = ast.parse(cell.source)
        called = {demo.called(call) for top in tree.body for call in demo.calls(demo.outside(top))}
        assert not called & costly
        assert not functions & {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_live_figure_runs_alone(target, monkeypatch):
    """Les instructions retenues suffisent : dans un espace vide, chaque figure vive s'affiche, curseurs compris.

    Et trois positions donnent le cadre que donneraient toutes : la démonstration n'en dessine pas plus d'avance.
    """
    seen, space, explore = [], {}, widgets.explore
    monkeypatch.delenv("COURS_FIGE", raising=False)
    monkeypatch.setattr(widgets, "explore", lambda f, keys, **options: seen.append((f, keys, options)))
    live = [cell for cell in notebooks.code_cells(demo.build(target))]
    with published() as outputs:
        for cell in live[1:]:  # la première est le préambule
            exec(cell.source, space)
        for f, keys, options in seen:
            explore(f, keys=[*keys[:2], keys[-1]], **options)
    kinds = [kind for output in outputs for kind in output["data"] if kind in (notebooks.WIDGET, "text/html")]
    assert len(kinds) == sum("demo" in cell.metadata for cell in live)
    for f, keys, _ in seen:
        figures = [f(**key) for key in keys]
        for figure in figures:
            plots.png(figure)
        whole = functools.reduce(lambda frame, figure: widgets.common_frame(figure, frame), figures, None)
        some = functools.reduce(lambda frame, figure: widgets.common_frame(figure, frame),
                                [*figures[:2], figures[-1]], None)
        for box, other in zip(whole, some, strict=True):
            assert box.extents == pytest.approx(other.extents, abs=0.002), f.__name__


def test_only_what_the_figure_needs():
    """L'analyse suit les fonctions et les objets modifiés, et laisse le reste, entraînement compris."""
    source = """
# %% une cellule par ligne
net, other = make(), make()
net.eval()
print(net)
fit(other, batches)
def draw(x): return net(x) + late
late = [i for i in range(3)]
late[0] = 1
explore(draw, alt="ceci")
explore(other, alt="cela")
"""
    cells = [nbformat.v4.new_markdown_cell("## Titre"),
             *map(nbformat.v4.new_code_cell, filter(None, source.splitlines()[2:]))]
    found = demo.statements(cells)
    first, second = (demo.needs(found, i) for i, one in enumerate(found) if one.figure)
    assert first == {0, 1, 4, 5, 6, 7} and second == {0, 3, 8}
    assert [one.costly for one in found].index(True) == 3
    assert {one.title for one in found} == {"Titre"}


def test_unknown_chapter():
    """Un chapitre qui n'existe pas : une phrase, qui nomme ceux qui existent."""
    run = subprocess.run([sys.executable, demo.__file__, "99"], capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 1 and "« 99 »" in run.stderr and TARGETS[0].chapter.name in run.stderr
    assert "Traceback" not in run.stderr
