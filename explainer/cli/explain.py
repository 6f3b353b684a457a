"""``explainer explain``: one's own pictures."""

from pathlib import Path
from typing import Annotated

import typer

from explainer.checkpoints import load
from explainer.cli.options import (
    ClassifierAt,
    Device,
    ExplainerAt,
    PresetName,
    device_named,
)
from explainer.explain import explain_photos
from explainer.files import write_json


def explain_command(
    photos: Annotated[
        list[Path], typer.Argument(help="Pictures or folders.")
    ],
    preset: PresetName = "animals",
    classifier: ClassifierAt = None,
    explainer: ExplainerAt = None,
    out: Annotated[
        Path, typer.Option("--out", help="Where the pictures go.")
    ] = Path("explained"),
    json: Annotated[
        Path | None, typer.Option(help="Write what was found here, too.")
    ] = None,
    device: Device = None,
) -> None:
    """Explain one's own pictures: an overlay and a mask per class found."""
    on = device_named(device)
    pair = load(preset, classifier=classifier, explainer=explainer)
    pair.classifier.to(on)
    pair.network.to(on)
    found = explain_photos(pair, photos, out)
    for record in found:
        names = ", ".join(record["found"]) or "none of the classes"
        typer.echo(f"{record['photo']}: {names}")
    if json is not None:
        write_json(json, found)
