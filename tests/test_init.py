"""The package's own names are there, and cost nothing before."""

import subprocess
import sys

import pytest

import explainer
import explainer.checkpoints
import explainer.data
import explainer.explanation
import explainer.figures


def test_every_name_is_that_of_its_module() -> None:
    assert explainer.load is explainer.checkpoints.load
    assert explainer.Pair is explainer.checkpoints.Pair
    assert explainer.Scenes is explainer.data.Scenes
    assert explainer.draw is explainer.figures.draw
    assert explainer.explain is explainer.explanation.explain
    assert "rise" in explainer.METHODS
    for name in explainer.__all__:
        assert getattr(explainer, name) is not None
        assert name in dir(explainer)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        explainer.lod  # noqa: B018
    with pytest.raises(ImportError, match="lod"):
        from explainer import lod  # noqa: F401


def imported(code: str) -> set[str]:
    """Run code in a Python of its own; return the modules it has then."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_large() -> None:
    large = {"torch", "timm", "torchvision", "matplotlib", "captum"}
    assert imported("import explainer") & large == set()


def test_chapters_on_scenes_import_no_other_library_of_models() -> None:
    code = (
        "from explainer import METHODS, load, load_data\n"
        "import explainer.evaluation, explainer.training\n"
        "load(); load_data('scenes')"
    )
    late = {"timm", "torchvision", "scipy.stats", "captum"}
    assert imported(code) & late == set()
