"""Ce que partagent les tests faits dans un vrai navigateur ; sans Chromium ou sans playwright, ils sont sautés."""

import os
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
