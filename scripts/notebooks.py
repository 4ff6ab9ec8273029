"""Construit les carnets à partir des chapitres, dans ce seul sens.

De chaque `chapters/NN_slug.md` naissent `notebooks/NN_slug.ipynb`, la version de l'étudiant (sans les
cellules étiquetées `solution`), et, si le chapitre a des solutions, `notebooks/corriges/NN_slug.ipynb`
(sans les cellules étiquetées `exercice`). Un carnet dont le code n'a pas changé garde ses sorties ;
les autres sont exécutés.

    python scripts/notebooks.py [--chapitre 03] [--executer | --sans-execution | --verifier]
"""

import argparse
import hashlib
import os
import pathlib
import re
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass

import cours
import jupytext
import nbformat

ROOT = cours.ROOT
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class BuildError(Exception):
    """Construction impossible ; le message dit où et pourquoi."""


@dataclass(frozen=True)
class Target:
    """Un carnet à construire : son chapitre, où l'écrire, l'étiquette des cellules qu'il n'a pas."""

    chapter: pathlib.Path
    path: pathlib.Path
    without: str

    @property
    def name(self) -> str:
        """Chemin du carnet depuis la racine du cours."""
        folder = "notebooks/corriges" if self.without == "exercice" else "notebooks"
        return f"{folder}/{self.path.name}"


# --- Du chapitre au carnet ------------------------------------------------------------------------


def address(root: pathlib.Path) -> str:
    """Adresse publique du dépôt, lue dans pyproject.toml, le seul endroit où elle est écrite."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Depot"]


def targets(root: pathlib.Path, prefix: str = "") -> list[Target]:
    """Carnets des chapitres dont le nom commence par `prefix` ; BuildError s'il n'y en a pas."""
    chapters = sorted((root / "chapters").glob("*.md"))
    chosen = [c for c in chapters if c.name.startswith(prefix)]
    if not chosen:
        known = ", ".join(c.stem for c in chapters) or "aucun"
        raise BuildError(f"Aucun chapitre ne commence par « {prefix} ». Chapitres connus : {known}.")
    found = []
    for chapter in chosen:
        found.append(Target(chapter, root / "notebooks" / f"{chapter.stem}.ipynb", "solution"))
        if any("solution" in tags(cell) for cell in jupytext.read(chapter, fmt="md").cells):
            found.append(Target(chapter, root / "notebooks/corriges" / f"{chapter.stem}.ipynb", "exercice"))
    return found


def tags(cell) -> list[str]:
    """Étiquettes d'une cellule."""
    return cell.metadata.get("tags", [])


def generate(target: Target, depot: str):
    """Carnet sans sorties, à l'adresse `depot`.

    L'identifiant d'une cellule ne dépend que du chapitre, de son type et de son texte : régénérer ne
    change rien.
    """
    colab = f"{depot.replace('github.com', 'colab.research.google.com/github')}/blob/main/{target.name}"
    cells, seen = [], Counter()
    for cell in jupytext.read(target.chapter, fmt="md").cells:
        if cell.cell_type == "raw" or target.without in tags(cell):
            continue
        key = f"{target.chapter.stem}\n{cell.cell_type}\n{cell.source}"
        seen[key] += 1
        cell.id = hashlib.sha256(f"{key}\n{seen[key]}".encode()).hexdigest()[:8]
        cell.source = cell.source.replace("{{depot}}", depot).replace("{{colab}}", colab)
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata={**KERNEL, "cours": {"depot": depot}})


def code_cells(notebook) -> list:
    """Cellules de code, dans l'ordre."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(path: pathlib.Path):
    """Carnet enregistré, ou None s'il est absent ou illisible."""
    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None


def write(path: pathlib.Path, notebook) -> None:
    """Écrit le carnet d'un seul coup : une interruption ne laisse jamais un fichier à moitié écrit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    os.replace(draft, path)


def keep_outputs(new, old, target: Target) -> bool:
    """Reporte dans `new` les sorties de `old` si elles viennent du même code ; dit si c'est fait.

    Le code est comparé à l'adresse qu'avait alors le dépôt : en changer ne fait rien perdre.
    """
    past = old.metadata.get("cours", {})
    expected = [cell.source for cell in code_cells(generate(target, past.get("depot", "")))]
    if [cell.source for cell in code_cells(old) if cell.execution_count is not None] != expected:
        return False
    for fresh, cell in zip(code_cells(new), code_cells(old), strict=True):
        fresh.outputs, fresh.execution_count = cell.outputs, cell.execution_count
    new.metadata.cours = {**past, **new.metadata.cours}
    return True


# --- Exécuter -------------------------------------------------------------------------------------


def execute(notebook, target: Target) -> None:
    """Exécute le carnet dans son dossier ; BuildError nomme le chapitre et la cellule qui échoue."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
    from traitlets.config import Config

    cours.confine()
    target.path.parent.mkdir(parents=True, exist_ok=True)
    # Sinon chaque noyau avertit qu'il n'est pas chiffré.
    quiet = Config(KernelManager={"transport_encryption": "auto"})
    client = NotebookClient(notebook, kernel_name="python3", record_timing=False, store_widget_state=False,
                            resources={"metadata": {"path": str(target.path.parent)}}, config=quiet)
    start = time.monotonic()
    sections, title = Counter(), ""  # secondes de chaque section, pour la fiche de l'enseignant
    # COURS_FIGE : les curseurs laissent une forme lisible sans noyau.
    with client.setup_kernel(env={**os.environ, "COURS_FIGE": "1"}):
        for index, cell in enumerate(notebook.cells):
            began, title = time.monotonic(), section(cell) or title
            try:
                client.execute_cell(cell, index)
            except (CellControlSignal, CellExecutionError, DeadKernelError) as error:
                raise BuildError(
                    f"{target.name} : la cellule {index + 1} (identifiant {cell.id}) du chapitre "
                    f"{target.chapter.stem} a échoué ; rien n'a été écrit.\n{error}") from error
            if cell.cell_type == "code":
                cell.outputs = tidy(cell.outputs)
                cell.metadata.pop("execution", None)
                sections[title] += time.monotonic() - began
    facts = {**notebook.metadata.cours, **circumstances(), "secondes": round(time.monotonic() - start),
             "sections": {title: round(seconds) for title, seconds in sections.items()}}
    notebook.metadata = {**KERNEL, "cours": facts}


def section(cell) -> str | None:
    """Dernier titre de section (« ## … ») qu'ouvre une cellule de texte, ou None."""
    titles = re.findall("^## (.+)", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
    return titles[-1] if titles else None


def circumstances() -> dict[str, str]:
    """Budget et machine de l'exécution, pour que les durées citées disent d'où elles viennent."""
    from utils import config

    return {"budget": config.budget_name(), "machine": config.hardware()}


def tidy(outputs: list) -> list:
    """Sorties stables : flux réunis, barres de progression à leur dernier état, pas de curseur mort."""
    kept = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        elif output.get("data", {}).pop(WIDGET, None) is None or output.data.keys() > {"text/plain"}:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = "\n".join(map(last_state, output.text.split("\n")))
    return [output for output in kept if output.get("text") != ""]


def last_state(line: str) -> str:
    """Ce qu'un terminal montre d'une ligne réécrite par des retours chariot."""
    *rewritten, last = line.rstrip("\r").split("\r")
    return last.rstrip() if rewritten else last


# --- Vérifier -------------------------------------------------------------------------------------


def defects(target: Target, depot: str) -> list[str]:
    """Ce qui ne va pas dans le carnet enregistré ; liste vide s'il est à jour et complet."""
    notebook = read(target.path)
    if notebook is None:
        return ["absent ou illisible"]
    found = []
    if list(map(essence, notebook.cells)) != list(map(essence, generate(target, depot).cells)):
        found.append(f"ne correspond plus à chapters/{target.chapter.name}")
    if "widgets" in notebook.metadata:
        found.append("état de curseurs enregistré")
    for cell in notebook.cells:
        found += [f"cellule {cell.id} : {problem}" for problem in cell_defects(cell)]
    return found


def essence(cell) -> tuple:
    """Ce qu'un carnet doit à son chapitre."""
    return cell.get("id"), cell.cell_type, cell.source, tags(cell)


def cell_defects(cell) -> list[str]:
    """Défauts d'une cellule : jamais exécutée, en erreur, ou image sans texte alternatif."""
    if cell.cell_type != "code":
        return ["image sans texte alternatif"] if without_alt(cell.source) else []
    found = ["jamais exécutée"] if cell.execution_count is None else []
    for output in cell.outputs:
        if output.output_type == "error":
            found.append(f"erreur {output.ename}")
        data, metadata = output.get("data", {}), output.get("metadata", {})
        images = [kind for kind in data if kind.startswith("image/")]
        described = all(metadata.get(kind, {}).get("alt") for kind in images)
        if not described or without_alt(data.get("text/html", "")):
            found.append("image sans texte alternatif")
    return found


def without_alt(text: str) -> bool:
    """Vrai si un texte Markdown ou HTML contient une image sans texte alternatif."""
    return bool(re.search(r"""!\[\s*\]\(|<img\b(?![^>]*\balt=["'][^"'])""", text))


def orphans(root: pathlib.Path) -> list[pathlib.Path]:
    """Carnets qui ne viennent d'aucun chapitre."""
    expected = {target.path for target in targets(root)}
    found = [*(root / "notebooks").glob("*.ipynb"), *(root / "notebooks/corriges").glob("*.ipynb")]
    return sorted(set(found) - expected)


# --- Ligne de commande ----------------------------------------------------------------------------


def build(target: Target, depot: str, *, force: bool = False, run: bool = True) -> str:
    """Construit un carnet et dit en quelques mots ce qui a été fait."""
    notebook, old = generate(target, depot), read(target.path)
    if not force and old is not None and keep_outputs(notebook, old, target):
        done = "sorties gardées, le code n'a pas changé"
    elif run:
        execute(notebook, target)
        done = "exécuté en {secondes} s (budget {budget}, {machine})".format(**notebook.metadata.cours)
    else:
        done = "régénéré, à exécuter"
    write(target.path, notebook)
    return done


def verify(root: pathlib.Path, prefix: str = "") -> list[str]:
    """Défauts de tous les carnets enregistrés, un par ligne."""
    depot = address(root)
    found = [f"{t.name} : {defect}" for t in targets(root, prefix) for defect in defects(t, depot)]
    if not prefix:
        found += [f"{path.relative_to(root)} : ne vient d'aucun chapitre" for path in orphans(root)]
    return found


def main(argv: list[str] | None = None, root: pathlib.Path = ROOT) -> int:
    """Construit ou vérifie les carnets de `root` ; renvoie le code de sortie."""
    parser = argparse.ArgumentParser(description="Construit les carnets à partir des chapitres.")
    parser.add_argument("--chapitre", default="", metavar="NN", help="début du nom du chapitre")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--executer", action="store_true", help="exécute même si le code n'a pas changé")
    mode.add_argument("--sans-execution", action="store_true", help="n'exécute jamais")
    mode.add_argument("--verifier", action="store_true", help="n'écrit rien ; nomme les carnets périmés")
    chosen = parser.parse_args(argv)
    try:
        if chosen.verifier:
            found = verify(root, chosen.chapitre)
            print("\n".join(found) or "Tous les carnets sont à jour.")
            return int(bool(found))
        for target in targets(root, chosen.chapitre):
            print(f"{target.name} ... ", end="", flush=True)
            print(build(target, address(root), force=chosen.executer, run=not chosen.sans_execution))
    except BuildError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
