"""What several attribution methods share."""

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
    """Return the generator, or a fresh one of seed 0 on the CPU.

    So a method never draws from the global random state. Draw on the
    generator's own device and move the result: then the same CPU generator
    gives the same numbers whatever device the images are on.
    """
    return generator or torch.Generator().manual_seed(0)


def occurring(targets: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each class of targets ``(B, C)`` with the rows that have it."""
    for c in targets.any(0).nonzero().flatten().tolist():
        yield c, targets[:, c].nonzero().flatten()


def _check_targets(
    classifier: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """Refuse what is no ``(B, C)`` of 0 and 1, above all class indices."""
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
    """Refuse weights that no gradient can pass."""
    tensors = chain(network.parameters(), network.buffers())
    if any(tensor.is_inference() for tensor in tensors):
        raise UserError(
            "the classifier was built inside torch.inference_mode(), so no "
            "gradient passes its weights; build it outside, or take "
            "copy.deepcopy(classifier) there"
        )


def guarded(method: Method) -> Method:
    """Return an attribution method that takes what people have.

    It adds to the method what all of them need, whoever wrote it: images,
    targets and the masks' values are checked; targets may be of any number
    type; half precision is left to the classifier, while masks are computed
    in float32 and returned as the images' type; the classifier may be
    any that :func:`~explainer.classifiers.logits_of` can read, inside
    DataParallel or compiled too; and the call may stand inside
    ``torch.inference_mode()``, ``no_grad()`` or ``autocast()``.
    Raises :class:`~explainer.errors.UserError` for what it refuses.
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
            # A copy is an ordinary tensor, whatever mode the image is from.
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
    """Scale every map of ``(..., H, W)`` to [0, 1] by its own range.

    A constant map says nothing about where, and becomes zero.
    """
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(span > 0, span, 1)


def _by_maximum(maps: Tensor) -> Tensor:
    """Divide every map by its largest value; what is negative becomes 0."""
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
    """Return what makes masks in [0, 1] of a method's maps.

    One of the :data:`SCALINGS`, and then a power: above 1 it lowers all that
    is not near 1. Neither changes the order of an image's pixels (but for
    what is clipped), and both move the thresholds by which masks are judged.
    Raises ValueError for another name and for a power that is not positive.
    """
    scale = SCALINGS[scaling]
    if not power > 0:
        raise ValueError(f"the power of a mask is positive, not {power}")
    return lambda maps: scale(maps) ** power
