"""RTIS, real-time image saliency, adapted to several classes per image.

The network is the Explainer's, trained with another loss (Dabkowski and
Gal, *Real time image saliency for black box classifiers*, NeurIPS 2017, eq.
3; adapted by Stalder et al., NeurIPS 2022). In RTIS the complement should
*destroy* the evidence for the present classes. In the Explainer's loss it
should leave the classifier undecided between all classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.attribution.explainer import explainer
from explainer.classifiers import IMAGENET
from explainer.losses import Loss, area
from explainer.masks import (
    complement,
    composite,
    gaussian_blur,
    mean_colour,
    target_mask,
)
from explainer.streams import Generators, normal, uniform


@dataclass(frozen=True)
class RTISWeights:
    """The weight of each term, and the power on the destroyer.

    The defaults are those of Stalder et al., who raised the weight of the
    area from the original 0.001 to 1.
    """

    smoothness: float = 10.0
    area: float = 1.0
    preserver: float = 1.0
    destroyer: float = 5.0
    power: float = 0.3


def rtis(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    network: nn.Module,
    sharpen: float = 1.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return the masks of a network that was trained with :func:`rtis_loss`.

    One forward pass, as :func:`explainer.attribution.explainer.explainer`.
    ``sharpen``, above 0, multiplies the mask's logits: above 1 masks are
    sharper than in training. Departure: the original decoder takes a class
    as input and returns one mask per pass.
    """
    if not sharpen > 0:
        raise ValueError(f"sharpen must be above 0, not {sharpen}")
    masks = explainer(classifier, images, targets, network=network)
    if sharpen == 1:
        return masks
    return (sharpen * masks.logit()).sigmoid()


def squared_variation(mask: Tensor) -> Tensor:
    """Return the mean squared difference of neighbours of ``(B, C, H, W)``.

    As in :func:`explainer.losses.total_variation` the border is reflected,
    so the last difference of each row and column counts twice.
    """
    padded = F.pad(mask, (0, 1, 0, 1), mode="reflect")
    inner = padded[..., :-1, :-1]
    down = (padded[..., 1:, :-1] - inner).square()
    right = (padded[..., :-1, 1:] - inner).square()
    return (down + right).mean()


def alternative_images(
    images: Tensor,
    classifier: nn.Module,
    generator: Generators = None,
) -> Tensor:
    """Return the fill shown where masks are 0, ``(B, 3, H, W)``.

    Each image gets at random its own blur or a noisy colour. The blur has a
    sigma of 10 pixels at a width of 224, in proportion at others. The colour
    is the mean colour plus a uniform draw of at most 0.33; the noise is
    normal with sigma 0.11 per pixel and channel. Both are in units of the
    classifier's normalisation.

    Departures from Stalder et al.'s code: it makes one choice for the whole
    batch; its noise has mean 0.11 and sigma 1 (probably meant as here); its
    blur pads with the mean colour; and it does not clip to [0, 1].
    """

    colour = 0.66 * uniform(images, (3, 1, 1), generator) - 0.33
    noise = 0.11 * normal(images, images.shape[1:], generator)
    std = getattr(classifier, "std", torch.tensor(IMAGENET[1]))
    spread = std.reshape(1, 3, 1, 1).to(images)
    coloured = mean_colour(classifier).to(images) + spread * (colour + noise)
    blurred = gaussian_blur(images, sigma=10 / 224 * images.shape[-1])
    heads = uniform(images, (1, 1, 1), generator) < 0.5
    return torch.where(heads, blurred, coloured.clamp(0, 1))


def rtis_loss(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_masks: Tensor,
    weights: RTISWeights,
    *,
    generator: Generators = None,
) -> Loss:
    """Return the adapted RTIS loss for a batch.

    L = 10 TV2(m) + A(m) + preserver + 5 destroyer^0.3. TV2 is the mean
    squared variation. The preserver is the mean of -log p_c with the image
    shown where m is 1, the destroyer the mean of p_c with the image shown
    where m is 0. Both means run over all pairs of an image and a class
    present in it, as in Stalder et al.'s code. The masks of absent classes
    do not enter the loss.

    Parameters
    ----------
    classifier:
        F, frozen; maps ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``.
    images, labels:
        ``(B, 3, H, W)`` and ``(B, C)``.
    class_masks:
        S, ``(B, C, H, W)`` in [0, 1].
    weights:
        The weights of the terms and the destroyer's power.
    generator:
        Source of the fill (:func:`alternative_images`).

    Returns
    -------
    The total and the unweighted terms ``smoothness``, ``area``,
    ``preserver`` and ``destroyer`` (with its power).
    """
    m = target_mask(class_masks, labels)
    fill = alternative_images(images, classifier, generator)
    kept = composite(images, m, fill)
    left = composite(images, complement(m), fill)
    logits = classifier(torch.cat([kept, left]))
    if getattr(classifier, "multi_label", True):
        log_p = F.logsigmoid(logits)
    else:
        log_p = F.log_softmax(logits, 1)
    log_p_kept, log_p_left = log_p.chunk(2)
    n_present = labels.sum().clamp(min=1)
    destroyer = (labels * log_p_left.exp()).sum() / n_present
    # At 0 a power below 1 has an infinite gradient, which leads to NaN.
    destroyer = destroyer.clamp(min=torch.finfo(destroyer.dtype).tiny)
    terms = {
        "smoothness": squared_variation(m),
        "area": area(m),
        "preserver": -(labels * log_p_kept).sum() / n_present,
        "destroyer": destroyer**weights.power,
    }
    total = sum(
        (getattr(weights, name) * term for name, term in terms.items()),
        start=torch.zeros((), device=images.device),
    )
    return Loss(total, terms)
