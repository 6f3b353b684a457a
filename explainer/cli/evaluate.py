"""``explainer evaluate``: the scoreboard."""

from pathlib import Path
from typing import Annotated

import typer

from explainer.checkpoints import load_classifier
from explainer.cli.options import (
    Budget,
    ClassifierAt,
    DataName,
    Device,
    Download,
    ExplainerAt,
    FillName,
    Limit,
    Methods,
    PresetName,
    Root,
    RTISAt,
    Seed,
    Split,
    budget_named,
    changed_preset,
    check_classes,
    check_limit,
    device_named,
    fill_named,
    score_cell,
)
from explainer.data import First
from explainer.errors import UserError
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.scoreboard import contenders
from explainer.training import logits_of, mean_average_precision


def evaluate_command(
    methods: Methods = None,
    preset: PresetName = "scenes",
    data: DataName = None,
    root: Root = None,
    split: Split = "test",
    download: Download = False,
    classifier: ClassifierAt = None,
    explainer: ExplainerAt = None,
    rtis: RTISAt = None,
    json: Annotated[
        Path,
        typer.Option(help="The results; rows go to a .jsonl beside it."),
    ] = Path("results.json"),
    targets: Annotated[
        str,
        typer.Option(help="Explain the 'labels' or the 'predicted' classes."),
    ] = "labels",
    fill: FillName = None,
    budget: Budget = "reduced",
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Measure explanations against the truth and against each other."""
    chosen = changed_preset(preset, data, None, None)
    on = device_named(device)
    if targets not in ("labels", "predicted"):
        raise UserError(f"no targets {targets!r}; known: labels, predicted")
    check_limit(limit)
    test = chosen.load(split, root=root, limit=None, download=download)
    explanandum = load_classifier(classifier or preset).to(on)
    check_classes(explanandum, test)
    names = ",".join(methods or ["explainer"]).split(",")
    rows = contenders(
        names,
        preset=preset,
        classes=explanandum.classes,
        explainer=explainer,
        rtis=rtis,
        device=on,
        budget=budget_named(budget),
    )
    first = test if limit is None else First(test, limit)
    quality = mean_average_precision(
        *logits_of(explanandum, first, device=on)
    )
    results = evaluate(
        rows,
        explanandum,
        test,
        out=json,
        settings=Settings(
            targets=targets,  # type: ignore[arg-type]
            fill=fill_named(fill, chosen),
            seed=0 if seed is None else seed,
            steps=0 if budget == "trial" else 5,
        ),
        notes={
            "preset": preset,
            "split": split,
            "budget": budget,
            "classifier_map": quality,
        },
        limit=limit,
        progress=True,
    )
    columns = ("accuracy", "iou", "iou_50", "saliency", "mae", "seconds")
    typer.echo(" " * 24 + "".join(f"{c:>10}" for c in columns))
    for name in rows:
        values = "".join(score_cell(results[name][c], 10) for c in columns)
        typer.echo(f"{name:<24}{values}")
    typer.echo(f"classifier's mean average precision: {quality:.4f}")
    typer.echo(f"results in {json}")
