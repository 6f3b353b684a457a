"""Masks optimised for one image, under a loss with adjustable weights.

A mask optimised directly for an image, without a network, satisfies every
term with meaningless patterns. This is why the Explainer is a network. A
coarse grid and moving views suppress such patterns enough to *see* the effect
of each weight within a second.

:func:`static_playground` optimises masks under many weights for a static
page. :mod:`explainer.teaching.live` optimises one whenever a slider moves.
:func:`fine_tune` trains the network under other weights.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.classifiers import evaluating, probabilities
from explainer.data import LabelledImages, Sample
from explainer.losses import Loss, LossWeights, explainer_loss
from explainer.masks import complement, composite, make_fill, target_mask
from explainer.presets import PRESETS
from explainer.streams import generator
from explainer.teaching.dials import (
    Dial,
    Frame,
    StaticDials,
    Value,
    positions,
    static_dials,
)
from explainer.teaching.pictures import kept_layers, overlay_layers
from explainer.teaching.terms import jittered
from explainer.training import TrainingConfig, fit_explainer

CELLS = 8
STEPS = 30
JITTER = 6
LEARNING_RATE = 0.6

AT_ONCE = 32
"""The number of images optimised together; it only affects the memory."""

START_PRESENT, START_ABSENT = 1.0, -2.0
"""Logits that masks start from: present classes mostly shown, others not.
From a mask that hides most of the object no gradient leads back to it."""


def weight_presets(own: str = "scenes") -> dict[str, LossWeights]:
    """Return weights by name: the preset's, the paper's, without terms."""
    base = PRESETS[own].weights
    no_area = replace(base, bound=0.0, target_area=0.0, non_target_area=0.0)
    return {
        own: base,
        "paper VGG-16": PRESETS["voc2007-vgg16"].weights,
        "paper ResNet-50": PRESETS["voc2007-resnet50"].weights,
        "no entropy": replace(base, entropy=0.0),
        "no area": no_area,
        "no smoothness": replace(base, smoothness=0.0),
        "classification only": replace(no_area, entropy=0.0, smoothness=0.0),
    }


# --- a mask for one image ----------------------------------------------


class Optimised(NamedTuple):
    """Masks ``(B, C, H, W)``, and each term of their loss, ``(B,)``."""

    class_masks: Tensor
    terms: dict[str, Tensor]


def optimise_mask(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    weights: Sequence[LossWeights],
    *,
    cells: int = CELLS,
    steps: int = STEPS,
    jitter: int = JITTER,
    fill: str = "mean",
) -> Optimised:
    """Return masks optimised for images directly, without a network E.

    Adam minimises the Explainer's loss over the logits of ``cells`` x
    ``cells`` grids, one per class, which are upsampled smoothly. In each step
    the classifier sees the masked image moved by a few pixels, which
    suppresses patterns of single pixels. All images share these moves and the
    noise of ``fill``, which are the same in every call.

    Parameters
    ----------
    classifier:
        F; maps ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``.
    images, labels, weights:
        ``(B, 3, H, W)``, ``(B, C)`` and B :class:`LossWeights`. One image
        under many weights is that image repeated.
    cells, steps, jitter:
        Finer grids and smaller moves (``jitter``, in pixels) make
        adversarial masks.
    fill:
        See :func:`explainer.masks.make_fill`.

    Returns
    -------
    The masks of all classes, and the unweighted terms of
    :func:`explainer.losses.explainer_loss` for unmoved views.

    Raises
    ------
    ValueError
        When the numbers of weights and images differ.
    """
    if len(weights) != len(images):
        raise ValueError(
            f"{len(images)} images need as many weights, not {len(weights)}"
        )
    with evaluating(classifier):
        parts = [
            _optimise(
                classifier,
                images[part],
                labels[part],
                LossWeights.stack(weights[part]),
                cells,
                steps,
                jitter,
                fill,
            )
            for part in (
                slice(start, start + AT_ONCE)
                for start in range(0, len(images), AT_ONCE)
            )
        ]
    class_masks, terms = zip(*parts, strict=True)
    return Optimised(
        torch.cat(class_masks),
        {k: torch.cat([t[k] for t in terms]) for k in terms[0]},
    )


def enlarging(cells: int, size: int) -> Tensor:
    """Return the matrix ``(size, cells)`` of bicubic interpolation.

    A grid ``(cells, cells)`` is enlarged by one product from the left and one
    from the right, which costs far less than :func:`F.interpolate`.
    """
    each = torch.eye(cells)[None, None]
    return F.interpolate(
        each, (size, cells), mode="bicubic", align_corners=False
    )[0, 0]


def _same_noise(images: Tensor) -> list[torch.Generator]:
    """Return a generator per image, all in the same state.

    The result for an image then does not depend on its batch.
    """
    return [generator(0, "noise") for _ in images]


@contextmanager
def _moving(classifier: nn.Module, jitter: int) -> Iterator[None]:
    """Within the block, move a classifier's images, anew in each call."""
    dice = generator(0, "jitter")
    hook = classifier.register_forward_pre_hook(
        lambda _, seen: jittered(seen[0], dice, jitter)
    )
    try:
        yield
    finally:
        hook.remove()


def _optimise(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    weights: LossWeights,
    cells: int,
    steps: int,
    jitter: int,
    fill: str,
) -> Optimised:
    noise = _same_noise(images)
    start = torch.where(labels > 0, START_PRESENT, START_ABSENT)
    logits = start[:, :, None, None].repeat(1, 1, cells, cells)
    logits.requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    down, along = (
        enlarging(cells, size).to(logits) for size in images.shape[-2:]
    )

    def class_masks() -> Tensor:
        # Sigmoid last: edges may be sharper than the grid.
        return (down @ logits @ along.mT).sigmoid()

    def loss() -> Loss:
        return explainer_loss(
            classifier,
            images,
            labels,
            class_masks(),
            weights,
            fill,
            noise,
            reduction="none",
        )

    with torch.enable_grad(), _moving(classifier, jitter):
        for _ in range(steps):
            optimizer.zero_grad()
            torch.autograd.backward(loss().total.sum())
            optimizer.step()
    with torch.no_grad():
        return Optimised(class_masks(), loss().terms)


# --- the network, under other weights ----------------------------------


class FineTuned(NamedTuple):
    """A network, and its masks of held-out images before and after."""

    network: nn.Module
    before: Optimised
    after: Optimised


class _HeldOut:
    """Images and labels as a dataset."""

    def __init__(
        self, images: Tensor, labels: Tensor, classes: Sequence[str]
    ) -> None:
        self.images, self.labels = images.cpu(), labels.cpu()
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            self.images[index], self.labels[index], None, str(index)
        )


def fine_tune(
    network: nn.Module,
    classifier: nn.Module,
    train: LabelledImages,
    images: Tensor,
    labels: Tensor,
    *,
    weights: LossWeights,
    steps: int = 200,
    batch_size: int = 8,
    fill: str = "mean",
    on_progress: Callable[[int], None] = lambda step: None,
) -> FineTuned:
    """Return a copy of the Explainer, trained further under other weights.

    ``network`` and the mode of ``classifier`` are unchanged. ``images`` ``(B,
    3, H, W)`` and ``labels`` ``(B, C)`` are held out; ``on_progress`` is
    called at most twenty times with the number of steps taken. The run's
    folder is temporary.
    """
    copy = deepcopy(network).requires_grad_(True)

    def look() -> Optimised:
        with evaluating(copy), torch.no_grad():
            class_masks = copy(images).sigmoid()
            loss = explainer_loss(
                classifier,
                images,
                labels,
                class_masks,
                weights,
                fill,
                _same_noise(images),
                reduction="none",
            )
        return Optimised(class_masks, loss.terms)

    with evaluating(classifier), TemporaryDirectory() as folder:
        before = look()
        fit_explainer(
            copy,
            classifier,
            train,
            _HeldOut(images, labels, train.classes),
            TrainingConfig(
                steps=steps,
                batch_size=batch_size,
                learning_rate=1e-3,
                eval_every=-(-steps // 20),
            ),
            folder=folder,
            config={},
            weights=weights,
            fill=fill,
            on_validation=lambda history: on_progress(
                int(history[-1]["step"])
            ),
            device=images.device.type,
            progress=False,
        )
        return FineTuned(copy.eval(), before, look())


# --- on a page without a kernel ----------------------------------------

TERMS = {
    "classification": "L_c",
    "entropy": "L_e",
    "bound": "B",
    "target_area": "A(m)",
    "non_target_area": "A(n)",
    "smoothness": "TV",
}
"""The label of each term on the page."""

DIALS = {
    "entropy": "λₑ (entropy)",
    "bound": "weight of B(s_c)",
    "target_area": "weight of A(m)",
    "non_target_area": "weight of A(n)",
    "smoothness": "λₜᵥ (smoothness)",
    "a": "a",
    "b": "b",
}
"""The dials: a field of :class:`LossWeights`, and its label."""

STOPS: dict[str, tuple[float, ...]] = {
    "entropy": (0, 1, 2, 3, 5, 8),
    "bound": (0, 0.8, 1, 3),
    "target_area": (0, 0.01, 0.1, 0.3, 0.6, 2),
    "non_target_area": (0, 0.3, 0.5, 1),
    "smoothness": (0, 0.1, 1, 3),
    "a": (0, 0.05, 0.1, 0.2),
    "b": (0.05, 0.1, 0.2, 0.3, 0.5),
}
PAIR = ("entropy", "target_area")
"""The two dials that also move together."""


@torch.no_grad()
def playground_frames(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimised: Optimised,
    explained: Tensor,
    fill: str = "mean",
) -> list[Frame]:
    """Return one frame per image: its masks, and their terms of the loss.

    ``explained`` are the Explainer's masks, ``(B, C, H, W)``, shown beside
    the ``optimised`` ones. The numbers are the unweighted terms, and the mean
    probability of the present classes under the optimised mask and under its
    complement.
    """
    m = target_mask(optimised.class_masks, labels)
    background = make_fill(fill, images, classifier, _same_noise(images))
    with evaluating(classifier):
        kept, left = (
            (probabilities(classifier, classifier(view)) * labels).sum(1)
            / labels.sum(1).clamp(min=1)
            for view in (
                composite(images, m, background),
                composite(images, complement(m), background),
            )
        )
    frames = []
    for i, image in enumerate(images):
        present = labels[i] > 0
        optimised_masks = optimised.class_masks[i, present]
        pictures = {
            "optimised": overlay_layers(image, optimised_masks),
            "kept": kept_layers(image, m[i]),
            "Explainer": overlay_layers(image, explained[i, present]),
        }
        numbers = {
            name: float(optimised.terms[term][i])
            for term, name in TERMS.items()
        }
        numbers["p(classes) kept"] = float(kept[i])
        numbers["p(classes) left"] = float(left[i])
        frames.append(Frame(pictures, numbers))
    return frames


def static_playground(
    classifier: nn.Module,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    presets: Mapping[str, LossWeights],
    steps: int = STEPS // 2,
    fill: str = "mean",
) -> StaticDials:
    """Return dials over masks that this call optimises in a few batches.

    For each image there are masks for each dial alone over its :data:`STOPS`,
    around the first of the ``presets``, for the two dials of :data:`PAIR` on
    their full grid, and for all presets. The images are ``(B, 3, H, W)`` with
    labels ``(B, C)`` and one name per image. ``network`` is the Explainer E.
    """
    base = next(iter(presets.values()))
    dials = [
        Dial("image", names),
        *(_dial(field, base, presets.values()) for field in DIALS),
    ]
    moves: dict[str, dict[str, Value]] = {
        preset: {name: getattr(weights, f) for f, name in DIALS.items()}
        for preset, weights in presets.items()
    }
    pair = (DIALS[PAIR[0]], DIALS[PAIR[1]])
    of_presets = [(n, *m.values()) for n in names for m in moves.values()]
    wanted = list(dict.fromkeys([*positions(dials, pair), *of_presets]))
    weights = [
        replace(base, **dict(zip(DIALS, position[1:], strict=True)))  # type: ignore[arg-type]
        for position in wanted
    ]
    which = [dials[0].index(position[0]) for position in wanted]
    with evaluating(network), torch.no_grad():
        explained: Tensor = network(images).sigmoid()[which]
    images, labels = images[which], labels[which]
    optimised = optimise_mask(
        classifier, images, labels, weights, steps=steps, fill=fill
    )
    frames = playground_frames(
        classifier, images, labels, optimised, explained, fill
    )
    return static_dials(
        dials,
        dict(zip(wanted, frames, strict=True)),
        alt="A picture and a mask optimised for it.",
        presets=moves,
    )


def _dial(
    field: str, base: LossWeights, presets: Iterable[LossWeights]
) -> Dial:
    """Return a dial whose stops include the presets' values."""
    stops = {*STOPS[field], *(getattr(weights, field) for weights in presets)}
    # a moves only with the base's b, and b only with the base's a.
    if field == "a":
        stops = {stop for stop in stops if stop <= base.b}
    if field == "b":
        stops = {stop for stop in stops if stop >= base.a}
    return Dial(DIALS[field], sorted(stops), getattr(base, field))
