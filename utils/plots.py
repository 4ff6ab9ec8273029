"""Figures du cours : un seul style, la virgule décimale, un texte alternatif à chaque image."""

import base64
import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.ticker import ScalarFormatter
from PIL import Image

from utils import config

# Palette d'Okabe et Ito (2008), lisible par les daltoniens.
PALETTE = BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")

mpl.rcParams.update({
    "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK]),
    "figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 10,
    "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10.5, "legend.frameon": False, "image.cmap": "viridis",
    "axes.titley": 1.0,  # chercher une place aux titres prendrait un septième du temps d'un geste sur un curseur
})


class _Comma(ScalarFormatter):
    """Graduations à virgule décimale, sans dépendre des langues installées sur la machine."""

    def __call__(self, x, pos=None):
        return super().__call__(x, pos).replace(".", ",")

    def get_offset(self):
        return super().get_offset().replace(".", ",")


def fr(x: float, digits: int = 2) -> str:
    """Le nombre `x` à la française : virgule, espaces fines, vrai signe moins, jamais « −0 »."""
    return f"{float(x):z,.{digits}f}".replace(",", "\u202f").replace(".", ",").replace("-", "−")


def png(fig: plt.Figure, dpi: int = 100) -> bytes:
    """Image PNG de la figure, graduations à virgule ; la figure est fermée.

    Dans un carnet que l'on fige, ses couleurs sont réduites (voir `light`) : le fichier est deux fois plus léger.
    """
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if type(axis.get_major_formatter()) is ScalarFormatter:
                axis.set_major_formatter(_Comma())
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})  # un curseur n'attend pas
    plt.close(fig)
    if config.frozen():
        picture = light(Image.open(buffer).convert("RGB"))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def light(picture: Image.Image, colours: int = 128, exact: int = 48) -> Image.Image:
    """L'image RGB `picture` en `colours` couleurs au plus, celles du cours et les `exact` plus répandues intactes.

    Une courbe et sa légende gardent donc la même couleur ; seules les nuances rares (bords lissés, dégradés) sont
    regroupées, par coupe médiane (Heckbert, 1982), les gris d'un côté et les couleurs de l'autre : un petit point rouge
    parmi des images grises reste rouge.
    """
    rgb = np.asarray(picture).reshape(-1, 3)
    codes = rgb.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    values, counts = np.unique(codes, return_counts=True)
    kept = values[np.argsort(-counts, kind="stable")[:exact if len(values) > colours else colours]]
    spared = np.isin(codes, [*kept, *(int(name[1:], 16) for name in PALETTE)])
    reduced = rgb.copy()
    grey = np.ptp(rgb, axis=1) < 32
    for group in (~spared & grey, ~spared & ~grey):
        if group.any():
            others = Image.fromarray(rgb[group][None])
            others = others.quantize((colours - exact - len(PALETTE)) // 2, dither=Image.Dither.NONE)
            reduced[group] = np.asarray(others.convert("RGB"))[0]
    palette, indices = np.unique(reduced, axis=0, return_inverse=True)
    found = Image.fromarray(indices.reshape(picture.size[::-1]).astype(np.uint8))
    found.putpalette(palette.tobytes())
    return found


def bundle(image: bytes, alt: str) -> dict:
    """Arguments de `display` pour une image PNG et son texte alternatif."""
    data = {"image/png": base64.b64encode(image).decode(), "text/plain": alt}
    return {"raw": True, "metadata": {"image/png": {"alt": alt}}, "obj": data}


def show(fig: plt.Figure, alt: str) -> None:
    """Affiche la figure, décrite en une phrase par `alt` pour qui ne la voit pas, puis la ferme."""
    arguments = bundle(png(fig), alt)
    display(arguments.pop("obj"), **arguments)


def live(make: Callable[[], plt.Figure], alt: str) -> Callable[[], None]:
    """Fonction sans argument qui redessine `make()` toujours à la même place, pour suivre un entraînement."""
    handle = None

    def refresh() -> None:
        nonlocal handle
        arguments = bundle(png(make()), alt)
        data = arguments.pop("obj")
        if handle is None:
            handle = display(data, display_id=True, **arguments)
        else:
            handle.update(data, **arguments)

    return refresh


def tile(images: torch.Tensor, columns: int = 10, gap: int = 1) -> np.ndarray:
    """Mosaïque (H, W) ou (H, W, 3) d'images (N, C, h, w) dans [0, 1], C valant 1 ou 3, séparées de blanc."""
    images = images.detach().float().cpu().clamp(0, 1)
    n, c, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = images.new_ones(c, rows * (h + gap) - gap, columns * (w + gap) - gap)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        canvas[:, top:top + h, left:left + w] = image
    return canvas[0].numpy() if c == 1 else canvas.permute(1, 2, 0).numpy()


def image_grid(images: torch.Tensor, ax: plt.Axes, title: str = "", columns: int = 10) -> plt.Axes:
    """Dessine dans `ax` la mosaïque d'images (N, C, h, w) dans [0, 1], sans axes."""
    ax.imshow(tile(images, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title)
    ax.set_axis_off()
    return ax


def curve(values: Sequence[float], ax: plt.Axes, label: str = "", smooth: int = 50) -> plt.Axes:
    """Trace une courbe d'entraînement, lissée par une moyenne glissante sur `smooth` pas."""
    values = np.asarray(values, dtype=float)
    smooth = max(1, min(smooth, len(values) // 4))
    averaged = np.convolve(values, np.ones(smooth) / smooth, mode="valid")
    ax.plot(np.arange(len(averaged)) + smooth, averaged, label=label)
    return ax
