"""From the Explainer's per-class masks S to the masks that the loss uses.

Paper, section 3: with Y the set of classes present in an image,
m is the pixel-wise maximum of s_c over c in Y (:func:`target_mask`),
m~ = 1 - m its complement, and n the maximum over c not in Y
(:func:`non_target_mask`), which collects false positives.

Masking is a composite, ``m x + (1 - m) fill``. The paper multiplies the
*normalised* image by m, so what is removed turns into the colour that
normalisation maps to zero: the mean colour of ImageNet.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.errors import Registry
from explainer.streams import Generators, normal, uniform

IMAGENET_MEAN = (0.485, 0.456, 0.406)


def target_mask(class_masks: Tensor, labels: Tensor) -> Tensor:
    """Return m, the pixel-wise maximum of the masks of present classes.

    Parameters
    ----------
    class_masks:
        S, ``(B, C, H, W)``, values in [0, 1].
    labels:
        ``(B, C)``, 1 for a present class and 0 for an absent one.

    Returns
    -------
    ``(B, 1, H, W)``. For an image without labels, which the paper leaves
    undefined, the mask is zero.
    """
    present = class_masks * labels[:, :, None, None]
    # amax would share the gradient between ties, at twice the cost.
    return present.max(1, keepdim=True).values


def non_target_mask(class_masks: Tensor, labels: Tensor) -> Tensor:
    """Return n, the pixel-wise maximum of the masks of absent classes.

    Shapes as in :func:`target_mask`; zero for an image with every label.
    """
    return target_mask(class_masks, 1 - labels)


def complement(mask: Tensor) -> Tensor:
    """Return m~ = 1 - m."""
    return 1 - mask


def composite(images: Tensor, masks: Tensor, fill: Tensor) -> Tensor:
    """Return ``m x + (1 - m) fill``, ``(B, 3, H, W)``.

    ``images`` is ``(B, 3, H, W)``, ``masks`` ``(B, 1, H, W)``, and ``fill``
    broadcasts against the images.
    """
    return torch.lerp(fill, images, masks)


def mean_colour(classifier: object) -> Tensor:
    """Return the colour that a classifier's normalisation maps to zero.

    The shape is ``(1, 3, 1, 1)``. It is ImageNet's mean colour for a module
    without ``mean``.
    """
    mean = getattr(classifier, "mean", None)
    if isinstance(mean, Tensor):
        return mean.reshape(1, 3, 1, 1)
    return torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Return ``(B, C, H, W)`` blurred by a Gaussian of ``sigma`` pixels.

    The kernel reaches three sigma (less in a smaller image). The border is
    reflected.
    """
    if sigma <= 0:
        return images
    radius = min(round(3 * sigma), *(n - 1 for n in images.shape[-2:]))
    steps = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2).to(images.dtype)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    # In plain layout: in channels_last a long, thin, grouped kernel takes
    # minutes and gigabytes in torch 2.2.
    padded = F.pad(images, (radius,) * 4, mode="reflect").contiguous()
    rows = kernel.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    cols = kernel.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(
        F.conv2d(padded, rows, groups=channels), cols, groups=channels
    )


def _fill_mean(images: Tensor, mean: Tensor, _: object) -> Tensor:
    return mean.to(images)


def _fill_black(images: Tensor, mean: Tensor, _: object) -> Tensor:
    return torch.zeros_like(mean).to(images)


def _fill_blur(images: Tensor, mean: Tensor, _: object) -> Tensor:
    return gaussian_blur(images, sigma=images.shape[-1] / 12)


def _fill_noise(
    images: Tensor, mean: Tensor, generator: Generators
) -> Tensor:
    """Return noise at three scales around one random colour per image."""
    noise = 0.25 * normal(images, (3, 1, 1), generator)
    for cells, contrast in ((4, 0.2), (12, 0.12), (40, 0.08)):
        coarse = contrast * normal(images, (3, cells, cells), generator)
        noise = noise + F.interpolate(
            coarse, images.shape[-2:], mode="bilinear", align_corners=False
        )
    return (mean.to(images) + noise).clamp(0, 1)


FILLS: Registry[Callable[[Tensor, Tensor, Generators], Tensor]] = Registry(
    "fill",
    {
        "mean": _fill_mean,
        "black": _fill_black,
        "blur": _fill_blur,
        "noise": _fill_noise,
    },
)


def make_fill(
    name: str,
    images: Tensor,
    classifier: object,
    generator: Generators = None,
) -> Tensor:
    """Return the fill: the pixels shown where a mask is 0.

    ``name`` is "mean" (the paper's), "black", "blur" (a Gaussian, sigma a
    twelfth of the width) or "noise" (smooth, drawn from ``generator``: one
    for all images, or one per image). The result broadcasts against
    ``images``. Raises ValueError for another name.
    """
    return FILLS[name](images, mean_colour(classifier), generator)


def random_masks(images: Tensor, generator: Generators = None) -> Tensor:
    """Return one smooth random mask per image, ``(B, 1, H, W)`` in [0, 1].

    Bilinear noise of 7 x 7 cells is compared with a random threshold. The
    blobs keep from a small part to nearly all of the image. ``generator``
    is one for all images, or one per image.
    """
    coarse = uniform(images, (1, 7, 7), generator)
    threshold = 0.2 + 0.6 * uniform(images, (1, 1, 1), generator)
    smooth = F.interpolate(
        coarse, images.shape[-2:], mode="bilinear", align_corners=False
    )
    return ((smooth - threshold) * 20).sigmoid()
