"""Jobs in processes of their own, which may be killed; and broken files."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 240
"""Seconds after which a job counts as hanging; the slowest takes ten."""
MEMORY = 2 * 2**30


@dataclass
class Ended:
    """How a job ended: the exit code, its output, its peak memory."""

    code: int
    said: str
    memory: int
    seconds: float

    @property
    def sentence(self) -> str:
        """What a failed job told the user: one sentence, no traceback."""
        assert self.code == 1, (self.code, self.said)
        assert "Traceback" not in self.said
        assert self.said.count("error: ") == 1, self.said
        *_, last = self.said.rstrip("\n").splitlines()
        assert last.startswith("error: "), self.said
        return last.removeprefix("error: ")


class Warm:
    """Starts jobs in forks of a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, kill_after: float | None = None, **job: Any) -> Ended:
        """Run a job to its end, or kill it after so many seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if "explainer" in job:
            job["explainer"] = [str(a) for a in job["explainer"]]
        job["log"] = str(self.log)
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        started = time.perf_counter()
        wait = PATIENCE if kill_after is None else kill_after
        timer = threading.Timer(wait, os.kill, (pid, signal.SIGKILL))
        timer.start()
        # The child is not waited for before this line is read, so that its
        # id is not another's yet.
        code, memory = json.loads(self.process.stdout.readline())
        timer.cancel()
        seconds = time.perf_counter() - started
        said = self.log.read_text(errors="replace")
        if kill_after is None:
            assert code != -signal.SIGKILL, f"killed after {wait} s:\n{said}"
        return Ended(code, said, memory, seconds)

    def explainer(self, *arguments: str | Path, **job: Any) -> Ended:
        """Run the command line."""
        return self.run(explainer=arguments, **job)

    def succeeds(self, *arguments: str | Path) -> Ended:
        """Run a command that must succeed."""
        ended = self.explainer(*arguments)
        assert ended.code == 0, ended.said
        return ended


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    if not sys.platform.startswith("linux"):
        pytest.skip("jobs are forked, which is safe on Linux only")
    started = Warm(tmp_path_factory.mktemp("warm"))
    yield started
    started.process.kill()
    started.process.communicate()
