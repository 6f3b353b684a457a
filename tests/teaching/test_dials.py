"""Dials: what is stored, what is refused. How they move: tests/book."""

import doctest
import json
import re
from typing import Any

import pytest

from explainer.teaching import dials as module
from explainer.teaching.dials import (
    Dial,
    Frame,
    positions,
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


def test_positions_move_each_slider_alone_for_every_choice() -> None:
    table = positions([IMAGE, A, B])

    alone = [(0, 0.3), (0.1, 0.3), (0.2, 0.3), (0.1, 0.5)]
    assert set(table) == {(i, *s) for i in IMAGE.values for s in alone}
    assert len(table) == 8


def test_positions_of_a_pair_are_its_whole_grid() -> None:
    table = positions([A, B, Dial("c", (1, 2, 3))], ("a", "b"))

    assert len(table) == len(set(table)) == 3 * 2 + 2
    assert {s[:2] for s in table if s[2] == 1} == {
        (a, b) for a in A.values for b in B.values
    }


def test_positions_of_choices_alone_are_all_their_combinations() -> None:
    assert len(positions([IMAGE, Dial("mask", ("cat", "dog", "cow"))])) == 6


def test_a_pair_of_unknown_sliders_is_refused() -> None:
    with pytest.raises(ValueError, match="'image'"):
        positions([IMAGE, A], ("a", "image"))


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
    assert stored(html)["span"] == [0, 1]  # to divide by
    assert stored(html)["pictures"] == [below, above]
    assert stored(html)["frames"][2] == {
        "at": [2], "pictures": [[0, 1], [0]], "numbers": [],
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


def test_text_cannot_end_the_script_or_the_attribute() -> None:
    bad = '</script><b>"'
    frames = {(b,): Frame({bad: "data:,"}) for b in B.values}
    html = static_dials([B], frames, alt=bad).html

    assert stored(html)["titles"] == [bad]
    assert html.count("</script>") == 2
    assert "<b>" not in html.replace(r"<\/script><b>", "")


def test_nothing_is_loaded_from_elsewhere() -> None:
    frames = {(b,): frame(b) for b in B.values}
    html = static_dials([B], frames, alt="").html

    assert not re.findall(r'https?://|src="|@import|url\(', html)


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ({(0.5,): frame(1)}, "at their start"),
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
    shown = Frame({"<kept>": layers}, {"a & b": 0.5, "down": -0.25})
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
    found = doctest.testmod(module)

    assert found.attempted
    assert not found.failed
