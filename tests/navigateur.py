"""Ce que partagent les tests faits dans un vrai navigateur ; sans Chromium ou sans playwright, ils sont sautés."""

import contextlib
import json
import os
import re
import shutil

import pytest

try:
    from playwright import sync_api as api
except ImportError:
    api = None

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
NEEDS_BROWSER = pytest.mark.skipif(
    not (api and CHROMIUM), reason="playwright (make test) ou Chromium (sous Debian : apt install chromium) manque")

FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
PATIENCE = 300  # secondes : machine lente ou occupée


def student_environment():
    """Variables d'environnement de l'étudiant, qui n'a pas de PYTHONPATH."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def wait_for_new(picture, source):
    """Attend que `picture` montre autre chose que l'image d'adresse `source`."""
    picture.page.wait_for_function(
        "([image, source]) => image.src != source && image.complete && image.naturalWidth > 0",
        arg=[picture.element_handle(), source])


def text_of(cell):
    """Code ou texte d'une cellule."""
    return "".join(cell["source"])


@contextlib.contextmanager
def edited(path):
    """Les cellules du carnet `path`, à raccourcir sur place ; il est réécrit à la sortie."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    yield notebook["cells"]
    path.write_text(json.dumps(notebook), encoding="utf-8")


def run_all(page):
    """Menu « Exécuter toutes les cellules », une fois le noyau prêt : avant, JupyterLab demanderait lequel."""
    page.get_by_text("Python 3 (ipykernel) | Inactif").wait_for()
    page.get_by_role("menuitem", name=re.compile("^Exécut")).click()
    page.get_by_role("menuitem", name="Exécuter toutes les cellules", exact=True).click()


def control(page, label):
    """Poignée du curseur `label` et image qu'il commande, dès qu'ils sont affichés."""
    box = page.locator(".widget-vbox", has=page.get_by_text(label, exact=True))
    handle, picture = box.locator(".widget-slider", has_text=label).get_by_role("slider"), box.locator("img")
    picture.wait_for()
    handle.scroll_into_view_if_needed()
    return handle, picture
