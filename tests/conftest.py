"""What several test files share."""

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """Return what serves on the loopback and tells the host's address."""
    running = []

    def serve(handler: type[BaseHTTPRequestHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


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
