"""A browser, for the pages and for the live playground."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

INSTALLED = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium: Playwright's own, or one that is installed."""
    paths = filter(None, map(shutil.which, INSTALLED))
    ways = [
        {},
        {"channel": "chrome"},
        *({"executable_path": p} for p in paths),
    ]
    with sync_playwright() as playwright:
        for way in ways:
            try:
                found = playwright.chromium.launch(**way)
            except Error:
                continue
            yield found
            found.close()
            return
    pytest.skip(
        "NO BROWSER, so no page was looked at: install Chromium, or run "
        "`.venv/bin/playwright install chromium`"
    )
