"""The command line: ``explainer train | evaluate | explain``."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from explainer.attribution.rtis import RTISWeights, rtis_loss
from explainer.checkpoints import load, load_classifier
from explainer.classifiers import Frozen, build_classifier
from explainer.data import First, LabelledImages, load_data
from explainer.errors import UserError
from explainer.evaluation import evaluate
from explainer.explain import explain_photos
from explainer.files import write_json
from explainer.model import build_explainer, start_from
from explainer.presets import PRESETS, Preset, get_preset
from explainer.scoreboard import contenders
from explainer.selection import Settings
from explainer.training import (
    MaskedInputs,
    Run,
    fit_classifier,
    fit_explainer,
    mean_average_precision,
    predict,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=(
        "Learn to explain a classifier, explain pictures with it, and "
        "measure explanations."
    ),
)
train_app = typer.Typer(
    no_args_is_help=True,
    help="Train a classifier, then the Explainer of that classifier.",
)
app.add_typer(train_app, name="train")

PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        help=f"The experiment: {', '.join(PRESETS)}.",
    ),
]
DataName = Annotated[
    str | None,
    typer.Option("--data", help="Other data than the preset's."),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="The folder that contains VOCdevkit/ (or set EXPLAINER_DATA).",
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the data if need be.")
]
Seed = Annotated[int | None, typer.Option(help="Another seed.")]
Device = Annotated[
    str | None,
    typer.Option(help="cpu or cuda; by default the best there is."),
]
Limit = Annotated[
    int | None, typer.Option(help="Only the first so many images.")
]
Steps = Annotated[
    int | None,
    typer.Option(help="Another number of steps than the preset's."),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", help="The run's folder; an interrupted run in it goes on."
    ),
]
ClassifierAt = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help="A run's folder or a checkpoint; by default the shipped one.",
    ),
]


def _device(name: str | None) -> str:
    """Return the device to use; refuse one that is not there."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"no device {name!r}; known: cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "there is no CUDA device here; leave --device out, or use "
            "--device cpu"
        )
    return name


def _preset(
    name: str, data: str | None, steps: int | None, seed: int | None
) -> Preset:
    """Return a preset with what the command line changes."""
    preset = get_preset(name)
    changes: dict[str, Any] = {}
    if steps is not None:
        if steps < 1:
            raise UserError(f"--steps must be at least 1, not {steps}")
        changes |= {"steps": steps}
    if seed is not None:
        changes |= {"seed": seed}
    plain = preset.plain_training
    return replace(
        preset,
        data=data or preset.data,
        plain_training=None if plain is None else replace(plain, **changes),
        classifier_training=replace(preset.classifier_training, **changes),
        explainer_training=replace(preset.explainer_training, **changes),
    )


def _load_split(
    preset: Preset,
    split: str,
    root: Path | None,
    limit: int | None,
    download: bool = False,
) -> LabelledImages:
    return load_data(
        preset.data,
        split,
        root=root,
        size=preset.size,
        classes=preset.classes,
        limit=limit,
        download=download,
    )


def _check_classes(classifier: Frozen, data: LabelledImages) -> None:
    """Refuse a classifier for other classes than the data's."""
    if classifier.classes != data.classes:
        raise UserError(
            f"the classifier knows {', '.join(classifier.classes)}, the "
            f"data {', '.join(data.classes)}; they must be the same"
        )


def _report(run: Run) -> None:
    last = run.history[-1] if run.history else {}
    for name, value in last.items():
        typer.echo(f"{name:>26} {value:.4g}")
    typer.echo(f"weights in {run.weights}, card in {run.folder}/card.json")


@train_app.command("classifier")
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
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Train the classifier that is to be explained."""
    chosen = _preset(preset, data, steps, seed)
    on = _device(device)
    train = _load_split(chosen, "train", root, limit, download)
    val = _load_split(chosen, "val", root, limit, download)
    default = "random" if chosen.classifier == "small_cnn" else "imagenet"
    initial: Any = initial_weights or default
    if initial not in ("random", "imagenet"):
        initial = Path(initial)
    torch.manual_seed(chosen.classifier_training.seed)
    classifier = build_classifier(chosen.classifier, train.classes, initial)
    config: dict[str, Any] = {
        "preset": preset,
        "data": chosen.data,
        "limit": limit,
        "architecture": chosen.classifier,
        "initial_weights": str(initial_weights or default),
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
    if chosen.thaw:
        classifier.thaw()
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


@train_app.command("explainer")
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
    steps: Steps = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Train the Explainer of a classifier, from image labels alone."""
    chosen = _preset(preset, data, steps, seed)
    on = _device(device)
    if loss not in ("explainer", "rtis"):
        raise UserError(f"no loss {loss!r}; known: explainer, rtis")
    train = _load_split(chosen, "train", root, limit, download)
    val = _load_split(chosen, "val", root, limit, download)
    explanandum = load_classifier(classifier or preset)
    _check_classes(explanandum, train)
    torch.manual_seed(chosen.explainer_training.seed)
    network = build_explainer(
        chosen.explainer, len(train.classes), **chosen.explainer_options
    )
    if chosen.encoder_from_classifier:
        start_from(network, explanandum)
    options: dict[str, Any] = (
        {"weights": chosen.weights, "fill": chosen.fill}
        if loss == "explainer"
        else {"weights": RTISWeights(), "loss": rtis_loss}
    )
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
            "options": chosen.explainer_options,
            "classes": list(train.classes),
            "size": chosen.size,
        },
        device=on,
        **options,
    )
    _report(run)


@app.command("evaluate")
def evaluate_command(
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            help=(
                "'all', or a method's name; may be given several times, or "
                "as a list with commas."
            ),
        ),
    ] = None,
    preset: PresetName = "scenes",
    data: DataName = None,
    root: Root = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    download: Download = False,
    classifier: ClassifierAt = None,
    explainer: Annotated[
        str | None,
        typer.Option(help="A run's folder or a checkpoint of the Explainer."),
    ] = None,
    rtis: Annotated[
        str | None,
        typer.Option(help="A run's folder or a checkpoint of RTIS."),
    ] = None,
    json: Annotated[
        Path,
        typer.Option(help="The results; rows go to a .jsonl beside it."),
    ] = Path("results.json"),
    targets: Annotated[
        str,
        typer.Option(help="Explain the 'labels' or the 'predicted' classes."),
    ] = "labels",
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
) -> None:
    """Measure explanations against the truth and against each other."""
    chosen = _preset(preset, data, None, None)
    on = _device(device)
    if targets not in ("labels", "predicted"):
        raise UserError(f"no targets {targets!r}; known: labels, predicted")
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1, not {limit}")
    test = _load_split(chosen, split, root, None, download)
    explanandum = load_classifier(classifier or preset).to(on)
    _check_classes(explanandum, test)
    names = ",".join(methods or ["explainer"]).split(",")
    rows = contenders(
        names,
        preset=preset,
        classes=explanandum.classes,
        explainer=explainer,
        rtis=rtis,
        device=on,
    )
    first = test if limit is None else First(test, limit)
    quality = mean_average_precision(*predict(explanandum, first, device=on))
    results = evaluate(
        rows,
        explanandum,
        test,
        out=json,
        settings=Settings(
            targets=targets,  # type: ignore[arg-type]
            fill=chosen.fill,
            seed=0 if seed is None else seed,
            steps=5,
        ),
        notes={"preset": preset, "split": split, "classifier_map": quality},
        limit=limit,
        progress=True,
    )
    columns = ("accuracy", "iou", "iou_50", "saliency", "mae", "seconds")
    typer.echo(" " * 24 + "".join(f"{c:>10}" for c in columns))
    for name in rows:
        values = "".join(f"{results[name][c]:>10.3f}" for c in columns)
        typer.echo(f"{name:<24}{values}")
    typer.echo(f"classifier's mean average precision: {quality:.4f}")
    typer.echo(f"results in {json}")


@app.command("explain")
def explain_command(
    photos: Annotated[
        list[Path], typer.Argument(help="Pictures or folders.")
    ],
    preset: PresetName = "animals",
    classifier: ClassifierAt = None,
    explainer: Annotated[
        str | None,
        typer.Option(help="A run's folder or a checkpoint of the Explainer."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Where the pictures go.")
    ] = Path("explained"),
    json: Annotated[
        Path | None, typer.Option(help="Write what was found here, too.")
    ] = None,
    device: Device = None,
) -> None:
    """Explain one's own pictures: an overlay and a mask per class found."""
    on = _device(device)
    pair = load(preset, classifier=classifier, explainer=explainer)
    pair.classifier.to(on)
    pair.network.to(on)
    found = explain_photos(pair, photos, out)
    for record in found:
        names = ", ".join(record["found"]) or "none of the classes"
        typer.echo(f"{record['photo']}: {names}")
    if json is not None:
        write_json(json, found)


def main() -> None:
    """Run the command line; what a user can mend ends in one sentence."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        typer.echo(
            f"error: cannot read or write{where}: {error.strerror or error}",
            err=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
