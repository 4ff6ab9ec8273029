"""Construit et valide une version du cours, dans dist/ : `python scripts/publier.py`.

L'archive de l'étudiant (sans aucune solution), celle de l'enseignant (tout, et les fiches de séance), le site, leurs
empreintes SHA-256 et un rapport de validation. Tout vient du dernier commit ; deux constructions donnent les mêmes
octets. La construction s'arrête si les tests n'ont pas réussi sur ce commit, si une solution fuit, ou si CHANGELOG.md
ne dit rien de la version.
"""

import ast
import base64
import functools
import hashlib
import io
import pathlib
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
import zipfile
from importlib import metadata

import nbformat
import site_web
import sommaire

import notebooks

ROOT = notebooks.ROOT
DIST = ROOT / "dist"
TESTS = ROOT / "build" / "essais.xml"  # écrit par make test
PACKAGES = ("jupyterlab", "torch", "torchvision", "matplotlib", "ipywidgets", "nbval", "jupytext", "numpy", "voila",
            "sphinx", "myst-nb")

# Ce que reçoit l'étudiant : de quoi lire, exécuter et projeter les carnets.
STUDENT = re.compile(
    r"(LICENSE|LICENSE-TEXTES\.md|Makefile|requirements\.txt|environment\.yml|pyproject\.toml"
    r"|chapters/[^/]+/(cours\.md|exercices\.py)|notebooks/[^/]+|(utils|data|checkpoints|images)/.+|benchmarks/.+\.json"
    r"|scripts/(cours|demo|notebooks|sommaire)\.py|scripts/templates/.+)")
SOLUTION = re.compile(
    r'^<!-- #region [^>]*tags=\["solution"\] -->\n.*?^<!-- #endregion -->\n+'
    r'|^```python tags=\["solution"\]\n.*?^```\n+', re.MULTILINE | re.DOTALL)


def git(*words: str) -> str:
    """Réponse de git dans le cours ; BuildError s'il refuse."""
    run = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, encoding="utf-8")
    if run.returncode:
        raise notebooks.BuildError(f"git {' '.join(words)} : {run.stderr.strip()}\nUne version sort d'un dépôt git.")
    return run.stdout.rstrip("\n")


def check_version() -> str:
    """Version à publier ; BuildError si quelque chose n'est pas commis, ou si le CHANGELOG ne la date pas."""
    changed = git("status", "--porcelain")
    if changed:
        raise notebooks.BuildError(f"Ces fichiers ne sont pas commis ; une version sort d'un commit :\n{changed}")
    version = site_web.version(ROOT)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)} — \d{{4}}-\d\d-\d\d\n+- ", changes, re.MULTILINE):
        raise notebooks.BuildError(
            f"CHANGELOG.md n'a pas d'entrée pour la version {version} de pyproject.toml. Écrivez-y ce qui a changé, "
            f"sous un titre « ## {version} — {time.strftime('%Y-%m-%d')} », puis commettez.")
    tags = [tag for tag in git("tag", "--points-at", "HEAD").split() if tag.startswith("v")]
    if tags and f"v{version}" not in tags:
        raise notebooks.BuildError(f"Le commit porte l'étiquette {tags[0]}, et pyproject.toml la version {version}.")
    return version


# --- Les archives ---------------------------------------------------------------------------------


def without_solutions(chapter: str) -> str:
    """Source d'un chapitre, privée de ses cellules étiquetées `solution`."""
    return SOLUTION.sub("", chapter)


def sheet(text: str, target: notebooks.Target) -> str:
    """Fiche de séance, complétée du temps qu'a pris chaque section du carnet livré."""
    notebook = notebooks.read(target.path)
    facts = notebook.metadata.cours
    titles = filter(None, map(notebooks.section, notebook.cells))  # nbformat range les clés par ordre alphabétique
    rows = [f"| {title} | {facts['sections'][title]} |" for title in titles if facts["sections"].get(title)]
    total = f"Carnet entier : {facts['secondes']} s, budget `{facts['budget']}`, {facts['machine']}."
    return text.replace("{{durees}}", "\n".join([total, "", "| section | secondes |", "|---|---|", *rows]))


def contents(student: bool) -> dict[str, bytes]:
    """Fichiers d'une archive, tels qu'ils sont commis : chemin → octets."""
    kept = [name for name in git("ls-files").splitlines() if not student or STUDENT.fullmatch(name)]
    found = {name: (ROOT / name).read_bytes() for name in kept}
    sheets = {f"chapters/{target.chapter.name}/seance.md": target for target in notebooks.students(ROOT)}
    for name in found:
        if student and name.endswith("/cours.md"):
            found[name] = without_solutions(found[name].decode()).encode()
        elif name in sheets:
            found[name] = sheet(found[name].decode(), sheets[name]).encode()
    if student:
        found["README.md"] = (ROOT / "publication" / "etudiant.md").read_bytes()
    return found


def pack(path: pathlib.Path, files: dict[str, bytes]) -> None:
    """Écrit une archive dont les octets ne dépendent que des fichiers et de la date du commit."""
    date = time.gmtime(int(git("log", "-1", "--format=%ct")))[:6]
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{path.stem}/{name}", date)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = (0o755 if files[name].startswith(b"#!") else 0o644) << 16
            archive.writestr(entry, files[name])


def build(folder: pathlib.Path, version: str) -> list[pathlib.Path]:
    """Construit les trois archives dans `folder`."""
    pages = site_web.build()
    site = {path.relative_to(pages).as_posix(): path.read_bytes() for path in pages.rglob("*") if path.is_file()}
    files = {"etudiant": contents(student=True), "enseignant": contents(student=False), "site": site}
    built = []
    for kind, found in files.items():
        built.append(folder / f"modeles-generatifs-{version}-{kind}.zip")
        pack(built[-1], found)
    return built


def digest(path: pathlib.Path) -> str:
    """Empreinte SHA-256 d'un fichier."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- Aucune solution ne fuit ----------------------------------------------------------------------


def squeeze(text: str) -> str:
    """Texte sans aucun espace : une mise en page différente ne cache rien."""
    return re.sub(r"\s+", "", text)


@functools.cache
def secrets() -> tuple[set[str], set[str]]:
    """Ce qui ne doit pas sortir : noms des fonctions d'exercice, et passages des solutions, sans espaces.

    Passages : chaque instruction et chaque ligne de prose d'au moins soixante caractères, sauf celles que la leçon
    contient aussi, quand l'exercice les fait réécrire.
    """
    names, passages, lesson = set(), set(), ""
    for target in notebooks.targets(ROOT):
        cells = notebooks.read(target.path).cells
        if not target.corrected:
            lesson += squeeze("".join(cell.source for cell in cells))
        for cell in cells:
            if "exercice" in notebooks.tags(cell):
                names |= set(re.findall(r"^def (\w+)\(", cell.source, re.MULTILINE))
            elif "solution" in notebooks.tags(cell) and cell.cell_type == "code":
                passages |= {squeeze(line) for line in statements(cell.source)}
            elif "solution" in notebooks.tags(cell):
                passages |= set(map(squeeze, cell.source.splitlines()))
    return names, {passage for passage in passages if len(passage) >= 60 and passage not in lesson}


def statements(source: str) -> list[str]:
    """Texte de chaque instruction simple des fonctions d'un code, docstrings exceptées."""
    inside = (node for function in ast.parse(source).body if isinstance(function, ast.FunctionDef)
              for node in ast.walk(function))
    return [ast.get_source_segment(source, node) for node in inside
            if isinstance(node, ast.Assign | ast.AugAssign | ast.Return)]


def readable(name: str, data: bytes) -> list[str]:
    """Textes d'un fichier : lui-même, les fichiers d'une archive ; d'un carnet, cellules, sorties et pièces jointes."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [text for inner in archive.namelist() for text in readable(inner, archive.read(inner))]
    if not name.endswith(".ipynb"):
        return [data.decode("utf-8", "replace")]
    found = []
    for cell in nbformat.reads(data.decode(), as_version=4).cells:
        outputs = cell.get("outputs", [])
        bundles = [*(output.get("data", {}) for output in outputs), *cell.get("attachments", {}).values()]
        found += [cell.source, *(output.get("text", "") for output in outputs)]
        for kind, content in (pair for bundle in bundles for pair in bundle.items()):
            encoded = isinstance(content, str) and kind.startswith(("image/", "application/")) and "xml" not in kind
            found.append(base64.b64decode(content).decode("utf-8", "replace") if encoded else str(content))
    return found


def leaks(files: dict[str, bytes]) -> list[str]:
    """Solutions trouvées dans les fichiers d'une archive : une ligne par fuite, vide si tout est propre."""
    names, passages = secrets()
    found = [f"{name} : son nom" for name in files if re.search("corrige|solution|answers", name)]
    for name, data in files.items():
        if name.endswith(".ipynb"):
            cells = nbformat.reads(data.decode(), as_version=4).cells
            found += [f"{name} : cellule {cell.id}" for cell in cells if "solution" in notebooks.tags(cell)]
        for text in readable(name, data):
            written = squeeze(text)
            found += [f"{name} : {passage[:80]}…" for passage in passages if passage in written]
            if 'tags=["solution"]' in text and not name.startswith(("scripts/", "utils/")):
                found.append(f"{name} : une balise de solution")
            for exercise in re.findall(r"^[ \t]*def (\w+)\(", text, re.MULTILINE):
                if exercise in names and not re.search(
                        rf'def {exercise}\([^)]*\):\n(\s+""".*?"""\n)?\s+\.\.\.', text, re.DOTALL):
                    found.append(f"{name} : la fonction {exercise} y est écrite")
    return found


# --- Le rapport -----------------------------------------------------------------------------------


def tested() -> ET.Element:
    """Compte rendu des tests de ce commit : celui que vient d'écrire `make test`, sinon un nouveau.

    BuildError s'il y a un échec.
    """
    head = git("rev-parse", "HEAD")
    if not TESTS.exists() or ET.parse(TESTS).getroot().find(f".//property[@value='{head}']") is None:
        subprocess.run([sys.executable, "-m", "pytest", "-n", "auto", f"--junitxml={TESTS}"], cwd=ROOT)
    suite = ET.parse(TESTS).getroot().find("testsuite")
    if int(suite.get("failures")) or int(suite.get("errors")) or not int(suite.get("tests")):
        raise notebooks.BuildError(f"Des tests ont échoué ({TESTS.relative_to(ROOT)}) : rien n'est publié.")
    return suite


def public_address() -> str:
    """Où mèneront les boutons Colab des carnets, et quoi faire s'ils ne mènent nulle part."""
    address = sommaire.address(ROOT)
    todo = (" n'existe pas : les boutons Colab ne mèneront nulle part. Donnez la vôtre par "
            "« make adresse URL=https://github.com/nom/depot ».") if "DEFINIR" in address else ""
    return f"Adresse publique : {address}{todo}"


def report(version: str, suite: ET.Element, archives: list[pathlib.Path]) -> str:
    """Rapport de validation, en Markdown."""
    from utils import config, plots

    reasons = sorted({node.get("message") for node in suite.iter("skipped")})
    runs = {target.name: notebooks.read(target.path).metadata.cours for target in notebooks.students(ROOT)}
    return "\n".join([
        f"# Rapport de validation — version {version}", "",
        f"Commit {git('rev-parse', 'HEAD')}, validé le {time.strftime('%Y-%m-%d')} sur {config.hardware()}, "
        f"Python {sys.version.split()[0]}.", "", public_address(), "",
        "## Versions", "", "| paquet | version |", "|---|---|",
        *(f"| {name} | {metadata.version(name)} |" for name in PACKAGES), "",
        "## Tests", "",
        f"{suite.get('tests')} tests en {float(suite.get('time')):.0f} s, aucun échec ; "
        f"sautés : {suite.get('skipped')}.",
        *(f"- sauté : {reason}" for reason in reasons), "",
        "## Carnets", "",
        "Les tests les ont tous exécutés, d'un noyau neuf, dans le budget `test`, solutions comprises. "
        "Leurs sorties viennent de :", "",
        "| carnet | budget | machine | secondes |", "|---|---|---|---|",
        *(f"| {name} | {run['budget']} | {run['machine']} | {run['secondes']} |" for name, run in runs.items()), "",
        "## Archives", "",
        "Construites deux fois, octet pour octet identiques ; aucune solution dans celle de l'étudiant.", "",
        "| archive | Mo | SHA-256 |", "|---|---|---|",
        *(f"| {path.name} | {plots.fr(path.stat().st_size / 1e6, 1)} | `{digest(path)}` |" for path in archives), ""])


def publish() -> None:
    """Enchaîne les étapes ; BuildError à la première qui échoue, et dist/ n'est alors pas touché."""
    version = check_version()
    draft, again = ROOT / "build" / "dist", ROOT / "build" / "dist-bis"
    for folder in (draft, again):
        shutil.rmtree(folder, ignore_errors=True)
    suite = tested()
    archives = build(draft, version)
    if [digest(path) for path in archives] != [digest(path) for path in build(again, version)]:
        raise notebooks.BuildError(f"Deux constructions diffèrent ; comparez {draft} et {again}.")
    found = leaks(contents(student=True))
    if found:
        raise notebooks.BuildError("\n".join(["Des solutions fuient dans l'archive de l'étudiant :", *found]))
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in archives)
    (draft / "SHA256SUMS").write_text(sums, encoding="utf-8")
    (draft / "VALIDATION.md").write_text(report(version, suite, archives), encoding="utf-8")
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.copytree(draft, DIST)


def main() -> int:
    """Publie ; renvoie le code de sortie."""
    try:
        publish()
    except notebooks.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"La version est prête dans {DIST}\n{public_address()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
