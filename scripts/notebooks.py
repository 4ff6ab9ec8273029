"""Construit les carnets à partir des chapitres, dans ce seul sens.

De chaque `chapters/NN_slug/cours.md` naissent `notebooks/NN_slug.ipynb`, la version de l'étudiant (sans les cellules
étiquetées `solution`), et, si le chapitre a des solutions, `notebooks/corriges/NN_slug.ipynb` (sans les cellules
étiquetées `exercice`). Les deux viennent d'une seule exécution, et aucune sortie n'est enregistrée deux fois : le
corrigé ne garde que celles de ses solutions. Un carnet dont le code n'a pas changé garde ses sorties ; les autres sont
exécutés. Enfin, les listes de chapitres (README, panorama, voisins) sont mises à jour.

    python scripts/notebooks.py [--chapitre 03] [--executer | --sans-execution | --verifier]
"""

import argparse
import hashlib
import os
import pathlib
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass

import cours
import jupytext
import nbformat
import sommaire

ROOT = cours.ROOT
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Autour d'une solution : ce qu'elle tire au hasard ne change rien à la suite du carnet de l'étudiant.
BACKSTAGE = "coulisses"
BEFORE = "from utils import config as _config; _kept = _config.randomness_kept(); _kept.__enter__()"
AFTER = "_kept.__exit__(None, None, None); del _config, _kept"


class BuildError(Exception):
    """Construction impossible ; le message dit où et pourquoi."""


@dataclass(frozen=True)
class Target:
    """Un carnet à construire : son chapitre, où l'écrire, l'étiquette des cellules qu'il n'a pas."""

    chapter: sommaire.Chapter
    path: pathlib.Path
    without: str

    @property
    def corrected(self) -> bool:
        """Est-ce un corrigé ?"""
        return self.without == "exercice"

    @property
    def name(self) -> str:
        """Chemin du carnet depuis la racine du cours."""
        folder = "notebooks/corriges" if self.corrected else "notebooks"
        return f"{folder}/{self.path.name}"


# --- Du chapitre au carnet ------------------------------------------------------------------------


def targets(root: pathlib.Path, prefix: str = "") -> list[Target]:
    """Carnets des chapitres dont le nom commence par `prefix` ; BuildError s'il n'y en a pas."""
    try:
        chosen = sommaire.chapters(root, prefix)
        known = ", ".join(one.name for one in sommaire.chapters(root)) or "aucun"
    except ValueError as error:
        raise BuildError(str(error)) from None
    if not chosen:
        raise BuildError(f"Aucun chapitre ne commence par « {prefix} ». Chapitres connus : {known}.")
    found = []
    for chapter in chosen:
        found.append(Target(chapter, root / "notebooks" / f"{chapter.name}.ipynb", "solution"))
        if any("solution" in tags(cell) for cell in source_cells(chapter)):
            found.append(Target(chapter, root / "notebooks/corriges" / f"{chapter.name}.ipynb", "exercice"))
    return found


def students(root: pathlib.Path, prefix: str = "") -> list[Target]:
    """Les carnets de l'étudiant, parmi `targets`."""
    return [target for target in targets(root, prefix) if not target.corrected]


def tags(cell) -> list[str]:
    """Étiquettes d'une cellule."""
    return cell.metadata.get("tags", [])


def source_cells(chapter: sommaire.Chapter) -> list:
    """Cellules d'un chapitre, ébauches et solutions comprises.

    L'identifiant d'une cellule ne dépend que du chapitre, de son type et de son texte : régénérer ne change rien.
    """
    cells, seen = [], Counter()
    for cell in jupytext.read(chapter.source, fmt="md").cells:
        if cell.cell_type != "raw":
            key = f"{chapter.name}\n{cell.cell_type}\n{cell.source}"
            seen[key] += 1
            cell.id = hashlib.sha256(f"{key}\n{seen[key]}".encode()).hexdigest()[:8]
            cells.append(cell)
    return cells


def generate(target: Target, depot: str, run: dict | None = None):
    """Carnet sans sorties, à l'adresse `depot` ; `run` : ce qu'a noté l'exécution, sous le titre."""
    root = target.chapter.folder.parents[1]
    everyone, link = sommaire.chapters(root), sommaire.colab(depot, target.name)
    inserted = {
        "depot": depot, "entete": sommaire.heading(target.chapter, link, run or {}),
        "voisins": sommaire.neighbours(target.chapter, everyone, target.corrected),
        "chapitres": sommaire.contents(target.chapter, everyone)}
    cells = [cell for cell in source_cells(target.chapter) if target.without not in tags(cell)]
    for cell in cells:
        for name, text in inserted.items():
            cell.source = cell.source.replace(f"{{{{{name}}}}}", text)
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


def shown(target: Target, notebook) -> list:
    """Cellules de code dont ce carnet garde les sorties : toutes pour l'étudiant, les solutions pour le corrigé."""
    return [cell for cell in code_cells(notebook) if not target.corrected or "solution" in tags(cell)]


def recorded(target: Target) -> tuple[dict, list] | None:
    """Ce qu'a noté la dernière exécution, et les sorties de chaque cellule de `shown` ; None si le code a changé.

    Le code est comparé à l'adresse qu'avait alors le dépôt : en changer ne fait rien perdre.
    """
    old = read(target.path)
    if old is None:
        return None
    run, cells = old.metadata.get("cours", {}), shown(target, old)
    sources = [[cell.source for cell in code_cells(one)] for one in (old, generate(target, run.get("depot", "")))]
    if sources[0] != sources[1] or any(cell.execution_count is None for cell in cells):
        return None
    return run, [cell.outputs for cell in cells]


# --- Exécuter -------------------------------------------------------------------------------------


def execute(student: Target, depot: str) -> tuple[dict, dict[str, list]]:
    """Exécute tout un chapitre, dans le dossier de son carnet ; BuildError nomme la cellule qui échoue.

    Rend ce qu'il faut noter de l'exécution, et les sorties de chaque cellule, par identifiant. Une solution suit son
    ébauche, que rien d'autre ne lit (un test le vérifie), et laisse le hasard comme elle l'a trouvé.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
    from traitlets.config import Config

    cours.confine()
    student.path.parent.mkdir(parents=True, exist_ok=True)
    notebook = generate(Target(student.chapter, student.path, BACKSTAGE), depot)
    notebook.cells = [one for cell in notebook.cells for one in staged(cell)]
    # Sinon chaque noyau avertit qu'il n'est pas chiffré.
    quiet = Config(KernelManager={"transport_encryption": "auto"})
    client = NotebookClient(notebook, kernel_name="python3", record_timing=False, store_widget_state=False,
                            resources={"metadata": {"path": str(student.path.parent)}}, config=quiet)
    outputs, sections, title, start = {}, Counter(), "", time.monotonic()
    # COURS_FIGE : les curseurs laissent une forme lisible sans noyau.
    with client.setup_kernel(env={**os.environ, "COURS_FIGE": "1"}):
        opened = time.monotonic() - start
        for index, cell in enumerate(notebook.cells):
            began, title = time.monotonic(), section(cell) or title
            taught = not {"solution", BACKSTAGE} & set(tags(cell))
            try:
                client.execute_cell(cell, index, store_history=taught)
            except (CellControlSignal, CellExecutionError, DeadKernelError) as error:
                raise BuildError(
                    f"{student.name} : la cellule {index + 1} (identifiant {cell.id}) du chapitre "
                    f"{student.chapter.name} a échoué ; rien n'a été écrit.\n{error}") from error
            if cell.cell_type == "code" and BACKSTAGE not in tags(cell):
                outputs[cell.id] = tidy(cell.outputs)
                sections[title] += (time.monotonic() - began) * taught
    return {**circumstances(), "secondes": round(opened + sections.total()),
            "sections": {title: round(seconds) for title, seconds in sections.items()}}, outputs


def staged(cell) -> list:
    """Une cellule, telle qu'on l'exécute : une solution entre deux cellules de coulisses."""
    if cell.cell_type != "code" or "solution" not in tags(cell):
        return [cell]
    hidden = [nbformat.v4.new_code_cell(code, metadata={"tags": [BACKSTAGE]}) for code in (BEFORE, AFTER)]
    return [hidden[0], cell, hidden[1]]


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
    run = notebook.metadata.get("cours", {})
    if list(map(essence, notebook.cells)) != list(map(essence, generate(target, depot, run).cells)):
        found.append(f"ne correspond plus à chapters/{target.chapter.name}")
    if "widgets" in notebook.metadata:
        found.append("état de curseurs enregistré")
    kept = [cell.id for cell in shown(target, notebook)]
    for cell in notebook.cells:
        found += [f"cellule {cell.id} : {problem}" for problem in cell_defects(cell, cell.id in kept)]
    return found


def essence(cell) -> tuple:
    """Ce qu'un carnet doit à son chapitre."""
    return cell.get("id"), cell.cell_type, cell.source, tags(cell)


def cell_defects(cell, kept: bool) -> list[str]:
    """Défauts d'une cellule : sorties qui manquent ou (sans `kept`) sont de trop, erreur, image sans description."""
    if cell.cell_type != "code":
        return ["image sans texte alternatif"] if without_alt(cell.source) else []
    found = ["jamais exécutée"] if kept and cell.execution_count is None else []
    found += ["sorties déjà dans le carnet de l'étudiant"] if cell.outputs and not kept else []
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


def build(chapter: list[Target], depot: str, *, force: bool = False, run: bool = True) -> str:
    """Construit les carnets d'un chapitre et dit en quelques mots ce qui a été fait."""
    kept, done = list(map(recorded, chapter)), "sorties gardées, le code n'a pas changé"
    if force or None in kept:
        done = "régénéré, à exécuter"
        if run:
            facts, outputs = execute(chapter[0], depot)
            kept = [(facts, [outputs[cell.id] for cell in shown(one, generate(one, depot))]) for one in chapter]
            done = "exécuté en {secondes} s (budget {budget}, {machine})".format(**facts)
    for target, (facts, outputs) in zip(chapter, [one or ({}, []) for one in kept], strict=True):
        notebook = generate(target, depot, facts)
        for count, (cell, output) in enumerate(zip(shown(target, notebook), outputs, strict=False), 1):
            cell.outputs, cell.execution_count = output, count
        notebook.metadata.cours = {**facts, "depot": depot}
        write(target.path, notebook)
    return done


def verify(root: pathlib.Path, prefix: str = "") -> list[str]:
    """Défauts de tous les carnets enregistrés, et du README, un par ligne."""
    depot = sommaire.address(root)
    found = [f"{t.name} : {defect}" for t in targets(root, prefix) for defect in defects(t, depot)]
    if not prefix:
        found += [f"{path.relative_to(root)} : ne vient d'aucun chapitre" for path in orphans(root)]
        readme = root / "README.md"
        if readme.exists() and readme.read_text(encoding="utf-8") != sommaire.readme(root):
            found.append("README.md : ne dit plus les mêmes chapitres, durées ou mesures")
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
        depot, ours = sommaire.address(root), {target.chapter for target in targets(root, chosen.chapitre)}
        for chapter in sommaire.chapters(root):
            made = targets(root, chapter.name)
            if chapter not in ours and None in map(recorded, made):
                continue  # un autre chapitre, en chantier : ses sorties ne se perdent pas
            print(f"{chapter.name} ... ", end="", flush=True)
            # Les autres chapitres ne font que remettre à jour leurs liens.
            force = chosen.executer and chapter in ours
            print(build(made, depot, force=force, run=not chosen.sans_execution), flush=True)
        sommaire.write_readme(root)
    except BuildError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
