"""``explainer ablate``: each term of the loss turned off in turn."""

from pathlib import Path
from typing import Annotated, Any

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
    names_in,
    score_lines,
)
from explainer.data import First
from explainer.evaluation.ablation import (
    VARIANTS,
    Ablation,
    ablate,
    shortened,
)

VALIDATED = 100
"""The number of images per validation, which only shows progress here."""

COLUMNS = ("iou", "iou_50", "mae", "accuracy", "saliency", "target_area")


def ablate_command(
    preset: PresetName = "scenes",
    root: Root = None,
    download: Download = False,
    classifier: ClassifierAt = None,
    seeds: Annotated[int, typer.Option(help="Trainings per variant.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps per training.")] = 250,
    variants: Annotated[
        str, typer.Option(help=f"A list with commas: {', '.join(VARIANTS)}.")
    ] = "all",
    out: Annotated[
        Path,
        typer.Option(
            help="The runs' folder; what was interrupted is resumed."
        ),
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
) -> None:
    """Train the Explainer without each term of its loss, and measure it."""
    chosen = changed_preset(preset, steps=steps)
    on = device_named(device)
    names = list(VARIANTS) if variants == "all" else names_in([variants])
    VARIANTS.check(*names)  # before data are loaded
    where: Any = {"root": root, "limit": limit, "download": download}
    train = chosen.load("train", **where)
    explanandum = load_classifier(classifier or preset)
    check_classes(explanandum, train)
    path = json or Path("book/results") / f"ablation_{preset}.json"
    results = ablate(
        Ablation(
            shortened(chosen, steps),
            explanandum,
            train,
            First(chosen.load("val", **where), VALIDATED),
            chosen.load("test", **where),
            out,
            on,
        ),
        path,
        seeds=dict.fromkeys(names, seeds),
        notes={"preset": preset},
        progress=True,
    )
    rows = {
        name: [results["variants"][name][c]["mean"] for c in COLUMNS]
        for name in names
    }
    typer.echo(score_lines(rows, COLUMNS))
    typer.echo(f"results in {path}")
