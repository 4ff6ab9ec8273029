"""Le jeu du choix forcé, joué dans un vrai JupyterLab."""

import re

from navigateur import NEEDS_BROWSER, edited, run_all, text_of

from utils import chapters

pytestmark = NEEDS_BROWSER
CHAPTER = "08_evaluation"
NEW_PAIR = """seen => {
    const shown = [...document.querySelectorAll('img[alt^="image de"]')].map(image => image.src);
    return shown.length == 2 && !shown.some(one => seen.includes(one)) && shown; }"""


def test_forced_choice_is_played_with_mouse_and_keyboard(course, page):
    """Chapitre 8 : chaque clic démasque la manche et en tire une autre, le menu remet le score à zéro."""
    copy, address = course
    with edited(copy / "notebooks" / f"{CHAPTER}.ipynb") as cells:
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        game = [cell for cell in code if "game_" in text_of(cell)]
        taught = [cell for cell in code[4:] if "modele" in cell["metadata"].get("tags", ())]
        stand_in = "n_extra, aug_glow, aug_shipped = 60, 1 - x_test[:60], {'bruit': torch.rand(60, 1, 28, 28)}"
        lots = game[0] | {"id": "images", "source": stand_in}  # des images quelconques suffisent aux règles
        cells[:] = [*code[:4], *taught, lots, *game]

    page.goto(address.replace(chapters.names()[0], CHAPTER))
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
