"""The Explainer: a trained network returns masks in one forward pass."""

import torch
from torch import Tensor, nn

from explainer.attribution.common import evaluating
from explainer.classifiers import layout_of, suited


def explainer(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    network: nn.Module,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return the Explainer's masks of the target classes.

    S = sigmoid(E(x)) (Stalder et al., NeurIPS 2022, section 3), set to zero
    for the other classes. The classifier is needed for training only.

    Parameters
    ----------
    classifier, generator, progress:
        Not used; all methods take them.
    images, targets:
        ``(B, 3, H, W)`` in [0, 1] and ``(B, C)``, 1 for a target class.
    network:
        E, maps images to class logits ``(B, C, H, W)``.

    Returns
    -------
    Masks ``(B, C, H, W)`` in [0, 1].
    """
    with evaluating(network), torch.no_grad():
        seen = suited(images, network, layout_of(network))
        logits = network(seen).to(images)
        class_masks: Tensor = logits.sigmoid()
    return class_masks * targets[:, :, None, None]
