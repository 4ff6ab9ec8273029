"""Les exercices : la bonne réponse passe, l'ébauche est reconnue, chaque erreur classique est nommée."""

import importlib
import itertools
import math
import pathlib

import pytest
import torch

from utils import exercises
from utils.exercises import Spec, Verdict, check

# Les réponses sont dans tests/NN_slug/answers.py ; les exercices portent le nom du chapitre, sans son numéro.
ANSWERS = {path.parent.name.partition("_")[2]: importlib.import_module(f"{path.parent.name}.answers")
           for path in sorted(pathlib.Path(__file__).parent.glob("*/answers.py"))}
RIGHT = {f"{chapter}.{name}": f for chapter, answers in ANSWERS.items() for name, f in answers.RIGHT.items()}


def rows(table):
    """Les lignes des tables de ce nom, tous chapitres mêlés ; l'exercice y porte son nom complet."""
    return [(f"{chapter}.{name}", *rest) for chapter, answers in ANSWERS.items()
            for name, *rest in getattr(answers, table, ())]


WRONG = rows("WRONG")


# --- Chaque réponse de answers.py ---------------------------------------------------------------------------


def test_every_exercise_has_answers():
    assert set(RIGHT) == set(exercises.exercises()), "écrivez tests/NN_slug/answers.py (voir CONTRIBUER.md)"


@pytest.mark.parametrize("name, f, words", WRONG, ids=[f"{name}-{words}" for name, _, words in WRONG])
def test_wrong_answer_is_named(name, f, words):
    verdict = check(name, f)
    assert verdict.status == "indice"
    assert words.lower() in verdict.message.lower()


@pytest.mark.parametrize("name", exercises.exercises())
def test_right_answer_passes(name):
    verdict = check(name, RIGHT[name])
    assert verdict.status == "juste", verdict.message


@pytest.mark.parametrize("name, f", rows("ALSO_RIGHT"))
def test_alternative_right_answer_passes(name, f):
    verdict = check(name, f)
    assert verdict.status == "juste", verdict.message


@pytest.mark.parametrize("name, f, words", rows("REMARKED"))
def test_accepted_answer_gets_its_remark(name, f, words):
    verdict = check(name, f)
    assert verdict.status == "juste", verdict.message
    assert words in verdict.message


@pytest.mark.parametrize("name", exercises.exercises())
def test_oracle_agrees_with_itself(name):
    assert check(name, exercises.exercises()[name].oracle).status == "juste"


def raise_unwritten(*_args):
    raise NotImplementedError


@pytest.mark.parametrize("name", exercises.exercises())
@pytest.mark.parametrize("stub", [None, ..., lambda *a: None, lambda *a: ..., raise_unwritten])
def test_stub_is_to_complete(name, stub):
    assert check(name, stub).status == "a_completer"


@pytest.mark.parametrize("name", exercises.exercises())
def test_exception_is_reported_with_its_line(name):
    def broken(*_args):
        value = {}
        return value["absente"]

    verdict = check(name, broken)
    assert verdict.status == "indice"
    assert "KeyError" in verdict.message and "absente" in verdict.message
    assert f"ligne {broken.__code__.co_firstlineno + 2}" in verdict.message
    assert 'return value["absente"]' in verdict.message


# --- Les erreurs décrites se distinguent toutes -------------------------------------------------------------


@pytest.mark.parametrize("name", exercises.exercises())
def test_mistakes_are_distinguishable(name):
    """Ni la bonne réponse, ni deux erreurs de noms différents ne se confondent, même à 1 ‰ près."""
    spec = exercises.exercises()[name]
    cases = spec.cases()
    answers = [("juste", spec.oracle)] + [
        (label, wrong) for label, mistake in (spec.mistakes | spec.accepted).items()
        for wrong in mistake.functions()]
    outcomes = [(label, [exercises._outcome(f, case) for case in cases]) for label, f in answers]
    for (label, first), (other, second) in itertools.combinations(outcomes, 2):
        alike = all(exercises.same(a, b, rtol=1e-3) for a, b in zip(first, second, strict=True))
        assert label == other or not alike, f"{label} / {other}"


@pytest.mark.parametrize("name, label", [
    (name, label) for name, spec in exercises.exercises().items() for label in spec.mistakes])
def test_every_described_mistake_gets_its_hint(name, label):
    mistake = exercises.exercises()[name].mistakes[label]
    for wrong in mistake.functions():
        verdict = check(name, wrong)
        assert verdict.status == "indice"
        assert f"{label[0].upper()}{label[1:]}. {mistake.hint}" in verdict.message


@pytest.mark.parametrize("name", exercises.exercises())
def test_every_mistake_is_also_written_by_hand(name):
    """Les tables WRONG, indépendantes des fonctions fausses des spécifications, couvrent celles de l'énoncé."""
    said = [check(name, f).message for other, f, _ in WRONG if other == name]
    missing = [label for label, mistake in exercises.exercises()[name].mistakes.items()
               if not label.startswith(getattr(ANSWERS[name.split(".")[0]], "SHARED", ()))
               and not any(mistake.hint in message for message in said)]
    assert not missing, "à écrire aussi dans la table WRONG de answers.py"


def test_every_accepted_variant_is_also_written_by_hand():
    covered = {(name, check(name, f).message) for name, f, _ in rows("REMARKED")}
    missing = [(name, label) for name, spec in exercises.exercises().items()
               for label, variant in spec.accepted.items()
               if not any(name == other and variant.hint in message for other, message in covered)]
    assert not missing


# --- Le moteur, sur trois exercices d'essai -----------------------------------------------------------------


def kl_standard(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)


def rate_bits(mu, logvar):
    return kl_standard(mu, logvar) / math.log(2)


def reparameterize(mu, logvar, noise):
    return mu + (0.5 * logvar).exp() * noise


def _cases(n):
    """Jeux de `n` tenseurs (5, 3), puis (1, 3)."""
    rng = exercises.generator(0)
    return [tuple(exercises.normal(rng, rows, 3) for _ in range(n)) for rows in (5, 1)]


ENGINE = {
    "essai.kl": Spec(kl_standard, lambda: _cases(2), {}),
    "essai.rate_bits": Spec(rate_bits, lambda: _cases(2), {}),
    "essai.reparameterize": Spec(reparameterize, lambda: _cases(3), {}, gradients=("mu", "logvar")),
}


@pytest.fixture
def engine(monkeypatch):
    """Le moteur ne connaît que les exercices d'essai."""
    monkeypatch.setattr(exercises, "exercises", lambda: ENGINE)


@pytest.mark.parametrize("f, words", [
    (lambda m, v: rate_bits(m, v).tolist(), "de type list"),
    (lambda m, v: kl_standard(m, v).sum().item(), "de type float"),
    (lambda m, v: rate_bits(m, v)[:, None], "forme obtenue (5, 1)"),
    (lambda m, v: rate_bits(m, v).squeeze(), "Forme attendue (1,), forme obtenue ()"),
    (lambda m, v: rate_bits(m, v).float(), "torch.float32"),
    (lambda m, v: rate_bits(m, v).sqrt().neg().sqrt(), "NaN"),
    (lambda m, v: rate_bits(m, v) + torch.arange(len(m)), "l'élément [1] du résultat devrait valoir"),
    (lambda m, v: rate_bits(m.mul_(1), v.add_(1).sub_(1)) + m.zero_().sum(), "modifie son argument `mu`"),
    (lambda m: rate_bits(m, m), "(mu, logvar)"),
    (lambda m, v: rate_bits(m, v.int().sigmoid().bitwise_not()), "Exception"),
    (torch.ones(5), "la fonction elle-même"),
])
def test_generic_hints(engine, f, words):
    verdict = check("essai.rate_bits", f)
    assert verdict.status == "indice"
    assert words in verdict.message


def test_failing_backward_is_a_hint(engine):
    def in_place(mu, logvar, noise):
        std = (0.5 * logvar).exp()
        std *= noise
        return mu + std

    assert "rétropropagation" in check("essai.reparameterize", in_place).message


def test_a_mask_may_be_of_any_type():
    """Un oracle de booléens admet des booléens, des entiers ou des réels, pourvu que ce soit un tenseur."""
    above = Spec(oracle=lambda x: x > 0, cases=lambda: [(torch.arange(-2, 3, device="cpu"),)], mistakes={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exercises, "exercises", lambda: {"essai.above": above})
        for right in (lambda x: x > 0, lambda x: (x > 0).int(), lambda x: (x > 0).float()):
            assert check("essai.above", right).status == "juste"
        assert "devrait valoir 0" in check("essai.above", lambda x: (x > -1).double()).message
        assert "de type list" in check("essai.above", lambda x: (x > 0).tolist()).message


def test_unknown_exercise_lists_the_known_ones(engine):
    with pytest.raises(ValueError, match="« essai.kll ».*essai.kl.*essai.reparameterize"):
        check("essai.kll", kl_standard)


def test_verdict_shows_itself(engine):
    verdict = Verdict("indice", "« a < b » : voir `x < y` ?")
    assert repr(verdict) == "Indice — « a < b » : voir `x < y` ?"
    page = verdict._repr_html_()
    assert 'class="alert alert-warning"' in page
    assert "<code>x &lt; y</code>" in page and "«\u00a0a &lt; b\u00a0»\u00a0: voir" in page
    assert "alert-success" in check("essai.kl", kl_standard)._repr_html_()
    assert "alert-info" in check("essai.kl", None)._repr_html_()


def test_check_leaves_the_random_stream_alone(engine):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check("essai.reparameterize", lambda m, v, e: m + torch.randn_like(m))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", exercises.exercises())
def test_inputs_stay_on_the_cpu(name):
    """Même quand l'appareil par défaut est un autre : toute création de tenseur nomme le sien."""
    with torch.device("meta"):
        assert check(name, RIGHT[name]).status == "juste"
        assert check(name, lambda *a, **k: torch.zeros(7, device="cpu")).status == "indice"


@pytest.mark.parametrize("name", exercises.exercises())
def test_hints_never_show_a_solution_and_end_with_a_sentence(name):
    spec = exercises.exercises()[name]
    for mistake in (spec.mistakes | spec.accepted).values():
        assert mistake.hint.strip().endswith((".", "?"))
        assert "’" not in mistake.hint
        secrets = [word for answers in ANSWERS.values() for word in getattr(answers, "SECRETS", ())]
        assert not [word for word in secrets if word in mistake.hint]
