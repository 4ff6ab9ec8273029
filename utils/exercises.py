"""Vérification des exercices : `check("vae.kl", kl_ex)` dit si c'est juste, et sinon nomme l'erreur.

Un chapitre décrit ses exercices dans `exercices.py`, à côté de son texte, sous la forme d'un dictionnaire `EXERCISES`
de `Spec` ; ce fichier ne connaît aucun exercice. Une réponse est appelée sur plusieurs jeux d'entrées, sur le
processeur, et comparée à un oracle indépendant, puis à ce que donnerait chaque erreur classique.
"""

import functools
import html
import inspect
import linecache
import operator
import re
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from utils import chapters, config

_TITLES = {
    "a_completer": ("info", "À compléter"), "juste": ("success", "Juste"), "indice": ("warning", "Indice")}


@dataclass(frozen=True, repr=False)
class Verdict:
    """Réponse de `check` : `status` vaut « a_completer », « juste » ou « indice » ; il s'affiche lui-même."""

    status: str
    message: str

    def __repr__(self) -> str:
        return f"{_TITLES[self.status][1]} — {self.message}"

    def _repr_html_(self) -> str:
        kind, title = _TITLES[self.status]
        text = re.sub("« | (?=[;:!?»])", lambda m: m[0].replace(" ", "\u00a0"), self.message)
        text = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(text, quote=False))
        return f'<div class="alert alert-{kind}" role="status"><strong>{title}</strong> — {text}</div>'


class Mistake(NamedTuple):
    """Erreur classique : la ou les façons de la commettre, en fonctions fausses, et ce qu'on en dit."""

    wrong: Callable | Sequence[Callable]
    hint: str

    def functions(self) -> Sequence[Callable]:
        """Les fonctions fausses, toujours sous forme de suite."""
        return (self.wrong,) if callable(self.wrong) else self.wrong


@dataclass(frozen=True)
class Spec:
    """Un exercice : de quoi juger une réponse sans jamais montrer la solution.

    oracle : fonction de référence, aux noms d'arguments de l'énoncé ; elle rend un tenseur ou un `int`.
        Si c'est un tenseur de booléens (un masque), la réponse peut être de booléens, d'entiers ou de réels.
    cases : fonction sans argument qui rend les jeux d'entrées, assez variés pour séparer toutes les erreurs.
    mistakes : nom de l'erreur en français → `Mistake`.
    accepted : autre réponse admise → `Mistake` dont le texte est une remarque.
    gradients : arguments dont le gradient doit être celui de l'oracle.
    properties : fonctions `p(f)` qui rendent un indice, ou None si la propriété est satisfaite ;
        elles passent en dernier, et `f` y est la réponse de l'étudiant.
    """

    oracle: Callable
    cases: Callable[[], list[tuple]]
    mistakes: dict[str, Mistake]
    accepted: dict[str, Mistake] = field(default_factory=dict)
    gradients: tuple[str, ...] = ()
    properties: tuple[Callable[[Callable], str | None], ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Noms des arguments, dans l'ordre de l'énoncé."""
        return list(inspect.signature(self.oracle).parameters)


class _Hint(Exception):
    """La réponse est fausse ; le texte dit pourquoi."""


class _Unanswered(Exception):
    """La réponse n'est pas encore écrite."""


@functools.cache
def exercises() -> dict[str, Spec]:
    """Tous les exercices du cours : « chapitre.nom » → `Spec` ; le chapitre y est sans son numéro."""
    found = {}
    for chapter in chapters.names():
        if module := chapters.load_exercises(chapter):
            found |= {f"{chapter.partition('_')[2]}.{name}": spec for name, spec in module.EXERCISES.items()}
    return found


def check(name: str, f: Callable) -> Verdict:
    """Juge la réponse `f` à l'exercice `name` (« vae.kl »). Lève ValueError si l'exercice n'existe pas.

    Rien de ce que fait `f` n'interrompt le carnet : une exception devient un indice.
    """
    known = exercises()
    if name not in known:
        raise ValueError(f"Pas d'exercice « {name} ». Exercices connus : {', '.join(sorted(known))}.")
    # La suite du carnet ne doit pas dépendre des tirages faits ici.
    with config.randomness_kept(), torch.enable_grad():
        try:
            return Verdict("juste", _examine(known[name], f))
        except _Unanswered as stop:
            return Verdict("a_completer", str(stop))
        except _Hint as stop:
            return Verdict("indice", str(stop))


def _examine(spec: Spec, f: Callable) -> str:
    """Passe la réponse au crible, du plus grossier au plus fin ; rend le message de réussite."""
    if f is None or f is ...:
        raise _Unanswered("La fonction n'est pas encore définie.")
    if not callable(f):
        raise _Hint(f"Donnez à `check` la fonction elle-même, sans l'appeler ; vous donnez : {_kind(f)}.")
    cases = spec.cases()
    _check_signature(spec, f, cases)
    outcomes = [_outcome(f, _copy(case)) for case in cases]
    named = _named(spec.mistakes, outcomes, cases)
    for outcome in outcomes:
        _check_answered(f, outcome, named)
    for case in cases:
        _check_untouched(spec, f, case)
    variant = _named(spec.accepted, outcomes, cases)
    reference, remark = (variant.wrong, f" {variant.hint}") if variant else (spec.oracle, "")
    for case, outcome in zip(cases, outcomes, strict=True):
        _check_form(spec, case, reference(*case), outcome, named)
    if named:
        raise _Hint(named.hint)
    for case, outcome in zip(cases, outcomes, strict=True):
        _check_values(spec, f, case, reference(*case), outcome)
    for case in cases:
        _check_gradients(spec, f, case, reference)
    for holds in spec.properties:
        if hint := holds(functools.partial(_call, f)):
            raise _Hint(hint)
    checked = f"{len(cases)} jeux d'entrées vérifiés{', gradients compris' if spec.gradients else ''}."
    return checked + remark


# --- Entrées d'essai : float64, sur le processeur, toujours les mêmes ---------------------------------------


def generator(seed: int) -> torch.Generator:
    """Source de hasard des jeux d'entrées."""
    return torch.Generator(device="cpu").manual_seed(seed)


def normal(rng: torch.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Tirages de N(0, scale²)."""
    return scale * torch.randn(*shape, generator=rng, dtype=torch.float64, device="cpu")


def uniform(rng: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """Tirages uniformes sur [low, high[."""
    return low + (high - low) * torch.rand(*shape, generator=rng, dtype=torch.float64, device="cpu")


# --- Appeler, comparer --------------------------------------------------------------------------------------


def _copy(inputs: tuple) -> tuple:
    return tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in inputs)


def _outcome(f: Callable, inputs: tuple) -> Any:
    """Ce que rend `f`, ou l'exception qu'elle lève."""
    try:
        return f(*inputs)
    except Exception as error:
        return error


def _call(f: Callable, *inputs) -> Any:
    """Comme `f(*inputs)`, mais une exception devient un indice."""
    outcome = _outcome(f, inputs)
    _check_answered(f, outcome)
    return outcome


def _flat(value: Any) -> torch.Tensor:
    return torch.as_tensor(value, device="cpu").detach().to(torch.float64).flatten()


def same(a: Any, b: Any, rtol: float = 1e-5) -> bool:
    """Deux résultats (ou deux exceptions) sont-ils les mêmes, à la forme et à l'arrondi près ?"""
    if isinstance(a, Exception) or isinstance(b, Exception):
        # Le début du message suffit : la suite cite des formes et des valeurs.
        return type(a) is type(b) and str(a)[:24] == str(b)[:24]
    try:
        a, b = _flat(a), _flat(b)
    except (TypeError, ValueError, RuntimeError):
        return False
    return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=1e-7, equal_nan=True)


def _named(mistakes: dict[str, Mistake], outcomes: list, cases: list[tuple]) -> Mistake | None:
    """Erreur classique aux mêmes résultats sur toutes les entrées ; son nom ouvre l'indice."""
    seen = list(zip(cases, outcomes, strict=True))
    for name, mistake in mistakes.items():
        for wrong in mistake.functions():
            if all(same(_outcome(wrong, _copy(case)), outcome) for case, outcome in seen):
                return Mistake(wrong, f"{name[0].upper()}{name[1:]}. {mistake.hint}")
    return None


# --- Les contrôles, dans l'ordre ----------------------------------------------------------------------------


def _check_signature(spec: Spec, f: Callable, cases: list[tuple]) -> None:
    try:
        for case in cases:
            inspect.signature(f).bind(*case)
    except TypeError:
        expected = inspect.signature(spec.oracle)
        raise _Hint(f"La fonction doit s'appeler avec les arguments de l'énoncé : `{expected}`.") from None
    except ValueError:  # une fonction écrite en C n'a pas toujours de signature
        pass


def _check_answered(f: Callable, outcome: Any, named: Mistake | None = None) -> None:
    """Ni réponse vide, ni exception."""
    # PyTorch lève aussi NotImplementedError, pour une opération qui n'existe pas dans un type.
    stub = isinstance(outcome, NotImplementedError) and "not implemented for" not in str(outcome)
    if outcome is None or outcome is ... or stub:
        raise _Unanswered("Écrivez le corps de la fonction, jusqu'au `return`, puis relancez la cellule.")
    if isinstance(outcome, Exception):
        text = f"Exception {type(outcome).__name__}{_where(f, outcome)} : {_short(outcome)}"
        raise _Hint(f"{text} {named.hint}" if named else text)


def _where(f: Callable, error: Exception) -> str:
    """« à la ligne 3 (`…`) » : la dernière ligne de la cellule (ou du fichier) de l'étudiant exécutée."""
    code = getattr(inspect.unwrap(f), "__code__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if code and frame.filename == code.co_filename:
            line = linecache.getline(frame.filename, frame.lineno).strip()
            return f" à la ligne {frame.lineno}" + (f" (`{line}`)" if line else "")
    return ""


def _check_form(spec: Spec, case: tuple, expected: Any, got: Any, named: Mistake | None) -> None:
    """Type, puis forme : celle du résultat attendu."""
    if isinstance(expected, int):
        try:
            operator.index(got)
        except TypeError:
            raise _Hint(f"Le résultat doit être un entier ; vous rendez : {_kind(got)}.") from None
        return
    if not isinstance(got, torch.Tensor):
        raise _Hint(f"Le résultat doit être un tenseur de forme {_shape(expected)} ; vous rendez : "
                    f"{_kind(got)}.")
    if got.shape != expected.shape:
        text = (f"Forme attendue {_shape(expected)}, forme obtenue {_shape(got)}, pour les entrées "
                f"{_describe(spec, case)}.")
        raise _Hint(f"{text} {named.hint}" if named else text)


def _check_values(spec: Spec, f: Callable, case: tuple, expected: Any, got: Any) -> None:
    """Pas de NaN, les valeurs de l'oracle, puis la précision et l'appareil des entrées."""
    where = f"les entrées {_describe(spec, case)}"
    if not _flat(got).isfinite().all():
        raise _Hint(f"Le résultat contient des NaN ou des infinis, pour {where} : cherchez un logarithme ou "
                    "une racine de nombre négatif, une division par zéro, une exponentielle trop grande.")
    if not same(expected, got):
        if not same(_call(f, *_copy(case)), got):
            raise _Hint("Deux appels sur les mêmes entrées donnent deux résultats différents : la fonction "
                        "fait son propre tirage. Le hasard doit venir des arguments.")
        raise _Hint(f"Pour {where}, {_first_gap(expected, got)}. Aucune erreur classique n'explique cet "
                    "écart : relisez l'équation terme à terme.")
    if not isinstance(expected, torch.Tensor):
        return
    dtype = got.dtype if expected.dtype == torch.bool else expected.dtype
    if (got.dtype, got.device) != (dtype, expected.device):
        raise _Hint(f"Le résultat est en {got.dtype} sur {got.device}, alors que les entrées sont en "
                    f"{dtype} sur {expected.device} : tirez-en le type et l'appareil des tenseurs "
                    "que vous créez (`torch.zeros_like`, `dtype=…, device=…`).")


def _first_gap(expected: Any, got: Any) -> str:
    shape = torch.as_tensor(expected, device="cpu").shape
    wanted, values = _flat(expected).view(shape), _flat(got).view(shape)
    index = tuple((~torch.isclose(values, wanted, rtol=1e-5, atol=1e-7)).nonzero()[0].tolist())
    subject = f"l'élément {list(index)} du résultat" if index else "le résultat"
    return f"{subject} devrait valoir {_number(wanted[index])} ; vous obtenez {_number(values[index])}"


def _check_untouched(spec: Spec, f: Callable, case: tuple) -> None:
    given = _copy(case)
    _call(f, *given)
    for name, before, after in zip(spec.arguments, case, given, strict=False):
        if isinstance(before, torch.Tensor) and not torch.equal(before, after):
            raise _Hint(f"La fonction modifie son argument `{name}` : évitez les opérations sur place "
                        "(`+=`, méthodes finissant par `_`), l'appelant a encore besoin de ses données.")


def _check_gradients(spec: Spec, f: Callable, case: tuple, reference: Callable) -> None:
    """Gradient d'une somme pondérée des résultats par rapport à chaque argument de `spec.gradients`."""
    if not spec.gradients:
        return
    expected, got = _gradients(spec, reference, case), _gradients(spec, f, case)
    for name, wanted, found in zip(spec.gradients, expected, got, strict=True):
        if wanted.any() and not found.any():
            raise _Hint(f"Gradient coupé : les valeurs sont justes, mais rien ne remonte jusqu'à `{name}`, "
                        "et le réseau qui le produit n'apprendrait pas. Cherchez ce qui détache le calcul "
                        "(`detach`, `.data`, `.item()`, `torch.no_grad`, un tirage non reparamétré).")
        if not same(wanted, found):
            raise _Hint(f"Gradient faux par rapport à `{name}`, alors que les valeurs sont justes : une "
                        "partie du calcul est détachée, ou passe par une opération dont la dérivée n'est "
                        "pas définie.")


def _gradients(spec: Spec, f: Callable, case: tuple) -> list[torch.Tensor]:
    inputs = dict(zip(spec.arguments, _copy(case), strict=False))
    leaves = [inputs[name].requires_grad_() for name in spec.gradients]
    result = _call(f, *inputs.values())
    if not result.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    weights = 1 + torch.arange(result.numel(), dtype=result.dtype, device=result.device).view_as(result)
    try:
        total = (weights * result).sum()
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    except RuntimeError as error:
        raise _Hint("Les valeurs sont justes, mais la rétropropagation échoue : "
                    f"{_short(error)}") from None


# --- Dire ---------------------------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"un tenseur de forme {_shape(value)}"
    return f"un objet de type {type(value).__name__}"


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _number(x: float) -> str:
    return f"{float(x):.6g}".replace(".", ",")


def _describe(spec: Spec, case: tuple) -> str:
    """« mu de forme (5, 3), t = 0,3 » : un jeu d'entrées, en bref."""
    values = zip(spec.arguments, case, strict=False)
    return ", ".join(f"{name} de forme {_shape(x)}" if isinstance(x, torch.Tensor)
                     else f"{name} = {x if isinstance(x, bool) else _number(x)}" for name, x in values)


def _short(error: Exception) -> str:
    """Début du message, ponctué."""
    text = textwrap.shorten(str(error), 160, placeholder="…")
    return text if text.endswith((".", "…")) else f"{text}."
