"""Appareil, budget et graine."""

import random

import numpy as np
import pytest
import torch

from utils import config


def test_the_three_budgets(monkeypatch):
    for name, value in (("test", 1), ("rapide", 20), ("complet", 300)):
        monkeypatch.setenv("COURS_BUDGET", name)
        assert config.budget_name() == name
        assert config.budget(test=1, rapide=20, complet=300) == value


@pytest.mark.parametrize("wrong", ["rapde", "Rapide", "complet ", "0"])
def test_an_unknown_budget_is_refused_in_french(monkeypatch, wrong):
    monkeypatch.setenv("COURS_BUDGET", wrong)
    with pytest.raises(ValueError, match="choisissez parmi : test, rapide, complet") as error:
        config.budget(test=1, rapide=2, complet=3)
    assert f"« {wrong} »" in str(error.value)


@pytest.mark.parametrize("unset", [None, ""])
@pytest.mark.parametrize("device, expected", [("cpu", "rapide"), ("mps", "rapide"), ("cuda", "complet")])
def test_the_default_budget_follows_the_device(monkeypatch, unset, device, expected):
    monkeypatch.delenv("COURS_BUDGET") if unset is None else monkeypatch.setenv("COURS_BUDGET", unset)
    monkeypatch.setattr(config, "device", torch.device(device))
    assert config.budget_name() == expected


@pytest.mark.parametrize("cuda, mps, expected", [(True, True, "cuda"), (True, False, "cuda"),
                                                 (False, True, "mps"), (False, False, "cpu")])
def test_the_best_device_is_chosen(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("COURS_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert config._pick_device() == torch.device(expected)


def test_a_forced_device_wins(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("COURS_DEVICE", "cpu")
    assert config._pick_device() == torch.device("cpu")
    monkeypatch.setenv("COURS_DEVICE", "cuda:1")
    assert config._pick_device() == torch.device("cuda", 1)


def test_a_forced_device_that_does_not_exist_is_refused_in_french(monkeypatch):
    monkeypatch.setenv("COURS_DEVICE", "gpu")
    with pytest.raises(ValueError, match="COURS_DEVICE vaut « gpu » ; choisissez cpu, cuda ou mps"):
        config._pick_device()


def test_one_seed_for_python_numpy_and_torch():
    def draws(seed):
        config.seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand((), device="cpu").item()
    assert draws(3) == draws(3)
    assert all(a != b for a, b in zip(draws(3), draws(4), strict=True))


def test_setup_seeds_and_says_where_it_runs(monkeypatch, capsys):
    monkeypatch.setenv("COURS_BUDGET", "rapide")
    config.setup(seed=5)
    drawn = torch.rand((), device="cpu")
    torch.manual_seed(5)
    assert drawn == torch.rand((), device="cpu")
    line, = capsys.readouterr().out.splitlines()
    for part in (f"Appareil : {config.device}", config.hardware(), "budget : rapide", "Python", "PyTorch"):
        assert part in line


def test_hardware_speaks_french(monkeypatch):
    monkeypatch.setattr(config, "device", torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    monkeypatch.setattr(config.os, "cpu_count", lambda: 1)
    assert config.hardware() == "1 cœur, sans GPU"
    monkeypatch.setattr(config.os, "cpu_count", lambda: 8)
    assert config.hardware() == "8 cœurs, sans GPU"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert config.hardware() == "8 cœurs avec AMX, sans GPU"


def test_fast_bfloat16_asks_the_processor(monkeypatch):
    cpu = torch.device("cpu")
    for units in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: {"amx_bf16": units})
        assert config.fast_bfloat16(cpu) is units and not config.fast_bfloat16(torch.device("mps"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not config.fast_bfloat16(cpu)


def test_root_is_the_course():
    assert (config.ROOT / "utils" / "config.py").exists() and (config.ROOT / "chapters").is_dir()
