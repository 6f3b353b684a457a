"""Reproduce an experiment: from data to every file that the book reads.

:func:`steps_of` returns the steps of an experiment in order. Each step writes
files. A step whose files exist is not run again, and an interrupted step
resumes. Steps that do not depend on each other may run in parallel.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from explainer.deadline import OutOfTime, check_time, time_limit
from explainer.errors import UserError
from explainer.files import read_json, write_json
from explainer.presets import PRESETS
from explainer.reproduction.agreement import agreement_steps
from explainer.reproduction.cheating import cheating_steps
from explainer.reproduction.costs import cost_steps
from explainer.reproduction.experiment import Experiment, Step
from explainer.reproduction.networks import network_steps
from explainer.reproduction.rivals import rival_steps
from explainer.reproduction.shipping import ship, take_shipped
from explainer.reproduction.tables import table_steps
from explainer.reproduction.trials import trial_steps
from explainer.reproduction.truth import truth_steps

__all__ = [
    "Experiment",
    "Step",
    "chosen_steps",
    "preset_of",
    "remember",
    "reproduce",
    "ship",
    "steps_of",
    "take_shipped",
]


def preset_of(experiment: str, classifier: str | None) -> str:
    """Return the preset of an experiment and a classifier, by name.

    ``voc2007`` and ``coco2014`` have two classifiers, so one has to be named.
    The others have one.
    """
    if experiment in PRESETS and classifier is None:
        return experiment
    name = f"{experiment}-{classifier}"
    if name in PRESETS:
        return name
    known = ", ".join(
        p.replace("-", " --classifier ") for p in sorted(PRESETS)
    )
    raise UserError(
        f"no experiment {experiment!r}"
        + (f" with the classifier {classifier!r}" if classifier else "")
        + f"; known: {known}"
    )


def steps_of(experiment: Experiment) -> list[Step]:
    """Return all steps of an experiment in order, finished or not."""
    return [
        step
        for group in (
            network_steps,
            rival_steps,
            trial_steps,
            table_steps,
            cheating_steps,
            cost_steps,
            truth_steps,
            agreement_steps,
        )
        for step in group(experiment)
    ]


def remember(path: Path, asked: Mapping[str, object]) -> None:
    """Record a folder's experiment, or compare it with the record.

    Raises :class:`UserError` if the folder holds another experiment, whose
    finished steps would otherwise be taken for this one's.
    """
    wanted = json.loads(json.dumps(asked))
    theirs = read_json(path) if path.exists() else wanted
    differing = [k for k in wanted if theirs.get(k) != wanted[k]]
    if differing:
        raise UserError(
            f"{path.parent} holds an experiment with other settings "
            f"({', '.join(differing)}); choose another folder with --out, or "
            "delete it"
        )
    if not path.exists():
        write_json(path, wanted)


def chosen_steps(steps: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """Return the named steps, or the whole experiment.

    Raises :class:`UserError` for an unknown name.
    """
    names = [step.name for step in steps]
    for name in only:
        if name not in names:
            raise UserError(
                f"no step {name!r}; known: {', '.join(names)}, ship"
            )
    if not only:
        return [step for step in steps if not step.by_name]
    return [step for step in steps if step.name in only]


@contextmanager
def threads_of_torch(n: int) -> Iterator[None]:
    """Let PyTorch compute on the CPU with ``n`` threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reproduce(
    steps: Sequence[Step],
    *,
    minutes: float | None = None,
    threads: int = 1,
    say: Callable[[str], object] = print,
) -> bool:
    """Run the unfinished steps; return whether all are finished.

    After ``minutes`` (also fractions) the work stops. Finished work is kept,
    and another call resumes. The number of ``threads`` changes the order of
    sums on the CPU, and thereby their rounding. A training amplifies this.
    One thread gives the same networks for any number of cores; steps that do
    not depend on each other may run side by side.
    """
    with time_limit(minutes), threads_of_torch(threads):
        try:
            for step in steps:
                if step.done:
                    continue
                check_time()
                say(f"== {step.name}: {step.does}")
                step.run()
        except OutOfTime:
            left = [step.name for step in steps if not step.done]
            say(
                f"The {minutes:g} minutes are over. All that was done is "
                "kept; the same command does the rest: " + ", ".join(left)
            )
            return False
    return True
