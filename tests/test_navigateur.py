"""Le cours comme l'étudiant le voit : JupyterLab dans un vrai navigateur, curseurs bougés pour de bon."""

from navigateur import NEEDS_BROWSER, api, control, run_all, wait_for_new

from utils import chapters

pytestmark = NEEDS_BROWSER


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
    api.expect(page.get_by_role("tab", name=f"{chapters.names()[0]}.ipynb", selected=True)).to_be_visible()
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
