"""Corrige la typographie française des chapitres : `python scripts/typographie.py [fichier.md …]`.

Seule la prose est touchée : ni le code, ni les mathématiques, ni le HTML, ni les liens, ni l'italique
(titres et termes anglais). Les tests demandent que cette correction ne trouve rien à changer.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
NBSP = "\u00a0"

PROTECTED = re.compile(
    r"""(\A---\n.*?\n---\n            # en-tête
      | ^```.*?^```[ ]*$             # bloc de code
      | \$\$.*?\$\$ | (?<!\\)\$[^$\n]+\$ | \\\[.*?\\\] | \\begin\{.*?\\end\{\w+\*?\}
      | `[^`]+`
      | <!--.*?--> | <[^<>\s][^<>]*> | &\w+;
      | \]\([^)\s]*\) | https?://[^\s)]+
      | (?<!\*)\*(?![*\s])[^*\n]+(?<!\s)\*(?!\*)  # italique
      | ^[ ]*\|[ :|-]+\|[ ]*$        # filet d'un tableau
      )""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)

CLOSING = r"(?=\s|$|[*)»|])"
RULES = [
    ("[‘’]", "'"),
    (r"\.\.\.", "…"),
    (rf"«[ {NBSP}\u202f]*", f"«{NBSP}"),
    (rf"[ {NBSP}\u202f]*»", f"{NBSP}»"),
    (rf"(^|(?<=\S))[ \u202f]([;:!?%]){CLOSING}", rf"{NBSP}\2"),
    (rf"(^|(?<=[\w\])*»]))([;:!?]){CLOSING}", rf"{NBSP}\2"),
]


def corrected(text: str) -> str:
    """Texte Markdown dont la prose suit les règles : apostrophe droite, « … », espaces insécables."""
    pieces = PROTECTED.split(text)
    for index in range(0, len(pieces), 2):  # les morceaux impairs sont protégés
        for pattern, replacement in RULES:
            pieces[index] = re.sub(pattern, replacement, pieces[index])
    return "".join(pieces)


def english_quotes(text: str) -> list[str]:
    """Passages de prose entre guillemets anglais, que seul l'auteur peut corriger."""
    prose = " ".join(PROTECTED.split(text)[::2])
    return re.findall(r'.{0,20}["“”].{0,20}', prose)


def main() -> None:
    """Corrige sur place les fichiers donnés, ou les textes de tous les chapitres."""
    for path in map(pathlib.Path, sys.argv[1:] or sorted((ROOT / "chapters").glob("*/*.md"))):
        before = path.read_text(encoding="utf-8")
        after = corrected(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path} : corrigé")


if __name__ == "__main__":
    main()
