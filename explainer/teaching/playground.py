"""Masks optimised for one image, under a loss whose weights one chooses.

The Explainer is a network because of what happens without one: a mask
optimised directly for an image satisfies every term with patterns that mean
nothing to us. A coarse grid and a jitter of the classifier's view keep such
patterns in check well enough to *see* what each weight does, in a second.

:mod:`explainer.teaching.playground_page` optimises masks under many settings at once
and puts them on a page; :mod:`explainer.teaching.live` does whenever a slider moves.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.attribution.common import seeded
from explainer.classifiers import evaluating
from explainer.data import LabelledImages, Sample
from explainer.losses import (
    Loss,
    LossWeights,
    classification_loss,
    negative_entropy,
    total_variation,
)
from explainer.masks import (
    complement,
    composite,
    make_fill,
    non_target_mask,
    target_mask,
)
from explainer.presets import get_preset
from explainer.training import TrainingConfig, fit_explainer

CELLS = 8
STEPS = 30
JITTER = 6
LEARNING_RATE = 0.6

START_PRESENT, START_ABSENT = 1.0, -2.0
"""Logits that masks start from: present classes mostly shown, others not.
From a mask that hides most of the object no gradient leads back to it."""


def weight_presets(own: str = "scenes") -> dict[str, LossWeights]:
    """Return weights by name: a preset's own, the paper's, terms left out."""
    base = get_preset(own).weights
    no_area = replace(base, bound=0.0, target_area=0.0, non_target_area=0.0)
    return {
        own: base,
        "paper VGG-16": get_preset("voc2007-vgg16").weights,
        "paper ResNet-50": get_preset("voc2007-resnet50").weights,
        "no entropy": replace(base, entropy=0.0),
        "no area": no_area,
        "no smoothness": replace(base, smoothness=0.0),
        "classification only": replace(no_area, entropy=0.0, smoothness=0.0),
    }


# --- the loss, image by image ------------------------------------------


def _bound(masks: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return B of ``(N, Z)`` flat masks, each with an a and a b, ``(N,)``.

    By sorting, as the paper writes it (eq. 5 and 6): unlike that of
    :func:`explainer.losses.area_bound`, the number of pixels that count may
    differ from mask to mask.
    """
    n_pixels = masks.shape[-1]
    ranked = masks.sort(-1, descending=True).values
    rank = torch.arange(n_pixels, device=masks.device)
    q_min = rank < (a * n_pixels).floor()[:, None]
    q_max = rank < (b * n_pixels).floor()[:, None]
    return ((1 - ranked) * q_min + ranked * ~q_max).mean(-1)


def _moved(images: Tensor, down: int, right: int) -> Tensor:
    """Move images by pixels; what enters repeats the edge."""
    pad = max(abs(down), abs(right))
    height, width = images.shape[-2:]
    padded = F.pad(images, (pad,) * 4, mode="replicate")
    top, left = pad - down, pad - right
    return padded[..., top : top + height, left : left + width]


def loss_per_image(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_masks: Tensor,
    weights: Sequence[LossWeights],
    fill: str = "mean",
    generator: torch.Generator | None = None,
    shift: tuple[int, int] = (0, 0),
) -> Loss:
    """Return :func:`explainer.losses.explainer_loss` for each image apart.

    Every image has weights and bounds of its own, so that one batch holds
    one image under many settings. Shapes as there; the total and the terms
    are ``(B,)``. The classifier sees everything ``shift`` pixels further
    down and to the right.
    """

    def each(name: str) -> Tensor:
        values = [getattr(w, name) for w in weights]
        # Double, for a and b count pixels: 0.15 Z as Python counts it.
        return torch.tensor(values, dtype=torch.float64, device=images.device)

    (scale,) = {w.entropy_scale for w in weights}
    multi_label = getattr(classifier, "multi_label", True)
    m = target_mask(class_masks, labels)
    n = non_target_mask(class_masks, labels)
    background = make_fill(fill, images, classifier, generator)
    seen = composite(images, m, background)
    hidden = composite(images, complement(m), background)
    views = _moved(torch.cat([seen, hidden]), *shift)
    shown, left = classifier(views).chunk(2)

    which, c = labels.nonzero().T
    bounds = _bound(
        class_masks[which, c].flatten(1), each("a")[which], each("b")[which]
    )
    terms = {
        "classification": torch.vmap(
            lambda z, y: classification_loss(z[None], y[None], multi_label)
        )(shown, labels),
        "entropy": torch.vmap(lambda z: negative_entropy(z[None], scale))(
            left
        ),
        "bound": bounds.new_zeros(len(images)).index_add(0, which, bounds),
        "target_area": m.mean((1, 2, 3)),
        "non_target_area": n.mean((1, 2, 3)),
        "smoothness": torch.vmap(lambda z: total_variation(z[None]))(m)
        + torch.vmap(lambda z: total_variation(z[None]))(n),
    }
    total = torch.stack([each(k).float() * v for k, v in terms.items()])
    return Loss(total.sum(0), terms)


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
    learning_rate: float = LEARNING_RATE,
    fill: str = "mean",
    batch_size: int = 32,
    generator: torch.Generator | None = None,
) -> Optimised:
    """Optimise masks of images directly, without a network E.

    The logits of ``cells`` x ``cells`` grids, one per class, follow the
    gradient of the Explainer's loss (Adam). Upsampling smooths them; the
    classifier sees the masked image shifted by another few pixels in each
    step, so that no pattern of single pixels pays.

    Parameters
    ----------
    classifier:
        F; maps ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``.
    images, labels, weights:
        ``(B, 3, H, W)``, ``(B, C)`` and B :class:`LossWeights`. One image
        under many weights is that image repeated.
    cells, steps, jitter, learning_rate:
        Finer grids and smaller shifts (``jitter``, in pixels) make
        adversarial masks.
    fill:
        See :func:`explainer.masks.make_fill`.
    batch_size:
        Images optimised together; bounds the memory, changes nothing else
        but for the fill "noise".
    generator:
        Source of shifts and noise; without one, a generator of seed 0.
        All images share the shifts.

    Returns
    -------
    The masks of all classes, and the unweighted terms of
    :func:`explainer.losses.explainer_loss` without jitter.

    Raises
    ------
    ValueError
        When there are not as many weights as images.
    """
    if len(weights) != len(images):
        raise ValueError(
            f"{len(images)} images need as many weights, not {len(weights)}"
        )
    source = seeded(generator)
    shifts = torch.randint(
        -jitter,
        jitter + 1,
        (steps, 2),
        generator=source,
        device=source.device,
    ).tolist()
    parts: list[Optimised] = []
    with evaluating(classifier):
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            parts.append(
                _optimise(
                    classifier,
                    images[part],
                    labels[part],
                    weights[part],
                    cells,
                    shifts,
                    learning_rate,
                    fill,
                    source,
                )
            )
    class_masks, terms = zip(*parts, strict=True)
    return Optimised(
        torch.cat(class_masks),
        {k: torch.cat([t[k] for t in terms]) for k in terms[0]},
    )


def _optimise(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    weights: Sequence[LossWeights],
    cells: int,
    shifts: Sequence[tuple[int, int]],
    learning_rate: float,
    fill: str,
    generator: torch.Generator,
) -> Optimised:
    size = images.shape[-2:]
    start = torch.where(labels > 0, START_PRESENT, START_ABSENT)
    logits = start[:, :, None, None].repeat(1, 1, cells, cells)
    logits.requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=learning_rate)

    def class_masks() -> Tensor:
        # Sigmoid last: edges may be sharper than the grid is fine.
        return F.interpolate(
            logits, size, mode="bicubic", align_corners=False
        ).sigmoid()

    def loss(shift: tuple[int, int]) -> Loss:
        return loss_per_image(
            classifier,
            images,
            labels,
            class_masks(),
            weights,
            fill,
            generator,
            shift,
        )

    with torch.enable_grad():
        for shift in shifts:
            optimizer.zero_grad()
            torch.autograd.backward(loss(shift).total.sum())
            optimizer.step()
    with torch.no_grad():
        return Optimised(class_masks(), loss((0, 0)).terms)


# --- the network, under other weights ----------------------------------


class FineTuned(NamedTuple):
    """A network, and its masks and terms on held-out images, then and now.

    Masks are ``(B, C, H, W)``, terms ``(B,)`` by name.
    """

    network: nn.Module
    before: Optimised
    after: Optimised


class _Held:
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
    learning_rate: float = 1e-3,
    fill: str = "mean",
    on_progress: Callable[[int], None] = lambda step: None,
) -> FineTuned:
    """Train a copy of the Explainer for a while under other weights.

    ``network`` stays as it is, and ``classifier`` keeps its mode. ``images``
    ``(B, 3, H, W)`` and ``labels`` ``(B, C)`` are held out; ``on_progress``
    gets the steps taken, some twenty times. The run's folder is temporary.
    """
    copy = deepcopy(network).requires_grad_(True)

    def look() -> Optimised:
        with evaluating(copy), torch.no_grad():
            class_masks = copy(images).sigmoid()
            terms = loss_per_image(
                classifier,
                images,
                labels,
                class_masks,
                [weights] * len(images),
                fill,
                torch.Generator(images.device).manual_seed(0),
            ).terms
        return Optimised(class_masks, terms)

    with evaluating(classifier), TemporaryDirectory() as folder:
        before = look()
        fit_explainer(
            copy,
            classifier,
            train,
            _Held(images, labels, train.classes),
            TrainingConfig(
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                eval_every=max(1, steps // 20),
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
