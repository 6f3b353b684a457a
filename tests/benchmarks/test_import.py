"""How long it takes to import the package, beyond what torch takes.

``make benchmark`` measures it in fresh processes that take turns (goal:
under a second for ``import explainer``). CPU seconds, so that other work on
the machine does not count. The test suite imports
each of the first two once.
"""

import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 3
IMPORTS = {
    "torch": "import torch",
    "explainer": "import torch, explainer",
    "explainer.load": "import torch; from explainer import load",
    "all of __all__": "import torch; from explainer import *",
}


def cpu_seconds(code: str) -> float:
    """Run code in a Python of its own; return what it used."""
    timed = f"import time\n{code}\nprint(time.process_time())"
    done = subprocess.run(
        [sys.executable, "-c", timed],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return float(done.stdout)


def test_import_beyond_torch(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    some = list(IMPORTS)[:2] if benchmark.disabled else list(IMPORTS)
    seconds: dict[str, list[float]] = {name: [] for name in some}

    def round_of_all() -> None:
        for name in some:
            seconds[name].append(cpu_seconds(IMPORTS[name]))

    rounds = 1 if benchmark.disabled else ROUNDS
    benchmark.pedantic(round_of_all, rounds=rounds)
    least = {name: min(s) for name, s in seconds.items()}
    torch_alone = least.pop("torch")
    benchmark.extra_info["beyond_torch"] = {
        name: s - torch_alone for name, s in least.items()
    }
    if not benchmark.disabled:
        with capsys.disabled():
            print(f"\nimport torch: {torch_alone:.2f} CPU s")
            for name, s in least.items():
                print(f"{name:24}{s - torch_alone:+10.2f} CPU s")
