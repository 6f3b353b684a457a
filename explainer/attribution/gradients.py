"""Two gradient methods for reference; the paper does not compare them.

Both measure how a class's logit changes with the colour of a pixel. Both
come from captum; :func:`_heat` turns the gradients into a mask.
"""

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.attribution.common import evaluating, min_max, occurring
from explainer.masks import mean_colour


def _heat(attributions: Tensor) -> Tensor:
    """Return ``(B, H, W)``: magnitudes summed over colours, in [0, 1]."""
    return min_max(attributions.detach().abs().sum(1))


def input_gradient(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return ``|dy_c / dx|``, summed over colours and scaled to [0, 1].

    y_c is the logit of a target class (Simonyan et al., *Deep inside
    convolutional networks*, 2013, section 3). Departure: they take the
    maximum over the three colours, not the sum.

    ``images`` is ``(B, 3, H, W)`` in [0, 1], ``targets`` ``(B, C)`` with 1
    for a target class; the masks are ``(B, C, H, W)``. ``generator`` and
    ``progress`` are not used; all methods take them.
    """
    from captum.attr import Saliency  # late: it takes a second

    masks = images.new_zeros(*targets.shape, *images.shape[-2:])
    with evaluating(classifier):
        saliency = Saliency(classifier)
        for c, rows in occurring(targets):
            inputs = images[rows].detach().requires_grad_()
            masks[rows, c] = _heat(saliency.attribute(inputs, target=c))
    return masks


def integrated_gradients(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    n_steps: int = 50,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return integrated gradients, summed over colours, scaled to [0, 1].

    They are (x - x') times the mean of dy_c / dx along the straight line
    from a baseline x' to the image x (Sundararajan et al., *Axiomatic
    attribution for deep networks*, ICML 2017, eq. 1). The absolute value is
    summed over colours. Departure: the baseline is the classifier's mean
    colour, which this package shows where a mask is 0; theirs is black.

    Parameters
    ----------
    classifier:
        Maps images to logits ``(B, C)``.
    images, targets:
        ``(B, 3, H, W)`` in [0, 1] and ``(B, C)``, 1 for a target class.
    n_steps:
        Points on the line, at Gauss-Legendre nodes.
    batch_size:
        Points that the classifier sees at once, but at least one of each
        image. It limits memory and changes no result.
    generator:
        Not used; all methods take it.
    progress:
        Show a bar with one step per class.

    Returns
    -------
    Masks ``(B, C, H, W)`` in [0, 1].
    """
    from captum.attr import IntegratedGradients  # late, too

    masks = images.new_zeros(*targets.shape, *images.shape[-2:])
    baseline = mean_colour(classifier).to(images)
    with evaluating(classifier):
        integrated = IntegratedGradients(classifier)
        for c, rows in tqdm(list(occurring(targets)), disable=not progress):
            inputs = images[rows].detach()
            attributions = integrated.attribute(
                inputs,
                baselines=baseline.expand_as(inputs),
                target=c,
                n_steps=n_steps,
                # Captum evaluates at least one point per image at a time.
                internal_batch_size=max(batch_size, len(rows)),
            )
            # Captum before 0.8 returns double precision.
            masks[rows, c] = _heat(attributions.to(images))
    return masks
