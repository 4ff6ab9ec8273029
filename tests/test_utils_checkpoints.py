"""Poids entraînés : aller-retour, empreintes, écriture d'un seul geste, jamais de pickle ; livraisons."""

import json
import os
import pathlib
import pickle
import re
import sys

import pytest
import torch
from safetensors import safe_open

from utils import chapters, checkpoints, config
from utils.checkpoints import CheckpointError

SMALL = {"latent_dim": 4, "widths": (2, 4)}
CHAPTER = '''```python tags=["modele"]
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, latent_dim, widths):
        super().__init__()
        self.latent_dim = latent_dim
        self.decoder = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU())
                                       for a, b in zip((latent_dim, *widths), (*widths, 784))))

    def sample(self, n, generator=None):
        z = torch.randn(n, self.latent_dim, generator=generator, device="cpu")
        return torch.sigmoid(self.decoder(z)).view(n, 1, 28, 28)
```
'''
FIELDS = {"chapter": "99_essai", "config": SMALL, "budget": "5 pas", "hardware": "ici", "seconds": 61.4,
          "scores": {"elbo": -1.5}}
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Un modèle dont la classe est enseignée dans un chapitre d'essai."""
    source = tmp_path / "chapters" / "99_essai" / "cours.md"
    source.parent.mkdir(parents=True)
    source.write_text(CHAPTER, encoding="utf-8")
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    chapters.load_chapter.cache_clear()
    torch.manual_seed(0)
    yield chapters.load_chapter("99_essai").Small(**SMALL)
    chapters.load_chapter.cache_clear()
    sys.modules.pop("chapitre_99_essai")


@pytest.fixture
def saved(folder, model):
    checkpoints.save_model("essai", model, **FIELDS)
    return folder / "essai.safetensors"


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- Aller et retour ------------------------------------------------------------------------------


def test_a_saved_model_comes_back(saved, model):
    loaded = checkpoints.load_model("essai", CPU)
    assert type(loaded) is type(model) and not loaded.training
    assert same(loaded.state_dict(), {k: v.half().float() for k, v in model.state_dict().items()})
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    draw = [m.sample(3, torch.Generator().manual_seed(1)) for m in (loaded, checkpoints.round_to_half(model))]
    torch.testing.assert_close(*draw)


def test_the_file_is_in_half_precision(saved):
    with safe_open(saved, framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}


def test_a_rounded_model_is_exactly_what_is_delivered(folder, model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert checkpoints.round_to_half(model) is model
    rounded = {k: v.clone() for k, v in model.state_dict().items()}
    checkpoints.save_model("essai", model, **FIELDS)
    assert same(checkpoints.load_model("essai", CPU).state_dict(), rounded) and not same(before, rounded)


def test_integers_are_kept_as_they_are(folder):
    from utils.metrics import FeatureNet
    net = FeatureNet(width=2)
    for name, buffer in net.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(123_457)  # hors de portée de float16
    checkpoints.save_model("traits", net, **FIELDS | {"config": {"width": 2}})
    assert checkpoints.entry("traits")["class"] == "utils.metrics.FeatureNet"
    assert checkpoints.load_model("traits", CPU).body[1].num_batches_tracked == 123_457


def test_the_entry_says_everything(saved, model):
    entry = checkpoints.entry("essai")
    assert entry == {
        "name": "essai", "chapter": "99_essai", "class": "Small", "config": SMALL | {"widths": [2, 4]},
        "file": "essai.safetensors", "sha256": checkpoints.sha256(saved), "budget": "5 pas",
        "hardware": "ici", "parameters": sum(p.numel() for p in model.parameters()), "seconds": 61,
        "scores": {"elbo": -1.5}}


def test_saving_again_replaces_the_entry(saved, model):
    checkpoints.save_model("autre", model, **FIELDS | {"chapter": "98_avant"})
    with torch.no_grad():
        model.decoder[0][0].bias.fill_(2.0)
    checkpoints.save_model("essai", model, **FIELDS | {"seconds": 5})
    assert [(m["name"], m["seconds"]) for m in checkpoints.models()] == [("autre", 61), ("essai", 5)]
    assert [m["name"] for m in checkpoints.models("99_essai")] == ["essai"]
    assert checkpoints.load_model("essai", CPU).decoder[0][0].bias.eq(2).all()


def test_tensors_and_metadata_make_the_trip(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b/c": torch.tensor(7), "octets": torch.get_rng_state()}
    checkpoints.write(tmp_path / "neuf" / "t.safetensors", tensors, {"clé": "été"})
    read, metadata = checkpoints.read(tmp_path / "neuf" / "t.safetensors")
    assert same(read, tensors) and metadata == {"clé": "été"}


# --- Ce qui manque ou s'abîme ---------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 9, 0.5, -1])
def test_one_flipped_bit_is_seen_and_named(saved, where):
    content = bytearray(saved.read_bytes())
    expected = checkpoints.sha256(saved)
    content[int(where * len(content)) if isinstance(where, float) else where] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        checkpoints.load_model("essai", CPU)
    found = checkpoints.sha256(saved)
    for part in ("checkpoints/essai.safetensors est corrompu", expected, found, "git checkout"):
        assert part in str(error.value)


def test_a_missing_file_is_named(saved):
    saved.unlink()
    with pytest.raises(CheckpointError, match="Il manque checkpoints/essai.safetensors.*git checkout"):
        checkpoints.load_model("essai", CPU)


def test_an_unknown_name_lists_the_known_ones(saved, model):
    checkpoints.save_model("autre", model, **FIELDS)
    with pytest.raises(CheckpointError, match="Aucun modèle « esai ».*Modèles présents : autre, essai"):
        checkpoints.load_model("esai")


def test_without_manifest_no_model_is_known(folder):
    assert checkpoints.models() == []
    with pytest.raises(CheckpointError, match="Modèles présents : aucun"):
        checkpoints.entry("essai")


@pytest.mark.parametrize("content", [b"", b"\0" * 5, b"x" * 1000], ids=["vide", "court", "quelconque"])
def test_an_unreadable_file_is_named(tmp_path, content):
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"t\.safetensors est illisible.*Supprimez-le"):
        checkpoints.read(tmp_path / "t.safetensors")


def test_a_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="illisible"):
        checkpoints.read(saved)


# --- D'un seul geste ------------------------------------------------------------------------------


class Crash(Exception):
    """La coupure de courant des tests."""


def crash_on_replace(monkeypatch):
    def replace(*_):
        raise Crash
    monkeypatch.setattr(os, "replace", replace)


def crash_while_writing(monkeypatch):
    def write_half(path, content):
        with open(path, "wb") as file:
            file.write(content[:len(content) // 2])
        raise Crash
    monkeypatch.setattr(pathlib.Path, "write_bytes", write_half)


@pytest.mark.parametrize("crash", [crash_on_replace, crash_while_writing])
def test_a_crash_leaves_the_old_files(saved, model, monkeypatch, crash):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    with monkeypatch.context() as patched:
        crash(patched)
        with torch.no_grad():
            model.decoder[0][0].bias.fill_(2.0)
        with pytest.raises(Crash):
            checkpoints.save_model("essai", model, **FIELDS)
    assert all((saved.parent / name).read_bytes() == content for name, content in before.items())
    checkpoints.load_model("essai", CPU)


# --- Jamais de pickle -----------------------------------------------------------------------------


def test_loading_never_unpickles(saved, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pickle a servi")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    checkpoints.load_model("essai", CPU)


def test_a_pickle_in_disguise_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "piège",)

    for content in (pickle.dumps(Trap()), pickle.dumps({"w": Trap()}, protocol=0)):
        (tmp_path / "t.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoints.read(tmp_path / "t.safetensors")
    assert not (tmp_path / "piège").exists()


@pytest.mark.parametrize("folder_name, pattern", [
    ("utils", "*.py"), ("scripts", "*.py"), ("chapters", "*/*.py"), ("chapters", "*/cours.md"), ("benchmarks", "*.py"),
    ("data", "*.py")])
def test_no_source_of_the_course_uses_pickle(folder_name, pattern):
    forbidden = re.compile(r"import (cloud)?pickle|from pickle|torch\.(load|save)\(|allow_pickle=True|joblib")
    for path in sorted((config.ROOT / folder_name).rglob(pattern)):
        found = forbidden.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path} : {found[0]}"


# --- Ce qui est livré -----------------------------------------------------------------------------

MANIFEST = config.ROOT / "checkpoints" / "manifest.json"
ENTRIES = json.loads(MANIFEST.read_text(encoding="utf-8"))["models"] if MANIFEST.exists() else []
NAMES = [entry["name"] for entry in ENTRIES]
KINDS = {"name": str, "chapter": str, "class": str, "config": dict, "file": str, "sha256": str,
         "parameters": int, "budget": str, "hardware": str, "seconds": int, "scores": dict}


def test_the_manifest_and_the_folder_agree():
    assert NAMES, "checkpoints/manifest.json est absent ou vide"
    assert len(set(NAMES)) == len(NAMES)
    assert sorted(e["file"] for e in ENTRIES) == sorted(p.name for p in MANIFEST.parent.glob("*.safetensors"))
    leftovers = {p.suffix for p in MANIFEST.parent.iterdir()} - {".safetensors", ".json", ".md"}
    assert not leftovers, leftovers


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_entry_is_complete(entry):
    assert {key: type(value) for key, value in entry.items()} == KINDS
    assert re.match(r"\d\d_", entry["chapter"]) and entry["scores"] and entry["budget"] and entry["hardware"]
    assert all(isinstance(value, int | float) for value in entry["scores"].values()), entry["scores"]


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_shipped_model_loads(entry):
    model = checkpoints.load_model(entry["name"], CPU)
    assert not model.training and sum(p.numel() for p in model.parameters()) == entry["parameters"]
    for tensor in model.state_dict().values():
        assert tensor.isfinite().all() and tensor.dtype in (torch.float32, torch.int64, torch.bool, torch.uint8)
        if tensor.is_floating_point():
            assert torch.equal(tensor, tensor.half().float())


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_image_model_keeps_the_contract_of_sample(entry):
    model = checkpoints.load_model(entry["name"], CPU)
    if not hasattr(model, "sample"):
        assert not entry["class"].endswith("VAE") or entry["class"] == "VQVAE"
        return
    state = torch.get_rng_state()
    images, again, other = (model.sample(5, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "avec un générateur, le hasard global ne sert pas"
    assert images.dtype == torch.float32 and images.shape[0] == 5 and images.dim() == 4
    assert images.shape[1:] == (1, 28, 28) and 0 <= images.min() and images.max() <= 1
    assert images.max() - images.min() > 0.5 and not images.requires_grad
    assert torch.equal(images, again) and not torch.equal(images, other)
    assert model.sample(2).shape == (2, *images.shape[1:])


@pytest.mark.parametrize("chapter", sorted({entry["chapter"] for entry in ENTRIES}))
def test_a_chapter_ships_8_megabytes_at_most(chapter):
    size = sum((MANIFEST.parent / e["file"]).stat().st_size for e in ENTRIES if e["chapter"] == chapter)
    assert size <= 8e6, f"{size / 1e6:.1f} Mo"
