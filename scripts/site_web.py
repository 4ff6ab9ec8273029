"""Construit le site statique du cours, à partir des carnets exécutés : `python scripts/site_web.py`.

Rien n'est exécuté ni écrit à la main : les chapitres sont les carnets de l'étudiant, les solutions viennent des
corrigés, le glossaire de ceux des chapitres. Le site se lit sans réseau ; il est écrit dans build/site/html.
"""

import base64
import hashlib
import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import unicodedata

import nbformat
import sommaire

import notebooks

ROOT = notebooks.ROOT
BUILD = ROOT / "build" / "site"

TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
# Ce qui n'est pas de la prose, ou ne peut contenir de lien : code, mathématiques, liens, balises, titres.
OPAQUE = re.compile(r"(```.*?```|`[^`]+`|\$\$.*?\$\$|\$[^$\n]+\$|\[[^\]]*\]\([^)]*\)"
                    r"|<summary>.*?</summary>|<[^>]+>|^#+ .*?$)", re.S | re.M)


def version(root: pathlib.Path) -> str:
    """Version du cours, lue dans pyproject.toml, le seul endroit où elle est écrite."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def title(notebook) -> str:
    """Titre d'un carnet, sans mise en forme."""
    first = next(cell.source for cell in notebook.cells if cell.source.startswith("# "))
    return first.splitlines()[0][2:].replace("*", "")


def equations(root: pathlib.Path) -> dict[str, str]:
    """Page où se trouve chaque équation : numéro → nom du chapitre."""
    return {number: chapter.name for chapter in sommaire.chapters(root)
            for number in TAG.findall(chapter.source.read_text(encoding="utf-8"))}


def pictures(notebook) -> dict[str, tuple[str, bytes]]:
    """Figures d'un carnet : empreinte → (texte alternatif, octets PNG)."""
    found = {}
    for cell in notebooks.code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                image = base64.b64decode(output.data["image/png"])
                found[hashlib.sha256(image).hexdigest()] = (output.metadata["image/png"]["alt"], image)
    return found


# --- Des carnets aux pages ------------------------------------------------------------------------


def anchor(kind: str, number: str) -> str:
    """Point d'arrivée des liens vers l'équation ou l'exercice `number`."""
    return f'<span id="{kind}-{number.replace(".", "-")}"></span>'


def link_equations(text: str, page: str, known: dict[str, str]) -> str:
    """Dans la prose, chaque « (3.4) » devient un lien vers son équation."""
    def link(found):
        number = found[1]
        if number not in known:
            return found[0]
        target = "" if known[number] == page else f"{known[number]}.html"
        return f'<a href="{target}#eq-{number.replace(".", "-")}">({number})</a>'

    pieces = OPAQUE.split(text)
    pieces[::2] = [re.sub(r"\((\d+\.\d+)\)", link, piece) for piece in pieces[::2]]
    return "".join(pieces)


def prose(text: str, page: str, known: dict[str, str]) -> str:
    """Texte d'une cellule, équations et exercices repérés et liés."""
    text = link_equations(text, page, known)
    text = re.sub(r"^([ >]*)(\$\$.*\\tag\{(\d+\.\d+)\}.*)$",
                  lambda m: f"{m[1]}{anchor('eq', m[3])}\n{m[1].rstrip()}\n{m[1]}{m[2]}", text, flags=re.M)
    return re.sub(r"^### Exercice (\d+\.\d+) .*$",
                  lambda m: f'{anchor("exercice", m[1])}\n\n{m[0]}\n\n'
                            f'<a href="solutions.html#solution-{m[1].replace(".", "-")}">Voir la solution</a>',
                  text, flags=re.M)


def chapter_page(target: notebooks.Target, known: dict[str, str]):
    """Carnet de l'étudiant devenu page : liens, code repliable, carnet à télécharger."""
    notebook, page = notebooks.read(target.path), target.path.stem
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.setdefault("tags", []).append("hide-input")
        else:
            cell.source = prose(cell.source, page, known)
    head = next(cell for cell in notebook.cells if cell.source.startswith("# "))
    download = f'<a href="carnets/{target.path.name}" download>Télécharger le carnet</a>'
    head.source, linked = re.subn(r"\*\*\[Ouvrir dans Colab\]\([^)]*\)\*\*", rf"\g<0> · {download}", head.source)
    if not linked:
        raise notebooks.BuildError(f"{target.name} : le lien « Ouvrir dans Colab » manque sous le titre.")
    return notebook


def solutions_page(root: pathlib.Path, known: dict[str, str]) -> str:
    """Toutes les solutions, par chapitre et par exercice."""
    lines = ["# Solutions des exercices", "Chaque titre ramène à l'énoncé. Les carnets corrigés, exécutés, sont dans "
             "le dossier `notebooks/corriges` du cours."]
    for target in notebooks.targets(root):
        if not target.corrected:
            continue
        corrected, page = notebooks.read(target.path), target.path.stem
        lines.append(f"## {title(corrected)}")
        for cell in corrected.cells:
            heading = re.search(r"^### (Exercice (\d+\.\d+) .*)$", cell.source, re.M)
            if heading:
                back = f'<a href="{page}.html#exercice-{heading[2].replace(".", "-")}">Revenir à l\'énoncé</a>'
                lines += [anchor("solution", heading[2]), f"### {heading[1]}", back]
            if "solution" in notebooks.tags(cell):
                code = f"```python\n{cell.source}\n```" if cell.cell_type == "code" else ""
                lines.append(code or link_equations(cell.source, "solutions", known))
    return "\n\n".join(lines) + "\n"


def glossary(root: pathlib.Path) -> list[tuple[dict, sommaire.Chapter]]:
    """Termes de tous les chapitres, et le chapitre de chacun, dans l'ordre alphabétique français."""
    found = [(term, chapter) for chapter in sommaire.chapters(root)
             for path in [chapter.folder / "glossaire.toml"] if path.exists()
             for term in tomllib.loads(path.read_text(encoding="utf-8"))["terme"]]
    return sorted(found, key=lambda one: re.sub(r"\W", " ", unicodedata.normalize("NFD", one[0]["fr"].lower())))


def glossary_page(root: pathlib.Path) -> str:
    """Le glossaire, dans l'ordre du français, puis l'index anglais."""
    entries, index = [], []
    for term, chapter in glossary(root):
        page = chapter.name
        source = f"[chapitre {chapter.numero}]({page}.ipynb)"
        if "equation" in term:
            number = term["equation"]
            source += f', équation <a href="{page}.html#eq-{number.replace(".", "-")}">({number})</a>'
        definition = " ".join(term["definition"].split())
        entries.append(f'{term["fr"]}\n  *{term["en"]}* — {definition} Voir le {source}.\n')
        index.append(f'| *{term["en"]}* | {{term}}`{term["fr"]}` |')
    return "\n".join(["# Glossaire français–anglais", "", "## Du français à l'anglais", "", "```{glossary}", *entries,
                      "```", "", "## De l'anglais au français", "", "| anglais | français |", "|---|---|",
                      *sorted(index, key=str.lower), ""])


def cards(root: pathlib.Path, static: pathlib.Path) -> str:
    """Une vignette par chapitre : une figure et le titre."""
    found = ['<div class="cartes">']
    for target in notebooks.students(root):
        notebook, page = notebooks.read(target.path), target.path.stem
        wanted = target.chapter.vignette.replace("\u00a0", " ")  # le code d'un chapitre n'a pas d'espaces insécables
        alt, image = next((one for one in pictures(notebook).values() if one[0].startswith(wanted)), ("", b""))
        if not image:
            raise notebooks.BuildError(f"{target.name} : aucun texte alternatif ne commence par « {wanted} ».")
        (static / f"{page}.png").write_bytes(image)
        found.append(f'<a class="carte" href="{page}.html"><img src="_static/{page}.png" alt="{html.escape(alt)}">'
                     f"<span>{html.escape(title(notebook))}</span></a>")
    return "\n".join([*found, "</div>"])


# --- Construire -----------------------------------------------------------------------------------


def stage(root: pathlib.Path, source: pathlib.Path) -> None:
    """Écrit dans `source` les pages que Sphinx lira."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "site" / "theme", source / "theme")
    shutil.copy(root / "site" / "conf.py", source)
    (source / "carnets").mkdir()
    known, alts = equations(root), {}
    for target in notebooks.students(root):
        nbformat.write(chapter_page(target, known), source / target.path.name)
        shutil.copy(target.path, source / "carnets")
        alts |= {key: alt for key, (alt, _) in pictures(notebooks.read(target.path)).items()}
    pages = [target.path.stem for target in notebooks.students(root)] + ["solutions", "glossaire"]
    toc = "\n".join(["", "```{toctree}", ":hidden:", *pages, "```", ""])
    welcome = (root / "site" / "accueil.md").read_text(encoding="utf-8")
    welcome = welcome.replace("{{cartes}}", cards(root, source / "theme")).replace("{{depot}}", sommaire.address(root))
    texts = {"index.md": welcome + toc, "solutions.md": solutions_page(root, known),
             "glossaire.md": glossary_page(root),
             "carnets.json": json.dumps({"version": version(root), "descriptions": alts, "equations": known})}
    for name, text in texts.items():
        (source / name).write_text(text, encoding="utf-8")


def build(root: pathlib.Path = ROOT, out: pathlib.Path = BUILD) -> pathlib.Path:
    """Construit le site de `root` ; son dossier. BuildError si Sphinx a quoi que ce soit à redire."""
    source, pages = out / "source", out / "html"
    stage(root, source)
    shutil.rmtree(pages, ignore_errors=True)
    run = subprocess.run([sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-E",
                          "-d", out / "doctrees", source, pages])
    if run.returncode:
        raise notebooks.BuildError("Le site n'a pas pu être construit ; les lignes ci-dessus disent pourquoi.")
    shutil.copytree(source / "carnets", pages / "carnets")
    (pages / ".buildinfo").unlink()
    return pages


def main() -> int:
    """Construit le site ; renvoie le code de sortie."""
    try:
        print(f"Le site est prêt : ouvrez {build() / 'index.html'}")
    except notebooks.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
