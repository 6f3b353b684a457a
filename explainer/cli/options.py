"""Options that several commands share, and the checks of their values."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from explainer.classifiers import Frozen
from explainer.data import LabelledImages
from explainer.errors import UnknownNameError, UserError
from explainer.masks import FILLS
from explainer.presets import PRESETS, Preset

PRECISIONS = ("no", "bf16", "fp16")

PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        help=f"The experiment: {', '.join(PRESETS)}.",
    ),
]
DataName = Annotated[
    str | None,
    typer.Option("--data", help="Other data than the preset's."),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="The folder that contains VOCdevkit/, or COCO's coco2014/ (or "
        "set EXPLAINER_DATA).",
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the data if need be.")
]
Seed = Annotated[int | None, typer.Option(help="Another seed.")]
Device = Annotated[
    str | None,
    typer.Option(help="cpu or cuda; by default the best there is."),
]
Limit = Annotated[
    int | None, typer.Option(help="Only the first so many images.")
]
Steps = Annotated[
    int | None,
    typer.Option(help="Steps of each training and of each of its stages."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="'bf16' or 'fp16' speeds up the training on a GPU; 'no' is not "
        "mixed."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes that read images for the training; 0 is none.",
        min=0,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", help="The run's folder; an interrupted run in it is resumed."
    ),
]
ClassifierAt = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help="A run's folder or a checkpoint; by default the shipped one.",
    ),
]
ExplainerAt = Annotated[
    str | None,
    typer.Option(
        "--explainer",
        help="A run's folder or a checkpoint of the Explainer.",
    ),
]
RTISAt = Annotated[
    str | None,
    typer.Option("--rtis", help="A run's folder or a checkpoint of RTIS."),
]
Split = Annotated[str, typer.Option("--split", help="train, val or test.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--methods",
        help=(
            "'all', or a method's name; may be given several times, or as "
            "a list with commas."
        ),
    ),
]

Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        help=(
            "How long RISE, EP and iGOS++ may take: 'full' is the authors', "
            "'reduced' what a CPU can pay, 'trial' shows that all runs."
        ),
    ),
]
FillName = Annotated[
    str | None,
    typer.Option(
        "--fill",
        help=(
            f"What takes the place of hidden pixels: {', '.join(FILLS)}; by "
            "default what the preset trains with."
        ),
    ),
]


def fill_named(name: str | None, preset: Preset) -> str:
    """Return a fill's name, the preset's by default; refuse unknown names."""
    fill = name or preset.fill
    FILLS.check(fill)
    return fill


def names_in(given: Sequence[str] | None, *default: str) -> list[str]:
    """Return the names in an option's values, which commas may separate."""
    names = ",".join(default if given is None else given).split(",")
    return [name.strip() for name in names if name.strip()]


def device_named(name: str | None) -> str:
    """Return the device to use; refuse one that is not available."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"no device {name!r}; known: cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "there is no CUDA device here; leave --device out, or use "
            "--device cpu"
        )
    return name


def check_limit(limit: int | None) -> None:
    """Refuse a limit that leaves no image."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1, not {limit}")


def changed_preset(
    name: str,
    *,
    data: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    precision: str | None = None,
    workers: int | None = None,
) -> Preset:
    """Return a preset with the changes asked for on the command line."""
    preset = PRESETS[name]
    if steps is not None and steps < 1:
        raise UserError(f"--steps must be at least 1, not {steps}")
    if precision is not None and precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    asked: dict[str, Any] = {
        "steps": steps,
        "seed": seed,
        "mixed_precision": precision,
        "workers": workers,
    }
    changes = {k: v for k, v in asked.items() if v is not None}
    plain = preset.plain_training
    return replace(
        preset,
        data=data or preset.data,
        plain_training=plain and replace(plain, **changes),
        classifier_training=replace(preset.classifier_training, **changes),
        explainer_training=replace(preset.explainer_training, **changes),
        stages=tuple(
            replace(stage, steps=steps or stage.steps)
            for stage in preset.stages
        ),
    )


def check_classes(classifier: Frozen, data: LabelledImages) -> None:
    """Refuse a classifier whose classes are not the data's."""
    if classifier.classes != data.classes:
        raise UserError(
            f"the classifier knows {', '.join(classifier.classes)}, the "
            f"data {', '.join(data.classes)}; they must be the same"
        )


def score_lines(
    rows: Mapping[str, Sequence[float | None]],
    headings: Sequence[str],
    width: int = 12,
) -> str:
    """Return scores as the commands print them, a line per row.

    A score that no image defines (None or NaN) is printed as "undefined".
    """
    first = 2 + max(map(len, rows))
    lines = [" " * first + "".join(h.rjust(width) for h in headings)]
    for name, values in rows.items():
        cells = [
            "undefined" if v is None or v != v else f"{v:.3f}" for v in values
        ]
        lines.append(
            name.ljust(first) + "".join(c.rjust(width) for c in cells)
        )
    return "\n".join(lines)
