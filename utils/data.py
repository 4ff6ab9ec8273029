"""Données : images embarquées, jeux complets par torchvision, lots mélangés, jouets 2-D de densité connue.

Les images arrivent en tenseurs float32 déjà sur l'appareil ; rien n'est décodé image par image, aucun
processus auxiliaire n'est lancé. Provenance, licences et reconstruction des fichiers : data/README.md.
"""

import hashlib
import io
import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from utils import config

FOLDER = config.ROOT / "data"
SPLITS = ("train", "test")
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
             "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class DataError(RuntimeError):
    """Un fichier de données manque, est abîmé ou n'a pas pu être téléchargé ; le message dit quoi faire."""


# --- Images -------------------------------------------------------------------------------------------------


def load(name: str, split: str = "train", device=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Le jeu embarqué : 12 000 images d'entraînement ou 2 000 de test, classes équilibrées, sans réseau.

    `name` : « mnist » ou « fashion_mnist » ; `split` : « train » ou « test » ; `device` : par défaut celui du
    cours. Renvoie x (N, 1, 28, 28) float32 dans [0, 1] et y (N,) int64 dans {0, …, 9}. Le premier appel lit
    le fichier et en vérifie l'empreinte SHA-256, les suivants partent de la mémoire.
    Lève DataError si le fichier manque ou est abîmé, ValueError si `name` ou `split` est inconnu.
    """
    _check(name, split)
    images, labels = _read_embedded(FOLDER, name, split)
    return _to_tensors(torch.from_numpy(images), torch.from_numpy(labels), device)


def load_full(name: str, split: str = "train", device=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Le jeu complet, 60 000 images d'entraînement ou 10 000 de test, au même format que `load`.

    Les fichiers IDX bruts sont pris dans data/torchvision/ (ou dans le dossier que nomme la variable
    COURS_DATA), sous MNIST/raw/ ou FashionMNIST/raw/. S'ils n'y sont pas tous les quatre, torchvision les y
    télécharge, avec une barre de progression.
    Lève DataError si cela échoue, ValueError si `name` ou `split` est inconnu.
    """
    _check(name, split)
    from torchvision import datasets  # long à importer, et inutile à qui s'en tient aux données embarquées

    root = Path(os.environ.get("COURS_DATA") or FOLDER / "torchvision").expanduser()
    try:
        dataset = getattr(datasets, TORCHVISION[name])(root, train=split == "train", download=True)
        if dataset.data.shape != (len(dataset.targets), 28, 28):
            raise ValueError(f"images {tuple(dataset.data.shape)}, étiquettes {tuple(dataset.targets.shape)}")
    except Exception as error:  # selon la panne : URLError, RuntimeError, AssertionError, KeyError…
        raw = root / TORCHVISION[name] / "raw"
        raise DataError(
            f"Le jeu complet « {name} » n'a pas pu être obtenu ({type(error).__name__} : {error}).\n"
            "Au choix :\n"
            "- rétablissez le réseau et relancez ;\n"
            f"- déposez les quatre fichiers bruts ({', '.join(IDX_FILES)}) dans {raw}, après avoir supprimé "
            "ceux qui y seraient incomplets ;\n"
            f'- prenez le jeu embarqué : data.load("{name}", "{split}").') from error
    return _to_tensors(dataset.data, dataset.targets, device)


def _check(name: str, split: str) -> None:
    if name not in TORCHVISION:
        raise ValueError(f"Jeu de données inconnu : {name!r} ; choisissez parmi : {', '.join(TORCHVISION)}.")
    if split not in SPLITS:
        raise ValueError(f"Partie inconnue : {split!r} ; choisissez parmi : {', '.join(SPLITS)}.")


def _target(device) -> torch.device:
    return config.device if device is None else torch.device(device)


def _to_tensors(images: torch.Tensor, labels: torch.Tensor, device) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 28, 28) uint8 et (N,) entiers → x float32 dans [0, 1] et y int64, sur l'appareil."""
    device = _target(device)
    x = images.to(device).to(torch.float32).div_(255).unsqueeze(1)  # les octets voyagent : 4 fois moins
    return x, labels.to(device).to(torch.int64)


@lru_cache
def _read_embedded(folder: Path, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) et étiquettes (N,) uint8 de `folder`/`name`.npz, empreinte vérifiée."""
    path = folder / f"{name}.npz"
    repair = "Rétablissez-le par « git checkout -- data » ou par « python data/build.py »."
    try:
        content = path.read_bytes()
        lines = (folder / "SHA256SUMS").read_text(encoding="ascii").splitlines()
        expected = {file: digest for digest, file in map(str.split, lines)}[path.name]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}, ou son empreinte dans SHA256SUMS, est introuvable. {repair}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(f"{path} est abîmé. {repair}\nSHA-256 attendue : {expected}\nSHA-256 lue : {found}")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays[f"x_{split}"], arrays[f"y_{split}"]


# --- Lots ---------------------------------------------------------------------------------------------------


class Batches:
    """Lots mélangés de tenseurs de même longueur, pris par indices là où sont les données.

        for epoch in range(3):
            for x, y in batches: …            # une époque par parcours, chaque fois dans un autre ordre
        batches.stream(start=1_000)           # la suite infinie des lots, à partir du pas 1 000

    L'ordre de l'époque e ne dépend que de (`seed`, e), ni de l'appareil, ni des tirages faits ailleurs. Un
    dernier lot incomplet est abandonné : `len` compte les lots entiers d'une époque. Chaque lot est un tuple
    de tenseurs (size, …). Lève ValueError si les longueurs diffèrent ou ne suffisent pas à un lot.
    """

    def __init__(self, *tensors: torch.Tensor, size: int = 128, seed: int = 0):
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"Il faut des tenseurs de même longueur ; reçu : {[len(t) for t in tensors]}.")
        self.n = lengths.pop()
        if not 1 <= size <= self.n:
            raise ValueError(f"La taille des lots ({size}) doit être entre 1 et la taille du jeu ({self.n}).")
        self.tensors, self.size, self.seed = tensors, size, seed
        self.epoch = 0  # la prochaine époque que parcourra `for`

    def __len__(self) -> int:
        return self.n // self.size

    def __iter__(self):
        self.epoch += 1
        return self._batches(self.epoch - 1)

    def fingerprint(self) -> str:
        """Empreinte de la suite des lots : taille, graine, formes, et un échantillon d'au plus 512 éléments."""
        digest = hashlib.sha256(repr((self.size, self.seed, [(t.shape, t.dtype) for t in self.tensors])).encode())
        for tensor in self.tensors:
            digest.update(tensor[:: -(-self.n // 512)].cpu().numpy().tobytes())
        return digest.hexdigest()

    def stream(self, start: int = 0):
        """Générateur infini des lots du pas `start` et des suivants : la même suite que sans interruption."""
        epoch, first = divmod(start, len(self))
        while True:
            yield from self._batches(epoch, first)
            epoch, first = epoch + 1, 0

    def _batches(self, epoch: int, first: int = 0):
        # NumPy tire la permutation : la même sur tous les appareils, et sans toucher au hasard de PyTorch.
        order = np.random.default_rng((self.seed, epoch)).permutation(self.n)[: len(self) * self.size]
        rows = torch.from_numpy(order).to(self.tensors[0].device).view(len(self), self.size)
        for row in rows[first:]:
            yield tuple(tensor.index_select(0, row) for tensor in self.tensors)


# --- Jouets 2-D -------------------------------------------------------------------------------------------
#
# Tous tiennent, à quelques écarts types près, dans le carré [-4, 4]². Les courbes (lunes, anneaux, spirale)
# sont des mélanges de gaussiennes alignées, de densité exacte par construction. Deux centres voisins y sont à
# moins de 1,5 écart type : l'ondulation le long de la courbe, 2·exp(-2π²σ²/d²) en relatif, reste sous 0,1 %.


class Toy:
    """Loi en dimension 2 dont on connaît la densité : .name, .sample, .log_prob, .score, .entropy."""

    name: str

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> torch.Tensor:
        """n tirages indépendants, (n, 2) float32, sur `device` (par défaut celui du cours).

        Avec `generator`, de n'importe quel appareil, le hasard global n'est ni lu ni modifié.
        """
        device = _target(device)
        return self._draw(n, generator, device if generator is None else generator.device).to(device)


class GaussianMixture(Toy):
    """Mélange de K gaussiennes isotropes de même écart type : Σ_k w_k N(x ; c_k, σ² I).

    `centers` : (K, 2) ; `sigma` : écart type ; `weights` : (K,), de somme 1 (par défaut tous égaux).
    """

    def __init__(self, name: str, centers: torch.Tensor, sigma: float, weights: torch.Tensor | None = None):
        self.name, self.centers, self.sigma = name, centers, sigma
        self.weights = torch.full_like(centers[:, 0], 1 / len(centers)) if weights is None else weights

    def _draw(self, n: int, generator, device) -> torch.Tensor:
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float32, device=device)
        k = torch.multinomial(_like(self.weights, noise), n, replacement=True, generator=generator)
        return _like(self.centers, noise)[k] + self.sigma * noise

    def _log_joint(self, x: torch.Tensor) -> torch.Tensor:
        """log w_k + log N(x ; c_k, σ² I) : (n, 2) → (n, K)."""
        square = (x.unsqueeze(1) - _like(self.centers, x)).square().sum(-1)  # (n, K)
        log_norm = math.log(2 * math.pi * self.sigma**2)
        return _like(self.weights, x).log() - log_norm - square / (2 * self.sigma**2)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-densité exacte, en nats : (n, 2) → (n,), différentiable, au type et sur l'appareil de x."""
        return self._log_joint(x).logsumexp(1)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Score exact ∇ₓ log p(x) : (n, 2) → (n, 2), au type et sur l'appareil de x.

        C'est Σ_k p(k | x) (c_k - x) / σ² : chaque centre attire selon sa probabilité a posteriori.
        """
        posterior = self._log_joint(x).softmax(1)  # (n, K)
        return (posterior @ _like(self.centers, x) - x) / self.sigma**2

    def entropy(self, n: int = 20_000) -> tuple[float, float]:
        """Entropie -E[log p(x)] en nats et son erreur type : Monte-Carlo sur n tirages, de graine fixe."""
        x = self.sample(n, torch.Generator("cpu").manual_seed(0), device="cpu")
        surprise = -self.log_prob(x.double())
        return surprise.mean().item(), surprise.std().item() / math.sqrt(n)


class Checkerboard(Toy):
    """Damier 4 × 4 sur [-4, 4[² : densité 1/32 sur huit cases de côté 2, nulle ailleurs."""

    name = "checkerboard"
    area = 32

    def _draw(self, n: int, generator, device) -> torch.Tensor:
        cell = torch.randint(8, (n,), generator=generator, device=device)
        row = cell // 2
        column = 2 * (cell % 2) + row % 2  # une case sur deux, décalée d'une ligne à l'autre
        inside = torch.rand(n, 2, generator=generator, dtype=torch.float32, device=device)
        inside.clamp_(max=1 - 1e-6)  # sinon l'arrondi pourrait pousser un point dans la case voisine, vide
        return 2 * (torch.stack([column, row], 1) + inside) - 4

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-densité exacte, en nats : (n, 2) → (n,) ; -log 32 sur les cases pleines, -∞ ailleurs."""
        column, row = ((x + 4) / 2).floor().unbind(1)
        full = ((x >= -4) & (x < 4)).all(1) & ((column + row) % 2 == 0)
        return x.new_full(full.shape, -math.inf).masked_fill(full, -math.log(self.area))

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Lève NotImplementedError : un damier n'a pas de score."""
        raise NotImplementedError("Le damier n'a pas de score : sa densité est constante sur chaque case et "
                                  'saute aux bords. Prenez un mélange, comme data.toy("grid_gaussians").')

    def entropy(self) -> tuple[float, float]:
        """Entropie exacte, log 32 nats, et son erreur, nulle."""
        return math.log(self.area), 0.0


def _like(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`values` au type puis sur l'appareil de x, dans cet ordre : certains GPU ignorent float64."""
    return values.to(x.dtype).to(x.device)


def _line(start: float, end: float, n: int) -> torch.Tensor:
    """n points régulièrement espacés de `start` à `end` inclus : (n,) float64."""
    return torch.linspace(start, end, n, dtype=torch.float64, device="cpu")


def _circle(radius: float, n: int) -> torch.Tensor:
    """n points régulièrement espacés sur le cercle centré en 0 : (n, 2)."""
    angle = _line(0, 2 * math.pi, n + 1)[:-1]
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def _two_moons() -> GaussianMixture:
    angle = _line(0, math.pi, 48)
    moon = 2.2 * torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return GaussianMixture("two_moons", torch.cat([moon, -moon]), sigma=0.2)


def _rings() -> GaussianMixture:
    rings = [_circle(radius, 40 * radius) for radius in (1, 2, 3)]  # la masse suit la longueur de l'anneau
    return GaussianMixture("rings", torch.cat(rings), sigma=0.12)


def _spiral() -> GaussianMixture:
    turns = 2 * _line(0.02, 1, 240).sqrt()  # la racine rend l'espacement des centres à peu près régulier
    angle = 2 * math.pi * turns
    arm = 1.8 * torch.stack([turns * angle.cos(), turns * angle.sin()], 1)
    return GaussianMixture("spiral", arm, sigma=0.12)


def _eight_gaussians() -> GaussianMixture:
    return GaussianMixture("eight_gaussians", _circle(3, 8), sigma=0.25)


def _grid_gaussians() -> GaussianMixture:
    axis = _line(-3.2, 3.2, 5)
    return GaussianMixture("grid_gaussians", torch.cartesian_prod(axis, axis), sigma=0.15)


_TOYS = {"two_moons": _two_moons, "rings": _rings, "spiral": _spiral, "checkerboard": Checkerboard,
         "eight_gaussians": _eight_gaussians, "grid_gaussians": _grid_gaussians}
TOYS = tuple(_TOYS)


def toy(name: str) -> Toy:
    """Le jouet 2-D `name`, l'un de TOYS, à peu près dans le carré [-4, 4]², de densité connue exactement.

    Il offre .name, .sample(n, generator, device), .log_prob(x), .score(x) (mélanges seulement) et .entropy(),
    un couple (valeur, erreur type) en nats. Lève ValueError si le nom est inconnu.
    """
    if name not in _TOYS:
        raise ValueError(f"Jouet inconnu : {name!r} ; choisissez parmi : {', '.join(TOYS)}.")
    return _TOYS[name]()
