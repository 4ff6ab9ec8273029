"""Le constructeur de carnets, le changement d'adresse et la typographie, sur un cours minuscule."""

import json
import os
import shutil
import subprocess
import sys

import adresse
import pytest
import sommaire
import typographie

import notebooks

CHAPTER = """---
numero: 1
titre: "Essai"
lecture: "5 min"
prerequis: "compter"
construit: "un nombre"
vignette: "Rien"
---

# Essai

{{entete}}

## Première section

```python tags=["modele"]
value = 2
```

```python
print("{{depot}}")
for step in range(3):
    print(f"\\rpas {step}", end="")
```

```python tags=["exercice"]
answer = ...
```

```python tags=["solution"]
answer = value + 1
answer
```

<!-- #region tags=["solution"] -->
On ajoute un.

Deux paragraphes.
<!-- #endregion -->

```python
value
```

```python
value
```
"""


@pytest.fixture
def course(tmp_path):
    """Un cours d'un chapitre, pas encore construit."""
    return write_course(tmp_path / "cours")


@pytest.fixture
def built(built_once, tmp_path):
    """Le même, construit et exécuté."""
    return shutil.copytree(built_once, tmp_path / "construit")


@pytest.fixture(scope="module")
def built_once(tmp_path_factory):
    """Le modèle de `built`, exécuté une seule fois."""
    root = write_course(tmp_path_factory.mktemp("modele") / "cours")
    assert notebooks.main([], root) == 0
    return root


def write_course(root):
    """Écrit le cours minuscule dans `root`."""
    (root / "chapters/01_essai").mkdir(parents=True)
    (root / "chapters/01_essai/cours.md").write_text(CHAPTER, encoding="utf-8")
    shutil.copy(notebooks.ROOT / "pyproject.toml", root)
    return root


def edit(course, old, new, count=-1):
    """Remplace un passage du chapitre."""
    chapter = course / "chapters/01_essai/cours.md"
    text = chapter.read_text(encoding="utf-8")
    assert old in text
    chapter.write_text(text.replace(old, new, count), encoding="utf-8")


def load(course, name="notebooks/01_essai.ipynb"):
    """Un carnet construit."""
    return notebooks.read(course / name)


def text_outputs(notebook):
    """Textes imprimés par les cellules, dans l'ordre."""
    return [out.text for cell in notebooks.code_cells(notebook) for out in cell.outputs if "text" in out]


def test_student_and_corrected_versions(built):
    """L'ébauche d'un côté, la solution de l'autre ; le reste est commun, et n'a ses sorties que chez l'étudiant."""
    student, corrected = load(built), load(built, "notebooks/corriges/01_essai.ipynb")
    sources = [[cell.source for cell in notebook.cells] for notebook in (student, corrected)]
    assert "answer = ..." in sources[0] and not any("On ajoute" in s or "value + 1" in s for s in sources[0])
    assert "answer = ..." not in sources[1] and "On ajoute un.\n\nDeux paragraphes." in sources[1]
    ids = [{cell.id: cell.source for cell in notebook.cells} for notebook in (student, corrected)]
    common = ids[0].keys() & ids[1].keys()
    assert {"value = 2", "value"} <= {ids[0][i] for i in common}
    kept, = (cell for cell in notebooks.code_cells(corrected) if cell.outputs or cell.execution_count)
    assert kept.source == "answer = value + 1\nanswer" and kept.outputs[0].data["text/plain"] == "3"


def test_a_solution_changes_nothing_for_the_student(course):
    """Elle suit son ébauche dans le même noyau, mais ne touche ni au hasard, ni au compte des cellules."""
    edit(course, "```python\nvalue\n```", "```python\nimport random\nrandom.seed(0)\n```\n", 1)
    edit(course, 'answer = value + 1\nanswer', "import random\nanswer = random.random()")
    edit(course, "```python\nvalue\n```", "```python\nrandom.random()\n```", 1)
    draws = []
    for text in ("answer = random.random()", "answer = 0"):
        assert notebooks.main(["--executer"], course) == 0
        cells = notebooks.code_cells(load(course))
        draws.append(cells[-1].outputs[0].data["text/plain"])
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        edit(course, text, "answer = 0")
    assert draws[0] == draws[1]


def test_a_chapter_in_progress_keeps_its_outputs(built, capsys):
    """Construire un chapitre ne jette pas les sorties d'un autre, dont le code a changé."""
    before = (built / "notebooks/01_essai.ipynb").read_bytes()
    edit(built, "value = 2", "value = 3")
    shutil.copytree(built / "chapters/01_essai", built / "chapters/02_autre")
    other = built / "chapters/02_autre/cours.md"
    other.write_text(other.read_text(encoding="utf-8").replace("numero: 1", "numero: 2"), encoding="utf-8")
    assert notebooks.main(["--chapitre", "02"], built) == 0
    assert (built / "notebooks/01_essai.ipynb").read_bytes() == before
    assert "Précédent" not in load(built, "notebooks/02_autre.ipynb").cells[0].source


@pytest.mark.parametrize("old, new, said", [
    ("lecture: ", "lire: ", "l'en-tête doit donner numero, titre"), ("numero: 1", "numero: 7", "« 07_… »")])
def test_a_faulty_heading_is_explained(course, capsys, old, new, said):
    """Un en-tête incomplet ou qui contredit le nom du dossier est refusé, en français."""
    edit(course, old, new)
    assert notebooks.main([], course) == 1
    assert said in capsys.readouterr().err


def test_no_solution_no_corrected_version(course):
    """Un chapitre sans solution n'a pas de corrigé."""
    edit(course, '"solution"', '"reponse"')
    assert [t.name for t in notebooks.targets(course)] == ["notebooks/01_essai.ipynb"]


def test_ids_are_stable_and_unique(built):
    """Ajouter un paragraphe ne change que sa propre cellule ; deux cellules identiques restent distinctes."""
    before = [cell.id for cell in load(built).cells]
    assert len(set(before)) == len(before)
    edit(built, "\n# Essai", "\n# Essai\n\n\nNouveau paragraphe.")
    assert notebooks.main([], built) == 0
    assert len(set(before) - {cell.id for cell in load(built).cells}) == 1


def test_rebuilding_changes_nothing(built):
    """Deux exécutions donnent le même fichier, à la durée près ; sans exécution, le même octet pour octet."""
    path = built / "notebooks/01_essai.ipynb"
    first = path.read_bytes()
    assert notebooks.main([], built) == 0 and path.read_bytes() == first
    assert notebooks.main(["--executer"], built) == 0
    again, before = json.loads(path.read_text(encoding="utf-8")), json.loads(first)
    for notebook in (again, before):
        notebook["metadata"]["cours"] |= {"secondes": 0, "sections": {}}
        notebook["cells"][0]["source"] = []  # sous le titre, la durée
    assert again == before


def test_outputs_are_tidy(built):
    """Flux réunis, progression réduite à son dernier état, budget et machine notés, rien de volatil."""
    notebook = load(built)
    assert text_outputs(notebook) == [f"{sommaire.address(built)}\npas 2"]
    assert notebook.metadata.cours.keys() == {"depot", "budget", "machine", "secondes", "sections"}
    assert notebook.metadata.cours.budget == "test"
    assert list(notebook.metadata.cours.sections) == ["Première section"]
    assert not any("execution" in cell.metadata for cell in notebook.cells)
    assert "colab.research.google.com/github/" in notebook.cells[0].source


def test_widget_views_and_erased_bars_leave_nothing():
    """Un curseur sans noyau et une barre effacée ne laissent pas de sortie."""
    stream = notebooks.nbformat.v4.new_output("stream", name="stderr", text="50 %\r     \r")
    view = notebooks.nbformat.v4.new_output("display_data", data={notebooks.WIDGET: {}, "text/plain": "f"})
    assert notebooks.tidy([stream, view]) == []


def test_stale_notebooks_are_named(built):
    """La vérification voit une prose changée, une erreur, une image sans texte, un carnet orphelin."""
    assert notebooks.main(["--verifier"], built) == 0
    edit(built, "\n# Essai", "\n# Autre titre")
    assert notebooks.main(["--verifier"], built) == 1
    named = [line.split(" : ")[0] for line in notebooks.verify(built)]
    assert named == [target.name for target in notebooks.targets(built)]

    assert notebooks.main([], built) == 0 and not notebooks.verify(built)
    notebook = load(built)
    error, image = notebooks.code_cells(notebook)[:2]
    error.outputs = [notebooks.nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])]
    image.outputs = [notebooks.nbformat.v4.new_output("display_data", data={"image/png": ""})]
    notebooks.write(built / "notebooks/01_essai.ipynb", notebook)
    notebooks.write(built / "notebooks/99_perdu.ipynb", notebook)
    found = "\n".join(notebooks.verify(built))
    assert "erreur ValueError" in found and "sans texte alternatif" in found and "99_perdu" in found


def test_changed_code_is_not_executed_unless_allowed(built):
    """Sans exécution, un code changé perd ses sorties, et la vérification le dit."""
    edit(built, "value = 2", "value = 3")
    assert notebooks.main(["--sans-execution"], built) == 0
    assert any("jamais exécutée" in line for line in notebooks.verify(built))


def test_failure_names_the_cell_and_writes_nothing(built, capsys):
    """Une cellule en erreur : message qui la nomme, carnet précédent intact."""
    path = built / "notebooks/01_essai.ipynb"
    before = path.read_bytes()
    edit(built, "value = 2", "value = 2 / 0")
    assert notebooks.main([], built) == 1
    message = capsys.readouterr().err
    assert "01_essai" in message and "cellule 2" in message and "ZeroDivisionError" in message
    assert path.read_bytes() == before


def test_unknown_chapter(course, capsys):
    """Un chapitre inconnu : le message donne ceux qui existent."""
    assert notebooks.main(["--chapitre", "42"], course) == 1
    assert "01_essai" in capsys.readouterr().err


def test_address_changes_everywhere_and_keeps_outputs(built):
    """La nouvelle adresse remplace l'ancienne, y compris dans le code exécuté, sans rien perdre."""
    old = sommaire.address(built)
    (built / "README.md").write_text(f"Voir {old}/issues ; pas {old}-bis.\n", encoding="utf-8")
    before = text_outputs(load(built))
    assert adresse.main(["https://github.com/ecole/cours.git/"], built) == 0
    assert sommaire.address(built) == "https://github.com/ecole/cours"
    readme = (built / "README.md").read_text(encoding="utf-8")
    assert readme == f"Voir https://github.com/ecole/cours/issues ; pas {old}-bis.\n"
    notebook = load(built)
    assert "github/ecole/cours/blob/main/notebooks/01_essai.ipynb" in notebook.cells[0].source
    assert 'print("https://github.com/ecole/cours")' in notebooks.code_cells(notebook)[1].source
    assert text_outputs(notebook) == before and not notebooks.verify(built)


@pytest.mark.parametrize("url", ["", "ecole/cours", "https://example.org/ecole/cours", "https://github.com/ecole"])
def test_bad_addresses_change_nothing(course, url, capsys):
    """Une adresse qui n'est pas celle d'un dépôt GitHub est refusée, avec un exemple."""
    before = (course / "pyproject.toml").read_bytes()
    assert adresse.main([url], course) == 2
    assert "make adresse URL=" in capsys.readouterr().err
    assert (course / "pyproject.toml").read_bytes() == before


@pytest.mark.parametrize(("typed", "wanted"), [
    ("Un « mot » : oui ! Non ?", "Un «~mot~»~: oui~! Non~?"),
    ("**Attention** : l’ELBO monte... de 5 %", "**Attention**~: l'ELBO monte… de 5~%"),
    ("la perte `x` : basse", "la perte `x`~: basse"),
    ("`a : b` et $p : q$ et *Auto-Encoding: a title*", "`a : b` et $p : q$ et *Auto-Encoding: a title*"),
    ("voir [ici](https://exemple.fr/a?b) ; fin", "voir [ici](https://exemple.fr/a?b)~; fin"),
    ("| a | b |\n| :-- | --: |\n| 1 : 2 | 3 |", "| a | b |\n| :-- | --: |\n| 1~: 2 | 3 |"),
    ("```python\nx = {1 : 2}\n```\nFin : oui", "```python\nx = {1 : 2}\n```\nFin~: oui"),
])
def test_typography(typed, wanted):
    """Espaces insécables et apostrophes dans la prose seulement ; corriger deux fois ne change rien."""
    wanted = wanted.replace("~", typographie.NBSP)
    assert typographie.corrected(typed) == wanted == typographie.corrected(wanted)


def test_course_starts_without_a_screen(tmp_path):
    """Sans écran, `make cours` imprime une adresse locale au lieu d'échouer."""
    hidden = {"DISPLAY", "WAYLAND_DISPLAY"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    server = subprocess.Popen([sys.executable, notebooks.ROOT / "scripts/cours.py"], env=env, cwd=tmp_path,
                              stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        said = "".join(iter(server.stdout.readline, "Pour l'arrêter : Ctrl-C dans cette fenêtre.\n"))
    finally:
        server.terminate()
        server.communicate()
    first = sommaire.chapters(notebooks.ROOT)[0].name
    assert "http://127.0.0.1:" in said and f"/lab/tree/notebooks/{first}.ipynb?token=" in said
