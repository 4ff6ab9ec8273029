"""Réglages communs : petit budget, processeur, graines fixées, et rien d'écrit hors du dossier du cours."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from urllib.parse import urlsplit

import cours

# Avant d'importer torch, et pour que les noyaux des carnets en héritent.
os.environ["COURS_BUDGET"] = "test"
os.environ.pop("COURS_FIGE", None)
os.environ.setdefault("COURS_DEVICE", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # deux fils s'attendent sans fin quand la machine a autre chose à faire
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(cours.ROOT), os.environ.get("PYTHONPATH")]))
cours.confine()

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from _pytest.junitxml import xml_key  # noqa: E402
from navigateur import CHROMIUM, FLAGS, PATIENCE, api, student_environment  # noqa: E402

from utils import chapters  # noqa: E402

# Pas par MPLBACKEND : les noyaux en hériteraient et n'afficheraient plus de figures.
matplotlib.use("Agg")
# Les longs d'abord : sinon un processeur finirait seul. Les carnets, du plus long au plus court.
LONG = ("test_runs_in_", "test_site", "test_jouet", "test_navigateur", "test_demo")


def pytest_addoption(parser):
    """`--chapitre 04` : les seuls tests d'un chapitre."""
    parser.addoption("--chapitre", default="", metavar="NN", help="début du nom d'un chapitre : ses tests, son carnet")


def pytest_collection_modifyitems(config, items):
    """Ne garde que le chapitre demandé, s'il y en a un ; met les tests les plus longs en tête."""
    if prefix := config.getoption("chapitre"):
        names = [name for name in chapters.names() if name.startswith(prefix)]
        if not names:
            raise pytest.UsageError(f"aucun chapitre ne commence par « {prefix} » : {', '.join(chapters.names())}")
        # Un exercice se nomme « gan.perte » : son chapitre, sans le numéro.
        ours = [*names, *(f"[{name.partition('_')[2]}." for name in names)]
        others = [item for item in items if not any(word in item.nodeid for word in ours)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]

    def rank(item):
        found = [i for i, word in enumerate(LONG) if word in item.nodeid]
        name = next((name for name in chapters.names() if name in item.nodeid), None)
        return found[0] if found else len(LONG), -chapters.path(name).stat().st_size if name else 0

    items.sort(key=rank)


@pytest.hookimpl(trylast=True)  # après junitxml, qui ouvre le compte rendu
def pytest_configure(config):
    """Le compte rendu des tests (--junitxml) dit de quel commit il parle ; d'aucun, si des fichiers ont changé."""
    report = config.stash.get(xml_key, None)  # None dans les processus qu'emploie pytest-xdist
    if report:
        asked = [subprocess.run(["git", "-C", cours.ROOT, *words], capture_output=True, text=True, encoding="utf-8")
                 for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))]
        clean = not any(answer.returncode for answer in asked) and not asked[1].stdout
        report.add_global_property("commit", asked[0].stdout.strip() if clean else "aucun")


@pytest.fixture(autouse=True)
def same_start():
    """Chaque test part des mêmes graines, seul ou dans la suite."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def double():
    """Les mathématiques se vérifient en float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def page():
    """Onglet neuf ; à la fin, ni requête hors de cette machine, ni erreur JavaScript."""
    requests, errors = [], []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE * 1000)
        context = browser.new_context(viewport={"width": 1200, "height": 800})
        context.set_default_timeout(PATIENCE * 1000)
        context.on("request", lambda request: requests.append(request.url))
        tab = context.new_page()
        tab.on("websocket", lambda socket: requests.append(socket.url))
        tab.on("pageerror", lambda error: errors.append(error))
        yield tab
        browser.close()
    local = {("http", "127.0.0.1"), ("ws", "127.0.0.1"), ("data", None), ("blob", None)}
    assert not [url for url in requests if urlsplit(url)[:1] + (urlsplit(url).hostname,) not in local]
    assert not errors


@pytest.fixture
def course():
    """Copie des carnets, rangée dans le cours pour qu'ils le retrouvent, et l'adresse où elle est servie.

    Rien de ce que JupyterLab enregistre (carnets, réglages, onglets ouverts) n'en sort. L'arrêt du serveur
    arrête ses noyaux ; s'il fallait le tuer, ils le verraient disparaître et s'arrêteraient seuls.
    """
    shared = cours.ROOT / ".jupyter"
    with tempfile.TemporaryDirectory(prefix="essai-", dir=shared, ignore_cleanup_errors=True) as name:
        copy = shared / name
        for folder in ("scripts", "chapters", "notebooks"):
            shutil.copytree(cours.ROOT / folder, copy / folder)
        server = subprocess.Popen([sys.executable, copy / "scripts/cours.py", "--no-browser"],
                                  env=student_environment(), stdout=subprocess.PIPE, text=True, encoding="utf-8")
        try:
            yield copy, next(line.strip() for line in server.stdout if "http://" in line)
        finally:
            server.terminate()
            try:
                server.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.communicate()
