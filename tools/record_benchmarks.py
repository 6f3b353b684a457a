"""Run the benchmarks and store the ratios that they measure.

    python tools/record_benchmarks.py [BENCHMARKS]

Runs the tests in BENCHMARKS (by default ``tests/benchmarks``) once and writes
their ``extra_info`` to ``book/results/benchmarks.json``, by the test's name.
Ratios depend less on the machine than times: loss and masks relative to the
networks alone, each method relative to a forward pass, loading relative to
classifying, the import of the package relative to torch's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from explainer.errors import UserError
from explainer.files import write_json
from explainer.provenance import command_line, environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "book" / "results"


def ratios(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tests' measured ratios from pytest-benchmark's report.

    >>> ratios({"benchmarks": [{"name": "a", "extra_info": {"ratio": 2}}]})
    {'a': {'ratio': 2}}
    """
    return {
        entry["name"]: entry["extra_info"]
        for entry in report["benchmarks"]
        if entry["extra_info"]
    }


def run(benchmarks: Path) -> dict[str, Any]:
    """Run the benchmarks; return pytest-benchmark's report.

    Raises :class:`UserError` if one fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pytest = (sys.executable, "-m", "pytest", str(benchmarks))
        options = ("--benchmark-only", f"--benchmark-json={report}")
        done = subprocess.run([*pytest, *options], cwd=ROOT, check=False)
        if done.returncode:
            raise UserError("a benchmark failed: see above")
        content: dict[str, Any] = json.loads(report.read_text())
    return content


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the benchmarks and write the ratios; return the file's path."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "benchmarks",
        type=Path,
        nargs="?",
        default=ROOT / "tests" / "benchmarks",
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    found = ratios(run(asked.benchmarks))
    card = {
        "threads": torch.get_num_threads(),
        "command": command_line(),
        **environment(),
    }
    path: Path = asked.results / "benchmarks.json"
    write_json(path, {"card": card, **found})
    print(path)
    return path


if __name__ == "__main__":
    main()
