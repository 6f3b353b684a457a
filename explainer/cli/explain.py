"""``explainer explain``, ``methods`` and ``models``, for own pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from explainer.attribution import METHODS
from explainer.checkpoints import Pair, load, load_classifier, load_explainer
from explainer.cli.options import (
    ClassifierAt,
    Device,
    ExplainerAt,
    PresetName,
    device_named,
)
from explainer.data import DataError
from explainer.data.pictures import named_pictures
from explainer.errors import UserError
from explainer.explanation import check_stems, explain_each, named_model
from explainer.files import write_json
from explainer.presets import PRESETS


def _model(
    model: str | None,
    preset: str,
    classifier: str | None,
    explainer: str | None,
    method: str | None,
) -> Pair | nn.Module:
    """Return the model, loaded once for all pictures."""
    if model is not None:
        if classifier or explainer:
            raise UserError("--model stands for itself; leave the others out")
        return named_model(model)
    if method in (None, "explainer"):
        return load(preset, classifier=classifier, explainer=explainer)
    return load_classifier(classifier or preset)


def explain_command(
    photos: Annotated[
        list[Path], typer.Argument(help="Pictures or folders.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help=(
                "torchvision/NAME, timm/NAME, a run's folder or a shipped "
                "pair: see explainer models."
            )
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=(
                "See explainer methods; by default the model's Explainer, "
                "or else grad_cam."
            )
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help=(
                "A class's name or number; may be given several times. By "
                "default what the classifier finds."
            ),
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="Explain the so many likeliest classes.", min=1),
    ] = None,
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Draw heat, not outlines.")
    ] = False,
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
    """Explain one's own pictures: an overlay and a mask per class."""
    on = device_named(device)
    opened = _model(model, preset, classifier, explainer, method)
    modules = opened if isinstance(opened, nn.Module) else opened.classifier
    modules.to(on)
    if isinstance(opened, Pair):
        opened.network.to(on)
    options: dict[str, Any] = {"method": method, "top": top}
    if method == "rtis":
        classes = getattr(opened, "classes", None)
        network = load_explainer(
            explainer or model or preset, classes, method
        )
        options["network"] = network.to(on)
    if target:
        options["target"] = [int(t) if t.isdecimal() else t for t in target]
    files = [name for name, _ in named_pictures(photos)[0]]
    check_stems(files)
    records, bad = [], []
    for result in explain_each(photos, opened, **options):
        if isinstance(result, DataError):
            bad.append(str(result))
            continue
        records.append(result.save(out, heatmap=heatmap))
        names = ", ".join(result.classes) or "none of the classes"
        typer.echo(f"{result.photo}: {names}")
    if json is not None and records:
        write_json(json, records)
    if len(files) == 1 and bad:
        raise DataError(bad[0])
    if bad:
        raise DataError(
            f"{len(bad)} of {len(files)} pictures could not be explained: "
            + "; ".join(bad)
        )


def methods_command() -> None:
    """List the attribution methods."""
    typer.echo(repr(METHODS))


def models_command() -> None:
    """List the models that explain knows by name."""
    import timm  # late: the import takes a second
    import torchvision

    libraries = {
        "torchvision": torchvision.models.list_models(
            module=torchvision.models
        ),
        "timm": timm.list_models(),
    }
    for name in PRESETS:
        typer.echo(name)
    for library, models in libraries.items():
        for name in models:
            typer.echo(f"{library}/{name}")
