"""``explainer class-scores``: does a mask show its own class alone?"""

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
from explainer.evaluation.class_score_tables import class_score_tables
from explainer.evaluation.class_scores import diagonal_and_rest
from explainer.evaluation.scoreboard import contenders


def class_scores_command(
    methods: Methods = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between them; by default all classes."
        ),
    ] = None,
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
        typer.Option(
            help="The tables; methods that are in it are not run again."
        ),
    ] = Path("class_scores.json"),
    fill: FillName = None,
    budget: Budget = "reduced",
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Measure how well the masks of a class show that class alone."""
    chosen = changed_preset(preset, data, None, None)
    on = device_named(device)
    check_limit(limit)
    images = chosen.load(split, root=root, limit=None, download=download)
    explanandum = load_classifier(classifier or preset).to(on)
    check_classes(explanandum, images)
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
    tables = class_score_tables(
        rows,
        explanandum,
        images,
        out=json,
        classes=None
        if classes is None
        else [name.strip() for name in classes.split(",")],
        limit=limit,
        fill=fill_named(fill, chosen),
        seed=0 if seed is None else seed,
        notes={"preset": preset, "split": split, "budget": budget},
        progress=True,
    )
    typer.echo(" " * 24 + f"{'own class':>12}{'others':>12}")
    for name in rows:
        own, other = diagonal_and_rest(tables[name]["scores"])
        typer.echo(f"{name:<24}{score_cell(own, 12)}{score_cell(other, 12)}")
    typer.echo(f"tables in {json}")
