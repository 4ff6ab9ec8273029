"""Curseurs : une fonction pure `f(paramètres) → figure`, et son repli sans noyau."""

import base64
import html
import io
from collections.abc import Callable, Sequence

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import HTML, display
from matplotlib.transforms import Bbox
from PIL import Image

from utils import config, plots

_MOVE = ("const d=this.closest('div');d.querySelectorAll('img').forEach((im,i)=>"
         "{im.style.display=i==this.value?'block':'none';if(i==this.value)d.querySelector('output').value=im.title})")


STRIP, FRAMES = 32_000, 90_000  # octets : poids d'une planche et d'un curseur figés, pour qu'un carnet reste sous 3 Mo


def _even(n: int, most: int) -> list[int]:
    """Au plus `most` rangs de 0 à n − 1, à intervalles réguliers, du premier au dernier."""
    most = min(most, n)
    return [round(i * (n - 1) / max(1, most - 1)) for i in range(most)]


def _strip(pictures: Sequence[bytes]) -> bytes:
    """Planche PNG de quatre images au plus, à intervalles réguliers ; figée, elle tient en STRIP octets."""
    opened = [Image.open(io.BytesIO(p)).convert("RGB") for p in pictures]
    if not config.frozen():
        return _sheet(opened, 4, 1000)
    tries = (_sheet(opened, most, width) for most, width in ((4, 1000), (4, 800), (2, 900), (2, 700), (2, 500)))
    return next((sheet for sheet in tries if len(sheet) <= STRIP), None) or _sheet(opened, 1, 700)


def _sheet(opened: list[Image.Image], most: int, width: int) -> bytes:
    """Planche PNG d'au plus `most` images et de `width` pixels de large."""
    opened = [opened[i] for i in _even(len(opened), most)]
    w, h = (max(size) for size in zip(*(im.size for im in opened), strict=True))
    columns = 1 if w > 700 else min(2, len(opened))  # une figure large reste lisible sur sa propre ligne
    sheet = Image.new("RGB", (columns * w, -(-len(opened) // columns) * h), "white")
    for i, im in enumerate(opened):
        sheet.paste(im, ((i % columns) * w, (i // columns) * h))
    sheet.thumbnail((width, 1400))
    buffer = io.BytesIO()
    # Optimiser prend près d'une demi-seconde : seul un carnet à garder la vaut.
    (plots.light(sheet) if config.frozen() else sheet).save(buffer, "PNG", optimize=config.frozen())
    return buffer.getvalue()


def _webp(picture: bytes) -> bytes:
    """La même image en WebP sans perte, deux fois moins lourd que PNG ; tout navigateur le lit, GitHub non."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def _slider(pictures: Sequence[bytes], labels: Sequence[str], alt: str) -> str:
    """Curseur HTML sur des images prêtes : ni noyau, ni bibliothèque, ni réseau.

    `data-lm-suppress-shortcuts` demande à JupyterLab de lui laisser les flèches du clavier.
    """
    kind = "webp" if config.frozen() else "png"
    images = "".join(
        f'<img alt="{html.escape(alt)}" title="{html.escape(label)}" '
        f'style="display:{"none" if i else "block"};max-width:100%" '
        f'src="data:image/{kind};base64,{base64.b64encode(p).decode()}">'
        for i, (p, label) in enumerate(zip(pictures, labels, strict=True)))
    return (f'<div>{images}<input data-lm-suppress-shortcuts type="range" min="0" max="{len(pictures) - 1}" value="0" '
            f'style="width:60%" aria-label="{html.escape(alt)}" oninput="{_MOVE}"> '
            f'<output>{html.escape(labels[0])}</output></div>')


def frames(figures: Sequence[plt.Figure], labels: Sequence[str], *, alt: str) -> None:
    """Curseur sur des figures toutes prêtes : il vit sans noyau ; page non approuvée, reste la planche."""
    pictures = [plots.png(fig) for fig in figures]
    _show_frames(pictures, labels, alt)


def _show_frames(pictures: Sequence[bytes], labels: Sequence[str], alt: str) -> None:
    """Planche, puis curseur HTML ; figé, il garde autant de positions que FRAMES le permet, trois au moins."""
    if len(pictures) != len(labels):
        raise ValueError(f"{len(pictures)} figures pour {len(labels)} libellés : il en faut un par figure.")
    arguments = plots.bundle(_strip(pictures), alt)
    display(arguments.pop("obj"), **arguments)
    chosen = list(range(len(pictures)))
    if config.frozen():
        pictures = list(map(_webp, pictures))
        counts = range(len(pictures), 3, -1)
        chosen = next((ranks for ranks in (_even(len(pictures), n) for n in counts)
                       if sum(len(pictures[i]) for i in ranks) <= FRAMES), _even(len(pictures), 3))
    display(HTML(_slider([pictures[i] for i in chosen], [labels[i] for i in chosen], alt)))


def explore(f: Callable[..., plt.Figure], *, alt: str, keys: Sequence[dict],
            **controls: ipywidgets.ValueWidget) -> None:
    """Curseurs `controls` (widgets ipywidgets, un par paramètre de `f`) au-dessus de `f(**valeurs)`.

    `keys` : positions marquantes. Elles font la planche que voit un lecteur sans noyau. Quand le constructeur
    des carnets fige les sorties (COURS_FIGE=1), un curseur HTML sur ces positions remplace le widget.
    """
    pictures, frame = [], None
    for key in keys:
        fig = f(**key)
        pictures.append(plots.png(fig))
        frame = common_frame(fig, frame)
    if config.frozen():
        _show_frames(pictures, [_label(key, controls) for key in keys], alt)
        return
    picture = ipywidgets.Image(format="png")

    def redraw(_=None) -> None:
        fig = f(**{name: control.value for name, control in controls.items()})
        picture.value = plots.png(pin(fig, frame))

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    # Sans cet alignement, JupyterLab étire l'image à la largeur de la page.
    box = ipywidgets.VBox([*controls.values(), picture], layout={"align_items": "flex-start"})
    arguments = plots.bundle(_strip(pictures), alt)
    # Dans une même sortie : le widget si un noyau vit, la planche sinon.
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    display({"application/vnd.jupyter.widget-view+json": view, **arguments.pop("obj")}, **arguments)


def common_frame(fig: plt.Figure, frame: Sequence[Bbox] | None = None) -> list[Bbox]:
    """Place qu'occupe chaque repère de `fig` (déjà dessinée), réduite à celle qu'il a dans `frame`."""
    places = [ax.get_position(original=True) for ax in fig.axes]
    return [Bbox.intersection(*boxes) for boxes in zip(places, frame or places, strict=True)]


def pin(fig: plt.Figure, frame: Sequence[Bbox]) -> plt.Figure:
    """Met les repères de `fig` à leur place dans `frame` : le cadre ne tremble pas sous le curseur.

    Chercher la meilleure disposition prendrait à chaque geste presque autant de temps que le dessin.
    """
    with mpl.rc_context({"figure.constrained_layout.use": False}):
        fig.set_layout_engine(None)  # « "none" » laisserait un moteur vide, et tout serait dessiné deux fois
    for ax, box in zip(fig.axes, frame, strict=True):
        ax.set_position(box)
    return fig


def _label(key: dict, controls: dict) -> str:
    """« μ = 1,00 · σ = 0,50 » : une position, écrite avec les libellés des curseurs."""
    return " · ".join(
        f"{controls[name].description or name} = {plots.fr(value) if isinstance(value, float) else value}"
        for name, value in key.items())
