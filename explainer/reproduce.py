"""An experiment from an empty disk to both tables, step by step.

Each step leaves a file. A step whose file is there is not run again, and one
that was interrupted goes on where it was: the same call, repeated, ends with
everything in place. What is said beforehand of times is an estimate, from a
few passes of the networks on random images.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from explainer.attribution.extremal_perturbation import AREAS
from explainer.classifiers import build_classifier, frozen
from explainer.data.coco import ANNOTATIONS, COCO_PAPER_CLASSES, IMAGES
from explainer.data.download import Archive
from explainer.data.shapes import CLASSES as SCENE_CLASSES
from explainer.data.voc import ARCHIVES as VOC_ARCHIVES
from explainer.data.voc import VOC_CLASSES
from explainer.errors import UserError
from explainer.evaluation.methods import PUBLIC_VARIANTS
from explainer.files import read_json, write_json
from explainer.losses import classification_loss, explainer_loss
from explainer.metrics import THRESHOLDS
from explainer.model import build_explainer
from explainer.presets import PRESETS, Preset

PAPER_TABLE = ("bottle", "car", "cat", "dog", "person")
"""The classes of the paper's class-score table, which COCO has, too."""


@dataclass(frozen=True)
class Step:
    """One step: what it does, the file it leaves, and how to run it.

    ``takes`` says how long it may take, as an estimate; empty where nobody
    knows beforehand.
    """

    name: str
    does: str
    leaves: Path
    run: Callable[[], object]
    takes: str = ""

    @property
    def done(self) -> bool:
        """Whether its file is there; files are written whole or not."""
        return self.leaves.exists()


def preset_of(experiment: str, classifier: str | None) -> str:
    """Return the preset of an experiment and a classifier, by name.

    ``voc2007`` and ``coco2014`` come with two classifiers, of which one has
    to be named; the others with one.
    """
    if experiment in PRESETS and classifier is None:
        return experiment
    name = f"{experiment}-{classifier}"
    if name in PRESETS:
        return name
    known = ", ".join(
        p.replace("-", " --classifier ") for p in sorted(PRESETS)
    )
    raise UserError(
        f"no experiment {experiment!r}"
        + (f" with the classifier {classifier!r}" if classifier else "")
        + f"; known: {known}"
    )


def archives(data: str) -> list[Archive]:
    """Return what has to be downloaded for a dataset, each archive once."""
    if data.startswith("voc"):
        year = data.removeprefix("voc")
        needed = [a for (y, _), a in VOC_ARCHIVES.items() if y == year]
        return list({archive.name: archive for archive in needed}.values())
    if data.startswith("coco"):
        return [ANNOTATIONS, *IMAGES.values()]
    return []


def steps_left(steps: Sequence[Step]) -> list[Step]:
    """Return the steps whose file is missing."""
    return [step for step in steps if not step.done]


def _classes(preset: Preset) -> tuple[str, ...]:
    """Return a preset's classes without looking at its data."""
    if preset.classes is not None:
        return preset.classes
    if preset.data.startswith("voc"):
        return VOC_CLASSES
    if preset.data.startswith("coco"):
        return COCO_PAPER_CLASSES
    return SCENE_CLASSES


def remember(path: Path, asked: Mapping[str, object]) -> None:
    """Write down what a folder's experiment is, or compare it.

    Raises :class:`UserError` where the folder holds another one: a step
    that is done would not be done again, and its result would be taken for
    what is asked now.
    """
    wanted = json.loads(json.dumps(asked))
    theirs = read_json(path) if path.exists() else wanted
    differing = [k for k in wanted if theirs.get(k) != wanted[k]]
    if differing:
        raise UserError(
            f"{path.parent} holds an experiment with other settings "
            f"({', '.join(differing)}); choose another folder with --out, or "
            "delete it"
        )
    if not path.exists():
        write_json(path, wanted)


def table_classes(preset: Preset) -> tuple[str, ...]:
    """Return the classes of the class-score table.

    Those of the paper's table where the data has them, else all.
    """
    classes = _classes(preset)
    return PAPER_TABLE if set(PAPER_TABLE) <= set(classes) else classes


def _seconds_of(call: Callable[[], object], device: str) -> float:
    """Time one call, after another one that pays for the start."""
    for _ in range(2):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds


@dataclass(frozen=True)
class Pace:
    """What one image costs on this machine, in seconds.

    A step of the classifier's and of the Explainer's training, and a
    forward pass of the classifier.
    """

    classifier: float
    explainer: float
    forward: float


def measure_pace(preset: Preset, device: str) -> Pace:
    """Time the preset's networks on random images, with random weights.

    What an estimate can know before there is any data; reading images from
    disk is not in it. A CPU works through a batch image by image, so two
    are enough there.
    """
    classes = _classes(preset)
    torch.manual_seed(0)
    classifier = build_classifier(preset.classifier, classes, "random")
    options = {**preset.explainer_options}
    if "pretrained_backbone" in options:  # its weights change no time
        options["pretrained_backbone"] = False
    network = build_explainer(preset.explainer, len(classes), **options)
    for module in (classifier, network):
        module.to(device).to(memory_format=torch.channels_last).train()
    n = preset.explainer_training.batch_size if device == "cuda" else 2
    images = torch.rand(n, 3, preset.size, preset.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = (torch.rand(n, len(classes), device=device) < 0.2) * 1.0

    def learn(loss: torch.Tensor, module: nn.Module) -> None:
        module.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    def classify() -> None:
        learn(classification_loss(classifier(images), labels), classifier)

    def explain() -> None:
        class_masks = network(images).sigmoid()
        loss = explainer_loss(
            explanandum, images, labels, class_masks, preset.weights
        )
        learn(loss.total, network)

    first = _seconds_of(classify, device)
    explanandum = frozen(classifier)
    second = _seconds_of(explain, device)
    with torch.no_grad():
        third = _seconds_of(lambda: explanandum(images), device)
    return Pace(first / n, second / n, third / n)


def training_seconds(preset: Preset, pace: Pace) -> tuple[float, float]:
    """Return the most that both trainings take, in seconds.

    With early stopping they may end long before.
    """
    phases = (preset.plain_training, preset.classifier_training)
    images = sum(p.steps * p.batch_size for p in phases if p is not None)
    last = preset.explainer_training
    return (
        pace.classifier * images,
        pace.explainer * last.steps * last.batch_size,
    )


def passes_per_image(
    method: str, options: Mapping[str, Any], classes: float
) -> float:
    """Return what a method costs, in forward passes of the classifier.

    For an image with so many classes to explain. A pass with a gradient
    counts as three; the networks and controls, which ask the classifier
    nothing, as one.
    """
    method, _ = PUBLIC_VARIANTS.get(method, (method, {}))
    if method == "rise":
        return float(options["n_masks"])
    if method == "grad_cam":
        return 3 * classes
    if method == "extremal_perturbation":
        areas = len(options.get("areas", AREAS))
        return 3 * classes * areas * float(options["iterations"])
    if method == "igos":  # four scores; a line search tries six steps
        noisy = options.get("variant") == "khorram"
        tried = 6 * 4 * (options["steps"] if noisy else 1)
        each = 3 * 4 * options["steps"] + tried
        return float(classes * options["iterations"] * each)
    return 1


def table_seconds(
    methods: Mapping[str, Mapping[str, Any]], pace: Pace, classes: int
) -> tuple[float, float]:
    """Return what an image of the scoreboard and of the class scores takes.

    In seconds, for methods with their options; ``classes`` are those of the
    class-score table. An image of the scoreboard shows 1.5 classes (those
    of VOC do) and is seen 14 more times for its metrics.
    """
    board = sum(
        14 + passes_per_image(name, options, 1.5)
        for name, options in methods.items()
    )
    views = 1 + classes * len(THRESHOLDS)
    scores = sum(
        views + passes_per_image(name, options, classes)
        for name, options in methods.items()
    )
    return pace.forward * board, pace.forward * scores


def duration(seconds: float) -> str:
    """Return seconds as people say them: 40 s, 12 min, 5.2 h, 3.1 days."""
    for unit, length, least in (
        ("days", 86400, 2),
        ("h", 3600, 1.5),
        ("min", 60, 1.5),
    ):
        value = seconds / length
        if value >= least:
            return (
                f"{value:.0f} {unit}"
                if value > 9.5
                else f"{value:.1f} {unit}"
            )
    return f"{seconds:.0f} s"
