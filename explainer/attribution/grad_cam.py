"""Grad-CAM: weigh the last feature maps by their mean gradient."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.attribution.common import (
    evaluating,
    final_scaling,
    occurring,
)
from explainer.classifiers import unfrozen, unwrapped
from explainer.errors import UserError

PREFIXES = (0, 1, 2, 5)
"""Numbers of tokens before a transformer's grid: class, registers, ..."""


def cam_layer(
    classifier: nn.Module, layer: nn.Module | str | None = None
) -> nn.Module | None:
    """Return the module whose output Grad-CAM weighs; None if none is named.

    ``layer`` is the module, or its dotted name in the classifier's
    ``network`` (in the classifier itself, if that has no ``network``). The
    default is the classifier's ``cam_layer``. Raises ValueError if no
    module has that name.
    """
    network = _network(classifier)
    if isinstance(layer, nn.Module):
        return layer
    name = layer or getattr(classifier, "cam_layer", "")
    if not name:
        return None
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise ValueError(
            f"no layer {name!r} in {type(network).__name__}; its children "
            f"are: {', '.join(n for n, _ in network.named_children())}"
        ) from error


def _network(classifier: nn.Module) -> nn.Module:
    """Return the network inside a classifier.

    Raises :class:`UserError` if it is scripted or traced.
    """
    inner = unfrozen(classifier)
    network = unwrapped(getattr(inner, "network", inner))
    if isinstance(network, torch.jit.ScriptModule):
        raise UserError(
            "a scripted or traced network (torch.jit) does not show its "
            "features, which Grad-CAM reads; give the network it was made "
            "from, or take another method"
        )
    return network


def _grid(n: int, height: int, width: int) -> tuple[int, int] | None:
    """Return (h, w) with h w = n and the image's proportions, or None."""
    h = round(math.sqrt(n * height / width))
    w = n // h if h else 0
    return (h, w) if h * w == n and _in_scale(h, w, height, width) else None


def _in_scale(h: int, w: int, height: int, width: int) -> bool:
    """Return whether h x w cells on an image are roughly square."""
    near = abs(h - w * height / width)
    return h <= height and near < (1 if height == width else 1 + h / w)


def feature_maps(features: Tensor, height: int, width: int) -> Tensor | None:
    """Return features as maps ``(B, K, h, w)``; None for an unknown layout.

    Known layouts are ``(B, K, h, w)``; ``(B, h, w, K)``, as in Swin; and
    tokens ``(B, N, K)``, as in vision transformers, where the last h w
    tokens are the grid and the first (:data:`PREFIXES`) have no position.
    The grid must have the proportions of the image, ``height`` x ``width``:
    this distinguishes h and w from K.
    """
    shape = features.shape
    if features.ndim == 4 and _in_scale(shape[2], shape[3], height, width):
        return features
    if features.ndim == 4 and _in_scale(shape[1], shape[2], height, width):
        return features.movedim(-1, 1)
    if features.ndim == 3:
        for extra in PREFIXES:
            grid = _grid(shape[1] - extra, height, width)
            if grid:
                return features[:, extra:].mT.reshape(*shape[::2], *grid)
    return None


@contextmanager
def _outputs(
    modules: Iterator[nn.Module],
) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Yield the list that collects the modules' outputs, in order.

    For a tuple its first item is collected. The next modules get a copy, so
    that in-place operations do not change the collected output.
    """
    seen: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: object, output: object) -> object:
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(first, Tensor) or not first.requires_grad:
            return None
        seen.append((module, first))
        copy = first.clone()
        return (copy, *output[1:]) if isinstance(output, tuple) else copy

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _outside_attention(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules outside of attention, where patches are mixed."""
    yield network
    for child in network.children():
        name = type(child).__name__.lower()
        if "attention" not in name and "attn" not in name:
            yield from _outside_attention(child)


def last_feature_layer(classifier: nn.Module, images: Tensor) -> nn.Module:
    """Return the last module whose feature maps influence the logits.

    It is found by a forward pass of ``images``. Its output has a grid of
    more than one cell (:func:`feature_maps`) and a nonzero gradient of the
    logits. (In a transformer with a class token, the patches after the last
    attention have none.) Raises ValueError if there is no such module.
    """
    network = _network(classifier)
    inputs = images.detach().requires_grad_()
    with _outputs(_outside_attention(network)) as seen:
        total = classifier(inputs).sum()
    size = images.shape[-2:]
    layers = [
        (module, output)
        for module, output in seen
        if (maps := feature_maps(output, *size)) is not None
        and maps.shape[-2:].numel() > 1
    ]
    if not layers:
        raise ValueError(
            f"{type(network).__name__} names no cam_layer, and none of its "
            "modules returns feature maps; pass layer=, a module or its "
            "dotted name, and reshape= if they are of another layout than "
            "(B, C, H, W)"
        )
    gradients = torch.autograd.grad(
        total, [output for _, output in layers], allow_unused=True
    )
    for (module, _), gradient in zip(
        reversed(layers), reversed(gradients), strict=True
    ):
        if gradient is not None:
            maps = feature_maps(gradient, *size)
            if maps is not None and maps.any():
                return module
    return layers[-1][0]


def grad_cam(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    layer: nn.Module | str | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
    scaling: str = "min_max",
    power: float = 1.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return Grad-CAM: feature maps of a layer, weighed by their gradient.

    With A^k the K feature maps of a layer and y_c the logit of class c,

    alpha_k = mean over pixels of dy_c / dA^k,
    L_c = ReLU(sum_k alpha_k A^k)

    (Selvaraju et al., *Grad-CAM*, ICCV 2017, eq. 1 and 2), upsampled
    bilinearly to the size of the image. Each map is scaled to [0, 1] by its
    least and largest value. A map without positive values stays zero.

    Parameters
    ----------
    classifier:
        Maps images to logits ``(B, C)``.
    images, targets:
        ``(B, 3, H, W)`` in [0, 1] and ``(B, C)``, 1 for a target class.
    layer:
        See :func:`cam_layer`; by default the classifier's last
        convolutional stage, or :func:`last_feature_layer`.
    reshape:
        Turns the layer's output into ``(B, K, h, w)``, for a layout that
        :func:`feature_maps` does not know.
    scaling, power:
        How the map becomes a mask, see
        :func:`~explainer.attribution.common.final_scaling`.
    generator, progress:
        Not used; all methods take them.

    Returns
    -------
    Masks ``(B, C, H, W)`` in [0, 1].

    Raises
    ------
    ValueError
        If no layer is known, or its layout is not.

    Notes
    -----
    Departures: Grad-CAM's paper has no scaling. Stalder et al. scale the
    map in this way to get a mask, before they merge the classes by maximum.
    A constant map (0 / 0 in their code) becomes zero. The paper treats
    convolutional networks only. A transformer's tokens are read as a map,
    without those that have no position.
    """
    scaled = final_scaling(scaling, power)
    masks = images.new_zeros(*targets.shape, *images.shape[-2:])
    if not targets.any():
        return masks

    def maps_in(features: Tensor) -> Tensor:
        if reshape is not None:
            return reshape(features)
        maps = feature_maps(features, *images.shape[-2:])
        if maps is None:
            raise UserError(
                f"the layer's output {tuple(features.shape)} has no known "
                "layout: (B, C, H, W), (B, H, W, C), or tokens (B, N, C); "
                "pass reshape=, a function from it to (B, C, H, W), or "
                "another layer="
            )
        return maps

    with evaluating(classifier), torch.enable_grad():
        chosen = cam_layer(classifier, layer) or last_feature_layer(
            classifier, images[:1]
        )
        # The parameters are frozen: the layer's output has a gradient only
        # if the input requires one.
        with _outputs(iter([chosen])) as seen:
            logits = classifier(images.detach().requires_grad_())
        if not seen:
            raise UserError(
                "the layer takes no part in the classifier's answer; pass "
                "another layer="
            )
        _, features = seen[-1]
        maps = maps_in(features.detach().to(images))
        for c, rows in occurring(targets):
            (gradient,) = torch.autograd.grad(
                logits[rows, c].sum(),
                features,
                retain_graph=True,
                materialize_grads=True,
            )
            gradients = maps_in(gradient.to(images))
            if gradient.any() and not gradients.any():
                raise UserError(
                    "the logits depend on tokens of the layer's output that "
                    "belong to no place, such as the class token; pass an "
                    "earlier layer=, such as the last block's first norm"
                )
            weights = gradients.mean((2, 3), keepdim=True)
            cam = (weights * maps).sum(1, keepdim=True)[rows].relu()
            cam = F.interpolate(cam, images.shape[-2:], mode="bilinear")
            masks[rows, c] = scaled(cam.squeeze(1))
    return masks
