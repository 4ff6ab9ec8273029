"""Écrit dans README.md les versions validées : `python scripts/versions.py nom=python [nom=python ...]`.

Chaque ligne du tableau est un environnement où tous les carnets viennent d'être exécutés ; .ci/run l'appelle à la fin.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "jupyterlab", "matplotlib", "ipywidgets", "numpy", "nbval", "jupytext")
BEGIN, END = "<!-- versions : écrit par .ci/run -->\n", "<!-- fin des versions -->\n"
ASK = """
import importlib.metadata as m, json, platform, sys
have = {d.name.lower(): d.version.split("+")[0] for d in m.distributions()}
print(json.dumps([platform.python_version(), *(have.get(name, "—") for name in sys.argv[1:])]))
"""


def row(name: str, python: str) -> str:
    """Ligne du tableau : les versions que voit l'interpréteur `python`."""
    found = subprocess.run([python, "-c", ASK, *PACKAGES], capture_output=True, text=True, check=True).stdout
    return f"| {' | '.join([name, *json.loads(found)])} |\n"


def main() -> None:
    """Remplace le tableau, entre ses deux repères."""
    path = ROOT / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    titles = ["environnement", "Python", *(f"`{name}`" for name in PACKAGES)]
    table = [f"| {' | '.join(titles)} |\n", "|---" * len(titles) + "|\n",
             *(row(*pair.rsplit("=", 1)) for pair in sys.argv[1:])]
    path.write_text(before + BEGIN + "\n" + "".join(table) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
