"""`fit` : il converge, il s'interrompt proprement, il reprend au bit près, il parle français."""

import math
import signal
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils import training
from utils.checkpoints import CheckpointError
from utils.data import Batches
from utils.training import fit

STEPS = 12


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Les points de reprise des tests restent dans un dossier jetable."""
    monkeypatch.setattr(training, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


def line(seed=0):
    """Droite bruitée à retrouver : un modèle linéaire, un pas sans hasard, des lots."""
    torch.manual_seed(seed)
    x = torch.randn(256, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3
    model = nn.Linear(3, 1)
    return model, lambda x, y: F.mse_loss(model(x), y), Batches(x, y, size=32)


class Noisy(nn.Module):
    """Tout ce qui complique une reprise : hasard, dropout, statistiques courantes, channels_last."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                                  nn.Dropout(0.2), nn.Conv2d(4, 2, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def step(self, x):
        noisy = x + 0.3 * torch.randn_like(x)
        loss = F.mse_loss(self.body(noisy), x)
        return {"loss": loss, "double": 2 * loss}


def noisy(seed=0):
    torch.manual_seed(seed)
    x = torch.rand(40, 2, 6, 6)
    return Noisy(), Batches(x, size=8)


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- Il entraîne ----------------------------------------------------------------------------------


def test_least_squares_converge():
    model, step, batches = line()
    history = fit(model, step, batches, 400, lr=0.05, warmup=10)
    torch.testing.assert_close(model.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=5e-3, rtol=0)
    assert abs(model.bias.item() - 3) < 5e-3 and history["loss"][-1] < 1e-4 < 1 < history["loss"][0]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_bfloat16_only_when_asked_and_where_it_is_fast(asked, fast, monkeypatch):
    monkeypatch.setattr(training.config, "fast_bfloat16", lambda device: fast)
    model, step, batches = line()
    seen = set()

    def watched(x, y):
        seen.add(model(x).dtype)
        return step(x, y)

    fit(model, watched, batches, 3, bfloat16=asked)
    assert seen == {torch.bfloat16 if asked and fast else torch.float32}
    assert model.weight.dtype == torch.float32


@pytest.mark.parametrize("history, said", [
    (training.History({"loss": [5.0] * 1700 + [0.1234] * 100}, 121.3), "1\u202f800 pas en 121 s, perte 0,123"),
    (training.History({"loss": [12.5] * 50}, 3, finished=False), "50 pas en 3 s, perte 12,5, interrompu"),
    (training.History(), "0 pas en 0 s")])
def test_a_history_shows_itself_in_one_line(history, said):
    assert repr(history) == said


def test_history_and_final_message(capsys):
    model, step, batches = line()
    history = fit(model, lambda *b: {"loss": step(*b), "β": 0.25, "norme": model.weight.norm()}, batches, 7)
    assert history.finished and history.steps == 7 and history.seconds > 0 and not model.training
    assert set(history.values) == {"loss", "β", "norme"} and history["β"] == [0.25] * 7
    assert all(type(value) is float for value in history["loss"])
    assert "7 pas en 0 s (" in capsys.readouterr().out.splitlines()[-1]


def test_the_model_trains_in_training_mode():
    model, batches = noisy()
    modes = []
    model.eval()
    fit(model, lambda x: modes.append(model.training) or model.step(x), batches, 3)
    assert modes == [True] * 3 and not model.training


def test_batches_come_in_the_order_of_the_stream():
    model, step, batches = line()
    seen = []
    fit(model, lambda x, y: seen.append(x) or step(x, y), batches, 10)
    assert len(seen) == 10
    assert all(torch.equal(a, b) for a, (b, _) in zip(seen, batches.stream(), strict=False))


@pytest.fixture
def updates(monkeypatch):
    """Note, à chaque mise à jour, le taux, la norme du gradient et les poids obtenus."""
    rows, original = [], torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        parameters = self.param_groups[0]["params"]
        norm = torch.stack([p.grad.norm() for p in parameters]).norm().item()
        original(self, *args, **kwargs)
        rows.append((self.param_groups[0]["lr"], norm, [p.detach().clone() for p in parameters]))
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return rows


def test_cosine_schedule(updates):
    fit(*line(), 100, lr=0.4, warmup=10)
    rates = [rate for rate, _, _ in updates]
    assert rates[0] == pytest.approx(0.04)                                         # un dixième de la montée
    assert rates[4] == pytest.approx(0.4 * 0.5 * 0.5 * (1 + math.cos(0.04 * math.pi)))
    assert rates[50] == pytest.approx(0.2) and rates[25] == pytest.approx(0.4 * (0.5 + math.sqrt(2) / 4))
    assert 0 < rates[99] < 2e-4 and all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_betas_are_those_of_adam():
    model, step, batches = line()
    fit(model, step, batches, 6, lr=0.1, warmup=0, schedule="constant", betas=(0.5, 0.9))
    twin, step, batches = line()
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.1, betas=(0.5, 0.9))
    for _, batch in zip(range(6), batches.stream(), strict=False):
        optimizer.zero_grad()
        step(*batch).backward()
        optimizer.step()
    torch.testing.assert_close(model.weight, twin.weight)


def test_constant_schedule(updates):
    fit(*line(), 8, lr=0.4, warmup=4, schedule="constant")
    assert [rate for rate, _, _ in updates] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])


def test_no_warmup(updates):
    fit(*line(), 2, lr=0.4, warmup=0, schedule="constant")
    assert [rate for rate, _, _ in updates] == [0.4, 0.4]


def test_an_unknown_schedule_is_refused_in_french():
    with pytest.raises(ValueError, match="« cosinus » inconnu : « cosine » ou « constant »"):
        fit(*line(), 2, schedule="cosinus")


def test_clipping_bounds_the_gradient(updates):
    fit(*line(), 3)
    fit(*line(), 3, clip=0.5)
    free, clipped = [norm for _, norm, _ in updates[:3]], [norm for _, norm, _ in updates[3:]]
    assert min(free) > 0.6 and max(clipped) <= 0.5 + 1e-6


def test_weight_decay_shrinks_the_weights():
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    fit(model, lambda x: 0 * model(x).sum(), Batches(torch.ones(4, 2), size=4), 1, lr=0.1, warmup=0,
        weight_decay=0.5)
    torch.testing.assert_close(model.weight, before * (1 - 0.1 * 0.5))


def test_ema_is_the_average_computed_by_hand(updates):
    model, step, batches = line()
    fit(model, step, batches, 20, lr=0.1, warmup=1, ema=0.8)
    average = updates[0][2]
    for _, _, parameters in updates[1:]:
        average = [0.8 * a + 0.2 * p for a, p in zip(average, parameters, strict=True)]
    for found, expected, last in zip(model.parameters(), average, updates[-1][2], strict=True):
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, last)


def test_ema_averages_the_running_statistics_too():
    model = nn.BatchNorm1d(1)
    fit(model, lambda x: model(x).sum(), Batches(torch.tensor([[1.0], [3.0]]), size=2), 4, ema=0.8)
    running = [2 * (1 - 0.9**k) for k in range(1, 5)]  # moyenne 2, approchée d'un dixième à chaque pas
    average = running[0]
    for value in running[1:]:
        average = 0.8 * average + 0.2 * value
    assert model.running_mean.item() == pytest.approx(average)


# --- Il s'interrompt et reprend -------------------------------------------------------------------


class Killed(BaseException):
    """Ce que fit n'attrape pas : l'arrêt brutal du noyau."""


def press_stop():
    signal.raise_signal(signal.SIGINT)


def kill():
    raise Killed


def stopped(step, at, how=press_stop):
    """Le pas donné, interrompu à son `at`-ième appel, une fois fait son tirage."""
    count = 0

    def interrupted(*batch):
        nonlocal count
        result = step(*batch)
        count += 1
        if count == at:
            how()
        return result
    return interrupted


def stop_in_update(monkeypatch, at):
    """Le bouton Stop pressé au milieu de la `at`-ième mise à jour."""
    original, count = torch.optim.AdamW.step, 0

    def step(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == at:
            press_stop()
        return original(self, *args, **kwargs)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)


OPTIONS = {"lr": 0.02, "warmup": 3, "clip": 1.0, "ema": 0.7}


def uninterrupted(**options):
    model, batches = noisy()
    history = fit(model, model.step, batches, STEPS, **OPTIONS | options)
    return weights(model), history, torch.rand(3)


@pytest.mark.parametrize("at", [1, 5, STEPS])
@pytest.mark.parametrize("ema", [None, 0.7])
def test_stop_then_resume_changes_nothing(at, ema, runs, capsys):
    expected, expected_history, expected_draw = uninterrupted(ema=ema)
    model, batches = noisy()
    options = OPTIONS | {"ema": ema, "name": "essai"}
    history = fit(model, stopped(model.step, at), batches, STEPS, **options)
    assert not history.finished and history.steps == at and (runs / "essai.safetensors").exists()
    said = capsys.readouterr().out
    assert f"Entraînement interrompu au pas {at} sur {STEPS} : les poids sont gardés." in said
    assert "Relancez la cellule pour reprendre" in said and "runs/essai.safetensors" in said
    torch.manual_seed(99)  # ce que l'étudiant fait entre-temps ne change rien
    model = Noisy()
    resumed = fit(model, model.step, batches, STEPS, **options)
    assert f"Reprise de runs/essai.safetensors au pas {at}." in capsys.readouterr().out
    assert same(weights(model), expected) and resumed.values == expected_history.values
    assert torch.equal(torch.rand(3), expected_draw), "la suite du hasard devait être la même"
    assert resumed.finished and resumed.steps == STEPS and resumed.seconds > history.seconds
    assert not (runs / "essai.safetensors").exists()


def test_stop_during_the_update_waits_for_its_end(monkeypatch):
    expected, expected_history, _ = uninterrupted()
    model, batches = noisy()
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        stop_in_update(patched, at=5)
        assert fit(model, model.step, batches, STEPS, name="essai", **OPTIONS).steps == 5
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = fit(model, model.step, batches, STEPS, name="essai", **OPTIONS)
    assert same(weights(model), expected) and resumed.values == expected_history.values


@pytest.mark.parametrize("at", [1, 6])
def test_a_second_press_does_not_wait(at, capsys):
    """Un pas bloqué s'interrompt quand même ; il sera refait, et un pas sans hasard donne les mêmes poids."""
    model, step, batches = line()
    fit(model, step, batches, STEPS)
    expected = weights(model)

    def insist():
        press_stop()
        press_stop()
        raise AssertionError("le second appui n'a rien interrompu")
    model, step, batches = line()
    start = weights(model)
    history = fit(model, stopped(step, at, insist), batches, STEPS, name="essai")
    assert history.steps == at - 1 and not history.finished
    assert f"interrompu au pas {at - 1} sur {STEPS}" in capsys.readouterr().out
    assert same(weights(model), start) == (at == 1)
    resumed = fit(model, step, batches, STEPS, name="essai")
    assert resumed.steps == STEPS and same(weights(model), expected)


def test_another_thread_trains_too():
    """Hors du fil principal, où les signaux n'arrivent pas, fit entraîne sans y toucher."""
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(*line(), 3)))
    thread.start()
    thread.join()
    assert results[0].steps == 3


def test_two_stops_in_a_row():
    expected, _, _ = uninterrupted()
    model, batches = noisy()
    for at in (3, 4):
        fit(model, stopped(model.step, at), batches, STEPS, name="essai", **OPTIONS)
    assert fit(model, model.step, batches, STEPS, name="essai", **OPTIONS).steps == STEPS
    assert same(weights(model), expected)


def test_a_killed_kernel_resumes_from_the_last_automatic_save(monkeypatch, capsys, runs):
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    expected, expected_history, _ = uninterrupted()
    model, batches = noisy()
    with pytest.raises(Killed):
        fit(model, stopped(model.step, 8, kill), batches, STEPS, name="essai", **OPTIONS)
    model = Noisy()
    resumed = fit(model, model.step, batches, STEPS, name="essai", **OPTIONS)
    assert "au pas 7." in capsys.readouterr().out
    assert same(weights(model), expected) and resumed.values == expected_history.values
    assert not list(runs.iterdir())


def test_automatic_saves_wait_their_turn(monkeypatch):
    saves = []
    monkeypatch.setattr(training.checkpoints, "write", lambda *_: saves.append(1))
    fit(*line(), 30, name="essai")
    assert not saves
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    fit(*line(), 30, name="essai")
    assert len(saves) == 30


def test_automatic_saves_are_spaced(monkeypatch):
    saves, seconds = [], iter(range(10_000))
    monkeypatch.setattr(training.checkpoints, "write", lambda *_: saves.append(1))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(seconds))  # une seconde par lecture
    monkeypatch.setattr(training, "SAVE_EVERY", 10)
    fit(*line(), 100, name="essai")
    assert 5 <= len(saves) <= 10


def test_stop_without_a_name_keeps_the_weights(runs, capsys):
    model, batches = noisy()
    seen = []
    fit(model, stopped(model.step, 4), batches, STEPS, live=lambda: seen.append(weights(model)))
    assert same(weights(model), seen[-1]) and not model.training and not runs.exists()
    assert "Sans nom (`name=`), relancer la cellule repart de zéro." in capsys.readouterr().out


def test_stop_leaves_the_averaged_weights_in_the_model():
    model, batches = noisy()
    fit(model, stopped(model.step, 6), batches, STEPS, name="essai", **OPTIONS)
    kept = weights(model)
    tensors, _ = training.checkpoints.read(training.RUNS / "essai.safetensors")
    assert all(torch.equal(kept[key], tensors[f"average/module.{key}"]) for key in kept)
    assert not torch.equal(kept["body.0.weight"], tensors["model/body.0.weight"])


@pytest.mark.parametrize("change", [{"lr": 0.01}, {"clip": None}, {"ema": 0.9}, {"warmup": 0},
                                    {"schedule": "constant"}, {"weight_decay": 0.1}, {"bfloat16": True}])
def test_other_settings_start_from_zero_and_say_so(change, capsys):
    model, batches = noisy()
    fit(model, stopped(model.step, 4), batches, STEPS, name="essai", **OPTIONS)
    model, batches = noisy()
    history = fit(model, model.step, batches, STEPS, name="essai", **OPTIONS | change)
    said = capsys.readouterr().out
    assert "runs/essai.safetensors vient d'autres réglages ou d'autres données : l'entraînement repart de zéro." in said
    assert "Reprise" not in said and history.steps == STEPS
    assert same(weights(model), uninterrupted(**change)[0])


@pytest.mark.parametrize("batches", [
    lambda x: Batches(x, size=4), lambda x: Batches(x, size=8, seed=1), lambda x: Batches(x + 1, size=8),
    lambda x: Batches(x[:32], size=8), lambda x: Batches(x.flip(0), size=8)],
    ids=["taille", "graine", "valeurs", "longueur", "ordre"])
def test_other_data_start_from_zero_and_say_so(batches, capsys):
    model, usual = noisy()
    fit(model, stopped(model.step, 4), usual, STEPS, name="essai", **OPTIONS)
    model, usual = noisy()
    assert fit(model, model.step, batches(usual.tensors[0]), STEPS, name="essai", **OPTIONS).steps == STEPS
    said = capsys.readouterr().out
    assert "vient d'autres réglages" in said and "Reprise" not in said


def test_another_length_or_another_network_starts_from_zero(capsys):
    model, batches = noisy()
    fit(model, stopped(model.step, 4), batches, STEPS, name="essai")
    assert fit(model, model.step, batches, STEPS + 1, name="essai").steps == STEPS + 1
    model, batches = noisy()
    fit(model, stopped(model.step, 4), batches, STEPS, name="essai")
    fit(*line(), STEPS, name="essai")
    assert capsys.readouterr().out.count("repart de zéro.") == 2


@pytest.mark.parametrize("damage", [lambda c: c[:len(c) // 2], lambda c: b"", lambda c: b"\xff" * len(c)])
def test_a_damaged_resume_file_is_named(runs, damage):
    model, batches = noisy()
    fit(model, stopped(model.step, 4), batches, STEPS, name="essai")
    file = runs / "essai.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"essai\.safetensors est illisible.*Supprimez-le, puis"):
        fit(model, model.step, batches, STEPS, name="essai")


def test_a_foreign_file_is_not_resumed(runs, capsys):
    training.checkpoints.write(runs / "essai.safetensors", {"poids": torch.zeros(1)})
    assert fit(*line(), 3, name="essai").steps == 3
    assert "repart de zéro" in capsys.readouterr().out


def test_resumed_moments_keep_the_memory_layout(monkeypatch):
    """Sinon la mise à jour fusionnée, qui parcourt la mémoire, mêlerait les moments de poids différents."""
    model, batches = noisy()
    fit(model, stopped(model.step, 4), batches, STEPS, name="essai", **OPTIONS)
    strides = []

    def step(self, *args, **kwargs):
        for p in self.param_groups[0]["params"]:
            strides.append((p.stride(), self.state[p]["exp_avg"].stride()))
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    fit(model, model.step, batches, STEPS, name="essai", **OPTIONS)
    assert strides and all(weight == moment for weight, moment in strides)


# --- Il prévient ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at, steps", [(0, 50), (3, 5), (15, 100)])
def test_a_loss_that_is_not_finite_stops_in_french(bad, at, steps):
    model, step, batches = line()
    count = 0

    def spoiled(x, y):
        nonlocal count
        count += 1
        return step(x, y) * (bad if count > at else 1)
    with pytest.raises(ValueError, match=r"La perte vaut (nan|inf) au pas \d+ : baissez le taux"):
        fit(model, spoiled, batches, steps, name="essai")
    assert count <= at + 20


@pytest.mark.parametrize("steps, every, calls", [(10, 3, 4), (9, 3, 3), (2, 5, 1), (4, 1, 4)])
def test_live_is_called_every_so_often_and_at_the_end(steps, every, calls):
    model, step, batches = line()
    modes = []
    fit(model, step, batches, steps, live=lambda: modes.append(model.training), live_every=every)
    assert modes == [False] * calls


def test_watching_changes_nothing():
    expected, expected_history, expected_draw = uninterrupted()
    model, batches = noisy()
    history = fit(model, model.step, batches, STEPS, live=lambda: model.step(torch.rand(4, 2, 6, 6)),
                  live_every=2, **OPTIONS)
    assert same(weights(model), expected) and history.values == expected_history.values
    assert torch.equal(torch.rand(3), expected_draw)


def test_the_bar_shows_the_loss_and_the_remaining_time(monkeypatch, capsys):
    monkeypatch.delenv("COURS_FIGE", raising=False)
    fit(*line(), 30)
    out, err = capsys.readouterr()
    assert "écoulé, reste" in out and "perte " in out and "pas/s" in out and not err


def test_a_frozen_notebook_has_no_bar(monkeypatch, capsys):
    monkeypatch.setenv("COURS_FIGE", "1")
    fit(*line(), 30)
    assert list(training.progress(range(3), "essai")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and out.startswith("30 pas en ") and not err


def test_progress_counts_or_goes_through(monkeypatch, capsys):
    monkeypatch.delenv("COURS_FIGE", raising=False)
    assert list(training.progress(3, "borne")) == [0, 1, 2] and list(training.progress("ab")) == ["a", "b"]
    assert "borne : " in capsys.readouterr().out
