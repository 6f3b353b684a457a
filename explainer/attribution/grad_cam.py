"""Grad-CAM: weigh the last feature maps by their mean gradient."""

import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

from explainer.attribution.common import (
    evaluating,
    final_scaling,
    occurring,
)


def cam_layer(
    classifier: nn.Module, layer: nn.Module | str | None = None
) -> nn.Module:
    """Return the module whose output Grad-CAM weighs.

    ``layer`` is the module itself, or its dotted name within the
    classifier's ``network`` (within the classifier, if it has none); by
    default the classifier's own ``cam_layer``. Raises ValueError where no
    layer is known or no module has that name.
    """
    if isinstance(layer, nn.Module):
        return layer
    name = layer or getattr(classifier, "cam_layer", "")
    if not name:
        raise ValueError(
            f"{type(classifier).__name__} names no cam_layer; pass layer=, "
            "the last convolutional module or its dotted name"
        )
    network = getattr(classifier, "network", classifier)
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise ValueError(
            f"no layer {name!r} in {type(network).__name__}; its children "
            f"are: {', '.join(n for n, _ in network.named_children())}"
        ) from error


def grad_cam(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    layer: nn.Module | str | None = None,
    scaling: str = "min_max",
    power: float = 1.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return Grad-CAM's masks of the target classes.

    With A^k the K feature maps of a layer and y_c the logit of class c,

    alpha_k = mean over pixels of dy_c / dA^k,
    L_c = ReLU(sum_k alpha_k A^k)

    (Selvaraju et al., *Grad-CAM*, ICCV 2017, eq. 1 and 2; computed by
    captum), upsampled bilinearly to the size of the image and scaled to
    [0, 1] by its least and largest value, for each image and class. A map
    without any positive evidence stays zero.

    Parameters
    ----------
    classifier:
        Maps images to logits ``(B, C)``.
    images, targets:
        ``(B, 3, H, W)`` in [0, 1] and ``(B, C)``, 1 for an asked class.
    layer:
        See :func:`cam_layer`; by default the classifier's last
        convolutional stage.
    scaling, power:
        How the map becomes a mask, see
        :func:`~explainer.attribution.common.final_scaling`.
    generator, progress:
        Not used; part of the call shape that all methods share.

    Returns
    -------
    Masks ``(B, C, H, W)`` in [0, 1].

    Notes
    -----
    Departure: the scaling is not in Grad-CAM's paper; it is how Stalder et
    al. turn its map into a mask, before they merge the classes by maximum.
    Where their map is constant (0 / 0), ours is zero.
    """
    scaled = final_scaling(scaling, power)
    masks = images.new_zeros(*targets.shape, *images.shape[-2:])
    with evaluating(classifier):
        cam = LayerGradCam(classifier, cam_layer(classifier, layer))
        for c, rows in occurring(targets):
            # The parameters are frozen, so the layer's output has a graph
            # to differentiate by only if the input asks for gradients.
            inputs = images[rows].detach().requires_grad_()
            maps = cam.attribute(inputs, target=c, relu_attributions=True)
            maps = F.interpolate(
                maps.detach(), images.shape[-2:], mode="bilinear"
            )
            masks[rows, c] = scaled(maps.squeeze(1))
    return masks
