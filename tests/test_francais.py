"""Le français : Grammalecte relit toute la prose du cours, et ses deux listes d'exceptions restent justes."""

import functools
import shutil
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
import relire

FILES = {path.relative_to(relire.ROOT).as_posix(): path for path in relire.files()}
grammalecte = pytest.mark.skipif(not shutil.which("grammalecte-cli"), reason=relire.MISSING)

FAULTY = """---
en-tete: les modele
---

# Les modèle génère

Une orthografe juste : `les modele`, $les modele$ et la <b title="modele">loi</b> (*modele*).

$$les modele \\tag{1.1}$$

```python
les = "modele"
```

| cas | perte |
|---|---|
| un | les perte |

- La perte est
  calculé sur [un lot](modele.md). Le code est *mesurée* après un *mode collapse*.
"""


@functools.cache
def remarks():
    """Les remarques de tous les fichiers, relus en parallèle."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda path: relire.remarks(relire.prose_of(path)), FILES.values())
        return dict(zip(FILES, found, strict=True))


@grammalecte
@pytest.mark.parametrize("name", FILES)
def test_french(name):
    """Ni faute ni mot inconnu ; pour relire un seul fichier : python scripts/relire.py FICHIER."""
    wrong = [f"{name}:{remark}" for remark in remarks()[name] if not relire.excuse(remark)]
    assert not wrong, "\n".join(["", *wrong])


@grammalecte
@pytest.mark.parametrize("name", ["mots.txt", "tournures.txt"])
def test_every_exception_is_needed(name):
    """Une exception dont aucun texte n'a plus besoin s'efface."""
    used = {relire.excuse(remark) for found in remarks().values() for remark in found}
    assert not [entry for entry in relire.entries(name) if entry not in used]


@pytest.mark.parametrize("name", FILES)
def test_italics_are_closed(name):
    """Un astérisque seul ferait passer la fin du paragraphe pour de l'anglais."""
    read = relire.paragraphs(relire.prose_of(FILES[name]))
    assert not [prose for prose, places in read if places[-1][1] % 2]


def test_words_are_sorted():
    """Les mots du cours sont dans l'ordre alphabétique, accents et majuscules à part, chacun une fois."""
    words = relire.entries("mots.txt")
    assert words == sorted(set(words), key=lambda word: (unicodedata.normalize("NFD", word.lower()), word))


@grammalecte
def test_mistakes_are_found():
    """Accords, conjugaisons et mots inconnus sont signalés à leur ligne ; l'anglais en italique est permis."""
    found = [(remark.line, remark.text) for remark in relire.remarks(FAULTY)]
    assert found == [(5, "modèle"), (7, "orthografe"), (17, "perte"), (20, "calculé"), (20, "mesurée")]


def test_only_prose_is_read():
    """Ni l'en-tête, ni le code, ni les mathématiques, ni le HTML, ni les adresses ; les tableaux case par case."""
    read = [prose.strip() for prose, _ in relire.paragraphs(FAULTY)]
    assert "modele" not in " ".join(read)
    assert read[1] == "Une orthografe juste : X, X et la loi."
    assert read[2:6] == ["cas", "perte", "un", "les perte"]
