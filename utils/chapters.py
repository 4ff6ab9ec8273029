"""Trouver les chapitres, les lire, et en faire des modules : une seule définition de ce qui est enseigné.

Un chapitre est un dossier `chapters/NN_slug` qui contient `cours.md` ; tout le cours les trouve ainsi.
"""

import ast
import functools
import importlib.util
import re
import sys
import types
from typing import NamedTuple

from utils.config import ROOT

_FENCE = re.compile(r"^```python(?: (?P<meta>[^\n]*))?\n(?P<source>.*?)^```$", re.M | re.S)
_TAGS = re.compile(r"tags=(\[.*?\])")


class Cell(NamedTuple):
    """Cellule de code d'un chapitre : ses étiquettes, son texte et sa première ligne dans la source."""

    tags: tuple[str, ...]
    source: str
    line: int


def names() -> list[str]:
    """Noms des chapitres (« NN_slug »), dans l'ordre."""
    return sorted(source.parent.name for source in (ROOT / "chapters").glob("*/cours.md"))


def path(name: str):
    """Chemin de la source du chapitre `name` (« NN_slug ») ; FileNotFoundError en français s'il manque."""
    source = ROOT / "chapters" / name / "cours.md"
    if not source.exists():
        raise FileNotFoundError(f"Pas de chapitre « {name} ». Chapitres présents : {', '.join(names())}.")
    return source


def code_cells(name: str) -> list[Cell]:
    """Cellules de code exécutables du chapitre `name`, dans l'ordre (celles notées `.noeval` sont omises)."""
    text = path(name).read_text(encoding="utf-8")
    cells = []
    for found in _FENCE.finditer(text):
        meta = found["meta"] or ""
        if ".noeval" in meta:
            continue
        tags = _TAGS.search(meta)
        line = text.count("\n", 0, found.start("source")) + 1
        cells.append(Cell(tuple(ast.literal_eval(tags[1])) if tags else (), found["source"], line))
    return cells


@functools.cache
def load_chapter(name: str) -> types.ModuleType:
    """Module fait des cellules étiquetées `modele` du chapitre `name`, et d'elles seules.

    Les tests, les autres chapitres et les points de sauvegarde y prennent les classes enseignées.
    """
    file = str(path(name))
    module = types.ModuleType(f"chapitre_{name}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    for cell in code_cells(name):
        if "modele" in cell.tags:
            # Les lignes vides donnent aux erreurs le vrai numéro de ligne de la source.
            exec(compile("\n" * (cell.line - 1) + cell.source, file, "exec"), module.__dict__)
    return module


def load_exercises(name: str) -> types.ModuleType | None:
    """Module `exercices.py` du chapitre `name`, ou None s'il n'en a pas ; il est lu à chaque appel."""
    file = path(name).with_name("exercices.py")
    if not file.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"exercices_{name}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
