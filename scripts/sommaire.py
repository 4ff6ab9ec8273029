"""Les chapitres, tels que leurs en-têtes les présentent ; et les listes de chapitres qui en naissent.

Un chapitre est un dossier `chapters/NN_slug` ; l'en-tête de son `cours.md` donne son numéro, son titre, son temps de
lecture, ses prérequis, ce que l'on y construit et la figure qui le représente. Le tableau et les mesures du README, le
tableau du panorama, la ligne sous chaque titre et les liens vers les voisins viennent de là, et les durées des carnets
exécutés : rien d'autre ne nomme un chapitre.
"""

import json
import pathlib
import re
import tomllib
from dataclasses import dataclass

import yaml

MISSING = "non mesurée"
BLOCK = "<!-- {0} : écrit par scripts/sommaire.py -->\n{1}<!-- fin : {0} -->\n"


@dataclass(frozen=True)
class Chapter:
    """Un chapitre : son dossier et ce que dit son en-tête."""

    folder: pathlib.Path
    numero: int
    titre: str
    lecture: str
    construit: str
    vignette: str  # début du texte alternatif de la figure qui le représente
    prerequis: str = ""

    @property
    def name(self) -> str:
        """« NN_slug », le nom du dossier et des carnets."""
        return self.folder.name

    @property
    def source(self) -> pathlib.Path:
        """Le texte du chapitre."""
        return self.folder / "cours.md"

    @property
    def label(self) -> str:
        """« Chapitre 4 — Titre »."""
        return f"Chapitre {self.numero} — {self.titre}"


def chapters(root: pathlib.Path, prefix: str = "") -> list[Chapter]:
    """Chapitres du cours dont le nom commence par `prefix`, dans l'ordre ; ValueError si un en-tête est incomplet."""
    return [read(source) for source in sorted((root / "chapters").glob(f"{prefix}*/cours.md"))]


def read(source: pathlib.Path) -> Chapter:
    """Chapitre dont `source` est le texte ; ValueError, qui dit ce qui manque, si son en-tête est incomplet."""
    head = re.match(r"---\n(.*?)\n---\n", source.read_text(encoding="utf-8"), re.DOTALL)
    facts = yaml.safe_load(head[1]) if head else {}
    facts.pop("jupyter", None)
    try:
        chapter = Chapter(source.parent, **facts)
    except TypeError as error:
        wanted = ", ".join(key for key in Chapter.__dataclass_fields__ if key != "folder")
        raise ValueError(f"{source} : l'en-tête doit donner {wanted} (prerequis est facultatif). {error}") from None
    if not chapter.name.startswith(f"{chapter.numero:02}_"):
        raise ValueError(f"{source} : le dossier devrait s'appeler « {chapter.numero:02}_… », d'après son numéro.")
    return chapter


def address(root: pathlib.Path) -> str:
    """Adresse publique du dépôt, lue dans pyproject.toml, le seul endroit où elle est écrite."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Depot"]


def colab(depot: str, notebook: str) -> str:
    """Adresse qui ouvre dans Colab le carnet `notebook` (chemin depuis la racine) du dépôt `depot`."""
    return f"{depot.replace('github.com', 'colab.research.google.com/github')}/blob/main/{notebook}"


def facts(root: pathlib.Path, chapter: Chapter) -> dict:
    """Ce que note le carnet exécuté d'un chapitre : budget, machine, secondes ; vide s'il ne l'est pas encore."""
    path = root / "notebooks" / f"{chapter.name}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))["metadata"]["cours"] if path.exists() else {}


# --- Ce qui s'insère dans les carnets -------------------------------------------------------------------------


def heading(chapter: Chapter, link: str, run: dict) -> str:
    """La ligne qui suit le titre : Colab (adresse `link`), lecture, exécution (`run` : ce que note le carnet)."""
    parts = [f"**[Ouvrir dans Colab]({link})**", f"lecture : {chapter.lecture}"]
    if "secondes" in run:
        minutes, seconds = round(run["secondes"] / 60), run["secondes"]
        lasted = f"{minutes} min" if seconds >= 90 else f"{seconds} s"
        parts.append(f"exécution complète : {lasted} (budget `{run['budget']}`, {run['machine']})")
    return " · ".join([*parts, *([f"prérequis : {chapter.prerequis}"] if chapter.prerequis else [])])


def neighbours(chapter: Chapter, everyone: list[Chapter], corrected: bool) -> str:
    """Liens vers le chapitre précédent, le premier et le suivant ; d'un corrigé, vers les carnets de l'étudiant."""
    names, up = [one.name for one in everyone], "../" if corrected else ""
    rank = names.index(chapter.name)
    near = {"Précédent": rank - 1, "Suivant": rank + 1}
    links = [f"{word} : [{everyone[i].label}]({up}{everyone[i].name}.ipynb)" for word, i in near.items()
             if 0 <= i < len(everyone)]
    return " · ".join(links)


def contents(chapter: Chapter, everyone: list[Chapter]) -> str:
    """Tableau des autres chapitres, et de ce que l'on y construit."""
    rows = [f"| {one.numero} | [{one.titre}]({one.name}.ipynb) | {one.construit} |" for one in everyone
            if one.name != chapter.name]
    return "\n".join(["| n° | chapitre | ce que l'on y construit |", "|---|---|---|", *rows])


# --- Ce qui s'insère dans le README ---------------------------------------------------------------------------


def durations(root: pathlib.Path) -> str:
    """Tableau des chapitres du README : titre, lecture, exécution, bouton Colab."""
    depot = address(root)
    rows = ["| n° | chapitre | lecture | exécution, CPU | exécution, GPU | |", "|---|---|---|---|---|---|"]
    for one in chapters(root):
        path, run = f"notebooks/{one.name}.ipynb", facts(root, one)
        lasted = f"{run['secondes']} s" if "secondes" in run else MISSING
        button = f"[![Ouvrir le chapitre {one.numero} dans Colab](images/colab.svg)]({colab(depot, path)})"
        rows.append(f"| {one.numero} | [{one.titre}]({path}) | {one.lecture} | {lasted} | {MISSING} | {button} |")
    return "\n".join(["", *rows, "", ""])


def measures(root: pathlib.Path) -> str:
    """Ce que chaque chapitre a mesuré : son `mesures.md`, s'il en a un."""
    found = [one.folder / "mesures.md" for one in chapters(root)]
    return "".join(f"\n{path.read_text(encoding='utf-8').strip()}\n" for path in found if path.exists()) + "\n"


def readme(root: pathlib.Path) -> str:
    """Le README, ses deux passages écrits par les chapitres remis à jour."""
    text = (root / "README.md").read_text(encoding="utf-8")
    for name, content in (("chapitres", durations(root)), ("mesures", measures(root))):
        new = BLOCK.format(name, content)
        text = re.sub(re.escape(BLOCK.format(name, "\0")).replace("\0", ".*?"), lambda _, new=new: new, text,
                      flags=re.DOTALL)
    return text


def write_readme(root: pathlib.Path) -> None:
    """Met à jour le README de `root`, s'il en a un et s'il a changé."""
    path = root / "README.md"
    if path.exists() and (new := readme(root)) != path.read_text(encoding="utf-8"):
        path.write_text(new, encoding="utf-8", newline="\n")
