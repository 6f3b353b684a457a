"""What several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Keep tests out of the user's cache; share drawn scenes among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPLAINER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """Return the folder with real VOC photographs, or skip the test."""
    root = os.environ.get("EXPLAINER_DATA")
    if not root:
        pytest.skip(
            "no real photographs: set EXPLAINER_DATA to the folder that "
            "contains VOCdevkit/VOC2007"
        )
    return Path(root)
