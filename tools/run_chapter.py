"""Run a chapter as a test, and keep what it shows for its page.

``make chapters`` runs ``python tools/run_chapter.py book/01_black_box.ipynb``
for several chapters in parallel. nbval runs the cells as in Colab: alone in
an empty folder. If all pass, their outputs go into the cache from which
Jupyter Book takes its pages, so that what is published is what was tested. A
chapter that is in the cache is not run again.
"""

import shutil
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
import yaml
from filelock import FileLock
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / ".jupyter_cache"  # Jupyter Book's own place
NBVAL = ("-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env")


class Recorder:
    """A plugin of pytest that keeps the outputs of the cells nbval runs.

    nbval keeps outputs too, but drops the updates of what is displayed.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, list[NotebookNode]] = {}  # by cell
        self.displays: dict[str, list[NotebookNode]] = defaultdict(list)

    def pytest_runtest_setup(self, item: Any) -> None:
        """Listen to the kernel while a cell runs."""
        outputs = self.outputs[item.cell.id] = []
        chapter = item.parent

        def next_message(timeout: float, stream: str = "iopub") -> Any:
            message = chapter.kernel.get_message(stream, timeout=timeout)
            self.keep(message, outputs)
            return message

        chapter.get_kernel_message = next_message

    def keep(
        self, message: dict[str, Any], outputs: list[NotebookNode]
    ) -> None:
        """Add to a cell's outputs what a message shows, or update them."""
        kind, content = message["msg_type"], message["content"]
        display = content.get("transient", {}).get("display_id")
        if kind == "update_display_data":
            for shown in self.displays[display]:
                shown.update(
                    data=content["data"], metadata=content["metadata"]
                )
        elif kind in ("display_data", "error", "execute_result", "stream"):
            output = nbformat.v4.output_from_msg(message)
            last = outputs[-1] if outputs else NotebookNode()
            if kind == "stream" and last.get("name") == output.name:
                last.text += output.text
            else:
                outputs.append(output)
            if display:
                self.displays[display].append(output)


def run(chapter: Path) -> bool:
    """Return whether a chapter passes, or has passed and is in the cache.

    A cell's time limit is that of ``_config.yml``.
    """
    settings = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    limit = str(settings["execute"]["timeout"])
    notebook = nbformat.read(chapter, as_version=4)
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two processes that create its database at once would fail.
    lock = FileLock(CACHE / ".lock")
    cache = get_cache(str(CACHE))
    with lock, suppress(KeyError):
        cache.match_cache_notebook(notebook)
        print("in the cache")
        return True
    recorder, start = Recorder(), time.perf_counter()
    with TemporaryDirectory() as empty:
        shutil.copy(chapter, empty)
        failed = pytest.main(
            [*NBVAL, "-q", "--nbval-cell-timeout", limit,
             "--nbval-kernel-startup-timeout", limit, empty],
            [recorder],
        )  # fmt: skip
    if failed:
        return False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = recorder.outputs[cell.id]
    seconds = time.perf_counter() - start
    executed = CacheBundleIn(
        notebook, str(chapter), data={"execution_seconds": seconds}
    )
    with lock:
        cache.cache_notebook_bundle(
            executed, check_validity=False, overwrite=True
        )
    return True


if __name__ == "__main__":
    sys.exit(not run(Path(sys.argv[1])))
