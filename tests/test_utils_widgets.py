"""Curseurs : vivants avec un noyau, en images prêtes sans lui."""

import base64
import html.parser
import io

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from ecran import published
from PIL import Image

from utils import plots, widgets

KEYS = [{"a": 0.5, "n": 1}, {"a": 1.0, "n": 2}, {"a": 1.25, "n": 3}]
ALT = "Une droite « y = a·x », a < 2 & n points"


def draw(a, n):
    fig, ax = plt.subplots(figsize=(2, 1.5))
    ax.plot(np.arange(n + 1), a * np.arange(n + 1))
    return fig


def controls():
    return {"a": ipywidgets.FloatSlider(1.0, min=0, max=2, description="pente"),
            "n": ipywidgets.IntSlider(4, min=1, max=9)}


def opened(image):
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


class Page(html.parser.HTMLParser):
    """Les balises d'une page : (nom, attributs)."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def frozen(monkeypatch):
    monkeypatch.setenv("COURS_FIGE", "1")


@pytest.fixture
def live(monkeypatch):
    """Mode vivant ; rend la liste des images que `explore` crée."""
    monkeypatch.delenv("COURS_FIGE", raising=False)
    created, original = [], ipywidgets.Image

    def image(**options):
        created.append(original(**options))
        return created[-1]
    monkeypatch.setattr(ipywidgets, "Image", image)
    return created


def explored():
    with published() as outputs:
        widgets.explore(draw, alt=ALT, keys=KEYS, **controls())
    return outputs


def pictured(a, n):
    """L'image que montre `explore` : la figure, repères à la place que leur laissent les positions marquantes."""
    frame = None
    for key in KEYS:
        fig = draw(**key)
        plots.png(fig)
        frame = widgets.common_frame(fig, frame)
    return plots.png(widgets.pin(draw(a, n), frame))


# --- Sans noyau -----------------------------------------------------------------------------------


def test_frozen_outputs_are_a_strip_and_a_slider_over_the_keys(frozen):
    strip, slider = explored()
    assert set(strip["data"]) == {"image/png", "text/plain"} and strip["metadata"]["image/png"]["alt"] == ALT
    page = Page(slider["data"]["text/html"])
    images, (control,) = page.all("img"), page.all("input")
    shown = [opened(base64.b64decode(i["src"].removeprefix("data:image/webp;base64,"))) for i in images]
    assert all((a == opened(plots.png(draw(**key)))).all() for a, key in zip(shown, KEYS, strict=True))  # sans perte
    assert [i["title"] for i in images] == [
        "pente = 0,50 · n = 1", "pente = 1,00 · n = 2", "pente = 1,25 · n = 3"]
    assert all(i["alt"] == ALT for i in images) and control["aria-label"] == ALT
    assert (control["type"], control["min"], control["max"], control["value"]) == ("range", "0", "2", "0")
    assert ["display:block" in i["style"] for i in images] == [True, False, False]
    assert page.text.strip() == "pente = 0,50 · n = 1"


def test_frozen_outputs_need_no_script_no_network_and_do_not_change(frozen):
    outputs = explored()
    text = outputs[1]["data"]["text/html"]
    assert "<script" not in text and "http" not in text and "widget-view" not in str(outputs)
    assert [o["data"] for o in outputs] == [o["data"] for o in explored()]
    assert not plt.get_fignums()


def test_the_slider_shows_one_picture_and_its_label(frozen):
    """Faute de navigateur, on lit le gestionnaire : il cache les autres images et recopie le titre."""
    handler = Page(explored()[1]["data"]["text/html"]).all("input")[0]["oninput"]
    assert "i==this.value?'block':'none'" in handler and "value=im.title" in handler
    assert handler.count("(") == handler.count(")") and handler.count("{") == handler.count("}")


def test_frames_escape_what_they_are_given(frozen):
    with published() as outputs:
        widgets.frames([draw(1, 2), draw(2, 2)], ['β = "1" <b>', "β = 2"], alt=ALT)
    page = Page(outputs[1]["data"]["text/html"])
    assert [i["title"] for i in page.all("img")] == ['β = "1" <b>', "β = 2"] and not page.all("b")
    assert '"1" <b>' in page.text


def test_frames_need_one_label_each(frozen):
    with published(), pytest.raises(ValueError, match="2 figures pour 1 libellés"):
        widgets.frames([draw(1, 2), draw(2, 2)], ["seul"], alt=ALT)


def shades(count, width, height):
    """`count` images PNG unies, de plus en plus claires."""
    for i in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), (10 * i,) * 3).save(buffer, "PNG")
        yield buffer.getvalue()


@pytest.mark.parametrize("count, chosen", [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (13, [0, 4, 8, 12])])
def test_the_strip_keeps_four_key_positions(count, chosen):
    sheet = opened(widgets._strip(list(shades(count, 20, 10))))
    assert sheet.shape == (10 * (1 + (len(chosen) > 2)), 20 * min(2, len(chosen)), 3)
    shown = [sheet[10 * (i // 2) + 5, 20 * (i % 2) + 10, 0] for i in range(len(chosen))]
    assert shown == [10 * c for c in chosen]


def test_wide_pictures_are_stacked():
    sheet = opened(widgets._strip(list(shades(3, 800, 100))))
    assert sheet.shape == (300, 800, 3) and [sheet[100 * i + 50, 400, 0] for i in range(3)] == [0, 10, 20]


def noisy(count):
    """`count` images PNG de bruit, que rien ne compresse."""
    for i in range(count):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (260, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        yield buffer.getvalue()


def test_frozen_sheets_fit_their_weight(frozen):
    """Une planche trop lourde montre moins de positions, plus petites ; elle reste lisible sans noyau."""
    light, heavy = (widgets._strip(list(pictures)) for pictures in (shades(4, 300, 260), noisy(4)))
    assert opened(light).shape == (520, 600, 3)
    assert 0 < len(Image.open(io.BytesIO(heavy)).getcolors()) <= 128 and opened(heavy).shape[0] <= 260


@pytest.mark.parametrize("weight, kept", [(100_000, 9), (100, 3)])
def test_a_frozen_slider_fits_its_weight(frozen, monkeypatch, weight, kept):
    """Trop lourd, il garde moins de positions, régulièrement espacées, de la première à la dernière."""
    monkeypatch.setattr(widgets, "FRAMES", weight)
    with published() as outputs:
        widgets._show_frames(list(shades(9, 30, 20)), list("abcdefghi"), ALT)
    titles = [image["title"] for image in Page(outputs[1]["data"]["text/html"]).all("img")]
    assert titles == (list("abcdefghi") if kept == 9 else ["a", "e", "i"])


# --- Avec un noyau --------------------------------------------------------------------------------


def test_the_frame_does_not_move_under_the_slider():
    """Les repères gardent la même place, la plus petite que leur laissent les positions marquantes."""
    wide, narrow = plt.subplots()[0], plt.subplots()[0]
    narrow.axes[0].set_ylabel("une\nétiquette\nhaute")
    for fig in (wide, narrow):
        plots.png(fig)
    frame = widgets.common_frame(narrow, widgets.common_frame(wide))
    assert frame[0].x0 == narrow.axes[0].get_position().x0 > wide.axes[0].get_position().x0
    third = widgets.pin(plt.subplots()[0], frame)
    plots.png(third)
    assert third.axes[0].get_position().bounds == pytest.approx(frame[0].bounds)


def test_a_pinned_figure_is_the_same_picture():
    fig = draw(**KEYS[0])
    picture = plots.png(fig)
    assert plots.png(widgets.pin(draw(**KEYS[0]), widgets.common_frame(fig))) == picture


def test_live_output_is_one_bundle_widget_and_strip(live):
    output, = explored()
    view = output["data"]["application/vnd.jupyter.widget-view+json"]
    assert view["version_major"] == 2 and len(view["model_id"]) >= 32
    assert opened(base64.b64decode(output["data"]["image/png"])).ndim == 3
    assert output["data"]["text/plain"] == ALT and output["metadata"]["image/png"]["alt"] == ALT


def test_the_first_picture_is_at_the_initial_values(live):
    explored()
    picture, = live
    assert picture.format == "png" and bytes(picture.value) == pictured(1.0, 4)


def test_moving_a_control_changes_the_picture(live):
    moved = controls()
    with published():
        widgets.explore(draw, alt=ALT, keys=KEYS, **moved)
    picture, = live
    moved["a"].value = 0.25
    assert bytes(picture.value) == pictured(0.25, 4)
    moved["n"].value = 9
    assert bytes(picture.value) == pictured(0.25, 9)
    assert not plt.get_fignums()


def test_an_error_in_the_function_is_not_swallowed(live):
    def broken(a, n):
        raise ZeroDivisionError
    with published(), pytest.raises(ZeroDivisionError):
        widgets.explore(broken, alt=ALT, keys=KEYS, **controls())
