"""The built pages, as a person uses them: in a browser, without a network.

`make book` builds them; `make test` does that first.
"""

import io
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page

from chapters import ROOT, pages

HTML = ROOT / "_build" / "html"
NAMES = [
    source.relative_to(ROOT).with_suffix(".html").as_posix()
    for source in pages()
]
LARGEST = 3_000_000  # bytes of a page and its figures
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
ENOUGH = 150  # pixels of a picture's height, to see what it shows


class Visit(NamedTuple):
    """An open page, and what went wrong since it was opened."""

    name: str
    page: Page
    complaints: list[str]


@pytest.fixture(scope="module", params=NAMES)
def visit(
    request: pytest.FixtureRequest, browser: Browser
) -> Iterator[Visit]:
    if not HTML.is_dir():
        pytest.skip("NO BUILT BOOK, so no page was looked at: `make book`")
    context = browser.new_context(viewport=DESK, color_scheme="light")
    page = context.new_page()
    complaints: list[str] = []

    def cut(route):
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            complaints.append(f"asks the network for {route.request.url}")
            route.abort()

    page.route("**/*", cut)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            message.type == "error" and complaints.append(message.text)
        ),
    )
    page.goto((HTML / request.param).as_uri())
    yield Visit(request.param, page, complaints)
    context.close()


@pytest.fixture(autouse=True)
def _no_complaints(visit: Visit) -> Iterator[None]:
    """No error on the console, no request, whatever a test does."""
    yield
    complaints = list(visit.complaints)
    visit.complaints.clear()  # a test answers for its own
    assert complaints == []


def test_page_and_its_figures_are_small(visit: Visit) -> None:
    figures = visit.page.locator("article img").evaluate_all(
        "found => found.map(img => img.src)"
    )
    local = {src.split("/html/")[1] for src in figures if "file:" in src}
    files = [HTML / name for name in (visit.name, *local)]

    assert sum(file.stat().st_size for file in files) < LARGEST


def test_headings_are_in_order(visit: Visit) -> None:
    headings = visit.page.locator("article").locator("h1, h2, h3, h4, h5, h6")
    levels = [
        int(tag[1]) for tag in headings.evaluate_all(
            "found => found.map(heading => heading.tagName)"
        )
    ]  # fmt: skip

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))


def test_every_picture_is_there_and_described(visit: Visit) -> None:
    # Of a stack of layers the lowest has the description.
    pictures = visit.page.locator(
        "article img:not(.dials-layers img + img)"
    ).evaluate_all(
        "all => all.map(i => [i.alt, i.complete, i.src.slice(-60)])"
    )

    assert [src for alt, _, src in pictures if len(alt) < 15] == []
    assert [src for _, complete, src in pictures if not complete] == []


def test_chapter_shows_a_picture_in_its_first_screen(visit: Visit) -> None:
    if not (ROOT / visit.name).with_suffix(".ipynb").is_file():
        return  # prose
    page = visit.page
    picture = page.locator(".cell_output :is(img, svg, canvas)").first
    begins = {}
    for screen in (PHONE, DESK):
        page.set_viewport_size(screen)
        page.evaluate("window.scrollTo(0, 0)")
        begins[screen["width"]] = picture.bounding_box()["y"]

    assert begins[PHONE["width"]] < PHONE["height"] - ENOUGH / 2
    assert begins[DESK["width"]] < DESK["height"] - ENOUGH


def test_there_is_one_search_field_beside_the_page(visit: Visit) -> None:
    """And no bar above it, which some versions of the theme add."""
    page = visit.page
    page.set_viewport_size(DESK)
    fields = page.get_by_role("button", name="Search").filter(visible=True)
    assert fields.count() == 1
    assert fields.bounding_box()["x"] >= 0


def test_formulas_are_drawn(visit: Visit) -> None:
    page = visit.page
    formulas = page.locator("article .math")
    if formulas.count():
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        drawn = page.locator("article .math:has(mjx-container svg)")
        assert drawn.count() == formulas.count()
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


def test_nothing_scrolls_sideways_on_a_phone(visit: Visit) -> None:
    visit.page.set_viewport_size(PHONE)
    width = visit.page.evaluate("document.documentElement.scrollWidth")
    visit.page.set_viewport_size(DESK)

    assert width <= PHONE["width"]


def test_theme_changes_to_dark_and_back(visit: Visit) -> None:
    page = visit.page
    switch = page.locator(".theme-switch-button:visible").first
    layers = page.locator(".dials-layers").first
    contrast: dict[str | None, list[float]] = {}
    picture = {}
    for _ in range(3):  # light, dark, and as the system has it
        switch.click()
        theme = page.locator("html").get_attribute("data-theme")
        contrast[theme] = [
            lightness(page.locator(selector).first, "color")
            - lightness(page.locator("body"), "background-color")
            for selector in ("article p", "article h1", ".dials", "td")
            if page.locator(selector).count()
        ]
        if layers.count():
            picture[theme] = seen(layers)

    assert set(contrast) == {"light", "dark"}
    assert max(contrast["light"]) < -0.6
    assert min(contrast["dark"]) > 0.6
    if picture:  # by night what it is by day, but for a shift by less than
        # a pixel, which a picture of noise shows
        assert abs(picture["light"] - picture["dark"]).mean() < 10


def seen(picture: Locator) -> np.ndarray:
    """Take a screenshot, 50 x 50, less the edge, which the ground touches."""
    shot = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
    return np.asarray(shot.resize((54, 54)), float)[2:-2, 2:-2]


def lightness(element: Locator, name: str) -> float:
    """Mean of red, green and blue of a computed colour, in [0, 1]."""
    colour = element.evaluate(f"e => getComputedStyle(e)['{name}']")
    red, green, blue = map(float, re.findall(r"[\d.]+", colour)[:3])
    return (red + green + blue) / 3 / 255


# --- dials -------------------------------------------------------------


def shown(dials: Locator) -> str:
    """All pictures and numbers, as one string."""
    return dials.evaluate(
        """root => [...root.querySelectorAll(".dials-layers img")]
        .map(img => img.src).concat(
        [...root.querySelectorAll(".dials-number")].map(n => n.textContent))
        .join()"""
    )


def every(found: Locator) -> list[Locator]:
    return [found.nth(i) for i in range(found.count())]


def test_dials_of_the_chapter_are_on_its_page(visit: Visit) -> None:
    (source,) = ROOT.glob(visit.name.replace(".html", ".[mi][dp]*"))
    calls = re.findall(
        r"^ *\"static_(?:dials|playground)\(", source.read_text("utf-8"), re.M
    )
    dials = visit.page.locator(".dials")

    assert dials.count() >= len(calls)
    for each in every(dials):
        assert each.locator(".dials-picture, .dials-number").count()
        assert not re.search("undefined|NaN", each.inner_text())


def test_sliders_follow_the_mouse(visit: Visit) -> None:
    for dials in every(visit.page.locator(".dials")):
        for slider in every(dials.locator("input[type=range]")):
            slider.scroll_into_view_if_needed()
            box = slider.bounding_box()
            stops = int(slider.get_attribute("max"))
            y = box["y"] + box["height"] / 2

            def x(share: float, box=box) -> float:
                thumb = 16  # its middle never reaches the ends
                return box["x"] + thumb / 2 + share * (box["width"] - thumb)

            mouse = visit.page.mouse
            mouse.move(x(int(slider.input_value()) / stops), y)
            mouse.down()
            seen, values = set(), []
            for share in (0, 0.25, 0.5, 0.75, 1):
                mouse.move(x(share), y, steps=2)
                seen.add(shown(dials))
                values.append(int(slider.input_value()))
            mouse.up()

            name = slider.get_attribute("aria-label")
            assert values == sorted(values), name
            assert (values[0], values[-1]) == (0, stops), name
            assert len(seen) > 1, f"{name} changes nothing"


def test_sliders_follow_the_keyboard(visit: Visit) -> None:
    for dials in every(visit.page.locator(".dials")):
        for slider in every(dials.locator("input[type=range]")):
            stops = int(slider.get_attribute("max"))
            slider.press("Home")
            seen = {shown(dials)}
            for stop in range(1, stops + 1):
                slider.press("ArrowRight")
                assert int(slider.input_value()) == stop
                seen.add(shown(dials))

            name = slider.get_attribute("aria-label")
            assert len(seen) > 1, f"{name} changes nothing"


def test_choices_change_what_is_shown(visit: Visit) -> None:
    for dials in every(visit.page.locator(".dials")):
        for choice in every(dials.locator("select")):
            seen = set()
            for i in range(choice.locator("option").count()):
                choice.select_option(index=i)
                assert choice.input_value() == str(i)
                seen.add(shown(dials))

            name = choice.get_attribute("aria-label")
            assert len(seen) > 1, f"{name} changes nothing"


def test_presets_move_the_dials(visit: Visit) -> None:
    for dials in every(visit.page.locator(".dials")):
        seen = {shown(dials)}
        for button in every(dials.locator(".dials-presets button")):
            button.click()
            assert button.get_attribute("aria-pressed") == "true"
            seen.add(shown(dials))

        if dials.locator(".dials-presets").count():
            assert len(seen) > 1, "no preset changes anything"
