"""The animals at the paper's size, within half an hour on a GPU.

    python tools/gpu_session.py OUT [--root DATA] [--minutes 9]

Call it again and again, say in slices of ten minutes, until it says that all
is done: it stops by itself after ``--minutes`` and goes on where it was. Into
OUT go

- ``plan.json``: the pace of a training step on this machine, and how many
  steps of both trainings fit into ``--train-minutes``;
- ``explainer/``, ``rtis/``: the runs of DeepLabv3-ResNet50 at 224 x 224 on
  all training photographs, with the shipped EfficientNet-Lite0 as classifier
  (``model.safetensors`` and ``card.json`` are what to keep);
- ``scoreboard.json`` and ``class_scores.json``: the fast methods on all test
  photographs, EP and iGOS++ on ``--dear``, under the authors' budgets.

``--backbone imagenet`` downloads the weights of the backbone; by default it
starts from random ones.
"""

import argparse
import json
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from explainer.attribution import PAPER_METHODS
from explainer.checkpoints import load_classifier
from explainer.classifiers import Frozen
from explainer.data import VOC, First, LabelledImages
from explainer.evaluation import evaluate
from explainer.evaluation.class_score_tables import class_score_tables
from explainer.evaluation.images import Settings
from explainer.evaluation.scoreboard import (
    BUDGETS,
    CONTROLS,
    DEAR,
    contenders,
)
from explainer.files import read_json, write_json
from explainer.model import build_explainer
from explainer.presets import Preset, get_preset
from explainer.provenance import environment
from explainer.training import TrainingConfig, fit_explainer

SHARE = {"explainer": 0.7, "rtis": 0.3}
"""Of the training's time."""


class SliceOver(BaseException):
    """The time of this call is up; what was done lies on the disk."""


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Raise :class:`SliceOver` in whatever runs when the time is up."""

    def over(*_: object) -> None:
        raise SliceOver

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def session_preset(batch_size: int, workers: int, half: bool) -> Preset:
    """Return the animals' experiment with the paper's Explainer and size."""
    animals = get_preset("animals")
    training = TrainingConfig(
        steps=1,
        batch_size=batch_size,
        learning_rate=3e-4,
        schedule="cosine",
        warmup=100,
        eval_every=200,
        flip=True,
        mixed_precision="bf16" if half else "no",
        workers=workers,
    )
    return replace(
        animals,
        size=224,
        explainer="deeplabv3_resnet50",
        explainer_training=training,
    )


def load_photographs(
    preset: Preset, root: Path | None, limit: int | None
) -> dict[str, LabelledImages]:
    """Return the splits, decoded once: workers inherit what is in memory."""
    assert preset.classes is not None
    splits: dict[str, LabelledImages] = {}
    for name in ("train", "val", "test"):
        data: LabelledImages = VOC(
            root, name, classes=preset.classes, size=preset.size, cache=True
        )
        splits[name] = data if limit is None else First(data, limit)
        for i in range(len(splits[name])):
            splits[name][i]
    return splits


def network_of(preset: Preset, imagenet: bool) -> torch.nn.Module:
    """Build the Explainer's network, the same one in every call."""
    assert preset.classes is not None
    torch.manual_seed(preset.explainer_training.seed)
    return build_explainer(
        preset.explainer, len(preset.classes), pretrained_backbone=imagenet
    )


def train(
    kind: str,
    preset: Preset,
    classifier: Frozen,
    splits: dict[str, LabelledImages],
    folder: Path,
    *,
    steps: int,
    imagenet: bool,
    device: str,
    **changes: Any,
) -> None:
    """Train a network with the loss ``kind``, or go on with it."""
    fit_explainer(
        network_of(preset, imagenet),
        classifier,
        splits["train"],
        splits["val"],
        replace(preset.explainer_training, steps=steps, **changes),
        folder=folder,
        config={
            "preset": "animals",
            "data": preset.data,
            "architecture": preset.explainer,
            "options": {"pretrained_backbone": False},
            "backbone": "imagenet" if imagenet else "random",
            "classes": list(classifier.classes),
            "size": preset.size,
        },
        device=device,
        **preset.objective(kind),
    )


def seconds_per_step(
    preset: Preset,
    classifier: Frozen,
    splits: dict[str, LabelledImages],
    rounds: int,
    device: str,
) -> float:
    """Time training steps, after as many that pay for the start."""
    few = {**splits, "val": First(splits["val"], 8)}
    with tempfile.TemporaryDirectory() as folder:
        train(
            "explainer",
            preset,
            classifier,
            few,
            Path(folder),
            steps=2 * rounds,
            imagenet=False,
            device=device,
            eval_every=rounds,
        )
        rows = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(rows[-1])["seconds"]) / rounds


def planned_steps(
    out: Path, pace: Callable[[], float], minutes: float, most: int | None
) -> dict[str, int]:
    """Return the steps of both trainings, the same in every call."""
    plan = out / "plan.json"
    if plan.is_file():
        found = read_json(plan)
    else:
        seconds = pace()
        steps = {
            kind: min(most or 10**9, int(60 * minutes * share / seconds) + 1)
            for kind, share in SHARE.items()
        }
        found = {"seconds_per_step": seconds, "steps": steps}
        write_json(plan, {**found, **environment()})
    return dict(found["steps"])


def measure(
    out: Path,
    classifier: Frozen,
    test: LabelledImages,
    *,
    budget: str,
    dear: int,
    device: str,
) -> None:
    """Write both tables, or go on with them."""
    rows = contenders(
        [*PAPER_METHODS, *CONTROLS],
        preset="animals",
        classes=classifier.classes,
        explainer=str(out / "explainer"),
        rtis=str(out / "rtis"),
        device=device,
        budget=BUDGETS[budget],
    )
    rows = {
        name: replace(row, limit=dear if name in DEAR else None)
        for name, row in rows.items()
    }
    fill = get_preset("animals").fill
    notes = {"preset": "animals", "split": "test", "budget": budget}
    settings = Settings(fill=fill, steps=0)
    board = out / "scoreboard.json"
    if not board.exists():
        evaluate(
            rows,
            classifier,
            test,
            out=board,
            settings=settings,
            notes=notes,
            progress=True,
        )
    class_score_tables(
        {m: row for m, row in rows.items() if m not in CONTROLS},
        classifier,
        test,
        out=out / "class_scores.json",
        fill=fill,
        notes=notes,
        progress=True,
    )


def session(asked: argparse.Namespace) -> None:
    """Do what is left, in the order in which it is needed."""
    out, device = asked.out, asked.device
    preset = session_preset(asked.batch_size, asked.workers, device == "cuda")
    classifier = load_classifier("animals").to(device)
    splits = load_photographs(preset, asked.root, asked.limit)
    steps = planned_steps(
        out,
        lambda: seconds_per_step(
            preset, classifier, splits, asked.rounds, device
        ),
        asked.train_minutes,
        asked.steps,
    )
    for kind in SHARE:
        if not (out / kind / "card.json").exists():
            print(f"== {kind}: {steps[kind]} steps", flush=True)
            train(
                kind,
                preset,
                classifier,
                splits,
                out / kind,
                steps=steps[kind],
                imagenet=asked.backbone == "imagenet",
                device=device,
            )
            (out / kind / "last.pt").unlink()  # large, and of no more use
    print("== tables", flush=True)
    measure(
        out,
        classifier,
        splits["test"],
        budget=asked.budget,
        dear=asked.dear,
        device=device,
    )


def main(arguments: Sequence[str] | None = None) -> bool:
    """Run one slice; return whether all is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--train-minutes", type=float, default=14)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, help="at most so many")
    parser.add_argument("--limit", type=int, help="images of each split")
    parser.add_argument("--dear", type=int, default=100)
    parser.add_argument("--budget", choices=list(BUDGETS), default="full")
    parser.add_argument(
        "--backbone", choices=["random", "imagenet"], default="random"
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    asked = parser.parse_args(arguments)
    try:
        with time_limit(asked.minutes):
            session(asked)
    except SliceOver:
        print(f"time is up; the same command goes on ({asked.out})")
        return False
    print(f"all is done, in {asked.out}")
    return True


if __name__ == "__main__":
    main()
