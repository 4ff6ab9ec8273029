"""Les carnets enregistrés sont à jour, complets, et s'exécutent d'un noyau neuf."""

import re
import subprocess
import sys
import time

import pytest

import notebooks

TARGETS = notebooks.targets(notebooks.ROOT)
SECONDS = 60  # durée promise d'un carnet dans le budget `test`, sur 2 cœurs
MARGIN = 3  # machines plus lentes ou occupées : ce test ne doit voir que les vrais dérapages


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request):
    """Chaque carnet du cours, corrigés compris."""
    return request.param


def test_up_to_date_and_complete():
    """Mêmes cellules que les chapitres, toutes exécutées, sans erreur, images décrites."""
    assert not notebooks.verify(notebooks.ROOT), "relancez : make notebooks"


def test_student_version_hides_solutions(target):
    """L'étudiant ne voit aucune solution, le corrigé aucune ébauche, et aucune balise ne reste."""
    notebook = notebooks.read(target.path)
    assert not [cell.id for cell in notebook.cells if target.without in notebooks.tags(cell)]
    assert not [cell.id for cell in notebook.cells if re.search("#region|{{(depot|colab)", cell.source)]


def test_light_enough(target):
    """Moins de 6 Mo : au-delà, GitHub n'affiche plus un carnet."""
    assert target.path.stat().st_size < 6e6


def test_runs_in_fresh_kernel(target):
    """nbval exécute tout le carnet et compare les sorties des cellules étiquetées pour cela."""
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env",
         "--nbval-cell-timeout=600", "-p", "no:cacheprovider", str(target.path)],
        capture_output=True, text=True, cwd=notebooks.ROOT, stdin=subprocess.DEVNULL,
    )
    elapsed = time.monotonic() - start
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert elapsed < SECONDS * MARGIN, f"{elapsed:.0f} s"


def test_every_chapter_has_its_notebook():
    """Il y a au moins un chapitre, et la première page existe."""
    assert notebooks.ROOT / "notebooks/00_panorama.ipynb" in [t.path for t in TARGETS]
