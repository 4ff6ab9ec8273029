"""La plomberie de l'entraînement : progression, moyenne des poids, reprise après interruption."""

import contextlib
import hashlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.std import tqdm

from utils import checkpoints, config

RUNS = config.ROOT / "runs"
SAVE_EVERY = 60.0  # secondes entre deux sauvegardes automatiques
_BAR = ("{desc}{percentage:3.0f} % |{bar:24}| {n_fmt}/{total_fmt} · {elapsed} écoulé, reste {remaining}"
        " · {rate_fmt}{postfix}")


def progress(iterable: Iterable | int, desc: str = "", **options) -> tqdm:
    """Barre de progression en français sur `iterable` (ou `range(iterable)`).

    Elle n'écrit rien quand le constructeur des carnets fige les sorties : celles-ci restent stables.
    """
    if isinstance(iterable, int):
        iterable = range(iterable)
    return tqdm(iterable, desc=f"{desc} : " if desc else "", file=sys.stdout, bar_format=_BAR, unit=" pas",
                disable=config.frozen(), leave=False, **options)


@dataclass(repr=False)
class History:
    """Ce qu'un entraînement a mesuré : par grandeur, une liste d'un nombre par pas ; la durée en secondes."""

    values: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = True

    def __getitem__(self, key: str) -> list[float]:
        return self.values[key]

    def __repr__(self) -> str:
        """« 1 800 pas en 121 s, perte 0,12 » : une ligne, où la perte est la moyenne des cent derniers pas."""
        last, steps = self.values.get("loss", ())[-100:], f"{self.steps:,}".replace(",", "\u202f")
        loss = f", perte {sum(last) / len(last):.3g}".replace(".", ",") if last else ""
        return f"{steps} pas en {self.seconds:.0f} s{loss}" + ("" if self.finished else ", interrompu")

    @property
    def steps(self) -> int:
        """Nombre de pas faits."""
        return len(self.values.get("loss", ()))


def _learning_rate(i: int, n_steps: int, lr: float, warmup: int, schedule: str) -> float:
    """Taux du pas `i` : montée linéaire sur `warmup` pas, puis constant ou demi-cosinus jusqu'à zéro."""
    ramp = min(1.0, (i + 1) / max(1, warmup))
    return lr * ramp * (0.5 * (1 + math.cos(math.pi * i / n_steps)) if schedule == "cosine" else 1.0)


def fit(model: nn.Module, step: Callable, batches, n_steps: int, *, lr: float = 1e-3, warmup: int = 100,
        schedule: str = "cosine", betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0,
        clip: float | None = None, ema: float | None = None, bfloat16: bool = False, name: str | None = None,
        live: Callable[[], None] | None = None, live_every: int = 200) -> History:
    """Entraîne `model` pendant `n_steps` pas d'Adam(W) et rend l'historique des grandeurs de `step`.

    `step(*lot)` rend la perte (scalaire), ou un dictionnaire de scalaires dont « loss » est la perte.
    `batches` : un `utils.data.Batches`. `schedule` : « cosine » ou « constant ». `betas` : mémoires d'Adam
    (gradient, son carré). `clip` : norme maximale du
    gradient. `ema` : coefficient d'une moyenne exponentielle des poids, que le modèle porte à la fin.
    `bfloat16` : laisse `step` calculer en précision mixte là où la machine y gagne (`config.fast_bfloat16`) ;
    pour les réseaux d'images, pas pour des densités au centième de nat.
    `live()` est appelée tous les `live_every` pas et à la fin (voir `plots.live`), modèle en mode
    évaluation ; ses tirages ne changent rien à l'entraînement.

    Le bouton Stop n'efface rien : les poids restent dans le modèle et, si `name` est donné, l'état complet
    dans runs/`name`.safetensors ; le même appel reprend au pas suivant. L'état est aussi écrit chaque minute,
    et retiré quand l'entraînement est fini. Un état laissé par d'autres réglages ou d'autres données est ignoré.
    Lève ValueError si la perte n'est plus finie.
    """
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"Plan « {schedule} » inconnu : « cosine » ou « constant ».")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True) if ema else None
    settings = [n_steps, lr, warmup, schedule, betas, weight_decay, clip, ema, bfloat16,
                [list(p.shape) for p in model.parameters()], batches.fingerprint() if name else None]
    run = _Run(name, hashlib.sha256(json.dumps(settings).encode()).hexdigest(), model, average, optimizer,
               n_steps)
    seconds_before = run.resume()
    start = run.done
    history = History()
    device = next(model.parameters()).device
    bfloat16 = bfloat16 and config.fast_bfloat16(device)
    began = saved = time.perf_counter()
    model.train()
    bar = progress(range(start, n_steps), initial=start, total=n_steps)
    stream = batches.stream(start)
    try:
        with _stop_button() as stop:
            for i in bar:
                for group in optimizer.param_groups:
                    group["lr"] = _learning_rate(i, n_steps, lr, warmup, schedule)
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    result = step(*next(stream))
                scalars = result if isinstance(result, dict) else {"loss": result}
                optimizer.zero_grad(set_to_none=True)
                scalars["loss"].backward()
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                if average:
                    average.update_parameters(model)
                run.log(scalars)
                if stop:
                    raise KeyboardInterrupt
                last = i + 1 == n_steps
                if i % 20 == 0 or last:
                    # Lire un scalaire attend le GPU : une fois sur vingt suffit.
                    loss = scalars["loss"].item()
                    if not math.isfinite(loss):
                        raise ValueError(f"La perte vaut {loss} au pas {i} : baissez le taux d'apprentissage "
                                         f"(lr = {lr}) ou bornez le gradient (clip = 1).")
                    bar.set_postfix_str(f"perte {loss:.4g}".replace(".", ","))
                if live and (i + 1) % live_every == 0 and not last:
                    _watch(live, model)
                    model.train()
                if name and time.perf_counter() - saved > SAVE_EVERY:
                    run.save(seconds_before + time.perf_counter() - began)
                    saved = time.perf_counter()
    except KeyboardInterrupt:
        history.finished = False
    finally:
        bar.close()
        history.seconds = seconds_before + time.perf_counter() - began
    if history.finished:
        run.forget()
    else:
        run.save(history.seconds)
        print(f"Entraînement interrompu au pas {run.done} sur {n_steps} : les poids sont gardés. " + (
            "Relancez la cellule pour reprendre à ce pas "
            f"(supprimez runs/{name}.safetensors pour repartir de zéro)."
            if name else "Sans nom (`name=`), relancer la cellule repart de zéro."))
    if average and run.done:
        model.load_state_dict(average.module.state_dict())
    history.values = {key: column.tolist() for key, column in run.history().items()}
    model.eval()
    if live:
        _watch(live, model)
    if history.finished:
        rate = (n_steps - start) / max(1e-9, time.perf_counter() - began)
        print(f"{n_steps} pas en {history.seconds:.0f} s ({rate:.0f} pas/s, {config.hardware()}).")
    return history


def _watch(live: Callable[[], None], model: nn.Module) -> None:
    """Appelle `live`, modèle en mode évaluation, sans consommer le hasard de l'entraînement."""
    model.eval()
    with config.randomness_kept():
        live()


@contextlib.contextmanager
def _stop_button():
    """Liste non vide dès que Stop est pressé : la boucle finit son pas. Un second appui l'interrompt aussitôt."""
    pressed = []

    def press(*_):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    if threading.current_thread() is not threading.main_thread():
        yield pressed  # les signaux n'arrivent qu'au fil principal
        return
    previous = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)


class _Run:
    """L'état d'un entraînement sur le disque : modèle, moyenne, optimiseur, hasard, historique."""

    def __init__(self, name, fingerprint, model, average, optimizer, n_steps):
        self.path = RUNS / f"{name}.safetensors" if name else None
        self.fingerprint, self.optimizer = fingerprint, optimizer
        self.modules = {"model": model} | ({"average": average} if average else {})
        self.n_steps, self.done, self.table = n_steps, 0, {}
        self.device = optimizer.param_groups[0]["params"][0].device

    @torch.no_grad()
    def log(self, scalars: dict) -> None:
        """Note les grandeurs d'un pas de plus."""
        for key, value in scalars.items():
            if key not in self.table:
                # Cases réservées d'avance : un petit tenseur gardé à chaque pas morcelle la mémoire.
                self.table[key] = torch.zeros(self.n_steps, device=self.device)
            self.table[key][self.done] = value
        self.done += 1

    def history(self) -> dict[str, torch.Tensor]:
        """Grandeurs des pas faits, sur le CPU."""
        return {key: column[:self.done].cpu() for key, column in self.table.items()}

    def save(self, seconds: float) -> None:
        if self.path is None:
            return
        tensors = {f"{part}/{key}": value for part, module in self.modules.items()
                   for key, value in module.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in slots.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        tensors |= {f"history/{key}": column for key, column in self.history().items()}
        # `clone` : safetensors refuse deux noms pour une même mémoire (poids partagés).
        checkpoints.write(self.path, {key: value.clone() for key, value in tensors.items()},
                          {"fingerprint": self.fingerprint, "seconds": str(seconds)})

    def resume(self) -> float:
        """Reprend l'état du disque, s'il existe et vient des mêmes réglages ; rend les secondes déjà passées."""
        if self.path is None or not self.path.exists():
            return 0.0
        tensors, metadata = checkpoints.read(self.path)
        if metadata.get("fingerprint") != self.fingerprint:
            print(f"runs/{self.path.name} vient d'autres réglages ou d'autres données : l'entraînement repart de zéro.")
            return 0.0
        parts: dict[str, dict] = {}
        for key, value in tensors.items():
            part, _, rest = key.partition("/")
            parts.setdefault(part, {})[rest] = value
        for part, module in self.modules.items():
            module.load_state_dict(parts[part])
        state = self.optimizer.state_dict()
        weights = self.optimizer.param_groups[0]["params"]
        for key, value in parts.get("optimizer", {}).items():
            index, _, slot = key.partition("/")
            weight = weights[int(index)]
            # Les moments ont la disposition en mémoire du poids (channels_last), que safetensors oublie.
            same = torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
            state["state"].setdefault(int(index), {})[slot] = same
        self.optimizer.load_state_dict(state)
        torch.set_rng_state(parts["random"]["cpu"])
        if torch.cuda.is_available() and "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"])
        for key, column in parts.get("history", {}).items():
            self.done = len(column)
            self.table[key] = torch.zeros(self.n_steps, device=self.device)
            self.table[key][:self.done] = column
        print(f"Reprise de runs/{self.path.name} au pas {self.done}.")
        return float(metadata["seconds"])

    def forget(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
