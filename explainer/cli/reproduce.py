"""``explainer reproduce``: from an empty disk to both tables."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from explainer.checkpoints import load_classifier, load_explainer
from explainer.cli.class_scores import class_scores_command
from explainer.cli.evaluate import evaluate_command
from explainer.cli.options import (
    Budget,
    DataName,
    Device,
    Limit,
    Methods,
    Precision,
    Root,
    Seed,
    Steps,
    Workers,
    budget_named,
    changed_preset,
    check_limit,
    device_named,
    load_split,
)
from explainer.cli.train import train_classifier, train_explainer
from explainer.data import LabelledImages, collate
from explainer.display import METHOD_TITLES
from explainer.figures import Picture, grid, strip
from explainer.files import write_atomically
from explainer.presets import Preset
from explainer.reproduce import (
    Step,
    archives,
    duration,
    measure_pace,
    preset_of,
    remember,
    steps_left,
    table_classes,
    table_seconds,
    training_seconds,
)
from explainer.scoreboard import (
    CONTROLS,
    DEAR,
    VARIANTS,
    methods_named,
    options_of,
)
from explainer.selection import Settings, select
from explainer.tables import (
    class_score_table,
    difference_table,
    methods_of,
    read_results,
    score_table,
    title,
)

PICTURED = 6
"""Images of the figure."""


@dataclass(frozen=True)
class Experiment:
    """What is asked for, and where it goes."""

    name: str
    preset: Preset
    folder: Path
    methods: Sequence[str]
    root: Path | None
    limit: int | None
    steps: int | None
    seed: int | None
    device: str
    initial_weights: str | None
    budget: str
    precision: str | None
    workers: int | None

    @property
    def trained(self) -> list[str]:
        """The losses that a network is trained with."""
        return ["explainer"] + ["rtis"] * ("rtis" in self.methods)

    @property
    def scored(self) -> list[str]:
        """The methods of the class-score table.

        Controls and public variants stand on the scoreboard alone. So, in a
        trial, do the methods that pay for each class anew: that they run is
        seen there.
        """
        left_out = (
            *CONTROLS,
            *VARIANTS,
            *(DEAR if self.budget == "trial" else ()),
        )
        return [m for m in self.methods if m not in left_out]

    def split(self, name: str, download: bool = False) -> LabelledImages:
        """Load a split of its data."""
        return load_split(self.preset, name, self.root, self.limit, download)

    def asked(self) -> dict[str, Any]:
        """Return what its results depend on."""
        return {
            "preset": self.name,
            "data": self.preset.data,
            "methods": list(self.methods),
            "limit": self.limit,
            "steps": self.steps,
            "seed": self.seed,
            "initial_weights": self.initial_weights,
            "budget": self.budget,
            "precision": self.precision,
        }


def _fetch(experiment: Experiment, leaves: Path) -> None:
    """Load every split once, which downloads what is missing."""
    lengths = {
        split: len(experiment.split(split, download=True))
        for split in ("train", "val", "test")
    }
    lines = [f"{split} {n} images\n" for split, n in lengths.items()]
    write_atomically(leaves, "".join(lines).encode())


def _save(picture: Picture, path: Path) -> None:
    """Write a figure as a PNG, whole."""
    content = BytesIO()
    picture.savefig(content, dpi=120)
    write_atomically(path, content.getvalue())


def _draw(experiment: Experiment, leaves: Path) -> None:
    """Draw class scores, and the networks' masks of a few test images."""
    test = experiment.split("test")
    folder = experiment.folder
    classifier = load_classifier(str(folder / "classifier"))
    chosen = select(classifier, test, Settings(), PICTURED).images
    batch = collate([test[image.index] for image in chosen])
    labels = batch.labels[:, :, None, None]
    columns = {"image": batch.images}
    for kind in experiment.trained:
        network = load_explainer(str(folder / kind), classifier.classes, kind)
        with torch.no_grad():
            masks = network(batch.images).sigmoid() * labels
        columns[METHOD_TITLES[kind]] = masks.amax(1, keepdim=True)
    scores = read_results(folder / "class_scores.json") or {}
    squares = {
        title(name): torch.tensor(
            [[v or 0 for v in row] for row in scores[name]["scores"]]
        )
        for name in methods_of(scores)
    }
    picture = strip(list(squares.values()), list(squares), columns=3)
    _save(picture, folder / "class_scores.png")
    _save(grid(columns, [image.name for image in chosen]), leaves)


def _score(leaves: Path, **options: Any) -> None:
    """Make the class-score tables; the file is there when all of them are."""
    growing = leaves.with_suffix(".part.json")
    class_scores_command(**options, json=growing)
    os.replace(growing, leaves)


def _tabulate(experiment: Experiment, leaves: Path) -> None:
    """Write both tables as text."""
    folder = experiment.folder
    board = read_results(folder / "scoreboard.json") or {}
    scores = read_results(folder / "class_scores.json") or {}
    card = board["card"]
    parts = [
        f"{experiment.name}, {card['n']} images, budget {experiment.budget}",
        f"commit {card['commit']}, {card['gpu'] or card['cpu']}, "
        f"{card['date']}",
        "\nMeans with 95% intervals",
        str(score_table(board)),
        "\nMinus the Explainer, image by image; * excludes zero",
        str(difference_table(board)),
    ]
    for name in methods_of(scores):
        table = scores[name]
        shown = class_score_table(table["scores"], table["columns"])
        parts += [f"\nClass scores in percent: {title(name)}", str(shown)]
    write_atomically(leaves, ("\n".join(parts) + "\n").encode())


def _times(experiment: Experiment) -> dict[str, str]:
    """Return an estimate of each step's time, in words."""
    preset = experiment.preset
    pace = measure_pace(preset, experiment.device)
    classify, explain = training_seconds(preset, pace)
    budget = budget_named(experiment.budget)
    board, scores = table_seconds(
        {
            m: options_of(m, experiment.name, budget)
            for m in experiment.methods
        },
        pace,
        len(table_classes(preset)),
    )
    return {
        "classifier": f"at most {duration(classify)}",
        "explainer": f"at most {duration(explain)}",
        "rtis": f"at most {duration(explain)}",
        "scoreboard": f"{duration(100 * board)} for 100 images",
        "class scores": f"{duration(100 * scores)} for 100 images",
    }


def _plan(experiment: Experiment, takes: Mapping[str, str]) -> list[Step]:
    """Return all steps of an experiment, done or not."""
    preset, folder = experiment.preset, experiment.folder
    common: dict[str, Any] = {
        "preset": experiment.name,
        "data": preset.data,
        "root": experiment.root,
        "limit": experiment.limit,
        "seed": experiment.seed,
        "device": experiment.device,
    }
    training: dict[str, Any] = {
        **common,
        "steps": experiment.steps,
        "initial_weights": experiment.initial_weights,
        "precision": experiment.precision,
        "workers": experiment.workers,
    }
    classifier = str(folder / "classifier")
    measuring: dict[str, Any] = {
        **common,
        "classifier": classifier,
        "budget": experiment.budget,
        **{kind: str(folder / kind) for kind in experiment.trained},
    }
    size = sum(archive.size for archive in archives(preset.data))
    fetch = f"download {size / 1e9:.1f} GB unless it is there"
    files = {
        "data": folder / "data.txt",
        "scoreboard": folder / "scoreboard.json",
        "class scores": folder / "class_scores.json",
        "figures": folder / "side_by_side.png",
        "tables": folder / "tables.txt",
    }
    runs = ("classifier", *experiment.trained)
    files |= {name: folder / name / "card.json" for name in runs}

    def step(name: str, does: str, run: Callable[[], object]) -> Step:
        return Step(name, does, files[name], run, takes.get(name, ""))

    return [
        step(
            "data",
            fetch if size else "draw the images",
            partial(_fetch, experiment, files["data"]),
        ),
        step(
            "classifier",
            f"train {preset.classifier}",
            partial(train_classifier, **training, out=folder / "classifier"),
        ),
        *(
            step(
                loss,
                f"train {preset.explainer} with the loss {loss!r}",
                partial(
                    train_explainer,
                    **training,
                    out=folder / loss,
                    classifier=classifier,
                    loss=loss,
                ),
            )
            for loss in experiment.trained
        ),
        step(
            "scoreboard",
            "measure every method on the test split",
            partial(
                evaluate_command,
                **measuring,
                methods=list(experiment.methods),
                json=files["scoreboard"],
            ),
        ),
        step(
            "class scores",
            "measure how well masks tell classes apart",
            partial(
                _score,
                files["class scores"],
                **measuring,
                methods=experiment.scored,
                classes=",".join(table_classes(preset)),
            ),
        ),
        step(
            "figures",
            "draw masks and class scores",
            partial(_draw, experiment, files["figures"]),
        ),
        step(
            "tables",
            "write both tables as text",
            partial(_tabulate, experiment, files["tables"]),
        ),
    ]


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
    data: DataName = None,
    root: Root = None,
    methods: Methods = None,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            help="As in explainer train classifier: 'random', or a file."
        ),
    ] = None,
    budget: Budget = "reduced",
    steps: Steps = None,
    precision: Precision = None,
    workers: Workers = None,
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
    budget_named(budget)
    check_limit(limit)
    wanted = methods_named(",".join(methods or ["all"]).split(","))
    this = Experiment(
        name,
        changed_preset(name, data, steps, seed, precision, workers),
        out or Path("runs") / f"reproduce-{name}",
        wanted,
        root,
        limit,
        steps,
        seed,
        device_named(device),
        initial_weights,
        budget,
        precision,
        workers,
    )
    plan = _plan(this, _times(this) if dry_run else {})
    if dry_run:
        for step in plan:
            state = "done" if step.done else step.takes
            typer.echo(f"{step.name:<14}{step.does:<48}{state}")
        typer.echo(
            "Times are estimates, from passes over random images on this "
            f"{this.device} just now; reading files is not in them."
        )
        return
    remember(this.folder / "experiment.json", this.asked())
    for step in steps_left(plan):
        typer.echo(f"== {step.name}: {step.does}")
        step.run()
    typer.echo(f"All of {name} is in {this.folder}.")
