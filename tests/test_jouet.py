"""Ajouter un chapitre, c'est ajouter un dossier : un chapitre jouet, dans une copie du dépôt, arrive partout seul."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import notebooks

NAME = "99_jouet"
PAGES = pathlib.Path(__file__).with_name("jouet")  # le dossier que l'on ajoute
pytestmark = [
    pytest.mark.xdist_group("jouet"),
    pytest.mark.skipif(subprocess.run(["git", "-C", notebooks.ROOT, "rev-parse"], capture_output=True).returncode != 0,
                       reason="ce dossier n'est pas un dépôt git : la liste des fichiers livrés est inconnue")]


def git(root, *words):
    """Une commande git dans `root` ; ce qu'elle dit."""
    run = subprocess.run(["git", "-C", root, "-c", "user.name=essai", "-c", "user.email=essai@localhost", *words],
                         capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Copie du dépôt où l'on a ajouté le dossier du chapitre jouet, puis lancé le constructeur de carnets."""
    root = tmp_path_factory.mktemp("maison") / "cours"
    listed = git(notebooks.ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for line in filter(None, listed):
        if (notebooks.ROOT / line).exists():
            (root / line).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(notebooks.ROOT / line, root / line)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "le cours")
    shutil.copytree(PAGES, root / "chapters" / NAME)
    said = run(root, "scripts/notebooks.py", "--chapitre", "99")
    assert f"{NAME} ... exécuté" in said
    changed = {line[3:] for line in git(root, "status", "--porcelain").splitlines()}
    written = {f"chapters/{NAME}/", f"notebooks/{NAME}.ipynb", f"notebooks/corriges/{NAME}.ipynb", "README.md"}
    assert written <= changed and all(path in written or path.startswith("notebooks/") for path in changed), changed
    git(root, "add", "-A")
    git(root, "commit", "-qm", "un chapitre de plus")
    return root


def run(root, *words):
    """Un programme du dépôt `root`, avec ses propres modules ; ce qu'il imprime."""
    env = {"PYTHONPATH": f"{root}:{root / 'scripts'}", "COURS_BUDGET": "test", "COURS_DEVICE": "cpu", "HOME": str(root),
           "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=root, env=env, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_is_executed(house):
    """Deux carnets exécutés et à jour, sa durée mesurée ; les autres n'ont perdu aucune sortie."""
    notebook = notebooks.read(house / "notebooks" / f"{NAME}.ipynb")
    assert [cell.execution_count for cell in notebooks.code_cells(notebook)] == [1, 2, 3, 4]
    assert "Exercice" in notebook.cells[-2].source or "jouet" in notebook.cells[0].source
    assert run(house, "scripts/notebooks.py", "--verifier") == "Tous les carnets sont à jour.\n"


def test_it_is_judged(house):
    """Son exercice reconnaît l'ébauche, la bonne réponse et l'erreur qu'il nomme."""
    said = run(house, "-c", "from utils.exercises import check\n"
               "for f in (lambda x: None, lambda x: 2 * x, lambda x: x + 2): print(check('jouet.double', f))")
    assert re.findall("^(À compléter|Juste|Indice)", said, re.MULTILINE) == ["À compléter", "Juste", "Indice"]
    assert "Somme au lieu de produit" in said


def test_it_is_listed(house):
    """README, panorama et dernier chapitre d'avant mènent à lui."""
    readme = (house / "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if f"](notebooks/{NAME}.ipynb)" in line)
    assert row.startswith("| 99 | [Un jouet](") and re.search(r"\| \d+ s \|", row) and "colab.research" in row
    assert "deux mesures d'essai" in readme
    first, *_, last = sorted((house / "notebooks").glob("*.ipynb"))[:-1]
    text = {path: "".join(cell.source for cell in notebooks.read(path).cells) for path in (first, last)}
    assert f"[Un jouet]({NAME}.ipynb) | une fonction qui double |" in text[first]
    assert f"Suivant\u00a0: [Chapitre 99 — Un jouet]({NAME}.ipynb)" in text[last]


def test_it_is_demonstrated(house):
    """Sa figure interactive est projetée, en direct."""
    said = run(house, "-c", "import demo, notebooks; target, = notebooks.students(notebooks.ROOT, '99')\n"
               "print([cell.metadata.demo.live for cell in demo.build(target).cells if 'demo' in cell.metadata])")
    assert said.strip() == "[True]"


def test_it_is_on_the_site(house):
    """Sa page, sa carte, son terme au glossaire, sa solution."""
    run(house, "scripts/site_web.py")
    pages = {name: (house / "build/site/html" / f"{name}.html").read_text(encoding="utf-8")
             for name in (NAME, "index", "glossaire", "solutions")}
    assert "Voir la solution" in pages[NAME] and "eq-99-1" in pages[NAME]
    assert f'class="carte" href="{NAME}.html"' in pages["index"] and "doublement" in pages["glossaire"]
    assert f"{NAME}.html#exercice-99-1" in pages["solutions"]


def test_it_is_in_both_archives(house):
    """L'étudiant reçoit le chapitre sans sa solution, l'enseignant, tout, durées comprises ; rien ne fuit."""
    said = run(house, "-c", "import publier\nfor student in (True, False):\n    files = publier.contents(student)\n"
               f"    ours = {{n.split('/')[-1]: files[n] for n in files if n.startswith('chapters/{NAME}/')}}\n"
               "    print(sorted(ours), publier.leaks(files) if student else b'secondes' in ours['seance.md'],\n"
               "          b'def double_ex(x):\\n    \"\"\"Double de x (N,) \\xe2\\x86\\x92 (N,).\"\"\"\\n    return' "
               "in ours['cours.md'], sep='\\n')")
    everything = "['cours.md', 'exercices.py', 'glossaire.toml', 'mesures.md', 'seance.md']"
    assert said.splitlines() == ["['cours.md', 'exercices.py']", "[]", "False", everything, "True", "True"]
