"""``explainer train classifier`` and ``explainer train explainer``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from explainer.checkpoints import load_classifier, load_explainer
from explainer.classifiers import build_classifier
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
    load_split,
)
from explainer.errors import UserError
from explainer.model import build_explainer, start_from
from explainer.training import (
    MaskedInputs,
    Run,
    fit_classifier,
    fit_explainer,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Train a classifier, then the Explainer of that classifier.",
)


def _report(run: Run) -> None:
    last = run.history[-1] if run.history else {}
    for name, value in last.items():
        typer.echo(f"{name:>26} {value:.4g}")
    typer.echo(f"weights in {run.weights}, card in {run.folder}/card.json")


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
    chosen = changed_preset(preset, data, steps, seed, precision, workers)
    on = device_named(device)
    train = load_split(chosen, "train", root, limit, download)
    val = load_split(chosen, "val", root, limit, download)
    default = "random" if chosen.classifier == "small_cnn" else "imagenet"
    initial: Any = initial_weights or default
    if initial not in ("random", "imagenet"):
        initial = Path(initial)
    torch.manual_seed(chosen.classifier_training.seed)
    classifier = build_classifier(chosen.classifier, train.classes, initial)
    if chosen.fine_tuned_from is not None:
        source = load_classifier(chosen.fine_tuned_from).classifier
        classifier.load_state_dict(source.state_dict())
    config: dict[str, Any] = {
        "preset": preset,
        "data": chosen.data,
        "limit": limit,
        "architecture": chosen.classifier,
        "initial_weights": chosen.fine_tuned_from
        or str(initial_weights or default),
        "classes": list(train.classes),
        "size": chosen.size,
    }
    if chosen.plain_training is not None:
        fit_classifier(
            classifier,
            train,
            val,
            chosen.plain_training,
            folder=out / "plain",
            config=config,
            masked_inputs=MaskedInputs(
                smoothing=chosen.masked_inputs.smoothing
            ),
            device=on,
        )
    run = fit_classifier(
        classifier,
        train,
        val,
        chosen.classifier_training,
        folder=out,
        config=config,
        masked_inputs=chosen.masked_inputs,
        device=on,
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
    scale: Annotated[
        float | None,
        typer.Option(
            help=(
                "Magnify images so many times before the encoder, instead "
                "of the preset's: the first steps can be cheap ones."
            ),
            min=0.25,
        ),
    ] = None,
    start_at: Annotated[
        str | None,
        typer.Option(
            "--start-from",
            help=(
                "Another Explainer, whose weights this one starts from: a "
                "run's folder, a checkpoint or a shipped one's name."
            ),
        ),
    ] = None,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            help=(
                "'random' leaves out the ImageNet weights of a backbone "
                "that would have to be downloaded."
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
    """Train the Explainer of a classifier, from image labels alone."""
    chosen = changed_preset(preset, data, steps, seed, precision, workers)
    on = device_named(device)
    if loss not in ("explainer", "rtis"):
        raise UserError(f"no loss {loss!r}; known: explainer, rtis")
    if area_weight is not None and loss != "rtis":
        raise UserError("--area-weight belongs to --loss rtis")
    if area_weight is not None:
        chosen = replace(chosen, rtis=replace(chosen.rtis, area=area_weight))
    train = load_split(chosen, "train", root, limit, download)
    val = load_split(chosen, "val", root, limit, download)
    explanandum = load_classifier(classifier or preset)
    check_classes(explanandum, train)
    torch.manual_seed(chosen.explainer_training.seed)
    shape = dict(chosen.explainer_options)
    if initial_weights == "random" and "pretrained_backbone" in shape:
        shape["pretrained_backbone"] = False
    if scale is not None:
        if "scale" not in shape:
            raise UserError(
                f"--scale: the Explainer of preset {preset} sees images at "
                "their own size only"
            )
        shape["scale"] = scale
    network = build_explainer(chosen.explainer, len(train.classes), **shape)
    older = start_at or chosen.fine_tuned_from
    if older is not None:
        source = load_explainer(older, train.classes, kind=loss)
        try:
            network.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise UserError(
                f"{older} is another network than the preset's "
                f"{chosen.explainer} with {shape}"
            ) from error
    elif chosen.encoder_from_classifier:
        start_from(network, explanandum)
    run = fit_explainer(
        network,
        explanandum,
        train,
        val,
        chosen.explainer_training,
        folder=out,
        config={
            "preset": preset,
            "data": chosen.data,
            "limit": limit,
            "architecture": chosen.explainer,
            "options": shape,
            "start_from": older,
            "classes": list(train.classes),
            "size": chosen.size,
        },
        device=on,
        **chosen.objective(loss),
    )
    _report(run)
