"""What the playground shows, and a version of it for a page without a kernel.

All masks of a page are optimised in a few batches when it is built.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from explainer.classifiers import evaluating, probabilities
from explainer.losses import LossWeights
from explainer.masks import complement, composite, make_fill, target_mask
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
from explainer.teaching.playground import STEPS, Optimised, optimise_mask

NAMES = {
    "entropy": "λₑ (entropy)",
    "bound": "weight of B(s_c)",
    "target_area": "weight of A(m)",
    "non_target_area": "weight of A(n)",
    "smoothness": "λₜᵥ (smoothness)",
    "a": "a",
    "b": "b",
}
"""The dials: a field of :class:`LossWeights`, and what a reader sees."""

TERMS = {
    "classification": "L_c",
    "entropy": "L_e",
    "bound": "B",
    "target_area": "A(m)",
    "non_target_area": "A(n)",
    "smoothness": "TV",
}


@torch.no_grad()
def redraw(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimised: Optimised,
    explained: Tensor,
    fill: str = "mean",
) -> list[Frame]:
    """Return one frame per image: its masks, and what they are worth.

    ``explained`` are the masks of the amortised Explainer, ``(B, C, H, W)``,
    to be shown beside the ``optimised``. The numbers are the unweighted
    terms, and the mean probability of the present classes in what the
    optimised mask keeps and in what it leaves.
    """
    m = target_mask(optimised.class_masks, labels)
    # One noise for all, so that no frame depends on those beside it.
    noise = [generator(0, "noise") for _ in images]
    background = make_fill(fill, images, classifier, noise)
    views = (
        composite(images, mask, background) for mask in (m, complement(m))
    )
    with evaluating(classifier):
        found = [
            (probabilities(classifier, classifier(view)) * labels).sum(1)
            / labels.sum(1).clamp(min=1)
            for view in views
        ]
    frames = []
    for i, image in enumerate(images):
        present = labels[i] > 0
        numbers = {
            name: float(optimised.terms[term][i])
            for term, name in TERMS.items()
        }
        frames.append(
            Frame(
                {
                    "optimised": overlay_layers(
                        image, optimised.class_masks[i, present]
                    ),
                    "kept": kept_layers(image, m[i]),
                    "Explainer": overlay_layers(image, explained[i, present]),
                },
                {
                    **numbers,
                    "p(classes) kept": float(found[0][i]),
                    "p(classes) left": float(found[1][i]),
                },
            )
        )
    return frames


STOPS: dict[str, tuple[float, ...]] = {
    "entropy": (0, 0.5, 1, 2, 3, 5, 8),
    "bound": (0, 0.3, 0.8, 1, 3),
    "target_area": (0, 0.01, 0.1, 0.3, 0.6, 1, 2),
    "non_target_area": (0, 0.1, 0.3, 0.5, 1),
    "smoothness": (0, 0.1, 0.3, 1, 3),
    "a": (0, 0.05, 0.1, 0.15, 0.2),
    "b": (0.05, 0.1, 0.2, 0.3, 0.5),
}
PAIR = ("entropy", "target_area")


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
    """Return dials over masks that are optimised now, all in one batch.

    Each dial alone over its :data:`STOPS`, around the first of the
    ``presets``; the two of :data:`PAIR` on their full grid; and all presets;
    for each of the images ``(B, 3, H, W)`` with labels ``(B, C)`` and a name
    each. ``network`` is the Explainer E.
    """
    base = next(iter(presets.values()))
    dials = [
        Dial("image", names),
        *(_dial(field, base, presets.values()) for field in NAMES),
    ]
    table = positions(dials, (NAMES[PAIR[0]], NAMES[PAIR[1]]))
    moves: dict[str, dict[str, Value]] = {
        preset: {NAMES[field]: getattr(weights, field) for field in NAMES}
        for preset, weights in presets.items()
    }
    wanted = [
        (name, *values.values())
        for name in names
        for values in moves.values()
    ]
    table = list(dict.fromkeys([*table, *wanted]))
    which = [dials[0].index(position[0]) for position in table]
    weights = [
        replace(base, **dict(zip(NAMES, position[1:], strict=True)))  # type: ignore[arg-type]
        for position in table
    ]
    with evaluating(network), torch.no_grad():
        explained: Tensor = network(images).sigmoid()
    optimised = optimise_mask(
        classifier,
        images[which],
        labels[which],
        weights,
        steps=steps,
        fill=fill,
    )
    frames = redraw(
        classifier,
        images[which],
        labels[which],
        optimised,
        explained[which],
        fill,
    )
    return static_dials(
        dials,
        dict(zip(table, frames, strict=True)),
        alt="A picture and a mask optimised for it.",
        presets=moves,
    )


def _dial(
    field: str, base: LossWeights, presets: Iterable[LossWeights]
) -> Dial:
    """Return a dial with stops where presets need them."""
    start = getattr(base, field)
    stops = {*STOPS[field], *(getattr(weights, field) for weights in presets)}
    # Only a moves beside the b of the base, and the other way round.
    if field == "a":
        stops = {stop for stop in stops if stop <= base.b}
    if field == "b":
        stops = {stop for stop in stops if stop >= base.a}
    return Dial(NAMES[field], sorted(stops), start)
