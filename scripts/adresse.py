"""Change l'adresse publique du dépôt : `make adresse URL=https://github.com/nom/depot`.

Elle est écrite dans pyproject.toml ; les pages Markdown de la racine et les carnets la reprennent.
"""

import pathlib
import re
import sys

import sommaire

import notebooks

ADDRESS = re.compile(r"https://github\.com/[A-Za-z0-9][\w-]*/\w[\w.-]*")


def main(argv: list[str] | None = None, root: pathlib.Path = notebooks.ROOT) -> int:
    """Remplace l'adresse actuelle par celle donnée, puis régénère les carnets sans perdre leurs sorties."""
    given = sys.argv[1:] if argv is None else argv
    new = given[0].rstrip("/").removesuffix(".git") if len(given) == 1 else ""
    if not ADDRESS.fullmatch(new):
        print("Donnez l'adresse du dépôt sur GitHub (Colab n'ouvre que celles-là), par exemple :\n"
              "    make adresse URL=https://github.com/nom/depot", file=sys.stderr)
        return 2
    old, new = (url.removeprefix("https://github.com/") for url in (sommaire.address(root), new))
    own = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w-])")
    for path in [root / "pyproject.toml", *sorted(root.glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if own.search(text):
            path.write_text(own.sub(new, text), encoding="utf-8")
            print(path.name)
    return notebooks.main(["--sans-execution"], root)


if __name__ == "__main__":
    sys.exit(main())
