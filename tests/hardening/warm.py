"""A process that has imported everything, and forks: starts cost nothing.

Reads jobs from its input, one JSON object a line. Each runs in a child
whose process id is the first line of the answer; the second one tells how
it ended: ``[exit code, or minus a signal; peak memory in bytes]``. A job is
``explainer``, arguments of the command line, or ``python``, code to run;
``log``, the file for what it prints; and, if files are to be limited as on
a full disk, ``largest``, in bytes.

Nothing is computed here before a fork: of a process with running threads,
a child would inherit the locks without the threads.
"""

import contextlib
import json
import os
import resource
import sys
import traceback
from dataclasses import replace

import accelerate.utils  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import torch
import torch._dynamo  # the first optimizer asks for it

import explainer.cli
from explainer.errors import UserError
from explainer.presets import PRESETS


def small_scenes() -> None:
    """Let runs on tiny scenes validate and write after every step."""
    preset = PRESETS["scenes"]
    phases = ("plain_training", "classifier_training", "explainer_training")
    often = {
        phase: replace(getattr(preset, phase), eval_every=1, batch_size=4)
        for phase in phases
    }
    PRESETS["scenes"] = replace(preset, size=32, **often)


def run(job: dict) -> int:
    """Do a job; return the exit code, 70 after a traceback."""
    try:
        if "explainer" in job:
            sys.argv = ["explainer", *job["explainer"]]
            explainer.cli.main()
        else:
            exec(job["python"], {})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def child(job: dict) -> None:
    """Run a job and end this process."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    if "largest" in job:
        limit = (job["largest"], resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    code = run(job)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Serve until the input ends."""
    torch.set_num_threads(1)
    small_scenes()
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(job)
        print(pid, flush=True)
        _, status, used = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, 1024 * used.ru_maxrss]), flush=True)


if __name__ == "__main__":
    main()
