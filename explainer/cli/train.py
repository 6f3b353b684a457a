"""``explainer train classifier`` and ``explainer train explainer``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from explainer.checkpoints import load_classifier
from explainer.cli.options import (
    ClassifierAt,
    DataName,
    Device,
    Download,
    Limit,
    Out,
    Precision,
    PresetName,
    Root,
    Seed,
    Steps,
    Workers,
    changed_preset,
    check_classes,
    device_named,
)
from explainer.errors import UserError
from explainer.evaluation.jsonl import RowFile

app = typer.Typer(
    no_args_is_help=True,
    help="Train a classifier, then the Explainer of that classifier.",
)


def _report(folder: Path) -> None:
    """Print the last validation's scores, and the path of the weights."""
    rows = RowFile(folder / "metrics.jsonl").rows
    for name, value in rows[-1].items() if rows else ():
        shown = value if isinstance(value, str) else f"{value:.4g}"
        typer.echo(f"{name:>26} {shown}")
    typer.echo(f"weights in {folder / 'model.safetensors'}")


@app.command("classifier")
def train_classifier(
    out: Out,
    preset: PresetName = "scenes",
    data: DataName = None,
    root: Root = None,
    download: Download = False,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            help=(
                "'imagenet' (downloaded, or from a package), 'random', or "
                "a file with a state dict of the architecture."
            )
        ),
    ] = None,
    steps: Steps = None,
    precision: Precision = None,
    workers: Workers = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Train the classifier that is to be explained."""
    chosen = changed_preset(
        preset,
        data=data,
        steps=steps,
        seed=seed,
        precision=precision,
        workers=workers,
    )
    on = device_named(device)
    where: Any = {"root": root, "limit": limit, "download": download}
    run = chosen.train_classifier(
        out,
        chosen.load("train", **where),
        chosen.load("val", **where),
        initial_weights=initial_weights,
        device=on,
        notes={"preset": preset, "limit": limit},
    )
    _report(run)


@app.command("explainer")
def train_explainer(
    out: Out,
    preset: PresetName = "scenes",
    data: DataName = None,
    root: Root = None,
    download: Download = False,
    classifier: ClassifierAt = None,
    loss: Annotated[
        str,
        typer.Option(
            help="'explainer', the paper's loss, or 'rtis', the rival's."
        ),
    ] = "explainer",
    area_weight: Annotated[
        float | None,
        typer.Option(
            help="Another weight of the area in the loss 'rtis'.", min=0
        ),
    ] = None,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            help="'random' leaves out the ImageNet weights of a backbone "
            "that would have to be downloaded."
        ),
    ] = None,
    steps: Steps = None,
    precision: Precision = None,
    workers: Workers = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Train the Explainer of a classifier, from image labels alone."""
    chosen = changed_preset(
        preset,
        data=data,
        steps=steps,
        seed=seed,
        precision=precision,
        workers=workers,
    )
    on = device_named(device)
    if loss not in ("explainer", "rtis"):
        raise UserError(f"no loss {loss!r}; known: explainer, rtis")
    if initial_weights not in (None, "random"):
        raise UserError(
            "--initial-weights of an Explainer can only be 'random', not "
            f"{initial_weights!r}"
        )
    if area_weight is not None and loss != "rtis":
        raise UserError("--area-weight belongs to --loss rtis")
    if area_weight is not None:
        chosen = replace(chosen, rtis=replace(chosen.rtis, area=area_weight))
    where: Any = {"root": root, "limit": limit, "download": download}
    train = chosen.load("train", **where)
    explanandum = load_classifier(classifier or preset)
    check_classes(explanandum, train)
    run = chosen.train_explainer(
        out,
        explanandum,
        train,
        chosen.load("val", **where),
        loss=loss,
        initial_weights=initial_weights,
        device=on,
        notes={"preset": preset, "limit": limit},
    )
    _report(run)
