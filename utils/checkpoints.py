"""Poids entraînés : safetensors, manifeste, empreintes vérifiées ; jamais de pickle."""

import hashlib
import importlib
import json
import os
import pathlib

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from utils import chapters, config

FOLDER = config.ROOT / "checkpoints"


class CheckpointError(RuntimeError):
    """Point de sauvegarde absent, corrompu ou inconnu ; le message nomme le fichier et dit quoi faire."""


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Écrit `content` dans `path` d'un seul geste : une coupure laisse l'ancien fichier intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partiel")
    partial.write_bytes(content)
    os.replace(partial, path)


def write(path: pathlib.Path, tensors: dict[str, torch.Tensor],
          metadata: dict[str, str] | None = None) -> None:
    """Écrit des tenseurs nommés (copiés sur le CPU) et des métadonnées textuelles, d'un seul geste."""
    on_cpu = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_bytes(path, save(on_cpu, metadata))


def read(path: pathlib.Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tenseurs (sur le CPU) et métadonnées du fichier `path` ; CheckpointError s'il est illisible."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Le fichier {path} est illisible ({error}). Supprimez-le, puis recommencez.") from error


def sha256(path: pathlib.Path) -> str:
    """Empreinte SHA-256 du fichier `path`, en hexadécimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def models(chapter: str | None = None) -> list[dict]:
    """Entrées du manifeste, toutes ou celles d'un chapitre (« NN_slug »)."""
    file = FOLDER / "manifest.json"
    entries = json.loads(file.read_text(encoding="utf-8"))["models"] if file.exists() else []
    return [entry for entry in entries if chapter in (None, entry["chapter"])]


def entry(name: str) -> dict:
    """Entrée du manifeste qui porte ce nom ; CheckpointError si aucune."""
    for candidate in models():
        if candidate["name"] == name:
            return candidate
    known = ", ".join(sorted(m["name"] for m in models())) or "aucun"
    raise CheckpointError(
        f"Aucun modèle « {name} » dans checkpoints/manifest.json. Modèles présents : {known}.")


def build(entry: dict) -> torch.nn.Module:
    """Modèle neuf de la classe et de la configuration d'une entrée du manifeste.

    La classe vient du chapitre qui l'enseigne, ou d'un module si son nom est pointé
    (« utils.metrics.FeatureNet »).
    """
    module, _, cls = entry["class"].rpartition(".")
    source = importlib.import_module(module) if module else chapters.load_chapter(entry["chapter"])
    return getattr(source, cls)(**entry["config"])


def load_model(name: str, device: torch.device | None = None) -> torch.nn.Module:
    """Modèle entraîné, prêt à l'emploi (mode évaluation, float32) sur `device` (par défaut celui du cours).

    Un modèle d'images a une méthode `sample(n, generator=None)` : images float32 (n, C, H, W) dans [0, 1].
    Lève CheckpointError si le nom est inconnu, si le fichier manque ou si son empreinte n'est pas la bonne.
    """
    found = entry(name)
    path = FOLDER / found["file"]
    if not path.exists():
        raise CheckpointError(
            f"Il manque checkpoints/{found['file']}. Retrouvez-le par : git checkout -- checkpoints")
    digest = sha256(path)
    if digest != found["sha256"]:
        raise CheckpointError(
            f"Le fichier checkpoints/{found['file']} est corrompu : empreinte SHA-256 {digest}, "
            f"attendue {found['sha256']}. Retrouvez-le par : git checkout -- checkpoints"
        )
    model = build(found)
    model.load_state_dict(read(path)[0])  # la copie dans les poids du modèle les remet en float32
    return model.to(device or config.device).eval()


def round_to_half(model: torch.nn.Module) -> torch.nn.Module:
    """Arrondit sur place les poids à float16, la précision des fichiers livrés ; à faire avant de mesurer."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
    return model


def save_model(name: str, model: torch.nn.Module, *, chapter: str, config: dict, budget: str, hardware: str,
               seconds: float, scores: dict) -> None:
    """Écrit les poids (float16) de `model` et son entrée du manifeste ; remplace l'entrée du même nom.

    `config` : arguments du constructeur ; `seconds` : durée de l'entraînement ; `scores` : mesures faites
    sur les poids arrondis (voir `round_to_half`), chacune avec sa valeur.
    """
    cls = type(model)
    path = FOLDER / f"{name}.safetensors"
    write(path, {key: value.half() if value.is_floating_point() else value
                 for key, value in model.state_dict().items()})
    qualified = f"{cls.__module__}.{cls.__name__}" if cls.__module__.startswith("utils.") else cls.__name__
    new = {"name": name, "chapter": chapter, "class": qualified, "config": config, "file": path.name,
           "sha256": sha256(path), "parameters": sum(p.numel() for p in model.parameters()), "budget": budget,
           "hardware": hardware, "seconds": round(seconds), "scores": scores}
    others = [m for m in models() if m["name"] != name]
    entries = sorted([*others, new], key=lambda m: (m["chapter"], m["name"]))
    content = json.dumps({"models": entries}, ensure_ascii=False, indent=1) + "\n"
    write_bytes(FOLDER / "manifest.json", content.encode())
