"""Variants of the loss: which of its terms each one keeps."""

from dataclasses import replace

from explainer.losses import LossWeights

AREA = ("bound", "target_area", "non_target_area")
"""The three parts of the area term: B, A(m) and A(n)."""

TERMS = ("classification", "entropy", *AREA, "smoothness")


def _all_but(*off: str) -> tuple[str, ...]:
    return tuple(term for term in TERMS if term not in off)


VARIANTS: dict[str, tuple[str, ...]] = {
    "full": TERMS,
    "no-classification": _all_but("classification"),
    "no-entropy": _all_but("entropy"),
    "no-area": _all_but(*AREA),
    "no-target-area": _all_but("target_area"),
    "no-non-target-area": _all_but("non_target_area"),
    "no-bound": _all_but("bound"),
    "no-smoothness": _all_but("smoothness"),
    "classification": ("classification",),
    "classification+entropy": ("classification", "entropy"),
    "classification+area": ("classification", *AREA),
    "classification+smoothness": ("classification", "smoothness"),
    "edges": TERMS,
    "untrained": (),
}
"""The terms that each variant of the loss keeps.

"edges" keeps all and lets the smoothness know the image's edges, a departure
(:func:`~explainer.losses.total_variation`); "untrained" is the network that
the trainings start from."""

EDGES = 20.0
"""The weight ``edges`` of the variant of that name."""


def variant_weights(weights: LossWeights, variant: str) -> LossWeights:
    """Return weights with the terms that a variant lacks set to zero."""
    off = [term for term in TERMS if term not in VARIANTS[variant]]
    changes = dict.fromkeys(off, 0.0)
    if variant == "edges":
        changes["edges"] = EDGES
    return replace(weights, **changes)  # type: ignore[arg-type]
