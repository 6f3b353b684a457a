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
    changed_preset,
    check_classes,
    check_limit,
    device_named,
    fill_named,
    names_in,
    score_lines,
)
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.methods import BUDGETS, contenders

COLUMNS = ("accuracy", "iou", "iou_50", "saliency", "mae", "seconds")


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
    chosen = changed_preset(preset, data=data)
    on = device_named(device)
    check_limit(limit)
    settings = Settings(
        targets=targets,  # type: ignore[arg-type]
        fill=fill_named(fill, chosen),
        seed=0 if seed is None else seed,
        steps=0 if budget == "trial" else 5,
    )
    test = chosen.load(split, root=root, download=download)
    explanandum = load_classifier(classifier or preset).to(on)
    check_classes(explanandum, test)
    rows = contenders(
        names_in(methods, "explainer"),
        preset=preset,
        classes=explanandum.classes,
        explainer=explainer,
        rtis=rtis,
        device=on,
        budget=BUDGETS[budget],
    )
    results = evaluate(
        rows,
        explanandum,
        test,
        out=json,
        settings=settings,
        notes={"preset": preset, "split": split, "budget": budget},
        limit=limit,
        progress=True,
    )
    means = {name: [results[name][c] for c in COLUMNS] for name in rows}
    typer.echo(score_lines(means, COLUMNS))
    quality = results["card"]["classifier_map"]
    if quality is not None:
        typer.echo(f"classifier's mean average precision: {quality:.4f}")
    typer.echo(f"results in {json}")
