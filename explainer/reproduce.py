"""An experiment from an empty disk to both tables, step by step.

Each step leaves a file. A step whose file is there is not run again, and one
that was interrupted goes on where it was: the same call, repeated, ends with
everything in place.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from explainer.classifiers import build_classifier, frozen
from explainer.data.coco import ANNOTATIONS, COCO_PAPER_CLASSES, IMAGES
from explainer.data.download import Archive
from explainer.data.scenes import CLASSES as SCENE_CLASSES
from explainer.data.voc import ARCHIVES as VOC_ARCHIVES
from explainer.data.voc import VOC_CLASSES
from explainer.errors import UserError
from explainer.losses import classification_loss, explainer_loss
from explainer.model import build_explainer
from explainer.presets import PRESETS, Preset


@dataclass(frozen=True)
class Step:
    """One step: what it does, the file it leaves, and how to run it.

    ``seconds`` is what it may take, None where nobody knows beforehand.
    """

    name: str
    does: str
    leaves: Path
    run: Callable[[], object]
    seconds: float | None = None

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


def _seconds_of(step: Callable[[], None], device: str) -> float:
    """Time one call, after another one that pays for the start."""
    for _ in range(2):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds


def seconds_per_step(preset: Preset, device: str) -> tuple[float, float]:
    """Time a step of the classifier's and of the Explainer's training.

    On random images of the preset's size, with random weights, on this
    machine: what an estimate can know before there is any data. Reading
    the images from disk is not in it.
    """
    classes = _classes(preset)
    torch.manual_seed(0)
    classifier = build_classifier(preset.classifier, classes, "random")
    options = {**preset.explainer_options}
    if "pretrained_backbone" in options:  # its weights change no time
        options["pretrained_backbone"] = False
    network = build_explainer(preset.explainer, len(classes), **options)
    for module in (classifier, network):
        module.to(device).train()

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.rand(n, 3, preset.size, preset.size, device=device)
        return images, (
            torch.rand(n, len(classes), device=device) < 0.2
        ) * 1.0

    def learn(loss: torch.Tensor, module: nn.Module) -> None:
        module.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    def classify() -> None:
        images, labels = batch(preset.classifier_training.batch_size)
        if preset.thaw:
            classifier.thaw()
        learn(classification_loss(classifier(images), labels), classifier)

    def explain() -> None:
        images, labels = batch(preset.explainer_training.batch_size)
        loss = explainer_loss(
            explanandum,
            images,
            labels,
            network(images).sigmoid(),
            preset.weights,
        )
        learn(loss.total, network)

    first = _seconds_of(classify, device)
    explanandum = frozen(classifier)
    return first, _seconds_of(explain, device)


def training_seconds(preset: Preset, device: str) -> tuple[float, float]:
    """Return the most that both trainings take, in seconds.

    With early stopping they may end long before.
    """
    classify, explain = seconds_per_step(preset, device)
    phases = (preset.plain_training, preset.classifier_training)
    steps = sum(phase.steps for phase in phases if phase is not None)
    return classify * steps, explain * preset.explainer_training.steps
