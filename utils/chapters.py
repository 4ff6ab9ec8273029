"""Lire un chapitre, et en faire un module : une seule définition de ce qui est enseigné."""

import ast
import functools
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


def path(name: str):
    """Chemin de la source du chapitre `name` (« 03_vae ») ; FileNotFoundError en français s'il manque."""
    source = ROOT / "chapters" / f"{name}.md"
    if not source.exists():
        known = ", ".join(sorted(p.stem for p in source.parent.glob("*.md")))
        raise FileNotFoundError(f"Pas de chapitre « {name} ». Chapitres présents : {known}.")
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
