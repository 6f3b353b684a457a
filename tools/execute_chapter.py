"""Execute a chapter into the cache from which Jupyter Book takes its page.

``make book`` runs ``python tools/execute_chapter.py book/01_black_box.ipynb``
for several chapters in parallel, which Jupyter Book itself cannot. A chapter
that is in the cache is not executed again.
"""

import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import yaml
from filelock import FileLock
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from nbclient.exceptions import CellControlSignal, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / ".jupyter_cache"  # Jupyter Book's own place


def execute(chapter: Path, folder: Path = CACHE) -> float | None:
    """Return the seconds that a chapter took; None if the cache has it.

    ``folder`` is the cache's. Raises nbclient's error if a cell fails or
    exceeds the time limit in ``_config.yml``.
    """
    settings = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    notebook = nbformat.read(chapter, as_version=4)
    folder.mkdir(parents=True, exist_ok=True)
    # Two processes that create its database at once would fail.
    lock = FileLock(folder / ".lock")
    cache = get_cache(str(folder))
    with lock, suppress(KeyError):
        cache.match_cache_notebook(notebook)
        return None
    with TemporaryDirectory() as empty:
        result = single_nb_execution(
            notebook,
            cwd=empty,
            timeout=settings["execute"]["timeout"],
            allow_errors=False,
            startup_timeout=300,
        )
    if result.err is not None:
        raise result.err
    executed = CacheBundleIn(
        notebook, str(chapter), data={"execution_seconds": result.time}
    )
    with lock:
        cache.cache_notebook_bundle(
            executed, check_validity=False, overwrite=True
        )
    return result.time


if __name__ == "__main__":
    name = sys.argv[1]
    try:
        seconds = execute(Path(name))
    except (CellControlSignal, DeadKernelError) as error:
        sys.exit(f"{name} failed:\n{error}")
    done = (
        "in the cache" if seconds is None else f"executed in {seconds:.0f} s"
    )
    print(f"{name}: {done}", flush=True)
