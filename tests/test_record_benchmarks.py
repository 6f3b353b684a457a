"""The benchmarks' ratios reach the file that the book reads."""

import json
from pathlib import Path

import pytest

from explainer.errors import UserError
from record_benchmarks import main

MEASURES = """
def test_twice(benchmark):
    benchmark(lambda: None)
    benchmark.extra_info["ratio"] = 2.5


def test_says_nothing(benchmark):
    benchmark(lambda: None)
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several processes of pytest-xdist would measure nothing."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def test_what_a_benchmark_measured_is_written(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(MEASURES)
    path = main([str(tmp_path), "--results", str(tmp_path)])
    found = json.loads(path.read_text())
    assert set(found) == {"card", "test_twice"}
    assert found["test_twice"] == {"ratio": 2.5}
    assert found["card"]["threads"] >= 1


def test_a_benchmark_that_fails_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_no(benchmark): assert 0")
    with pytest.raises(UserError, match="a benchmark failed"):
        main([str(tmp_path), "--results", str(tmp_path)])
    assert not (tmp_path / "benchmarks.json").exists()
