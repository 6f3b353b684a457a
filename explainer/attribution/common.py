"""Checks, random numbers and scaling shared by the attribution methods."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import chain

import torch
from torch import Tensor, nn

from explainer.classifiers import Explanandum, check_images
from explainer.classifiers import evaluating as evaluating
from explainer.errors import Registry, UserError

Method = Callable[..., Tensor]


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """Return the generator, or a new one with seed 0 on the CPU.

    A method therefore never draws from the global random state. Draw on the
    generator's own device and move the result: a CPU generator then gives
    the same numbers on every device.
    """
    return generator or torch.Generator().manual_seed(0)


def occurring(targets: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each target class with the rows of ``(B, C)`` where it is 1."""
    for c in targets.any(0).nonzero().flatten().tolist():
        yield c, targets[:, c].nonzero().flatten()


def _check_targets(
    classifier: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """Raise unless targets are ``(B, C)`` with values 0 and 1."""
    names = getattr(classifier, "classes", ())
    n = len(names) if isinstance(names, Sequence) else 0
    fits = targets.ndim == 2 and targets.shape[0] == len(images)
    if not fits or (n and targets.shape[1] != n):
        raise UserError(
            f"targets are (B, C) = ({len(images)}, {n or 'C'}), 1 for a "
            f"class to explain and 0 elsewhere, not {tuple(targets.shape)}; "
            "of class indices make them with torch.nn.functional.one_hot"
        )
    if not ((targets == 0) | (targets == 1)).all():
        raise UserError(
            "targets (B, C) are 1 for a class to explain and 0 elsewhere; "
            "these hold other numbers"
        )


def _check_weights(network: nn.Module) -> None:
    """Raise if gradients cannot pass through the network's weights."""
    tensors = chain(network.parameters(), network.buffers())
    if any(tensor.is_inference() for tensor in tensors):
        raise UserError(
            "the classifier was built inside torch.inference_mode(), so no "
            "gradient passes its weights; build it outside, or take "
            "copy.deepcopy(classifier) there"
        )


def guarded(method: Method) -> Method:
    """Return the method with checks and conversions around each call.

    Images, targets and mask values are checked. Targets may have any number
    type. The classifier may run in half precision; masks are computed in
    float32 at least and returned in the images' type. The classifier may be
    any that :func:`~explainer.classifiers.logits_of` can read, also inside
    DataParallel or compiled. The call may be made inside
    ``torch.inference_mode()``, ``no_grad()`` or ``autocast()``.
    Raises :class:`~explainer.errors.UserError` for bad input.
    """

    @wraps(method)
    def call(
        classifier: nn.Module,
        images: Tensor,
        targets: Tensor,
        **options: object,
    ) -> Tensor:
        check_images(images)
        seen = Explanandum(classifier)
        _check_targets(seen, images, targets)
        _check_weights(seen)
        exact = torch.promote_types(images.dtype, torch.float32)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(images.device.type, enabled=False),
        ):
            # Images made in inference mode take no gradient; a copy does.
            inputs = images.detach().clone().to(exact)
            masks = method(seen, inputs, targets.to(inputs), **options)
        masks = masks.detach()
        if not masks.isfinite().all():
            raise UserError(
                "the masks are not numbers: the classifier's logits or "
                "gradients overflow; call it in float32 (classifier.float())"
            )
        return masks.to(images.dtype)

    return call


def min_max(maps: Tensor) -> Tensor:
    """Return maps ``(..., H, W)`` scaled to [0, 1], each by its own range.

    A constant map becomes zero.
    """
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(span > 0, span, 1)


def _by_maximum(maps: Tensor) -> Tensor:
    """Return each map over its largest value; negative values become 0."""
    positive = maps.clamp(min=0)
    top = positive.amax((-2, -1), keepdim=True)
    return positive / torch.where(top > 0, top, 1)


SCALINGS: Registry[Callable[[Tensor], Tensor]] = Registry(
    "scaling",
    {
        "min_max": min_max,
        "max": _by_maximum,
        "none": lambda maps: maps.clamp(0, 1),
    },
)
"""The last step of a method, from maps ``(..., H, W)`` to masks in [0, 1]."""


def final_scaling(
    scaling: str, power: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Return the function that turns a method's maps into masks in [0, 1].

    It applies one of the :data:`SCALINGS` and then a power. A power above 1
    lowers every value between 0 and 1. Except for clipped values, the order
    of an image's pixels stays the same, but more or fewer of them lie above
    a threshold. Raises ValueError for another name and for a power that is
    not positive.
    """
    scale = SCALINGS[scaling]
    if not power > 0:
        raise ValueError(f"power must be above 0, not {power}")
    return lambda maps: scale(maps) ** power
