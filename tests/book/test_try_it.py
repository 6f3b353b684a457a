"""The page *Try it*: networks in the browser, beside those of PyTorch.

A loopback server has the built book; nothing else can be reached. Without
the networks (`tools/build_try_it.py` writes them) most of it is skipped.
"""

import functools
import io
import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from chapters import ROOT
from explainer.checkpoints import Pair, load
from explainer.data import Scenes
from explainer.data.pictures import to_pixels
from explainer.losses import (
    LossWeights,
    area_bound,
    classification_loss,
    explainer_loss,
    negative_entropy,
    total_variation,
)
from explainer.masks import (
    composite,
    make_fill,
    non_target_mask,
    target_mask,
)
from explainer.presets import PRESETS

HTML = ROOT / "_build" / "html"
SCRIPTS = ROOT / "book" / "_static" / "try_it"
BUILT = HTML / "_static" / "try_it" / "built"
PATIENCE = 300_000  # milliseconds, on a busy machine
STATE = "document.querySelector('div.try-it').tryIt"
MOST = 40_000_000  # bytes that a reader loads


class Quiet(SimpleHTTPRequestHandler):
    """Static files; browsers also ask for an icon, which no book has."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def served(
    serve: Callable[[type[BaseHTTPRequestHandler]], str],
) -> Callable[[Path], str]:
    """Return what serves a folder and tells its address."""

    def folder_served(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        return serve(handler) + "/"  # type: ignore[arg-type]

    return folder_served


@pytest.fixture(scope="module")
def address(served: Callable[[Path], str]) -> str:
    """The page's address on the loopback."""
    if not (HTML / "book" / "try_it.html").is_file():
        pytest.skip("NO BUILT BOOK, so Try it was not looked at: `make book`")
    if not (BUILT / "try_it.json").is_file():
        pytest.skip(
            "NO NETWORKS in the built book, so Try it was not looked at: "
            "`make book` where npm can be reached"
        )
    return served(HTML) + "book/try_it.html"


def cut_off(context: BrowserContext, address: str) -> list[str]:
    """Cut the network, note requests to it and complaints of a page."""
    complaints: list[str] = []
    own = address.split("/book/")[0]

    def cut(route):
        if route.request.url.startswith(own):
            route.continue_()
        else:
            complaints.append(f"asks the network for {route.request.url}")
            route.abort()

    context.route(re.compile("^https?:"), cut)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on(
        "console",
        lambda message: (
            message.type == "error" and complaints.append(message.text)
        ),
    )
    return complaints


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page with both tabs loaded; no complaint may be left at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    complaints = cut_off(context, address)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    for name in ("A photograph", "A scene"):
        page.get_by_role("tab", name=name).click()
        start(page, name)
    yield page
    context.close()
    assert complaints == []


def start(page: Page, name: str) -> Locator:
    """Load what a tab needs, and return its panel."""
    panel = page.get_by_role("tabpanel", name=name)
    panel.get_by_role("button", name="and start").click()
    panel.locator(".try-it-work").wait_for()
    return panel


@pytest.fixture
def photographs(page: Page) -> Locator:
    page.get_by_role("tab", name="A photograph").click()
    return page.get_by_role("tabpanel", name="A photograph")


@pytest.fixture
def scenes(page: Page) -> Locator:
    """The tab with the first scene as the Explainer left it."""
    page.get_by_role("tab", name="A scene").click()
    panel = page.get_by_role("tabpanel", name="A scene")
    panel.get_by_role("button", name="again").click()
    settled(page, "scene")
    return panel


def settled(page: Page, tab: str) -> None:
    """Wait until the numbers are those of what is shown."""
    page.wait_for_function(
        f"{STATE}.{tab}.version && "
        f"{STATE}.{tab}.version === {STATE}.{tab}.measured"
    )


def feed(panel: Locator, name: str, content: bytes) -> None:
    panel.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": content}
    )


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def explain_portrait(page: Page, panel: Locator) -> None:
    """The cat fills its photograph, and so does its mask: it shows less."""
    feed(panel, "eileen.png", png(skimage.data.astronaut()))
    expect(panel.get_by_role("status")).to_have_text(
        "Found in eileen.png: person.", timeout=PATIENCE
    )
    settled(page, "photograph")


@pytest.fixture(scope="module")
def animals() -> Pair:
    return load("animals")


# --- before anything is loaded -----------------------------------


def test_the_size_is_said_before_it_is_loaded(
    browser: Browser, address: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    button = page.get_by_role("button", name="and start")
    button.wait_for()
    size = sum(
        (BUILT / name).stat().st_size
        for name in (
            "ort.wasm.bundle.min.mjs",
            "ort-wasm-simd-threaded.wasm",
            "animals.onnx",
        )
    )
    later = size + (BUILT / "scenes.onnx").stat().st_size

    assert f"Load {-(-size // 10**6)} MB" in button.inner_text()
    assert later < MOST
    assert not [
        url for url in asked if re.search(r"\.(onnx|wasm)|ort\.", url)
    ]
    context.close()


def test_opened_as_a_file_it_says_what_it_needs(
    browser: Browser, address: str
) -> None:
    context = browser.new_context()
    complaints = cut_off(context, address)
    page = context.new_page()
    page.goto((HTML / "book" / "try_it.html").as_uri())

    expect(page.locator(".try-it-note")).to_contain_text("make serve")
    assert page.locator(".try-it-note").is_visible()
    assert page.get_by_role("tab").count() == 0
    assert complaints == []
    context.close()


@pytest.mark.parametrize("lack", ["WebAssembly", "OffscreenCanvas"])
def test_an_old_browser_gets_a_sentence(
    lack: str, browser: Browser, address: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(f"delete globalThis.{lack}")
    page.goto(address)

    expect(page.locator(".try-it-note")).to_contain_text("too old")
    assert page.get_by_role("tab").count() == 0
    context.close()


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        ("try_it.json", "built without the networks"),
        ("ort.wasm.bundle.min.mjs", "did not start"),
        ("ort-wasm-simd-threaded.wasm", "no ort-wasm-simd-threaded.wasm"),
        ("scenes.onnx", "the server has no scenes.onnx"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    lacking: str, sentence: str, browser: Browser, address: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    context.route(
        f"**/{lacking}", lambda route: route.fulfill(status=404, body="")
    )
    page.goto(address)
    if lacking != "try_it.json":
        page.get_by_role("tab", name="A scene").click()
        page.get_by_role("button", name="and start").click()

    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text(
        sentence, timeout=PATIENCE
    )
    context.close()


# --- photographs -------------------------------------------------


@torch.no_grad()
def test_a_person_is_found_and_the_mask_is_python_s(
    page: Page, photographs: Locator, animals: Pair
) -> None:
    explain_portrait(page, photographs)
    (found,) = page.evaluate(
        f"""{STATE}.photograph.found.map((each) => ({{
        name: each.name, mask: [...each.mask],
        numbers: [each.before, each.kept, each.left] }}))"""
    )
    size = animals.size
    mask = torch.tensor(found["mask"]).reshape(1, 1, size, size)

    # Pillow would round the colours after scaling; the browser does not.
    images = to_pixels(skimage.data.astronaut(), (size, size))[None]
    c = animals.classes.index("person")
    ours = animals.explain(images)[:, c : c + 1]
    fill = make_fill("mean", images, animals.classifier)
    views = (
        images,
        composite(images, ours, fill),
        composite(images, 1 - ours, fill),
    )
    numbers = [float(animals.predict(view)[0, c]) for view in views]

    assert found["name"] == "person"
    assert (mask - ours).abs().mean() < 2e-3
    here, there = mask > 0.5, ours > 0.5
    assert (here & there).sum() / (here | there).sum() >= 0.99
    assert found["numbers"] == pytest.approx(numbers, abs=0.002)
    cells = photographs.locator("tbody td").all_inner_texts()
    assert cells == [f"{round(100 * p)}%" for p in found["numbers"]]


def test_what_is_shown_follows_every_control(
    page: Page, photographs: Locator
) -> None:
    explain_portrait(page, photographs)
    canvas = photographs.locator("canvas")

    def shown() -> str:
        return canvas.evaluate("canvas => canvas.toDataURL()")

    seen = [shown()]
    for name in ("Opacity", "Threshold"):
        slider = photographs.get_by_role("slider", name=name)
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 8, y)
        page.mouse.down()
        for share in (0.2, 0.6, 0.9):
            page.mouse.move(box["x"] + share * box["width"], y)
            seen.append(shown())
        page.mouse.up()
        slider.press("ArrowLeft")
        seen.append(shown())
    for view in ("keep", "left"):
        photographs.get_by_role("radio", name=view).check()
        seen.append(shown())
        assert "person" in canvas.get_attribute("aria-label")
    assert len(set(seen)) == len(seen)

    photographs.get_by_role("checkbox", name="person").uncheck()
    left = photographs.get_by_role("radio", name="left")
    assert left.is_checked()
    whole = shown()  # without a mask all is left
    photographs.get_by_role("radio", name="masks").check()
    opacity = photographs.get_by_role("slider", name="Opacity")
    opacity.press("Home")
    assert shown() == whole
    opacity.press("End")
    photographs.get_by_role("slider", name="Threshold").press("Home")
    settled(page, "photograph")


def test_numbers_follow_the_threshold(
    page: Page, photographs: Locator
) -> None:
    explain_portrait(page, photographs)
    cells = photographs.locator("tbody td")
    before = cells.all_inner_texts()
    photographs.get_by_role("slider", name="Threshold").press("End")
    settled(page, "photograph")
    after = cells.all_inner_texts()
    photographs.get_by_role("slider", name="Threshold").press("Home")
    settled(page, "photograph")

    assert after[0] == before[0]
    assert after[2] != before[2]
    assert cells.all_inner_texts() == before


def test_a_free_photograph_is_a_click_away(
    page: Page, photographs: Locator
) -> None:
    photographs.get_by_role("button", name="astronaut").click()

    expect(photographs.get_by_role("status")).to_have_text(
        re.compile("Found in the astronaut: .*person"), timeout=PATIENCE
    )
    settled(page, "photograph")


def test_the_picture_can_be_saved(
    page: Page, photographs: Locator, tmp_path: Path
) -> None:
    explain_portrait(page, photographs)
    with page.expect_download() as download:
        photographs.get_by_role("button", name="Save").click()
    download.value.save_as(tmp_path / "saved.png")

    assert download.value.suggested_filename == "eileen_masks.png"
    with Image.open(tmp_path / "saved.png") as saved:
        assert saved.size == skimage.data.astronaut().shape[1::-1]


def test_a_dropped_photograph_is_explained(
    page: Page, photographs: Locator
) -> None:
    content = list(png(skimage.data.chelsea()))
    data = page.evaluate_handle(
        """content => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], "dropped.png"));
        return data; }""",
        content,
    )
    photographs.dispatch_event("drop", {"dataTransfer": data})

    expect(photographs.get_by_role("status")).to_have_text(
        "Found in dropped.png: cat.", timeout=PATIENCE
    )
    settled(page, "photograph")


def test_where_nothing_is_found_it_says_so(
    page: Page, photographs: Locator
) -> None:
    grey = np.full((50, 80, 3), 127, np.uint8)
    feed(photographs, "grey.png", png(grey))

    expect(photographs.get_by_role("status")).to_have_text(
        re.compile(r"Nothing found in grey\.png: .* \d+%\."), timeout=PATIENCE
    )
    settled(page, "photograph")
    assert photographs.get_by_role("slider").count() == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture at all", png(skimage.data.chelsea())[:30]],
    ids=["empty", "text", "cut off"],
)
def test_a_broken_file_ends_in_a_sentence(
    content: bytes, page: Page, photographs: Locator
) -> None:
    feed(photographs, "broken.png", content)
    alert = photographs.get_by_role("alert")
    expect(alert).to_have_text(
        "broken.png is not a picture that this browser can read: choose a "
        "JPEG, PNG or WebP file.",
        timeout=PATIENCE,
    )
    explain_portrait(page, photographs)  # it goes on
    expect(alert).to_have_count(0)


# --- scenes ------------------------------------------------------


def terms_by_python(pair: Pair, scene: dict) -> dict[str, float]:
    """The loss of the masks that the page has now."""
    size = pair.size
    masks = torch.tensor(scene["masks"]).reshape(1, -1, size, size)
    image = Scenes("test", scene["number"] + 1)[scene["number"]].image[None]
    loss = explainer_loss(
        pair.classifier,
        image,
        torch.tensor([scene["labels"]]).float(),
        masks,
        PRESETS["scenes"].weights,
    )
    terms = {name: float(term) for name, term in loss.terms.items()}
    return terms | {"total": float(loss.total)}


def scene_of(page: Page) -> dict:
    return page.evaluate(
        f"""(({{ number, labels, masks, terms, total, kept }}) => ({{ number,
        labels, terms: {{ ...terms, total }}, kept,
        masks: masks.map((mask) => [...mask]) }}))({STATE}.scene)"""
    )


def drag(page: Page, canvas: Locator, *points: tuple[float, float]) -> None:
    """Take the mouse along points, in shares of the canvas."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for i, (x, y) in enumerate(points):
        at = (box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.mouse.move(*at, steps=4)
        if i == 0:
            page.mouse.down()
    page.mouse.up()
    settled(page, "scene")


@torch.no_grad()
def test_the_terms_are_those_of_the_loss_also_after_painting(
    page: Page, scenes: Locator
) -> None:
    pair = load("scenes")
    canvas = scenes.locator("canvas[data-shows=mask]")
    first = scene_of(page)
    scenes.get_by_role("radio", name="paint").check()
    drag(page, canvas, (0.2, 0.8), (0.8, 0.8), (0.8, 0.6))
    painted = scene_of(page)
    scenes.get_by_role("radio", name="erase").check()
    drag(page, canvas, (0.1, 0.1), (0.9, 0.9))
    erased = scene_of(page)

    for scene in (first, painted, erased):
        ours = terms_by_python(pair, scene)
        assert scene["terms"] == pytest.approx(ours, abs=2e-3)
    totals = [scene["terms"]["total"] for scene in (first, painted, erased)]
    assert len(set(totals)) == 3
    assert painted["terms"]["target_area"] > first["terms"]["target_area"]
    assert painted["terms"]["target_area"] > erased["terms"]["target_area"]
    assert first["kept"] != painted["kept"]
    numbers = scenes.locator(".try-it-bars .try-it-number").all_inner_texts()
    assert numbers[-1].replace("−", "-") == f"{totals[-1]:.3f}"


def test_the_brush_follows_the_keyboard(page: Page, scenes: Locator) -> None:
    canvas = scenes.locator("canvas[data-shows=mask]")
    before = scene_of(page)
    scenes.get_by_role("radio", name="paint").check()
    scenes.get_by_role("slider", name="Width").press("End")
    for key in ("ArrowRight", "ArrowDown", "Space"):
        canvas.press(key)
    settled(page, "scene")
    after = scene_of(page)

    assert after["terms"]["target_area"] > before["terms"]["target_area"]
    assert after["terms"]["total"] != before["terms"]["total"]
    scenes.get_by_role("button", name="again").click()
    settled(page, "scene")
    assert scene_of(page)["masks"] == before["masks"]


def test_another_scene_comes_with_its_own_truth(
    page: Page, scenes: Locator
) -> None:
    before = scene_of(page)["number"]
    scenes.get_by_role("button", name="Another scene").click()
    page.wait_for_function(f"{STATE}.scene.number === {before + 1}")
    settled(page, "scene")
    pixels, truth = (
        page.evaluate(f"[...{STATE}.scene.{name}]")
        for name in ("image", "truth")
    )
    sample = Scenes("test", before + 2)[before + 1]

    assert pixels == pytest.approx(sample.image.flatten().tolist(), abs=1e-6)
    assert truth == sample.mask.flatten().tolist()
    names = [
        name
        for name, there in zip(
            load("scenes").classes, sample.labels, strict=1
        )
        if there
    ]
    expect(scenes.get_by_role("status")).to_contain_text(", ".join(names))
    assert scenes.locator("input[name=class]").count() == len(names)


# --- the page ----------------------------------------------------


def test_a_phone_need_not_scroll_sideways(
    page: Page, photographs: Locator
) -> None:
    explain_portrait(page, photographs)
    desk = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    widths = []
    for name in ("A photograph", "A scene"):
        page.get_by_role("tab", name=name).click()
        widths.append(page.evaluate("document.documentElement.scrollWidth"))
    page.set_viewport_size(desk)

    assert max(widths) <= 390


def test_tabs_follow_the_keyboard(page: Page, photographs: Locator) -> None:
    photographs.wait_for()
    page.get_by_role("tab", name="A photograph").press("ArrowRight")

    assert page.get_by_role("tabpanel", name="A scene").is_visible()
    assert not photographs.is_visible()


# --- what the page computes itself -------------------------------


@pytest.fixture(scope="module")
def compute(
    browser: Browser, served: Callable[[Path], str]
) -> Iterator[Callable[..., object]]:
    """Call a function of ``numbers.js``; lists stand for arrays."""
    address = served(SCRIPTS)
    context = browser.new_context()
    page = context.new_page()
    page.goto(address + "page.css")

    def compute(name: str, *arguments: object) -> object:
        return page.evaluate(
            """async ([name, given]) => {
            const numbers = await import("/numbers.js");
            const array = (value) => value?.floats
              ? new Float32Array(value.floats)
              : Array.isArray(value) ? value.map(array) : value;
            const result = numbers[name](...given.map(array));
            return ArrayBuffer.isView(result) ? [...result] : result; }""",
            [name, json.loads(json.dumps(arguments, default=plain))],
        )

    yield compute
    context.close()


def plain(value: torch.Tensor) -> dict[str, list[float]]:
    return {"floats": value.flatten().tolist()}


@pytest.mark.parametrize("size", [(7, 5), (40, 31), (12, 12)])
def test_photographs_shrink_and_grow_as_in_pillow(
    size: tuple[int, int], compute: Callable[..., list[float]]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    resized = compute("resize", image, size, (12, 12))
    pillow = Image.fromarray(pixels).resize((12, 12), Image.BILINEAR)

    ours = np.reshape(resized, (3, 12, 12)).transpose(1, 2, 0) * 255
    assert np.abs(ours - np.asarray(pillow, float)).max() < 1.1


def test_masks_grow_as_in_pytorch(
    compute: Callable[..., list[float]],
) -> None:
    mask = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(mask, (17, 23), mode="bilinear")

    resized = compute("resize", mask, (6, 6), (17, 23))
    assert resized == pytest.approx(large.flatten().tolist(), abs=1e-5)


@pytest.mark.parametrize("scale", ["paper", "undivided"])
@pytest.mark.parametrize("present", [(), (1,), (0, 2), (0, 1, 2)])
def test_terms_of_random_masks(
    scale: str,
    present: tuple[int, ...],
    compute: Callable[..., dict[str, float]],
) -> None:
    generator = torch.Generator().manual_seed(len(present))
    masks = torch.rand(1, 3, 8, 8, generator=generator)
    labels = torch.tensor([[float(c in present) for c in range(3)]])
    kept, left = 3 * torch.randn(2, 1, 3, generator=generator)
    weights = LossWeights(a=0.1, b=0.4, entropy_scale=scale)
    m, n = target_mask(masks, labels), non_target_mask(masks, labels)
    expected = {
        "classification": classification_loss(kept, labels),
        "entropy": negative_entropy(left, scale),
        "bound": area_bound(masks, labels, weights.a, weights.b),
        "target_area": m.mean(),
        "non_target_area": n.mean(),
        "smoothness": total_variation(m) + total_variation(n),
    }

    terms = compute(
        "lossTerms",
        [*masks[0]],
        labels[0],
        kept[0].sigmoid(),
        left[0].sigmoid(),
        {"a": weights.a, "b": weights.b, "entropy_scale": scale},
    )
    expected = {name: float(term) for name, term in expected.items()}
    assert terms == pytest.approx(expected, abs=1e-4)
