"""Run the benchmarks and keep the ratios that they measure.

    python tools/record_benchmarks.py [BENCHMARKS]

Runs the tests in BENCHMARKS (``tests/benchmarks`` unless told otherwise) once
and writes to ``book/results/benchmarks.json`` what they put into
``extra_info``, by the test's name. Ratios, for they are what another machine
can be expected to find too: loss and masks beside the bare networks, each
method beside a forward pass, loading beside classifying, the import of the
package beyond torch's own.
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
    """Return what the tests measured, out of pytest-benchmark's report.

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

    Raises :class:`UserError` where one fails.
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
    """Run and write; return the file."""
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
