"""Le chapitre dans un vrai navigateur : le décodeur sous son curseur dans JupyterLab, et la démonstration projetée."""

import re
import subprocess
import sys

import demo
import pytest
from navigateur import NEEDS_BROWSER, api, control, edited, run_all, student_environment, text_of, wait_for_new

from utils import chapters

pytestmark = NEEDS_BROWSER
CHAPTER = "03_vae"


def test_decoder_follows_the_slider(course, page):
    """Jusqu'au décodeur : chaque cran de z₁ change l'image."""
    copy, address = course
    with edited(copy / "notebooks" / f"{CHAPTER}.ipynb") as cells:
        last = next(i for i, cell in enumerate(cells) if "def decode_point" in text_of(cell))
        del cells[last + 1:]  # la suite n'apprendrait rien ici

    page.goto(address.replace(chapters.names()[0], CHAPTER))
    run_all(page)
    handle, picture = control(page, "z₁")
    for _ in range(5):
        before, source = picture.screenshot(), picture.get_attribute("src")
        handle.press("ArrowRight")
        wait_for_new(picture, source)
        assert picture.screenshot() != before


@pytest.fixture
def projected():
    """Adresse de la démonstration de ce chapitre, servie comme par `make demo`."""
    command = [sys.executable, demo.__file__, CHAPTER[:2], "--no-browser"]
    server = subprocess.Popen(command, env=student_environment(), stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        yield next(line.strip() for line in server.stdout if "http://" in line)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_projected_chapter_answers(projected, page):
    """Page en français, sans code ; chaque figure s'affiche, un curseur tiré change l'image, l'accueil répond."""
    page.goto(projected)
    page.wait_for_function("""document.readyState == 'complete' && [...document.querySelectorAll('.figure')].every(
        figure => [...figure.querySelectorAll('img')].some(image => image.naturalWidth > 0))""")
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
