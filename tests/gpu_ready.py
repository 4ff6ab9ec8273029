"""Prêt pour le GPU, sans GPU : un garde qui refuse les tenseurs créés sans nommer d'appareil."""

import pathlib
import sys

import torch
from torch.overrides import TorchFunctionMode

FACTORIES = {getattr(torch, name): name for name in (
    "arange", "as_tensor", "asarray", "empty", "eye", "full", "hamming_window", "hann_window", "linspace",
    "logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "tensor", "tril_indices",
    "triu_indices", "zeros")}
LIBRARY = pathlib.Path(torch.__file__).parent.parent  # site-packages


class FactoryGuard(TorchFunctionMode):
    """Dans ce contexte, `torch.zeros(3)`, écrit dans le cours, lève AssertionError : il faut `device=`.

    Passent : `torch.zeros(3, device=x.device)`, les `*_like` et `x.new_*` (ils suivent leur argument), les
    fabriques qui reçoivent un tenseur (`torch.as_tensor(x)`), celles qu'appelle une bibliothèque, et celles
    du constructeur d'un module, dont les tenseurs suivent `module.to(device)`.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in FACTORIES and kwargs.get("device") is None and not _follows(args, kwargs):
            caller = sys._getframe(1)
            if not _of_library(caller) and not _in_constructor(caller):
                raise AssertionError(f"{caller.f_code.co_filename}, ligne {caller.f_lineno} : "
                                     f"torch.{FACTORIES[func]} sans `device=` resterait sur le CPU.")
        return func(*args, **kwargs)


def _follows(args, kwargs) -> bool:
    """Le résultat suit-il l'appareil d'un tenseur reçu, ou celui de `out=` ?"""
    return any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values()))


def _of_library(frame) -> bool:
    return pathlib.Path(frame.f_code.co_filename).is_relative_to(LIBRARY)


def _in_constructor(frame) -> bool:
    """Est-ce le `__init__` d'un module, ou une fonction qu'il appelle (compréhension, fonction locale) ?"""
    while frame is not None:
        if frame.f_code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), torch.nn.Module):
            return True
        frame = frame.f_back
    return False
