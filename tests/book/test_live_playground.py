"""The playground with a kernel, as a person uses it: in a browser.

Voila serves the chapter's own cells on the loopback address.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from chapters import ROOT

CHAPTER = ROOT / "book" / "08_playground.ipynb"
CELLS = ("preset", "imports", "open", "app")
PATIENCE = 600  # seconds until a kernel on a busy machine has answered


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the chapter without its static dials, which take a minute."""
    folder = tmp_path_factory.mktemp("voila")
    notebook = json.loads(CHAPTER.read_text("utf-8"))
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    notebook["cells"] = [cells[name] for name in CELLS]
    (folder / "live.ipynb").write_text(json.dumps(notebook), "utf-8")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log.txt"
    command = [
        *(sys.executable, "-m", "voila", str(folder / "live.ipynb")),
        *("--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"),
    ]
    # What `make chapters` left in the reader's cache is at hand.
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    environment.pop("EXPLAINER_CACHE", None)
    with log.open("w") as file:
        server = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            _wait_for(port, server, log)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(60)


def _wait_for(
    port: int, server: "subprocess.Popen[bytes]", log: Path
) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"Voila does not answer:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Open the app; let no request and no error past."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    errors: list[str] = []

    def cut(route):
        # Voila's template asks a server of fonts; it does without.
        if route.request.url.startswith(address):
            route.continue_()
        else:
            route.abort()

    def note(message):
        ours = message.location["url"].startswith(address)
        if message.type == "error" and ours:
            errors.append(message.text)

    page.route("**/*", cut)
    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector(".dials img")
    yield page
    context.close()
    assert errors == []


def shown(page: Page) -> str:
    """Pictures, numbers and bars of the first tab, as one string."""
    return page.locator(".dials").first.inner_html()


def redrawn(page: Page, before: str) -> str:
    """Wait until something else is shown, and that without a complaint."""
    page.wait_for_function(
        "before => document.querySelector('.dials').innerHTML !== before",
        arg=before,
    )
    assert page.locator("[role=alert]").count() == 0
    return shown(page)


def handles(page: Page) -> dict[str, Locator]:
    """The handles of the sliders in sight; b before a, which it bounds."""
    found = {}
    for slider in page.locator(".widget-slider:visible").all():
        name = slider.locator(".widget-label").inner_text()
        parts = slider.locator(".noUi-handle").all()
        names = ["a", "b"] if len(parts) == 2 else [name]
        found |= dict(zip(names, parts, strict=True))
    return dict(reversed(found.items())) if "a" in found else found


def test_it_opens_with_a_picture_and_numbers(page: Page) -> None:
    dials = page.locator(".dials").first

    assert dials.locator("img").count() >= 3
    assert "L_c" in dials.inner_text()
    assert set(handles(page)) == {
        "λₑ (entropy)", "weight of B(s_c)", "weight of A(m)",
        "weight of A(n)", "λₜᵥ (smoothness)", "a", "b",
    }  # fmt: skip


def drag(page: Page, handle: Locator, share: float) -> None:
    """Take a handle with the mouse to a share of its rail."""
    rail = handle.locator("xpath=ancestor::*[contains(@class,'noUi-target')]")
    along, box = rail.bounding_box(), handle.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(along["x"] + share * along["width"], y, steps=5)
    page.mouse.up()


def test_each_slider_redraws_by_keyboard_and_by_mouse(page: Page) -> None:
    for name, handle in handles(page).items():
        before = shown(page)
        if name == "a":  # from next to nothing to nothing would not show
            drag(page, handle, 0.4)
            before = redrawn(page, before)
        handle.press("Home")
        before = redrawn(page, before)
        if name != "a":
            drag(page, handle, 0.6)
            redrawn(page, before)


def test_presets_images_and_classes_redraw(page: Page) -> None:
    before = shown(page)
    image, preset = page.locator("select:visible").all()
    preset.select_option("paper ResNet-50")
    before = redrawn(page, before)
    image.select_option("image 3")
    before = redrawn(page, before)
    page.locator("input[type=checkbox]:checked").first.uncheck()
    redrawn(page, before)


def test_fine_tuning_shows_before_and_after(page: Page) -> None:
    page.get_by_role("tab", name="Fine-tune").click()
    (steps,) = handles(page).values()
    steps.press("Home")
    page.get_by_role("button", name="Fine-tune").click()

    page.wait_for_selector("h4:has-text('after')")
    assert page.locator("[role=alert]").count() == 0
    assert page.locator("table td").count() >= 12
    assert page.locator("h4 + style + .dials img").count() >= 2
    expect(page.locator(".progress-bar")).to_have_attribute(
        "style", re.compile(r"width: 100%")
    )
