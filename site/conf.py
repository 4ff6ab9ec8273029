"""Réglages de Sphinx, lus parmi les pages que prépare scripts/site_web.py ; rien ne vient du réseau."""

import json
import pathlib
import re

from docutils import nodes

# Ce que scripts/site_web.py sait des carnets : version, descriptions des figures, page de chaque équation.
FACTS = json.loads((pathlib.Path(__file__).parent / "carnets.json").read_text(encoding="utf-8"))

project = "Modèles génératifs profonds"
version = release = FACTS["version"]
language = "fr"
smartquotes = False  # la typographie est déjà faite
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["carnets"]

nb_execution_mode = "off"
nb_code_prompt_show = "Afficher le code"
nb_code_prompt_hide = "Masquer le code"
nb_ipywidgets_js = {}  # les curseurs figés sont du HTML seul
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["mystnb.unknown_mime_type"]

html_title = project
html_theme = "sphinx_book_theme"
html_static_path = ["theme"]
html_css_files = ["cours.css"]
html_js_files = ["cours.js"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_sidebars = {"**": ["search-button-field.html", "sbt-sidebar-nav.html"]}
html_theme_options = {
    "use_download_button": False,  # le carnet d'origine est lié en tête de chapitre
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "footer_content_items": [],
    "navbar_persistent": [],  # la recherche est déjà dans la marge
    "search_bar_text": "Chercher dans le cours…",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def describe_images(app, doctree) -> None:
    """Donne à chaque figure d'un carnet son texte alternatif, que myst-nb laisse dans la sortie."""
    for image in doctree.findall(nodes.image):
        alt = FACTS["descriptions"].get(pathlib.Path(image["uri"]).stem)
        if alt:
            image["alt"] = alt


def keep_tags(app, doctree) -> None:
    """Laisse telles quelles les équations numérotées : Sphinx les mettrait dans un environnement qui refuse `\\tag`."""
    for block in doctree.findall(nodes.math_block):
        block.children[:] = [nodes.Text(rf"\[{block.astext()}\]")]
        block["nowrap"] = block["no-wrap"] = True


def open_code(app, pagename, templatename, context, doctree) -> None:
    """Le code est déplié au départ ; dans ses commentaires, un numéro ramène à son équation."""
    def link(found):
        page = FACTS["equations"].get(found[1])
        target = "" if page == pagename else f"{page}.html"
        return f'<a href="{target}#eq-{found[1].replace(".", "-")}">({found[1]})</a>' if page else found[0]

    def comment(found):
        return re.sub(r"\((\d+\.\d+)\)", link, found[0])

    body = context.get("body", "").replace('hide above-input">', 'hide above-input" open>')
    body = body.replace('aria-label="Toggle hidden content"', 'aria-label="Afficher ou masquer le code"')
    context["body"] = re.sub(r'<span class="(?:c1|sd)">.*?</span>', comment, body, flags=re.DOTALL)


def setup(app) -> None:
    """Branche les trois retouches."""
    app.connect("doctree-read", describe_images)
    app.connect("doctree-read", keep_tags)
    app.connect("html-page-context", open_code)
