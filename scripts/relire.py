"""Relit l'orthographe et la grammaire de la prose : `python scripts/relire.py [fichier …]`.

Le correcteur est Grammalecte (paquet Debian grammalecte-cli). Il ne voit ni le code, ni le HTML, ni les
références ; une formule lui est présentée comme un nom neutre. Un passage en italique où il trouve un mot
inconnu est de l'anglais : il n'est pas relu. Deux listes nomment ce qui est juste et que Grammalecte refuse :
des mots, tests/mots.txt, et des tournures, tests/tournures.txt.
"""

import functools
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
MISSING = "grammalecte-cli est absent ; sous Debian : sudo apt install grammalecte-cli"

# La typographie est vérifiée ailleurs (scripts/typographie.py) ; et une phrase qui reprend après une équation
# ouvre un paragraphe sans majuscule.
OPTIONS = ["-on", "neg", "-off", "apos", "nbsp", "esp", "typo", "unit", "num", "mapos", "liga", "html", "latex",
           "-roff", "majuscule_début_paragraphe"]

NOUN = "X"
UNREAD = re.compile(
    r"""\A---\n.*?\n---\n                                       # en-tête
      | ^[ ]*```.*?^[ ]*```[ ]*$                               # bloc de code
      | \$\$.*?\$\$ | <!--.*?-->
      | ^\#\#\ In\ English\n.*?(?=^\#|\Z) | ^>\ The\ MIT.*?(?=^[^>]|\Z)  # les deux passages en anglais
      | ^-\ [^*\n]+\(\d{4}\),\ \*[^*\n]+\*,[^(\n]*             # référence : auteurs, année, titre, revue
      | (?P<noun> (?<!\\)\$[^$\n]+\$ | `[^`]+` | <?https?://[^\s)>]+>? | \{\{\w+\}\}
          | \(\d+\.\d+\)                                       # renvoi à une équation
          | \w*[²³½₀-₉]\w*                                     # formule écrite sans LaTeX
          | [\w./-]*\w\.(?:md|toml|org)\b                      # fichier, site
          | \b(?:GAN|ReLU)\b )                                 # invariables, que Grammalecte met au pluriel
      | [ ]\(\*[^*\n]+\*\)                                     # terme anglais, qui couperait l'accord
      | </?[a-zA-Z][^<>]*>
      | ^[ ]*\|[ :|-]+\|[ ]*$                                  # filet d'un tableau
      | !?\[(?=[^]\n]*\]\() | \]\([^)\s]*\)                    # d'un lien, on ne lit que le texte
      """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
REWRITTEN = [
    (r"\*\*", ""),
    (r"\*(\w+)\*(?=\w)", r"\1"),           # « *extra*polation » est un seul mot
    (rf"\b{NOUN}(?: {NOUN}\b)+", NOUN),    # « $x$ (2.1) » n'est pas une répétition
    (r"\bet al\.", "et autres"),           # « et al., 2019 » : ce point ne finit pas la phrase
]
START = re.compile(r"[ ]*(?:\#+|>|[-*](?:\ \[[ x]\])?|\d+\.)[ ]+")


class Remark(NamedTuple):
    """Ce que Grammalecte refuse : la ligne, la règle (« mot » pour l'orthographe), le texte et ce qui l'entoure."""

    line: int
    rule: str
    before: str
    text: str
    after: str
    message: str

    def __str__(self) -> str:
        return f"{self.line} : {self.before}[{self.text}]{self.after}: {self.message} ({self.rule})"


def prose_of(path: pathlib.Path) -> str:
    """Le Markdown d'un fichier, ou les termes et définitions d'un glossaire TOML, chacun sur sa ligne."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        text = re.sub(r'^(?:(?:fr|definition) = "(.*)"|.*)$', r"- \1", text, flags=re.MULTILINE)
    return text


def paragraphs(text: str) -> list[tuple[str, list[tuple[int, int]]]]:
    """La prose, par paragraphe, titre, point de liste ou case de tableau ; chaque caractère a sa ligne et son rang.

    Le rang compte les astérisques déjà passés : impair, c'est celui d'un passage en italique.
    """
    text = UNREAD.sub(lambda found: NOUN * bool(found["noun"]) + "\n" * found[0].count("\n"), text)
    for pattern, replacement in REWRITTEN:
        text = re.sub(pattern, replacement, text)
    blocks = [[]]  # de caractères, chacun avec sa ligne
    for number, line in enumerate(text.split("\n"), 1):
        table, start = line.lstrip().startswith("|"), START.match(line)
        for piece in line.split("|") if table else [line[start.end():] if start else line]:
            if table or start or not piece.strip():
                blocks.append([])
            blocks[-1] += [(character, number) for character in f"{piece.strip()} "]
    read = []
    for block in blocks:
        ranks = itertools.accumulate(character == "*" for character, _ in block)
        kept = [(character, (line, rank)) for (character, line), rank in zip(block, ranks, strict=True)
                if character != "*"]
        read.append(("".join(character for character, _ in kept), [place for _, place in kept]))
    return [(prose, places) for prose, places in read if prose.strip()]


def remarks(text: str) -> list[Remark]:
    """Toutes les remarques de Grammalecte sur un texte Markdown."""
    blocks = paragraphs(text)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(prose for prose, _ in blocks))
        file.flush()
        command = ["grammalecte-cli", "--file", file.name, "--json", "--only_when_errors", *OPTIONS]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    found = []
    for answer in json.loads(run.stdout)["data"]:
        prose, places = blocks[answer["iParagraph"] - 1]
        unknown = {places[error["nStart"]][1] for error in answer["lSpellingErrors"]}
        for error in answer["lGrammarErrors"] + answer["lSpellingErrors"]:
            start, end = error["nStart"], error["nEnd"]
            line, rank = places[start]
            if rank % 2 and rank in unknown:  # de l'anglais
                continue
            rule = re.sub(r"^gv?\d__|__b\d+_a\d+_\d+$", "", error.get("sRuleId", "mot"))
            found.append(Remark(line, rule, prose[max(0, start - 40):start], prose[start:end], prose[end:end + 40],
                                error.get("sMessage", "mot inconnu")))
    return sorted(found)


@functools.cache
def entries(name: str) -> list[str]:
    """Les entrées de tests/mots.txt ou de tests/tournures.txt ; un commentaire commence par #."""
    lines = (ROOT / "tests" / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def excuse(remark: Remark) -> str | None:
    """L'entrée des deux listes qui donne tort à Grammalecte, s'il y en a une."""
    if remark.rule == "mot":
        allowed = {remark.text, remark.text[0].lower() + remark.text[1:]}
        return next((word for word in entries("mots.txt") if word in allowed), None)
    context = remark.before + remark.text + remark.after
    for turn in entries("tournures.txt"):
        rule, passage = turn.split(maxsplit=1)
        if rule == remark.rule and remark.text in passage and passage in context:
            return turn
    return None


def files() -> list[pathlib.Path]:
    """Les textes du cours : ceux de la racine et de ses dossiers, sauf les mesures, que `make banc` écrit."""
    found = {*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md"), *ROOT.glob("chapters/*/*.md"),
             *ROOT.glob("chapters/*/glossaire.toml")}
    return sorted(found - {ROOT / "benchmarks" / "RESULTATS.md"})


def main() -> int:
    """Montre les remarques sur les fichiers donnés, ou sur tous."""
    if not shutil.which("grammalecte-cli"):
        sys.exit(MISSING)
    count = 0
    for path in [pathlib.Path(name) for name in sys.argv[1:]] or files():
        for remark in remarks(prose_of(path)):
            if not excuse(remark):
                count += 1
                print(f"{path}:{remark}")
    return count > 0


if __name__ == "__main__":
    sys.exit(main())
