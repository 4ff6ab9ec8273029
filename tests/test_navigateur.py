"""Le cours comme l'étudiant le voit : JupyterLab dans un vrai navigateur, curseurs bougés pour de bon."""

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import cours
import pytest
from navigateur import NEEDS_BROWSER, api, student_environment, wait_for_new

pytestmark = NEEDS_BROWSER
SECONDS = 1  # délai promis entre le geste et la nouvelle image
MARGIN = 3
NEW_PAIR = """seen => {
    const shown = [...document.querySelectorAll('img[alt^="image de"]')].map(image => image.src);
    return shown.length == 2 && !shown.some(one => seen.includes(one)) && shown; }"""


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


def test_stored_slider_moves_without_running_anything(course, page):
    """Carnet livré, approuvé, rien d'exécuté : le curseur HTML choisit l'image, à la souris et au clavier."""
    page.goto(course[1])
    slider = page.locator(".jp-Notebook input[type=range]")
    picture = page.locator("div:has(> input[type=range]) > img:visible")
    slider.scroll_into_view_if_needed()
    seen = [picture.get_attribute("title")]
    slider.click(position={"x": slider.bounding_box()["width"] / 2, "y": 8})
    seen.append(picture.get_attribute("title"))
    page.keyboard.press("ArrowRight")
    seen.append(picture.get_attribute("title"))
    page.keyboard.press("End")
    seen.append(picture.get_attribute("title"))
    assert len(set(seen)) == 4, seen


def test_first_page_in_french_with_a_live_slider(course, page):
    """La première page s'ouvre en français ; exécutée, son curseur redessine l'image quand on le tire."""
    page.goto(course[1])
    page.get_by_role("heading", name="Modèles génératifs profonds").wait_for()
    api.expect(page.get_by_role("tab", name="00_panorama.ipynb", selected=True)).to_be_visible()
    menus = page.get_by_role("menubar").first.get_by_role("menuitem").all_inner_texts()
    assert {"Fichier", "Édition", "Affichage", "Noyau", "Paramètres", "Aide"} <= set(menus)
    assert page.locator("[data-jp-item-name=voilaRender]").count() == 0  # le bouton anglais de Voilà

    run_all(page)
    handle, picture = control(page, "part du VAE")
    before, source = picture.screenshot(), picture.get_attribute("src")
    handle.drag_to(page.locator(".noUi-target"), target_position={"x": 100, "y": 2}, force=True)
    wait_for_new(picture, source)
    assert float(handle.get_attribute("aria-valuenow")) > 0.5
    assert picture.screenshot() != before


def test_decoder_follows_the_slider(course, page, capsys):
    """Chapitre 3, jusqu'au décodeur : chaque cran de z₁ change l'image, en moins d'une seconde."""
    copy, address = course
    with edited(copy / "notebooks/03_vae.ipynb") as cells:
        last = next(i for i, cell in enumerate(cells) if "def decode_point" in text_of(cell))
        del cells[last + 1:]  # la suite n'apprendrait rien ici

    page.goto(address.replace("00_panorama", "03_vae"))
    run_all(page)
    handle, picture = control(page, "z₁")
    delays = []
    for _ in range(5):
        before, source = picture.screenshot(), picture.get_attribute("src")
        start = time.perf_counter()
        handle.press("ArrowRight")
        wait_for_new(picture, source)
        delays.append(time.perf_counter() - start)
        assert picture.screenshot() != before
    delay = statistics.median(delays)
    with capsys.disabled():
        print(f"\n  du geste à l'image : {delay:.2f} s (promis : {SECONDS} s)")
    assert delay < SECONDS * MARGIN


def test_forced_choice_is_played_with_mouse_and_keyboard(course, page):
    """Chapitre 8 : chaque clic démasque la manche et en tire une autre, le menu remet le score à zéro."""
    copy, address = course
    with edited(copy / "notebooks/08_evaluation.ipynb") as cells:
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        game = [cell for cell in code if "game_" in text_of(cell)]
        taught = [cell for cell in code[4:] if "modele" in cell["metadata"].get("tags", ())]
        stand_in = "n_extra, aug_glow, aug_shipped = 60, 1 - x_test[:60], {'bruit': torch.rand(60, 1, 28, 28)}"
        lots = game[0] | {"id": "images", "source": stand_in}  # des images quelconques suffisent aux règles
        cells[:] = [*code[:4], *taught, lots, *game]

    page.goto(address.replace("00_panorama", "08_evaluation"))
    run_all(page)
    question = page.get_by_text("Laquelle est une vraie image ?", exact=True)  # le code de la cellule la contient aussi
    status, left = page.get_by_role("status").filter(has_text="Score"), page.get_by_role("button", name="à gauche")
    question.wait_for()
    seen = page.wait_for_function(NEW_PAIR, arg=[]).json_value()
    for played in range(1, 7):
        if played % 2:
            left.click()
        else:
            left.focus()
            page.keyboard.press("Tab")
            page.keyboard.press("Space")
        status.get_by_text(f"sur {played} ;").wait_for()
        seen += page.wait_for_function(NEW_PAIR, arg=seen).json_value()
    assert re.search(r"(Juste|Raté) : .*Score : [0-6] sur 6 ; intervalle à 95 % : \d+ à \d+ %", status.inner_text())

    page.get_by_label("modèle").select_option("bruit")
    question.wait_for()
    assert status.count() == 0
