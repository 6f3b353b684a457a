"""Every chapter with a `PRESET` runs on real photographs, if there are any.

Its one line `PRESET = "scenes"` becomes `PRESET = "animals"`, as a reader
would change it. It runs in an empty folder, as on Colab: no repository
around it. With the photographs some chapters take minutes.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from chapters import chapters
from explainer.presets import PRESETS

LINE = re.compile(r'^PRESET = "scenes"$', re.MULTILINE)
WITH_PRESET = [
    path for path in chapters() if '"PRESET = ' in path.read_text("utf-8")
]
# The paper's networks, which no one has trained for this package yet.
WITHOUT_WEIGHTS = "voc2007-vgg16"


def chapter(
    path: Path, preset: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> NotebookClient:
    """Return what runs a copy of a chapter under a preset, in ``folder``."""
    # The kernel of this environment, not one that a user has installed.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    changed = 0
    for cell in code:
        cell.source, n = LINE.subn(f'PRESET = "{preset}"', cell.source)
        changed += n
    assert changed == 1
    return NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )


@pytest.mark.parametrize("path", WITH_PRESET, ids=lambda path: path.stem)
def test_chapter_runs_on_photographs(
    path: Path,
    voc_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notebook = chapter(path, "animals", tmp_path, monkeypatch).execute()

    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert pictures


@pytest.mark.parametrize("name", ["02_masks", "12_class_scores"])
def test_chapter_without_weights_says_so_before_a_cell_fails(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (p for p in WITH_PRESET if p.stem == name)
    client = chapter(path, WITHOUT_WEIGHTS, tmp_path, monkeypatch)

    with pytest.raises(CellExecutionError) as caught:
        client.execute()

    assert WITHOUT_WEIGHTS in PRESETS
    command = f"explainer train classifier --preset {WITHOUT_WEIGHTS}"
    outputs = [
        output
        for cell in client.nb.cells
        for output in cell.get("outputs", [])
    ]
    assert [output.output_type for output in outputs] == ["stream", "error"]
    assert command in outputs[0].text
    assert caught.value.ename == "CheckpointError"
    assert command in caught.value.evalue
