"""``explainer class-scores``: does a mask show only its own class?"""

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
from explainer.evaluation.class_scores import (
    class_score_tables,
    diagonal_and_rest,
)
from explainer.evaluation.methods import BUDGETS, contenders


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
        typer.Option(help="The tables; methods that are in it are kept."),
    ] = Path("class_scores.json"),
    fill: FillName = None,
    budget: Budget = "reduced",
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Measure how well the masks of a class show that class alone."""
    chosen = changed_preset(preset, data=data)
    on = device_named(device)
    check_limit(limit)
    images = chosen.load(split, root=root, download=download)
    explanandum = load_classifier(classifier or preset).to(on)
    check_classes(explanandum, images)
    rows = contenders(
        names_in(methods, "explainer"),
        preset=preset,
        classes=explanandum.classes,
        explainer=explainer,
        rtis=rtis,
        device=on,
        budget=BUDGETS[budget],
    )
    tables = class_score_tables(
        rows,
        explanandum,
        images,
        out=json,
        classes=None if classes is None else names_in([classes]),
        limit=limit,
        fill=fill_named(fill, chosen),
        seed=0 if seed is None else seed,
        notes={"preset": preset, "split": split, "budget": budget},
        progress=True,
    )
    means = {name: diagonal_and_rest(tables[name]["scores"]) for name in rows}
    typer.echo(score_lines(means, ("own class", "others")))
    typer.echo(f"tables in {json}")
