"""Les carnets enregistrés sont à jour, complets et légers ; ceux de l'étudiant s'exécutent, une fois, d'un noyau neuf.

Les longs d'abord (voir conftest.py) : chaque carnet est joué en entier dans un processus à lui.
"""

import base64
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import notebooks
from utils import chapters, config, plots

TARGETS = notebooks.targets(notebooks.ROOT)
STUDENTS = notebooks.students(notebooks.ROOT)
TESTS = notebooks.ROOT / "tests"
# Ce que le noyau exécute avant la première cellule.
STARTUP = "import epreuve\nepreuve.install(get_ipython())\ndel epreuve\n"
IMAGE = re.compile(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)")


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request):
    """Chaque carnet du cours, corrigés compris."""
    return request.param


def test_up_to_date_and_complete():
    """Mêmes cellules que les chapitres, exécutées, images décrites, aucune sortie en double ; README à jour."""
    assert not notebooks.verify(notebooks.ROOT), "relancez : make notebooks"


def test_student_version_hides_solutions(target):
    """L'étudiant ne voit aucune solution, le corrigé aucune ébauche, et aucune balise ne reste."""
    notebook = notebooks.read(target.path)
    assert not [cell.id for cell in notebook.cells if target.without in notebooks.tags(cell)]
    assert not [cell.id for cell in notebook.cells if re.search("#region|{{(depot|entete|voisins|chap)", cell.source)]


def test_light_enough(target):
    """Trois mégaoctets au plus ; et une expression laissée en fin de cellule n'imprime pas des pages."""
    assert target.path.stat().st_size <= 3e6
    for cell in notebooks.code_cells(notebooks.read(target.path)):
        for output in cell.outputs:
            shown = output.get("data", {}) if output.output_type == "execute_result" else {}
            assert len(shown.get("text/plain", "")) < 2000, cell.source


def pictures(notebook):
    """Images d'un carnet, (H, W, 3) en octets : figures et positions des curseurs ; leurs planches sont réduites."""
    for cell in notebooks.code_cells(notebook):
        shown = [output.get("data", {}) for output in cell.outputs]
        sliders = [image for data in shown for image in IMAGE.findall(data.get("text/html", ""))]
        figures = [data["image/png"] for data in shown if "image/png" in data]
        for one in sliders or figures:
            yield cell.id, np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB"))


@pytest.mark.parametrize("target", STUDENTS, ids=lambda target: target.name)
def test_colours_are_those_of_the_course(target):
    """Là où une nuance voisine d'une couleur du cours est répandue, cette couleur est là aussi, exactement.

    Réduire les couleurs d'une figure pourrait faire dériver un aplat de quelques unités : une courbe n'aurait plus la
    couleur de sa légende. Le noir n'en est pas : les images et les cartes de densité ont les leurs.
    """
    drifted = []
    for cell, picture in pictures(notebooks.read(target.path)):
        colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
        for name in plots.PALETTE[:-1]:
            gaps = np.abs(colours.astype(int) - [int(name[i:i + 2], 16) for i in (1, 3, 5)]).max(1)
            spread = counts[(gaps > 0) & (gaps <= 8)].max(initial=0)
            if spread > 0.002 * counts.sum() and not (gaps == 0).any():
                drifted.append(f"cellule {cell} : {name} a dérivé")
    assert not drifted, "\n".join(drifted)


@pytest.mark.parametrize("target", STUDENTS, ids=lambda target: target.name)
def test_runs_in_fresh_kernel(target, tmp_path):
    """nbval exécute tout le carnet et compare les sorties des cellules étiquetées pour cela.

    Dans le même noyau (voir epreuve.py), le garde refuse les tenseurs créés sans appareil, chaque cellule brève est
    rejouée, chaque curseur va à ses limites, chaque solution est « juste ».
    """
    startup = tmp_path / "profile_default" / "startup" / "depart.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(STARTUP, encoding="utf-8")
    report = tmp_path / "epreuve.jsonl"
    played(target, {**os.environ, "IPYTHONDIR": str(tmp_path), "COURS_EPREUVE": str(report),
                    "COURS_CHAPITRE": target.chapter.name,
                    "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]])})
    said = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    faults = [f"cellule {i} : {fault}" for i, one in enumerate(said, 1) for fault in one["fautes"]]
    assert not faults, "\n".join(faults)
    cells = chapters.code_cells(target.chapter.name)
    solutions = sum("solution" in cell.tags for cell in cells)
    assert len(said) == len(cells) - solutions and sum(one["solutions"] for one in said) == solutions
    assert sum(one["rejouee"] for one in said) > 0.8 * len(said)
    assert sum(one["curseurs"] for one in said) >= (3 if solutions else 1), "il faut trois figures interactives"


def played(target, env):
    """Le carnet, joué par nbval d'un noyau neuf ; le test échoue avec son journal."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--nbval-lax",
         "--nbval-current-env", "--nbval-cell-timeout=3000", "-o", "addopts=", "-o", "timeout=0", str(target.path)],
        capture_output=True, text=True, encoding="utf-8", cwd=notebooks.ROOT, stdin=subprocess.DEVNULL, env=env)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


@pytest.mark.skipif(not os.environ.get("COURS_PAS"), reason="long : .ci/run le joue, pas plafonnés (COURS_PAS)")
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("target", STUDENTS, ids=lambda target: target.name)
def test_runs_in_full_budget(target):
    """La branche `complet` de chaque carnet, nombre de pas d'entraînement plafonné, tout le reste en vraie grandeur."""
    played(target, {**os.environ, "COURS_BUDGET": "complet"})


def test_the_first_chapter_opens_the_course():
    """Il y a au moins un chapitre, et le premier a le numéro 0 : c'est la page qu'ouvre `make cours`."""
    assert STUDENTS[0].chapter.numero == 0


def test_frozen_budget_is_named():
    """Ce que l'on enregistre vient du budget que reçoit un étudiant sans GPU."""
    runs = {target.name: notebooks.read(target.path).metadata.cours for target in STUDENTS}
    assert {run["budget"] for run in runs.values()} == {"rapide"}, runs
    assert config.budget_name() == "test"
