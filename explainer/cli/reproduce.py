"""``explainer reproduce``: from an empty disk to both tables."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from explainer.checkpoints import load_classifier, load_explainer
from explainer.cli.class_scores import class_scores_command
from explainer.cli.evaluate import evaluate_command
from explainer.cli.options import (
    Device,
    Limit,
    Methods,
    Root,
    Seed,
    Steps,
    changed_preset,
    device_named,
    load_split,
)
from explainer.cli.train import train_classifier, train_explainer
from explainer.data import collate
from explainer.figures import grid
from explainer.files import write_atomically
from explainer.presets import Preset
from explainer.reproduce import (
    Step,
    archives,
    preset_of,
    steps_left,
    training_seconds,
)
from explainer.selection import Settings, select

PICTURED = 6
"""Images of the figure."""


def _fetch(
    preset: Preset, root: Path | None, limit: int | None, leaves: Path
) -> None:
    """Load every split once, which downloads what is missing."""
    lengths = {
        split: len(load_split(preset, split, root, limit, download=True))
        for split in ("train", "val", "test")
    }
    lines = [f"{split} {n} images\n" for split, n in lengths.items()]
    write_atomically(leaves, "".join(lines).encode())


def _draw(
    preset: Preset,
    root: Path | None,
    limit: int | None,
    folder: Path,
    leaves: Path,
) -> None:
    """Draw the masks of both trained networks for a few test images."""
    test = load_split(preset, "test", root, limit)
    classifier = load_classifier(str(folder / "classifier"))
    chosen = select(classifier, test, Settings(), PICTURED).images
    batch = collate([test[image.index] for image in chosen])
    labels = batch.labels[:, :, None, None]
    columns = {"image": batch.images}
    for kind in ("explainer", "rtis"):
        network = load_explainer(str(folder / kind), classifier.classes, kind)
        masks = network(batch.images).sigmoid() * labels
        columns[kind] = masks.amax(1, keepdim=True).detach()
    picture = grid(columns, [image.name for image in chosen])
    leaves.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(leaves, dpi=120)


def _plan(
    name: str,
    preset: Preset,
    folder: Path,
    methods: list[str],
    *,
    root: Path | None,
    limit: int | None,
    steps: int | None,
    seed: int | None,
    device: str,
    initial_weights: str | None,
    estimate: bool,
) -> list[Step]:
    """Return all steps of an experiment, done or not."""
    times = training_seconds(preset, device) if estimate else (None, None)
    common: dict[str, Any] = {
        "preset": name,
        "root": root,
        "limit": limit,
        "seed": seed,
        "device": device,
    }
    classifier = str(folder / "classifier")
    trained: dict[str, Any] = {
        "classifier": classifier,
        "explainer": str(folder / "explainer"),
        "rtis": str(folder / "rtis"),
        "methods": methods,
    }

    def networks(loss: str) -> Callable[[], object]:
        return partial(
            train_explainer,
            **common,
            out=folder / loss,
            classifier=classifier,
            loss=loss,
            steps=steps,
            initial_weights=initial_weights,
        )

    size = sum(archive.size for archive in archives(preset.data))
    tables = folder / "scoreboard.json", folder / "class_scores.json"
    return [
        Step(
            "data",
            f"download {size / 1e9:.1f} GB unless it is there"
            if size
            else "draw the images",
            folder / "data.txt",
            partial(_fetch, preset, root, limit, folder / "data.txt"),
        ),
        Step(
            "classifier",
            f"train {preset.classifier}",
            folder / "classifier" / "card.json",
            partial(
                train_classifier,
                **common,
                out=folder / "classifier",
                steps=steps,
                initial_weights=initial_weights,
            ),
            times[0],
        ),
        Step(
            "explainer",
            f"train {preset.explainer} with the paper's loss",
            folder / "explainer" / "card.json",
            networks("explainer"),
            times[1],
        ),
        Step(
            "rtis",
            f"train {preset.explainer} with the loss of RTIS",
            folder / "rtis" / "card.json",
            networks("rtis"),
            times[1],
        ),
        Step(
            "scoreboard",
            "measure every method on the test split",
            tables[0],
            partial(evaluate_command, **common, **trained, json=tables[0]),
        ),
        Step(
            "class scores",
            "measure how well masks tell classes apart",
            tables[1],
            partial(
                class_scores_command, **common, **trained, json=tables[1]
            ),
        ),
        Step(
            "figure",
            "draw the masks of a few test images",
            folder / "side_by_side.png",
            partial(
                _draw,
                preset,
                root,
                limit,
                folder,
                folder / "side_by_side.png",
            ),
        ),
    ]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 5400:
        return f"at most {seconds / 60:.0f} min"
    return f"at most {seconds / 3600:.1f} h"


def reproduce_command(
    experiment: Annotated[
        str,
        typer.Argument(help="scenes, animals, voc2007 or coco2014."),
    ],
    classifier: Annotated[
        str | None,
        typer.Option(
            "--classifier", help="vgg16 or resnet50, for the paper's data."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder; by default runs/EXPERIMENT."),
    ] = None,
    root: Root = None,
    methods: Methods = None,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            help="As in explainer train classifier: 'random', or a file."
        ),
    ] = None,
    steps: Steps = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take.")
    ] = False,
) -> None:
    """Run an experiment from an empty disk to both tables.

    Interrupted, the same command goes on where it was.
    """
    name = preset_of(experiment, classifier)
    preset = changed_preset(name, None, steps, seed)
    folder = out or Path("runs") / f"reproduce-{name}"
    on = device_named(device)
    plan = _plan(
        name,
        preset,
        folder,
        methods or ["all"],
        root=root,
        limit=limit,
        steps=steps,
        seed=seed,
        device=on,
        initial_weights=initial_weights,
        estimate=dry_run,
    )
    if dry_run:
        for step in plan:
            state = "done" if step.done else _duration(step.seconds)
            typer.echo(f"{step.name:<14}{step.does:<48}{state}")
        typer.echo(
            f"Times: a step on random images, measured on this {on} just now."
        )
        return
    for step in steps_left(plan):
        typer.echo(f"== {step.name}: {step.does}")
        step.run()
    typer.echo(f"All of {name} is in {folder}.")
