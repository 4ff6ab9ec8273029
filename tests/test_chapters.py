"""Le code des chapitres, lu sans l'exécuter : cellules brèves, noms qui ne se marchent pas dessus."""

import ast
import symtable

import pytest

from utils import chapters

NAMES = chapters.names()


def test_cells_are_short():
    """Une idée par cellule : trente lignes au plus."""
    long = [f"{name}, ligne {cell.line} : {len(cell.source.splitlines())} lignes" for name in NAMES
            for cell in chapters.code_cells(name) if len(cell.source.splitlines()) > 30]
    assert not long, "\n".join(long)


def _read_and_bound(source: str) -> tuple[set[str], set[str], set[str]]:
    """Noms du carnet qu'une cellule lit, ceux qu'elle pose, et parmi ceux-ci les variables de ses boucles."""
    table = symtable.symtable(source, "cellule", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    read, scopes = {s.get_name() for s in table.get_symbols() if s.is_referenced()}, list(table.get_children())
    while scopes:
        scope = scopes.pop()
        read |= {s.get_name() for s in scope.get_symbols() if s.is_global()}
        scopes += scope.get_children()
    loops = set()
    todo = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.For):
            loops |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            todo += ast.iter_child_nodes(node)
    return read, bound, loops


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_reads_the_loop_variable_of_another(name):
    """Une boucle qui réemploie un nom du carnet le change pour toutes les cellules suivantes."""
    last, faults = {}, []
    for cell in chapters.code_cells(name):
        if "solution" in cell.tags:
            continue
        read, bound, loops = _read_and_bound(cell.source)
        faults += [f"ligne {cell.line} : « {n} » vient de la boucle de la ligne {last[n]}"
                   for n in sorted(read - bound) if last.get(n)]
        last |= {n: cell.line if n in loops else 0 for n in bound}
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_reads_an_answer(name):
    """Ce que pose une ébauche ou sa solution n'est lu que par d'autres ébauches ou solutions.

    Le carnet de l'étudiant se joue donc sans réponse, et une solution jouée à la place de l'ébauche n'y change rien.
    """
    answered, faults = {}, []
    for cell in chapters.code_cells(name):
        read, bound, _ = _read_and_bound(cell.source)
        if {"exercice", "solution"} & set(cell.tags):
            answered |= dict.fromkeys(bound, cell.line)
        else:
            faults += [f"ligne {cell.line} : « {n} » vient de l'exercice de la ligne {answered[n]}"
                       for n in sorted(read & answered.keys() - bound)]
            answered = {n: line for n, line in answered.items() if n not in bound}
    assert not faults, "\n".join(faults)
