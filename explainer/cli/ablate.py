"""``explainer ablate``: every term of the loss off in turn."""

from pathlib import Path
from typing import Annotated

import typer

from explainer.checkpoints import load_classifier
from explainer.cli.options import (
    ClassifierAt,
    Device,
    Download,
    PresetName,
    Root,
    changed_preset,
    check_classes,
    device_named,
    score_cell,
)
from explainer.errors import UnknownNameError, UserError
from explainer.evaluation.ablation import Ablation, ablate, short_training
from explainer.evaluation.variants import VARIANTS

VALIDATED = 100
"""Images of a validation, which here only tells how a run is going."""


def ablate_command(
    preset: PresetName = "scenes",
    root: Root = None,
    download: Download = False,
    classifier: ClassifierAt = None,
    seeds: Annotated[int, typer.Option(help="Trainings a variant.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps a training.")] = 250,
    variants: Annotated[
        str, typer.Option(help=f"A list with commas: {', '.join(VARIANTS)}.")
    ] = "all",
    out: Annotated[
        Path,
        typer.Option(help="The runs' folder; what was interrupted goes on."),
    ] = Path("runs/ablation"),
    json: Annotated[
        Path | None,
        typer.Option(help="By default book/results/ablation_PRESET.json."),
    ] = None,
    device: Device = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Only the first so many images of each split."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take.")
    ] = False,
) -> None:
    """Train the Explainer without each term of its loss, and measure it."""
    chosen = changed_preset(preset, None, steps, None)
    on = device_named(device)
    names = list(VARIANTS) if variants == "all" else variants.split(",")
    for name in names:
        if name not in VARIANTS:
            raise UnknownNameError("variant", name, VARIANTS)
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {seeds}")
    train = chosen.load("train", root=root, limit=limit, download=download)
    few = VALIDATED if limit is None else limit
    explanandum = load_classifier(classifier or preset)
    check_classes(explanandum, train)
    experiment = Ablation(
        chosen,
        explanandum,
        train,
        chosen.load(
            "val", root=root, limit=min(few, VALIDATED), download=download
        ),
        chosen.load("test", root=root, limit=limit, download=download),
        short_training(chosen, steps),
        out,
        on,
    )
    if dry_run:
        for name in names:
            typer.echo(f"{name:<27}{', '.join(VARIANTS[name])}")
        seconds = len(names) * seeds * steps * experiment.seconds_per_step()
        typer.echo(
            f"{len(names)} variants x {seeds} seeds x {steps} steps: about "
            f"{seconds / 60:.0f} minutes on this machine, measuring apart"
        )
        return
    path = json or Path("book/results") / f"ablation_{preset}.json"
    notes = {"preset": preset}
    results = ablate(
        experiment,
        path,
        seeds=dict.fromkeys(names, seeds),
        notes=notes,
        progress=True,
    )
    columns = ("iou", "iou_50", "mae", "accuracy", "saliency", "target_area")
    typer.echo(" " * 27 + "".join(f"{c:>12}" for c in columns))
    for name in names:
        means = [results["variants"][name][c]["mean"] for c in columns]
        typer.echo(f"{name:<27}" + "".join(score_cell(v, 12) for v in means))
    typer.echo(f"results in {path}")
