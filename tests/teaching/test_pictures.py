"""Small pictures say the same as the figures, in few bytes."""

import base64
import io
import re

import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from explainer.figures import BRIGHTER, DARKER, overlay
from explainer.teaching.pictures import (
    LEVELS,
    encode,
    kept_layers,
    overlay_layers,
    plot,
    pull_layers,
    small,
)


def decoded(uri: str, mode: str = "RGB") -> torch.Tensor:
    content = base64.b64decode(uri.split(",")[1])
    image = Image.open(io.BytesIO(content)).convert(mode)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_large_panels_are_averaged_and_small_ones_stay() -> None:
    halves = torch.tensor([0.0, 1.0]).repeat(1, 1, 4, 2)

    assert torch.equal(small(halves, 2), torch.full((1, 1, 2, 2), 0.5))
    assert torch.equal(small(halves), halves)


def test_an_image_comes_back_as_it_was() -> None:
    image = torch.randint(0, 256, (3, 5, 7)) / 255

    assert torch.equal(decoded(encode(image)), image)


def test_a_mask_goes_from_black_to_bright_and_takes_little_room() -> None:
    mask = torch.linspace(0, 1, 64).expand(64, 64)
    uri = encode(mask)
    drawn = decoded(uri).sum(0)

    assert drawn[0, 0] < 0.05
    assert (drawn[0].diff() >= 0).all()
    assert len(uri) < 700
    assert encode(mask[None]) == uri


def test_layers_look_as_the_overlay_of_the_figures() -> None:
    image = torch.rand(3, 8, 8)
    masks = torch.rand(9, 8, 8)  # one more than there are colours
    below, *layers = overlay_layers(image, masks)
    seen = decoded(below)
    for uri in layers:
        colour, alpha = decoded(uri, "RGBA").split([3, 1])
        seen = torch.lerp(seen, colour, alpha)

    expected = overlay(image, masks)
    assert (seen - expected).abs().max() < 2 / LEVELS
    assert (overlay(image, masks[:8]) - expected).abs().max() > 0.1
    # Two masks of an image share the image.
    assert overlay_layers(image, masks[:1])[0] == below


def test_kept_is_the_image_where_the_mask_is_one_and_black_elsewhere() -> (
    None
):
    image = torch.rand(3, 4, 4)
    mask = torch.eye(4)
    below, above = kept_layers(image, mask[None])
    colour, alpha = decoded(above, "RGBA").split([3, 1])

    assert torch.equal(alpha[0], 1 - mask)
    assert (colour[:, mask == 0] == 0).all()
    assert torch.allclose(decoded(below), image, atol=1 / 255)


def test_a_pull_is_blue_and_vermilion_over_the_pale_image() -> None:
    force = torch.tensor([[2.0, -1], [0, -4]])

    pale, up, down = pull_layers(torch.rand(3, 8, 8), force, 2)

    assert decoded(pale).shape == (3, 8, 8)
    inks = [torch.tensor(to_rgb(c)) for c in (BRIGHTER, DARKER)]
    for uri, ink, expected in (
        (up, inks[0], [[0.9, 0], [0, 0]]),
        (down, inks[1], [[0, 0.45], [0, 0.9]]),  # -4 is beyond the scale
    ):
        colour, alpha = decoded(uri, "RGBA").split([3, 1])
        assert (colour[:, 1, 1] - ink).abs().max() < 0.01
        assert (alpha[0] - torch.tensor(expected)).abs().max() < 0.03


def drawn(uri: str) -> str:
    return base64.b64decode(uri.split(",")[1]).decode()


def test_a_plot_has_the_values_of_its_lines() -> None:
    svg = drawn(plot({"r(v(s)) < 1": [1, 0.25, 0]}, x="x", y="y", above={}))

    assert re.findall(r'polyline points="(.*?)"', svg) == ["0,1 0.5,0.25 1,0"]
    # One unit is the length of an axis, and up is up.
    (scale,) = re.findall(r"translate\((.*?)\) scale\((.*?)\)", svg)
    assert scale == ("44 192", "306 -158")
    assert 'd="M44 34V192H350"' in svg
    assert "r(v(s)) &lt; 1" in svg


def test_a_level_stretch_of_a_plot_is_stored_by_its_ends() -> None:
    svg = drawn(plot({"q": [1, 1, 1, 0, 0, 0, 0]}, x="x", y="y", above={}))

    (points,) = re.findall(r'polyline points="(.*?)"', svg)
    assert points == "0,1 0.333,1 0.5,0 1,0"


def test_a_plot_shades_where_one_line_lies_above_another() -> None:
    lines = {"r": [1, 0.5, 0], "q": [0.5] * 3}
    svg = drawn(plot(lines, x="x", y="y", above={("r", "q"): "#123456"}))

    (shaded,) = re.findall(r'polygon points="(.*?)" fill="#123456"', svg)
    # Along r while it is above q, then back along q.
    assert shaded == "0,1 0.5,0.5 1,0.5 1,0.5 0,0.5"
