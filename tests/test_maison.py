"""Les règles de la maison : qui dépend de qui, ce qui est livré, comment c'est écrit."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
import sommaire
import typographie

import notebooks
from utils import chapters, checkpoints

ROOT = notebooks.ROOT
UTILS = sorted((ROOT / "utils").rglob("*.py"))
CHAPTERS = [chapter.source for chapter in sommaire.chapters(ROOT)]
PROGRAMS = sorted((ROOT / "chapters").glob("*/*.py"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUER.md", ROOT / "CHANGELOG.md",
         *sorted((ROOT / "chapters").glob("*/seance.md")), *sorted((ROOT / "chapters").glob("*/mesures.md")),
         *sorted(path for folder in ("publication", "site") for path in (ROOT / folder).glob("*.md"))]
ABOVE_CHAPTERS = {"tests", "scripts", "benchmarks", *(path.stem for path in (ROOT / "scripts").glob("*.py"))}
ABOVE_UTILS = ABOVE_CHAPTERS | {"chapters"}

# Les seuls voisins que utils s'autorise en plus de config : reconstruire une classe enseignée, trouver les exercices,
# écrire un état d'entraînement, rendre une figure en PNG, entraîner et livrer.
SIBLINGS = {"checkpoints.py": {"utils.chapters"}, "exercises.py": {"utils.chapters"},
            "training.py": {"utils.checkpoints"}, "widgets.py": {"utils.plots"},
            "lab.py": {"utils.checkpoints", "utils.training"}}


def name(path):
    """Chemin depuis la racine du cours, pour nommer les tests."""
    return path.relative_to(ROOT).as_posix()


def shipped(*suffixes):
    """Fichiers suivis par git (ou sur le point de l'être) ; sans git, le test est sauté."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("ce dossier n'est pas un dépôt git : la liste des fichiers livrés est inconnue")
    paths = [ROOT / line for line in listed.stdout.split("\0") if line]
    return [path for path in paths if path.suffix in suffixes and path.exists()]


def python_sources():
    """Code Python du cours, chapitres compris, tests exceptés : (nom, arbre syntaxique)."""
    for path in set(shipped(".py")) - set((ROOT / "tests").rglob("*.py")):
        yield name(path), ast.parse(path.read_text(encoding="utf-8"))
    for path in CHAPTERS:
        for cell in notebooks.jupytext.read(path, fmt="md").cells:
            if cell.cell_type == "code":
                code = re.sub(r"^([ \t]*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE)
                yield name(path), ast.parse(code)


def imports(tree):
    """Noms pointés des modules importés."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "utils":
            yield from (f"utils.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


# --- Directions des dépendances -------------------------------------------------------------------


@pytest.mark.parametrize("path", UTILS, ids=name)
def test_utils_siblings_ignore_each_other(path):
    """Dans utils, on n'importe que config, et ce que dit SIBLINGS."""
    allowed = {"utils.config"} | SIBLINGS.get(path.name, set())
    for module in imports(ast.parse(path.read_text(encoding="utf-8"))):
        assert not module.startswith("."), f"import relatif : {module}"
        assert module.split(".")[0] not in ABOVE_UTILS
        assert module.split(".")[0] != "utils" or module in allowed, module


def test_utils_is_small():
    """Une douzaine de petits fichiers, et aucun dossier."""
    assert len(UTILS) <= 13 and {path.parent for path in UTILS} == {ROOT / "utils"}


@pytest.mark.parametrize("path", PROGRAMS, ids=name)
def test_programs_of_a_chapter_stand_on_utils(path):
    """Les programmes d'un chapitre n'importent que utils : un autre chapitre se prend par `load_chapter`."""
    used = {module.split(".")[0] for module in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert not used & ABOVE_UTILS
    assert path.name in ("exercices.py", "entrainement.py", "banc.py")


def test_nothing_else_names_a_chapter():
    """Hors de son dossier, de ses tests et du manifeste, rien n'est écrit à la main sur un chapitre."""
    found = []
    for path in shipped(".md", ".py", ".toml", ".yml", ".txt", ".json", ".html", ".css", ".js", ""):
        parts = path.relative_to(ROOT).parts
        own = parts[0] in ("chapters", "tests") and re.match(r"\d\d_", parts[1]) or parts[0] == "notebooks"
        result = parts[0] == "benchmarks" and path.suffix == ".json"  # écrit par banc.py
        if own or result or name(path) in ("checkpoints/manifest.json", "benchmarks/RESULTATS.md"):
            continue
        text = path.read_text(encoding="utf-8")
        if name(path) == "README.md":
            text = re.sub(r"<!-- (\w+) : écrit.*?<!-- fin : \1 -->", "", text, flags=re.DOTALL)
        found += [f"{name(path)} : {chapter.name}" for chapter in sommaire.chapters(ROOT) if chapter.name in text]
    assert not found


@pytest.mark.parametrize("path", UTILS, ids=name)
def test_utils_knows_no_chapter(path):
    """Le nom d'un chapitre n'apparaît dans utils que comme exemple, dans une docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    written = [str(node.value) for node in ast.walk(tree)
               if isinstance(node, ast.Constant) and id(node) not in described]
    assert not [text for text in written for chapter in sommaire.chapters(ROOT) if chapter.name in text]


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_chapters_stand_on_utils_only(path):
    """Un chapitre n'importe ni test, ni script, ni banc d'essai : le carnet seul doit suffire."""
    for cell in notebooks.jupytext.read(path, fmt="md").cells:
        if cell.cell_type == "code":
            used = re.findall(r"^\s*(?:from|import)\s+(\w+)", cell.source, re.MULTILINE)
            assert not ABOVE_UTILS & set(used), used


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_chapter_reads_the_same_everywhere(path):
    """utils.chapters, qui se passe de jupytext, voit les mêmes cellules de code que les carnets."""
    cells = [cell for cell in notebooks.jupytext.read(path, fmt="md").cells if cell.cell_type == "code"]
    seen = [(list(cell.tags), cell.source.rstrip()) for cell in chapters.code_cells(path.parent.name)]
    assert seen == [(notebooks.tags(cell), cell.source.rstrip()) for cell in cells]


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_model_cells_only_define(path):
    """Une cellule `modele` ne contient qu'imports, constantes, fonctions et classes, et se charge."""
    chapters.load_chapter(path.parent.name)
    kinds = ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.ClassDef
    for cell in chapters.code_cells(path.parent.name):
        if "modele" in cell.tags:
            others = [node for node in ast.parse(cell.source).body if not isinstance(node, kinds)]
            assert not list(map(ast.unparse, others)), f"ligne {cell.line}"


# --- Sûreté et réseau -----------------------------------------------------------------------------


def test_no_pickle_and_no_fixed_gpu():
    """Ni pickle (un fichier de poids pourrait exécuter du code), ni `.cuda()` (le cours suit `device`)."""
    found = []
    for source, tree in python_sources():
        found += [f"{source} : {m}" for m in imports(tree) if m.split(".")[0] in {"pickle", "dill", "joblib"}]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if called == "torch.load" or called.endswith(".cuda") or options.get("allow_pickle") == "True":
                found.append(f"{source} : {called}")
    assert not found


def test_importing_utils_needs_no_network():
    """Tous les modules de utils s'importent quand toute connexion est refusée."""
    code = """
import importlib, pkgutil, socket
def refuse(*args, **kwargs): raise OSError("connexion tentée pendant un import")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
import utils
for module in pkgutil.walk_packages(utils.__path__, "utils."): importlib.import_module(module.name)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


# --- Ce qui est livré -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", [
    "README.md", "CONTRIBUER.md", "CHANGELOG.md", "LICENSE", "LICENSE-TEXTES.md", "requirements.txt",
    "requirements-site.txt", "requirements-dev.txt", "environment.yml", "Makefile", "data/README.md",
    "data/SHA256SUMS", ".ci/run",
])
def test_expected_file(path):
    """Les fichiers que chacun s'attend à trouver."""
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", ["requirements.txt", "requirements-site.txt", "requirements-dev.txt"])
def test_requirements_are_bounded(path):
    """Chaque paquet a une borne basse et une borne haute, et aucune adresse de registre n'est écrite."""
    lines = re.findall("^[^#\n].*", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    free = [line for line in lines if not re.fullmatch(r"[\w.-]+>=[\d.]+,<[\d.]+", line)]
    assert free == {"requirements.txt": ["-e ."], "requirements-site.txt": ["-r requirements.txt"],
                    "requirements-dev.txt": ["-r requirements-site.txt"]}[path]
    assert path != "requirements.txt" or lines[-1] == "-e ."


def test_one_public_address():
    """L'adresse du dépôt vient partout de pyproject.toml ; chapitres et code n'en écrivent aucune."""
    owner, repo = sommaire.address(ROOT).split("/")[-2:]
    for path in shipped(".md", ".ipynb", ".py", ".toml", ".yml", ".txt"):
        text = path.read_text(encoding="utf-8")
        copies = set(re.findall(rf"github(?:\.com)?/([\w.-]+)/{re.escape(repo)}\b", text))
        may_copy = path.suffix == ".ipynb" or path.parent == ROOT
        assert copies <= ({owner} if may_copy else set()), f"{name(path)} : {copies}"


def test_no_path_of_this_machine():
    """Aucun fichier livré ne montre le dossier de la machine où il a été écrit."""
    machine = re.compile(r"(?<![\w.~:/])/(?:work|root|tmp|home|Users)/[\w.-]+|\.\./shared")
    for path in shipped(".md", ".ipynb", ".py", ".toml", ".yml", ".txt", ".json", ""):
        found = machine.search(path.read_text(encoding="utf-8"))
        assert not found, f"{name(path)} : {found[0]}"


# --- Comment c'est écrit --------------------------------------------------------------------------


@pytest.mark.parametrize("path", UTILS, ids=name)
def test_public_names_are_documented(path):
    """Chaque module, fonction et classe publics de utils a une docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [node for node in tree.body
              if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert not [getattr(node, "name", path.name) for node in [tree, *public] if not ast.get_docstring(node)]


@pytest.mark.parametrize("path", CHAPTERS + TEXTS, ids=name)
def test_french_typography(path):
    """Espaces insécables, guillemets et apostrophes ; correction : python scripts/typographie.py."""
    text = path.read_text(encoding="utf-8")
    pairs = zip(text.splitlines(), typographie.corrected(text).splitlines(), strict=True)
    wrong = [f"ligne {number} : {line}" for number, (line, right) in enumerate(pairs, 1) if line != right]
    assert not wrong, f"lancez : python scripts/typographie.py {name(path)}\n" + "\n".join(wrong)
    assert not typographie.english_quotes(text)


def test_readme_quotes_what_was_measured():
    """Chaque mesure est dans benchmarks/ ou le manifeste ; les tableaux viennent des chapitres et des carnets."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == sommaire.readme(ROOT), "relancez : make notebooks"
    for chapter in sommaire.chapters(ROOT):
        seconds = sommaire.facts(ROOT, chapter)["secondes"]
        assert f"](notebooks/{chapter.name}.ipynb) | {chapter.lecture} | {seconds} s |" in readme
    results = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks").glob("*.json")]
    measured = re.findall(r"\d+\.\d+", json.dumps([results, checkpoints.models()]))
    quoted = re.findall(r"\d+,\d+", readme.split("## Ce qui est mesuré")[1].split("\n## ")[0])
    assert quoted and not set(quoted) - {number.replace(".", ",") for number in measured}


def test_results_page_is_the_one_the_measures_give():
    """benchmarks/RESULTATS.md rassemble les mesures de benchmarks/*.json ; correction : benchmarks/resultats.py."""
    run = subprocess.run([sys.executable, "benchmarks/resultats.py"], capture_output=True, cwd=ROOT,
                         env={**os.environ, "COURS_BUDGET": "test", "PYTHONIOENCODING": "utf-8"})
    assert run.returncode == 0, run.stderr.decode()
    page = (ROOT / "benchmarks" / "RESULTATS.md").read_text(encoding="utf-8")
    assert run.stdout.decode().splitlines() == [*page.splitlines(), ""]
