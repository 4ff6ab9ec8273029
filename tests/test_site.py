"""Le site comme son lecteur le voit : Chromium, sans réseau, à la souris et au clavier, de jour et de nuit."""

import functools
import http.server
import re
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import site_web
from navigateur import NEEDS_BROWSER

import notebooks

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe manque : make test l'installe")

PAGES = site_web.BUILD / "html"
pytestmark = pytest.mark.xdist_group("site")  # le site se construit une fois
CHAPTERS = [target.chapter.name for target in notebooks.students(site_web.ROOT)]
FIRST, SECOND = CHAPTERS[:2]  # le premier a un curseur et des équations, le second, du code et des exercices
NAMES = ["index", *CHAPTERS, "solutions", "glossaire"]


NIGHT = ("index", SECOND, "solutions", "glossaire")  # les chapitres ont tous les mêmes couleurs
# Ce qu'axe ne regarde pas : les milliers de nœuds d'une équation composée par MathJax, qui les décrit lui-même ; et,
# sauf sur deux pages, ceux du code coloré, qui a partout les mêmes couleurs.
EQUATIONS, CODE = ["mjx-container"], [".highlight pre"]
MISSING = "imgs => imgs.filter(i => !i.complete || !i.naturalWidth || i.getAttribute('alt') === null).map(i => i.src)"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Sert les pages sans rien écrire dans le journal."""

    def log_message(self, *_):
        """Rien."""


@pytest.fixture(scope="module", autouse=True)
def built():
    """Le site, construit à neuf : le moindre avertissement de Sphinx est une erreur."""
    site_web.build()


@pytest.fixture(scope="module")
def site():
    """Adresse où le site est servi."""
    handler = functools.partial(Quiet, directory=PAGES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Links(HTMLParser):
    """Identifiants d'une page, et adresses vers lesquelles elle mène."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note ce que la balise définit et ce qu'elle vise."""
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        self.targets += [(tag, attrs[key]) for key in ("href", "src") if attrs.get(key)]


@pytest.fixture(scope="module")
def links():
    """Ce que contient chaque page, lu une fois."""
    return {path.name: Links(path.read_text(encoding="utf-8")) for path in PAGES.glob("*.html")}


def test_every_internal_link_arrives(links):
    """Chaque page, ancre, image, style et script visé existe ; hors du site, il n'y a que des liens à suivre."""
    broken = []
    for name, content in links.items():
        for tag, target in content.targets:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https") or parts.netloc:
                broken += [(name, target)] if tag != "a" else []
            elif parts.scheme != "data":
                path = unquote(parts.path) or name
                anchor = parts.fragment if path in links else ""
                arrives = (PAGES / path).exists() and (not anchor or unquote(anchor) in links[path].ids)
                broken += [] if arrives else [(name, target)]
    assert not broken


def test_every_equation_is_linked(links):
    """Chaque équation numérotée a son ancre, et les renvois du texte et du code y mènent."""
    for number, chapter in site_web.equations(site_web.ROOT).items():
        assert f"eq-{number.replace('.', '-')}" in links[f"{chapter}.html"].ids
    followed = [target for content in links.values() for _, target in content.targets if "#eq-" in target]
    assert len(followed) > 5 * len(CHAPTERS)


def test_every_exercise_has_its_solution(links):
    """La page des solutions répond à chaque exercice de chaque chapitre."""
    asked = [i.removeprefix("exercice-") for content in links.values() for i in content.ids
             if i and re.fullmatch(r"exercice-\d+-\d+", i)]
    assert len(asked) >= 8 * (len(CHAPTERS) - 1)
    assert {f"solution-{number}" for number in asked} <= links["solutions.html"].ids


@NEEDS_BROWSER
@pytest.mark.parametrize("name", NAMES)
def test_page_is_complete_and_accessible(site, page, name):
    """Mathématiques composées, images chargées et décrites, aucun défaut pour axe, de jour comme de nuit."""
    faults = []
    for scheme in ("light", "dark") if name in NIGHT else ("light",):
        page.emulate_media(color_scheme=scheme)
        assert page.goto(f"{site}/{name}.html").ok
        page.evaluate("window.MathJax && MathJax.startup.promise")
        page.wait_for_function("document.getAnimations().every(a => a.playState == 'finished')")  # fondu du thème
        assert page.locator("html").get_attribute("lang") == "fr"
        assert not page.locator("mjx-merror").count()
        assert not page.locator("img").evaluate_all(MISSING)
        rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}  # la nuit ne change que les couleurs
        spared = {"exclude": [EQUATIONS] if name in (FIRST, "solutions") else [EQUATIONS, CODE]}
        found = axe.Axe().run(page, context=spared, options=rules).response["violations"]
        faults += [f"{scheme} : {fault['id']}, {node['html'][:150]}" for fault in found for node in fault["nodes"]]
    assert not faults, "\n".join(faults)


@NEEDS_BROWSER
def test_slider_moves_without_a_kernel(site, page):
    """Aux flèches du clavier, chaque cran montre une autre image."""
    page.goto(f"{site}/{FIRST}.html")
    slider = page.locator("input[type=range]").first
    picture = slider.locator("xpath=..").locator("img:visible")
    slider.focus()
    seen = [picture.get_attribute("title")]
    for key in ("ArrowRight", "End", "Home"):
        page.keyboard.press(key)
        seen.append(picture.get_attribute("title"))
    assert len(set(seen)) == 3 and seen[0] == seen[-1]


@NEEDS_BROWSER
def test_code_folds(site, page):
    """Le bouton replie tout le code, puis le déplie."""
    page.goto(f"{site}/{SECOND}.html")
    code = page.locator("details.above-input pre").first
    assert code.is_visible()
    page.get_by_role("button", name="Masquer le code").click()
    assert not code.is_visible()
    page.get_by_role("button", name="Afficher le code").click()
    assert code.is_visible()


@NEEDS_BROWSER
@pytest.mark.parametrize("words", ["entraîner un débruiteur", "divergences", "distance de Fréchet"])
def test_search_is_french(site, page, words):
    """La recherche ramène les mots à leur racine française, et présente ses résultats en français."""
    page.goto(f"{site}/search.html?q={words}")
    page.locator("#search-results li").first.wait_for()
    page.get_by_text(re.compile("^Recherche terminée, .* pages? trouvée")).wait_for()


@NEEDS_BROWSER
def test_printed_page_shows_strips_instead_of_sliders(site, page):
    """Sur le papier, un curseur laisse la place à la planche de ses positions."""
    page.goto(f"{site}/{FIRST}.html")
    slider = page.locator("input[type=range]").first
    strip = page.locator(".cell_output", has=slider).first.locator("img").first
    assert slider.is_visible() and not strip.is_visible()
    page.emulate_media(media="print")
    assert strip.is_visible() and not slider.is_visible()


@NEEDS_BROWSER
@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_can_be_opened_elsewhere(site, page, name):
    """Le bouton de Colab mène au carnet du dépôt ; le téléchargement donne le carnet de l'étudiant, tel quel."""
    assert page.goto(f"{site}/{name}.html").ok
    assert f"/notebooks/{name}.ipynb" in page.get_by_role("link", name="Ouvrir dans Colab").get_attribute("href")
    with page.expect_download() as download:
        page.get_by_role("link", name="Télécharger le carnet").click()
    assert download.value.path().read_bytes() == (site_web.ROOT / "notebooks" / f"{name}.ipynb").read_bytes()
