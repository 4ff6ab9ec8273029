"""Les démonstrations projetées : ce qu'elles montrent, sans rien entraîner, et le chapitre 3 dans un navigateur."""

import ast
import functools
import re
import subprocess
import sys
import time

import demo
import nbformat
import pytest
from navigateur import NEEDS_BROWSER, api, student_environment, wait_for_new

import notebooks
from utils import plots, widgets

TARGETS = [target for target in notebooks.targets(notebooks.ROOT) if target.without == "solution"]
SECONDS = 15  # délai promis de la commande à l'écran complet, sur 2 cœurs
MARGIN = 3


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
    assert sum(one["live"] for one in facts) >= (1 if target.path.name.startswith("00") else 3)
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


def test_runs_in_fresh_kernel(target, tmp_path, capsys):
    """Toutes les figures vives naissent d'un noyau neuf, dans le délai promis."""
    from nbclient import NotebookClient

    notebook, began = demo.build(target), time.perf_counter()
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}},
                   timeout=300).execute()
    seconds = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n  {target.path.stem} : {seconds:.0f} s (promis : {SECONDS} s, serveur compris)")
    assert seconds < SECONDS * MARGIN
    for cell in notebooks.code_cells(notebook):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        assert "demo" not in cell.metadata or kinds & {notebooks.WIDGET, "text/html"}


def test_three_positions_frame_each_figure(target, monkeypatch):
    """La démonstration ne dessine d'avance que trois positions : elles donnent le cadre que donneraient toutes."""
    seen, space = [], {}
    monkeypatch.setattr(widgets, "explore", lambda f, keys, **_: seen.append((f, keys)))
    monkeypatch.setattr(widgets, "display", lambda *_, **__: None)
    for cell in notebooks.code_cells(demo.build(target))[1:]:  # la première est le préambule
        exec(cell.source, space)
    for f, keys in seen:
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
    assert run.returncode == 1 and "« 99 »" in run.stderr and "03_vae" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.fixture
def projected():
    """Adresse de la démonstration du chapitre 3, servie comme par `make demo CH=03`."""
    command = [sys.executable, demo.__file__, "03", "--no-browser"]
    server = subprocess.Popen(command, env=student_environment(), stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        yield next(line.strip() for line in server.stdout if "http://" in line)
    finally:
        server.terminate()
        server.communicate(timeout=60)


@NEEDS_BROWSER
def test_projected_chapter_answers(projected, page, capsys):
    """Page en français, sans code ; chaque figure s'affiche, un curseur tiré change l'image, l'accueil répond."""
    began = time.perf_counter()
    page.goto(projected)
    page.wait_for_function("""document.readyState == 'complete' && [...document.querySelectorAll('.figure')].every(
        figure => [...figure.querySelectorAll('img')].some(image => image.naturalWidth > 0))""")
    seconds = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n  chapitre 3 affiché en {seconds:.0f} s (promis : {SECONDS} s)")
    assert page.locator("html").get_attribute("lang") == "fr"
    assert page.locator(".figure").count() == page.locator("nav li").count() >= 3
    assert not re.search(r"Executing|import |def ", page.locator("body").inner_text())

    figure = page.locator(".figure", has=page.get_by_text("z₁", exact=True))
    picture = figure.locator("img")
    source = picture.get_attribute("src")
    figure.get_by_role("slider").first.press("ArrowRight")
    wait_for_new(picture, source)

    page.get_by_role("link", name="Les autres chapitres").click()
    api.expect(page.get_by_role("link", name="Autoencodeurs variationnels")).to_be_visible()
