"""Rassemble les mesures de benchmarks/*.json dans un seul tableau : python benchmarks/resultats.py"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from utils import checkpoints, lab  # noqa: E402

PAGE = lab.RESULTS / "RESULTATS.md"
TITLES = ("modeles", "jouets", "curseurs", "demonstrations")  # ce qui suit se nomme tout seul
SETTING = ("date", "machine", "fils", "python", "torch", "budget_cpu_s")
TITLE = """# Les mesures du cours

Écrit par `make banc` ; ne pas modifier à la main. Une ligne par mesure : la machine, le budget (secondes de CPU de
l'entraînement, quand il y en a un), la date, et les grandeurs que le README et les chapitres citent.
"""
HEADER = "| banc | mesure | machine | fils | budget | date | grandeurs |\n|---|---|---|---|---|---|---|"


def written(value) -> str:
    """Une valeur à la française : virgule décimale, oui ou non, listes entre crochets."""
    if isinstance(value, bool):
        return "oui" if value else "non"
    if isinstance(value, list):
        return f"[{' ; '.join(map(written, value))}]"
    return str(value).replace(".", ",") if isinstance(value, float) else str(value)


def rows(bench: str, name: str, values: dict, inherited: dict) -> list[str]:
    """Lignes d'une mesure ; une mesure qui en contient d'autres (un tableau) donne une ligne par contenu."""
    setting = inherited | {key: values[key] for key in SETTING if key in values}
    nested = {key: value for key, value in values.items() if isinstance(value, dict)}
    if nested:
        return [row for key, value in nested.items()
                for row in rows(bench, key if key in TITLES else f"{name}, {key}", value, setting)]
    facts = " ; ".join(f"{key.replace('_', ' ')} {written(value)}" for key, value in values.items()
                       if key not in SETTING)
    cells = (bench, name.replace("_", " "), setting["machine"], setting["fils"],
             f"{setting['budget_cpu_s']} s" if "budget_cpu_s" in setting else "—", setting["date"], facts)
    return ["| " + " | ".join(map(str, cells)) + " |"]


def page() -> str:
    """Le texte de RESULTATS.md."""
    lines = [row for path in sorted(lab.RESULTS.glob("*.json"))
             for name, values in json.loads(path.read_text(encoding="utf-8")).items()
             for row in rows(path.stem, name, values, {})]
    return "\n".join([TITLE, HEADER, *lines]) + "\n"


if __name__ == "__main__":
    if not lab.TRIAL:
        checkpoints.write_bytes(PAGE, page().encode())
    print(page())
