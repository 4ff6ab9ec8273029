"""Lance le même programme de chaque chapitre : `python scripts/lancer.py banc [03]`, ou `entrainement 03`.

`banc` finit par les mesures qui ne sont d'aucun chapitre (les gestes sur les curseurs, les démonstrations), puis réunit
tous les résultats dans benchmarks/RESULTATS.md. `entrainement` veut un chapitre : refaire tous les modèles prendrait
des jours.
"""

import os
import subprocess
import sys

import cours

COMMON = {"banc": ["benchmarks/gestes.py", "benchmarks/resultats.py"], "entrainement": []}


def commands(program: str, prefix: str) -> list[list[str]]:
    """Les programmes à lancer, dans l'ordre ; ValueError s'il n'y en a pas."""
    chosen = [name for name in cours.CHAPTERS if name.startswith(prefix)
              and (cours.ROOT / "chapters" / name / f"{program}.py").exists()]
    if not chosen:
        raise ValueError(f"Aucun chapitre qui commence par « {prefix} » n'a de {program}.py.")
    return [*(["-m", f"chapters.{name}.{program}"] for name in chosen), *([path] for path in COMMON[program])]


def main() -> int:
    """Lance tout, jusqu'au premier échec ; renvoie le code de sortie."""
    program, prefix = (*sys.argv[1:], "", "")[:2]
    if program not in COMMON or (program == "entrainement" and not prefix):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        todo = commands(program, prefix)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    env = {**os.environ, "PYTHONPATH": str(cours.ROOT)}
    return next((run.returncode for run in (subprocess.run([sys.executable, *words], cwd=cours.ROOT, env=env)
                                            for words in todo) if run.returncode), 0)


if __name__ == "__main__":
    sys.exit(main())
