"""Un chapitre devient un module : ses cellules `modele`, et elles seules."""

import inspect
import sys
import traceback

import pytest

from utils import chapters

SOURCE = '''---
jupyter: python3
---
# Un chapitre d'essai

```python tags=["mise-en-place"]
raise RuntimeError("une cellule ordinaire a été exécutée")
```

```python tags=["modele"]
RATE = 3


def triple(x):
    """Trois fois x."""
    return RATE * x
```

```text
RATE = 1000
```

```python .noeval tags=["modele"]
RATE = 2000
```

```python
RATE = 4000
```

Une cellule `modele` voit les précédentes :

```python tags=["figure", "modele"]
class Doubled:
    factor = 2 * triple(1)

    def fail(self):
        return 1 / (self.factor - 6)
```
'''


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Écrit un chapitre d'essai, le charge, et rend son module."""
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    (tmp_path / "chapters" / "99_essai").mkdir(parents=True)

    def load(text=SOURCE):
        (tmp_path / "chapters" / "99_essai" / "cours.md").write_text(text, encoding="utf-8")
        return chapters.load_chapter("99_essai")

    chapters.load_chapter.cache_clear()
    yield load
    chapters.load_chapter.cache_clear()
    sys.modules.pop("chapitre_99_essai", None)


def test_only_modele_cells_are_executed(chapter):
    module = chapter()
    assert module.RATE == 3 and module.triple(2) == 6 and module.Doubled.factor == 6


def test_all_code_cells_are_listed_with_their_tags_and_lines(chapter):
    chapter()
    cells = chapters.code_cells("99_essai")
    assert [cell.tags for cell in cells] == [("mise-en-place",), ("modele",), (), ("figure", "modele")]
    lines = SOURCE.splitlines()
    for cell in cells:
        assert lines[cell.line - 1] == cell.source.splitlines()[0]


def test_tracebacks_show_the_line_of_the_source(chapter):
    module = chapter()
    with pytest.raises(ZeroDivisionError) as error:
        module.Doubled().fail()
    frame = traceback.extract_tb(error.value.__traceback__)[-1]
    assert frame.filename == module.__file__
    assert SOURCE.splitlines()[frame.lineno - 1].strip() == frame.line == "return 1 / (self.factor - 6)"


def test_an_error_in_a_modele_cell_names_its_line(chapter):
    with pytest.raises(NameError) as error:
        chapter(SOURCE.replace("RATE = 3\n", "RATE = unknown\n"))
    frame = traceback.extract_tb(error.value.__traceback__)[-1]
    assert (frame.lineno, frame.line) == (11, "RATE = unknown")


def test_getsource_finds_a_taught_function(chapter):
    assert inspect.getsource(chapter().triple) == (
        'def triple(x):\n    """Trois fois x."""\n    return RATE * x\n')


def test_a_chapter_is_loaded_once(chapter):
    assert chapter() is chapters.load_chapter("99_essai")


def test_windows_line_ends_change_nothing(chapter, tmp_path):
    chapter()
    expected = chapters.code_cells("99_essai")
    (tmp_path / "chapters" / "99_essai" / "cours.md").write_bytes(SOURCE.replace("\n", "\r\n").encode())
    assert chapters.code_cells("99_essai") == expected


def test_an_unknown_chapter_is_refused_in_french(chapter):
    chapter()
    with pytest.raises(FileNotFoundError, match="chapitre « 98_absent ». Chapitres présents : 99_essai."):
        chapters.load_chapter("98_absent")


def test_exercises_stand_beside_the_text(chapter, tmp_path):
    """`exercices.py` est lu dans le dossier du chapitre ; un chapitre peut ne pas en avoir."""
    chapter()
    assert chapters.names() == ["99_essai"] and chapters.load_exercises("99_essai") is None
    (tmp_path / "chapters" / "99_essai" / "exercices.py").write_text("EXERCISES = {}\n", encoding="utf-8")
    assert chapters.load_exercises("99_essai").EXERCISES == {}
    sys.modules.pop("exercices_99_essai")


@pytest.mark.parametrize("name", chapters.names())
def test_every_chapter_loads_in_silence(name, capsys):
    chapters.load_chapter(name)
    assert capsys.readouterr() == ("", "")
