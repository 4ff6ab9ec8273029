"""Les carnets enregistrés sont à jour, complets, et s'exécutent d'un noyau neuf."""

import os
import re
import subprocess
import sys

import notebooks
import pytest

TARGETS = notebooks.targets(notebooks.ROOT)
# Un carnet est promis en 60 s sur 2 cœurs dans le budget `test`, soit 120 s de calcul au plus ; le reste est
# une marge pour des processeurs plus lents. Contrairement à la durée, le temps de calcul ne dépend pas de ce que
# la machine fait par ailleurs.
CPU_SECONDS = 180


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
    before = os.times()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env",
         "--nbval-cell-timeout=600", "-p", "no:cacheprovider", str(target.path)],
        capture_output=True, text=True, cwd=notebooks.ROOT, stdin=subprocess.DEVNULL,
    )
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert spent < CPU_SECONDS, f"{spent:.0f} s de calcul"


def test_every_chapter_has_its_notebook():
    """Il y a au moins un chapitre, et la première page existe."""
    assert notebooks.ROOT / "notebooks/00_panorama.ipynb" in [t.path for t in TARGETS]
