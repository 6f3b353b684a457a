"""Dials: what is stored, what is refused. How they move: tests/book."""

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from explainer import dials as module
from explainer import figures, inline
from explainer.teaching.dials import (
    Dial,
    Frame,
    settings,
    static_dials,
    still,
)

A = Dial("a", (0, 0.1, 0.2), start=0.1)
B = Dial("b", (0.3, 0.5))
IMAGE = Dial("image", ("cat", "dog"))


def stored(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'json">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(text)
    return data


def frame(value: float, uri: str = "data:image/png;base64,AA") -> Frame:
    return Frame({"mask": uri}, {"value": value})


def test_settings_move_each_slider_alone_for_every_choice() -> None:
    table = settings([IMAGE, A, B])

    alone = [(0, 0.3), (0.1, 0.3), (0.2, 0.3), (0.1, 0.5)]
    assert set(table) == {(i, *s) for i in IMAGE.values for s in alone}
    assert len(table) == 8


def test_settings_of_a_pair_are_its_whole_grid() -> None:
    table = settings([A, B, Dial("c", (1, 2, 3))], ("a", "b"))

    assert len(table) == len(set(table)) == 3 * 2 + 2
    assert {s[:2] for s in table if s[2] == 1} == {
        (a, b) for a in A.values for b in B.values
    }


def test_settings_of_choices_alone_are_all_their_combinations() -> None:
    assert len(settings([IMAGE, Dial("mask", ("cat", "dog", "cow"))])) == 6


def test_a_pair_of_unknown_sliders_is_refused() -> None:
    with pytest.raises(ValueError, match="'image'"):
        settings([IMAGE, A], ("a", "image"))


@pytest.mark.parametrize(
    ("values", "start", "complaint"),
    [
        ((1,), None, "two stops"),
        ((1, 1), None, "two stops"),
        ((1, 2), 3, "no stop 3"),
    ],
)
def test_a_dial_that_cannot_move_is_refused(
    values: tuple[float, ...], start: float | None, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Dial("x", values, start)


def test_a_picture_is_stored_once_however_often_it_is_shown() -> None:
    below, above = (f"data:image/png;base64,{x}" for x in ("below", "above"))
    frames = {
        (a,): Frame({"one": [below, above], "two": below}) for a in A.values
    }
    html = static_dials([A], frames, alt="").html

    assert html.count(below) == html.count(above) == 1
    assert stored(html)["pictures"] == [below, above]
    assert stored(html)["frames"][2] == {
        "at": [2], "pictures": [[0, 1], [0]], "numbers": [], "text": "",
    }  # fmt: skip


def test_what_is_stored_finds_its_frame_start_span_and_presets() -> None:
    frames = {(a, b): frame(a - b) for a in A.values for b in B.values}
    data = stored(
        static_dials(
            [A, B], frames, alt="A mask", presets={"off": {"a": 0}}
        ).html
    )

    assert data["start"] == [1, 0]
    assert data["span"] == [-0.5, 0.0]
    assert data["presets"] == {"off": {"0": 0}}
    at = {tuple(f["at"]): f["numbers"] for f in data["frames"]}
    assert at[(2, 0)] == [pytest.approx(-0.1)]
    assert data["dials"][0] == {
        "name": "a", "values": ["0", "0.1", "0.2"], "slider": True,
    }  # fmt: skip


def test_frames_without_numbers_have_a_span_to_divide_by() -> None:
    frames = {(b,): Frame({"x": "data:,"}) for b in B.values}

    assert stored(static_dials([B], frames, alt="").html)["span"] == [0, 1]


def test_text_cannot_end_the_script_or_the_attribute() -> None:
    bad = '</script><b>"'
    frames = {(b,): Frame(text=bad) for b in B.values}
    html = static_dials([B], frames, alt=bad).html

    assert stored(html)["frames"][0]["text"] == bad
    assert html.count("</script>") == 2
    assert "<b>" not in html.replace(r"<\/script><b>", "")


def test_nothing_is_loaded_from_elsewhere() -> None:
    frames = {(b,): frame(b) for b in B.values}
    html = static_dials([B], frames, alt="").html

    assert not re.findall(r'https?://|src="|@import|url\(', html)


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ({(0.5,): frame(1)}, "at the start"),
        ({(0.3,): frame(1)}, r"no frame has 'b' at \[0.5\]"),
        ({(0.3,): frame(1), (0.4,): frame(1)}, "no stop 0.4"),
        ({(0.3,): frame(1), (0.5, 1): frame(1)}, "one value per dial"),
        ({(0.3,): frame(1), (0.5,): Frame()}, "other pictures or numbers"),
    ],
)
def test_frames_that_do_not_fit_are_refused(
    frames: dict[Any, Frame], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        static_dials([B], frames, alt="")


def test_unknown_preset_names_are_refused() -> None:
    frames = {(b,): frame(b) for b in B.values}

    with pytest.raises(ValueError, match="'c' for a preset"):
        static_dials([B], frames, alt="", presets={"x": {"c": 1}})


def test_a_still_frame_stacks_its_pictures_and_scales_its_bars() -> None:
    layers = ["data:image/png;base64,AA", "data:image/png;base64,BB"]
    shown = Frame({"<kept>": layers}, {"up": 0.5, "down": -0.25}, "a & b")
    html = still(shown, "A scene.", (-0.5, 1.5))

    assert re.findall('src="(.*?)" alt="(.*?)"', html) == [
        (layers[0], "A scene. &lt;kept&gt;."),
        (layers[1], ""),
    ]
    bars = [tuple(map(float, x)) for x in re.findall(
        r"left: ([\d.]+)%; width: ([\d.]+)%", html
    )]  # fmt: skip
    assert bars == [(25, 25), (12.5, 12.5)]
    assert html.count("dials-below") == html.count("dials-below {") + 1
    assert "a &amp; b" in html


def test_a_bar_beyond_the_span_stretches_it() -> None:
    html = still(Frame({}, {"B": 3.0}), "", (-1, 1))

    assert "left: 25.0%; width: 75.0%" in html


def test_the_example_of_the_docstring_runs() -> None:
    example = "\n".join(
        line[4:]
        for line in re.findall(
            r"^    ((?:>>>|\.\.\.) .*)$", module.__doc__ or "", re.MULTILINE
        )
    )
    space: dict[str, Any] = {}
    exec(example, space)

    data = stored(space["page"]._repr_html_())
    areas = [f["numbers"][0] for f in data["frames"]]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[2]


# --- pictures ----------------------------------------------------------


def decoded(uri: str, mode: str = "RGB") -> torch.Tensor:
    content = base64.b64decode(uri.split(",")[1])
    image = Image.open(io.BytesIO(content)).convert(mode)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_an_image_comes_back_as_it_was() -> None:
    image = torch.randint(0, 256, (3, 5, 7)) / 255

    assert torch.equal(decoded(inline.encode(image)), image)


def test_a_mask_goes_from_black_to_bright_and_takes_little_room() -> None:
    mask = torch.linspace(0, 1, 64).expand(64, 64)
    uri = inline.encode(mask)
    drawn = decoded(uri).sum(0)

    assert drawn[0, 0] < 0.05
    assert (drawn[0].diff() >= 0).all()
    assert len(uri) < 700
    assert inline.encode(mask[None]) == uri


def test_layers_look_as_the_overlay_of_the_figures() -> None:
    image = torch.rand(3, 8, 8)
    masks = torch.rand(2, 8, 8)
    below, *layers = inline.overlay(image, masks)
    seen = decoded(below)
    for uri in layers:
        colour, alpha = decoded(uri, "RGBA").split([3, 1])
        seen = torch.lerp(seen, colour, alpha)

    expected = figures.overlay(image, masks)
    assert (seen - expected).abs().max() < 2 / inline.LEVELS
    # Two masks of an image share the image.
    assert inline.overlay(image, masks[:1])[0] == below


def test_kept_is_the_image_where_the_mask_is_one_and_black_elsewhere() -> (
    None
):
    image = torch.rand(3, 4, 4)
    mask = torch.eye(4)
    below, above = inline.kept(image, mask[None])
    colour, alpha = decoded(above, "RGBA").split([3, 1])

    assert torch.equal(alpha[0], 1 - mask)
    assert (colour[:, mask == 0] == 0).all()
    assert torch.allclose(decoded(below), image, atol=1 / 255)


def test_a_plot_puts_points_where_they_belong() -> None:
    uri = inline.plot({"r(v(s)) < 1": [1, 0.5, 0]}, x="x", y="y")
    svg = base64.b64decode(uri.split(",")[1]).decode()

    points = re.findall(r'points="(.*?)"', svg)[0]
    middle = (inline.LEFT + inline.RIGHT) / 2
    level = (inline.TOP + inline.BOTTOM) / 2
    assert points.split() == [
        f"{float(inline.LEFT)},{float(inline.TOP)}",
        f"{middle},{level}",
        f"{float(inline.RIGHT)},{float(inline.BOTTOM)}",
    ]
    assert "r(v(s)) &lt; 1" in svg


def test_a_plot_tells_a_level_stretch_by_its_ends() -> None:
    uri = inline.plot({"q": [1, 1, 1, 0, 0, 0, 0]}, x="x", y="y")
    svg = base64.b64decode(uri.split(",")[1]).decode()

    heights = [
        float(point.split(",")[1])
        for point in re.findall(r'points="(.*?)"', svg)[0].split()
    ]
    assert heights == [inline.TOP] * 2 + [inline.BOTTOM] * 2


def test_a_plot_shades_where_one_line_lies_above_another() -> None:
    uri = inline.plot(
        {"r": [1, 0.5, 0], "q": [0.5] * 3},
        x="x",
        y="y",
        above={("r", "q"): "#123456"},
    )
    svg = base64.b64decode(uri.split(",")[1]).decode()

    (shaded,) = re.findall(r'polygon points="(.*?)" fill="#123456"', svg)
    level = (inline.TOP + inline.BOTTOM) / 2
    x, y = zip(
        *(map(float, point.split(",")) for point in shaded.split()),
        strict=True,
    )
    # Up along r while it is above q, then back along q.
    assert y == (inline.TOP, level, level, level, level)
    assert (x[0], x[2]) == (inline.LEFT, inline.RIGHT)
    assert (x[3], x[4]) == (inline.RIGHT, inline.LEFT)
