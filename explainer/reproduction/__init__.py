"""An experiment from nothing to every file that the book reads.

:func:`steps_of` names the steps of an experiment, in their order. A step
leaves files; one whose files are there is not run again, and one that was
interrupted is resumed. So the same call, repeated, ends with everything in
place, and steps that do not need one another may run side by side.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from explainer.deadline import OutOfTime, check_time, time_limit
from explainer.errors import UserError
from explainer.files import read_json, write_json
from explainer.presets import PRESETS
from explainer.reproduction.cheating import cheating_steps
from explainer.reproduction.costs import cost_steps
from explainer.reproduction.experiment import Experiment, Step
from explainer.reproduction.networks import network_steps
from explainer.reproduction.rivals import rival_steps
from explainer.reproduction.shipping import ship
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
]


def preset_of(experiment: str, classifier: str | None) -> str:
    """Return the preset of an experiment and a classifier, by name.

    ``voc2007`` and ``coco2014`` come with two classifiers, of which one has
    to be named; the others with one.
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
    """Return the steps of an experiment, in their order, done or not."""
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
        )
        for step in group(experiment)
    ]


def remember(path: Path, asked: Mapping[str, object]) -> None:
    """Write down what a folder's experiment is, or compare it.

    Raises :class:`UserError` where the folder holds another one: a step
    that is done would not be done again, and its result would be taken for
    what is asked now.
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
    """Return the steps that are named, or all; UserError for no step."""
    names = [step.name for step in steps]
    for name in only:
        if name not in names:
            raise UserError(
                f"no step {name!r}; known: {', '.join(names)}, ship"
            )
    return [step for step in steps if not only or step.name in only]


def reproduce(
    steps: Sequence[Step],
    *,
    minutes: float | None = None,
    say: Callable[[str], object] = print,
) -> bool:
    """Run the steps that are not done; return whether all are done then.

    Where ``minutes`` (fractions too) are over, everything is kept and the
    rest is left for another call.
    """
    with time_limit(minutes):
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
