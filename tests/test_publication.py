"""La publication : rien ne fuit dans l'archive de l'étudiant, tout y est, et deux constructions sont identiques."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile

import publier
import pytest
import sommaire

import notebooks

pytestmark = pytest.mark.skipif(
    subprocess.run(["git", "-C", publier.ROOT, "rev-parse"], capture_output=True).returncode != 0,
    reason="ce dossier n'est pas un dépôt git : on ne publie que d'un dépôt")
CORRECTED = next(target for target in notebooks.targets(publier.ROOT) if target.corrected)
CHAPTER = f"chapters/{CORRECTED.chapter.name}/cours.md"
NOTEBOOK = f"notebooks/{CORRECTED.path.name}"


@pytest.fixture(scope="module")
def student():
    """Fichiers de l'archive de l'étudiant."""
    return publier.contents(student=True)


@pytest.fixture(scope="module")
def solution():
    """Une cellule de code et une cellule de texte qui donnent des solutions."""
    corrected = notebooks.read(CORRECTED.path).cells
    given = [cell for cell in corrected if "solution" in notebooks.tags(cell)]
    return {kind: next(cell.source for cell in given if cell.cell_type == kind) for kind in ("code", "markdown")}


def with_cell(**cell):
    """Un carnet d'une cellule."""
    cell = {"id": "fuite", "cell_type": "markdown", "metadata": {}, "source": ""} | cell
    return {NOTEBOOK: json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()}


def code(source="", **data):
    """Cellule de code, et sa sortie si `data` en donne une."""
    output = {"output_type": "display_data", "metadata": {}, "data": data}
    return {"cell_type": "code", "source": source, "execution_count": 1, "outputs": [output] if data else []}


def zipped(text):
    """Archive zip d'un fichier."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", text)
    return buffer.getvalue()


def test_the_student_archive_leaks_nothing(student):
    """Ni cellule, ni sortie, ni pièce jointe, ni fichier ne contient une solution."""
    names, passages = publier.secrets()
    assert len(names) >= 40 and len(passages) >= 40
    assert not publier.leaks(student)


@pytest.mark.parametrize("place", [
    "cellule de code", "cellule de texte", "étiquette", "sortie", "texte imprimé", "image", "pièce jointe", "chapitre",
    "fichier", "fichier compressé", "nom de fichier", "fonction réécrite"])
def test_a_leak_is_found_wherever_it_hides(solution, place):
    """La même solution, glissée à douze endroits, est trouvée douze fois."""
    hidden = base64.b64encode(solution["markdown"].encode()).decode()
    stream = {"output_type": "stream", "name": "stdout", "text": solution["markdown"]}
    chapter = (publier.ROOT / CHAPTER).read_bytes()
    planted = {
        "cellule de code": lambda: with_cell(**code(solution["code"])),
        "cellule de texte": lambda: with_cell(source=solution["markdown"]),
        "étiquette": lambda: with_cell(metadata={"tags": ["solution"]}),
        "sortie": lambda: with_cell(**code(**{"text/html": solution["markdown"]})),
        "texte imprimé": lambda: with_cell(**(code() | {"outputs": [stream]})),
        "image": lambda: with_cell(**code(**{"image/png": hidden})),
        "pièce jointe": lambda: with_cell(attachments={"corrige.txt": {"application/octet-stream": hidden}}),
        "chapitre": lambda: {CHAPTER: chapter},
        "fichier": lambda: {"data/notes.txt": solution["markdown"].encode()},
        "fichier compressé": lambda: {"data/notes.npz": zipped(solution["markdown"])},
        "nom de fichier": lambda: {"corriges/notes.txt": b""},
        "fonction réécrite": lambda: {"aide.py": solution["code"].replace("return", "return 1 *").encode()},
    }
    assert publier.leaks(planted[place]())


def test_the_student_archive_is_complete(student, tmp_path):
    """Décompressée, elle se suffit : ses carnets sont ceux du dépôt, ses chapitres et ses modèles se chargent."""
    archive = tmp_path / "cours.zip"
    publier.pack(archive, student)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path)
    root = tmp_path / "cours"
    for target in notebooks.targets(publier.ROOT):
        path = root / target.name
        assert path.exists() != target.corrected
    for target in notebooks.students(root):
        recorded = notebooks.read(target.path)
        made = notebooks.generate(target, sommaire.address(root), recorded.metadata.cours)
        assert [cell.source for cell in made.cells] == [cell.source for cell in recorded.cells]
    asks = ("from utils import chapters, checkpoints, config, data, exercises; data.load('mnist'); "
            "exercises.exercises(); [chapters.load_chapter(name) for name in chapters.names()]; "
            "[checkpoints.load_model(m['name']) for m in checkpoints.models()]; print(config.ROOT)")
    run = subprocess.run([sys.executable, "-c", asks], cwd=root, capture_output=True, text=True,
                         env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(tmp_path)})
    assert run.returncode == 0 and run.stdout.strip().endswith(str(root)), run.stderr
    for needed in ("README.md", "Makefile", "requirements.txt", "LICENSE", "scripts/cours.py", "scripts/demo.py"):
        assert (root / needed).exists()


def test_the_instructor_archive_has_solutions_and_sheets():
    """Tout le dépôt, et une fiche par chapitre, complétée des durées mesurées, dans l'ordre des sections."""
    files = publier.contents(student=False)
    for target in notebooks.targets(publier.ROOT):
        assert target.name in files
        given = files[f"chapters/{target.chapter.name}/seance.md"].decode()
        assert "{{" not in given and "budget `rapide`" in given
        timed = [int(number) for number in re.findall(r"^\| (\d+)\. .+ \| \d+ \|$", given, re.MULTILINE)]
        assert timed == sorted(timed) and (timed or target.chapter.numero == 0)


def test_same_files_same_bytes(tmp_path):
    """L'ordre et l'heure n'y changent rien."""
    files = {"b.txt": b"deux", "a.sh": b"#!/bin/sh\n"}
    publier.pack(tmp_path / "un" / "c.zip", files)
    publier.pack(tmp_path / "deux" / "c.zip", dict(reversed(files.items())))
    assert (tmp_path / "un" / "c.zip").read_bytes() == (tmp_path / "deux" / "c.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "un" / "c.zip") as archive:
        assert archive.namelist() == ["c/a.sh", "c/b.txt"]
        assert archive.getinfo("c/a.sh").external_attr >> 16 == 0o755


@pytest.fixture
def version(monkeypatch, tmp_path):
    """`check_version` dans un dossier où l'on choisit le CHANGELOG et les réponses de git."""
    def checked(changes, status="", tags=""):
        (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n', encoding="utf-8")
        (tmp_path / "CHANGELOG.md").write_text(changes, encoding="utf-8")
        monkeypatch.setattr(publier, "ROOT", tmp_path)
        monkeypatch.setattr(publier, "git", lambda *words: {"status": status, "tag": tags}[words[0]])
        return publier.check_version()
    return checked


def test_a_dated_version_is_accepted(version):
    """Un CHANGELOG qui date la version et dit ce qui change suffit."""
    assert version("# Histoire\n\n## 1.2.3 — 2026-01-31\n\n- Un chapitre.\n", tags="v1.2.3") == "1.2.3"


@pytest.mark.parametrize("changes, status, tags, said", [
    ("## 1.2.2 — 2026-01-31\n\n- Un chapitre.\n", "", "", "pas d'entrée pour la version 1.2.3"),
    ("## 1.2.3 — en préparation\n\n- Un chapitre.\n", "", "", "pas d'entrée"),
    ("## 1.2.3 — 2026-01-31\n\n## 1.2.2 — 2026-01-30\n", "", "", "pas d'entrée"),
    ("## 1.2.3 — 2026-01-31\n\n- Un chapitre.\n", " M README.md", "", "README.md"),
    ("## 1.2.3 — 2026-01-31\n\n- Un chapitre.\n", "", "v1.2.4", "v1.2.4")])
def test_an_unready_version_stops_the_build(version, changes, status, tags, said):
    """Sans entrée datée, avec des fichiers non commis ou une étiquette qui ment, rien ne sort."""
    with pytest.raises(notebooks.BuildError, match=said):
        version(changes, status, tags)


@pytest.mark.parametrize(("address", "warned"), [
    ("https://github.com/DEFINIR/cours", True), ("https://github.com/ecole/cours", False)])
def test_the_report_says_what_was_validated(monkeypatch, tmp_path, address, warned):
    """Version, commit, durée, tests sautés, carnets, empreintes ; et une adresse publique restée à choisir."""
    suite = ET.fromstring('<testsuite tests="12" skipped="1" time="34.6"><testcase><skipped message="sans GPU"/>'
                          "</testcase></testsuite>")
    archive = tmp_path / "cours-etudiant.zip"
    archive.write_bytes(b"abc")
    monkeypatch.setattr(sommaire, "address", lambda root: address)
    said = publier.report("1.2.3", suite, [archive])
    facts = ["version 1.2.3", publier.git("rev-parse", "HEAD"), "12 tests en 35 s", "sautés : 1.", "- sauté : sans GPU",
             f"| {NOTEBOOK} | rapide |", f"| {archive.name} | 0,0 | `{hashlib.sha256(b'abc').hexdigest()}` |", address]
    assert [fact for fact in facts if fact not in said] == []
    assert ("make adresse" in said) == warned
