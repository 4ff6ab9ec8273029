"""Figures : virgule décimale, texte alternatif, mosaïques, figure vivante."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ecran import published
from PIL import Image

from utils import plots


def figure(scale=1.0):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 0.25 * scale, 0.5 * scale], [-1.5, 0, 1.5])
    return fig


def opened(image):
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


# --- Nombres --------------------------------------------------------------------------------------


@pytest.mark.parametrize("x, digits, text", [
    (3.14159, 2, "3,14"), (-0.5, 1, "−0,5"), (1234567.891, 2, "1\u202f234\u202f567,89"), (2, 0, "2"),
    (-0.001, 2, "0,00"),
    (999.999, 1, "1\u202f000,0"), (torch.tensor(0.125), 3, "0,125"), (np.float32(-1e3), 0, "−1\u202f000")])
def test_numbers_are_written_in_french(x, digits, text):
    assert plots.fr(x, digits) == text


def test_ticks_have_a_comma():
    fig = figure()
    ax = fig.axes[0]
    mesh = ax.pcolormesh([[0.1, 0.2], [0.3, 0.45]])
    fig.colorbar(mesh)
    plots.png(fig)
    labels = [label.get_text() for a in fig.axes for label in a.get_xticklabels() + a.get_yticklabels()]
    assert any("," in label for label in labels) and not any("." in label for label in labels)
    assert any(label.startswith("−") for label in labels)


def test_the_offset_of_an_axis_has_a_comma():
    fig, ax = plt.subplots()
    ax.plot([0, 1], [1234.5601, 1234.5602])
    plots.png(fig)
    assert "1,2" in ax.yaxis.get_offset_text().get_text()


def test_chosen_ticks_are_left_alone():
    fig, ax = plt.subplots()
    ax.plot([1, 1000], [1, 2])
    ax.set_xscale("log")
    ax.set_yticks([1, 2], ["un.", "deux."])
    before = ax.xaxis.get_major_formatter()
    plots.png(fig)
    assert ax.xaxis.get_major_formatter() is before
    assert [label.get_text() for label in ax.get_yticklabels()] == ["un.", "deux."]


# --- Images ---------------------------------------------------------------------------------------


def test_png_closes_the_figure_and_is_deterministic():
    first, again, other = plots.png(figure()), plots.png(figure()), plots.png(figure(2.0))
    assert first == again != other and not plt.get_fignums()
    assert opened(first).shape == (200, 300, 3)
    assert opened(plots.png(figure(), dpi=50)).shape == (100, 150, 3)


def test_show_publishes_one_picture_with_its_description():
    with published() as outputs:
        plots.show(figure(), "Une droite qui monte.")
    output, = outputs
    assert output["metadata"] == {"image/png": {"alt": "Une droite qui monte."}}
    assert output["data"]["text/plain"] == "Une droite qui monte."
    assert base64.b64decode(output["data"]["image/png"]) == plots.png(figure())
    assert not plt.get_fignums()


def test_live_redraws_in_the_same_place():
    scales = iter([1.0, 2.0, 3.0])
    with published() as outputs:
        refresh = plots.live(lambda: figure(next(scales)), "Une courbe.")
        for _ in range(3):
            refresh()
    assert [output["update"] for output in outputs] == [False, True, True]
    assert len({output["transient"]["display_id"] for output in outputs}) == 1
    assert len({output["data"]["image/png"] for output in outputs}) == 3
    assert all(output["metadata"]["image/png"]["alt"] == "Une courbe." for output in outputs)
    assert not plt.get_fignums()


def test_two_live_figures_have_two_places():
    with published() as outputs:
        plots.live(figure, "A")()
        plots.live(figure, "B")()
    assert len({output["transient"]["display_id"] for output in outputs}) == 2


# --- Mosaïques ------------------------------------------------------------------------------------


def test_tile_places_every_image():
    images = torch.rand(7, 1, 4, 5) * 0.9
    mosaic = plots.tile(images, columns=3, gap=2)
    assert mosaic.shape == (3 * 4 + 2 * 2, 3 * 5 + 2 * 2)
    seen = np.zeros(mosaic.shape, dtype=bool)
    for i in range(7):
        rows, columns = slice(i // 3 * 6, i // 3 * 6 + 4), slice(i % 3 * 7, i % 3 * 7 + 5)
        np.testing.assert_array_equal(mosaic[rows, columns], images[i, 0].numpy())
        seen[rows, columns] = True
    assert (mosaic[~seen] == 1).all()


def test_tile_is_no_wider_than_its_images():
    assert plots.tile(torch.rand(2, 1, 3, 3), columns=10, gap=1).shape == (3, 7)


def test_tile_in_colour_without_gap():
    images = torch.rand(4, 3, 2, 2)
    mosaic = plots.tile(images, columns=2, gap=0)
    assert mosaic.shape == (4, 4, 3)
    np.testing.assert_array_equal(mosaic[2:, :2], images[2].permute(1, 2, 0).numpy())


def test_tile_accepts_what_a_network_gives():
    images = torch.tensor([-0.5, 0.5, 1.5], dtype=torch.bfloat16, requires_grad=True).view(3, 1, 1, 1)
    np.testing.assert_array_equal(plots.tile(images, columns=3, gap=0), [[0, 0.5, 1]])


def test_image_grid_draws_the_mosaic_without_axes():
    fig, ax = plt.subplots()
    images = torch.rand(4, 1, 3, 3)
    assert plots.image_grid(images, ax, "Tirages", columns=2) is ax
    np.testing.assert_array_equal(ax.images[0].get_array(), plots.tile(images, 2))
    assert ax.get_title() == "Tirages" and not ax.axison and ax.images[0].get_clim() == (0, 1)
    plt.close(fig)


def test_curve_is_a_moving_average():
    fig, ax = plt.subplots()
    values = np.arange(20.0)
    plots.curve(values, ax, "perte", smooth=5)
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, [values[i:i + 5].mean() for i in range(16)])
    assert x[0] == 5 and x[-1] == 20  # la moyenne des pas 1 à 5 est connue au pas 5
    plots.curve([3.0, 4.0], ax)       # trop court pour lisser : tel quel
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [3, 4])
    plt.close(fig)


def test_frozen_figures_are_lighter_and_look_the_same(monkeypatch):
    def busy():
        fig, ax = plt.subplots()
        for i, colour in enumerate(plots.PALETTE):
            ax.axhline(i / 4 - 1, color=colour, lw=3, label=colour)
        ax.legend()
        points = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
        ax.scatter(*points, c=points[0], cmap="viridis")
        return fig
    full = plots.png(busy())
    monkeypatch.setenv("COURS_FIGE", "1")
    light = plots.png(busy())
    assert len(light) < 0.7 * len(full)
    assert np.abs(opened(light).astype(int) - opened(full)).mean() < 2
    for colour in plots.PALETTE:  # la courbe et sa légende
        wanted = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
        assert ((opened(full) == wanted).all(2) == (opened(light) == wanted).all(2)).all()


def test_few_colours_are_all_kept():
    """Sous la limite, rien ne change ; au-dessus, les plus répandues restent."""
    ramp = np.stack([np.arange(100, dtype=np.uint8)] * 3, axis=1)[None].repeat(3, 0)
    assert (np.asarray(plots.light(Image.fromarray(ramp)).convert("RGB")) == ramp).all()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    picture[:20], picture[20:30] = (12, 34, 56), (12, 34, 57)
    reduced = np.asarray(plots.light(Image.fromarray(picture)).convert("RGB"))
    assert (reduced[:30] == picture[:30]).all() and len(np.unique(reduced.reshape(-1, 3), axis=0)) <= 128


def test_a_small_red_point_stays_red():
    """Réduite, une planche d'images grises où un point est rouge le garde rouge, quoique ses bords soient lissés."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (200, 200, 1), dtype=np.uint8).repeat(3, axis=2)
    picture[90:110, 90:110] = np.array([213, 94, 0], dtype=np.uint8) + rng.integers(0, 40, (20, 20, 3), dtype=np.uint8)
    reduced = np.asarray(plots.light(Image.fromarray(picture)).convert("RGB")).astype(int)
    assert (np.ptp(reduced[90:110, 90:110], axis=2) > 100).all()
    assert (np.ptp(reduced[:90], axis=2) == 0).all()
