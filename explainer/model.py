"""The Explainer networks E: an image in, one mask logit per class and pixel.

All of them take images ``(B, 3, H, W)`` in [0, 1] and return class logits
``(B, C, H, W)``; the masks S are the sigmoid of these. A sigmoid, not a
softmax: a pixel may belong to several classes or to none (paper, section 3).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.classifiers import (
    HALVES,
    IMAGENET,
    Classifier,
    SmallCNN,
    SmallEncoder,
    imagenet_state,
    lite0_network,
    torchvision_network,
)
from explainer.errors import Registry, UserError


def _resize(x: Tensor, size: Sequence[int], corners: bool = False) -> Tensor:
    """Return x at another size; ``corners`` aligns the corner centres."""
    return F.interpolate(
        x, tuple(size), mode="bilinear", align_corners=corners
    )


def seen_size(wished: float, cell: int | None) -> int:
    """Return the encoder's input size in pixels, close to ``wished``.

    With a ``cell`` in pixels it is a multiple of ``cell`` plus one, with at
    least two cells.
    """
    if cell is None:
        return round(wished)
    return cell * max(1, round(wished / cell)) + 1


class Decoder(nn.Module):
    """From coarse to fine: add each stage's features, mix, upsample.

    ``channels`` are those of the encoder's stages, finest first. The output
    has the finest stage's resolution. ``corners`` says that the centres of
    the corner cells coincide in all stages.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        n_classes: int,
        corners: bool = False,
    ) -> None:
        super().__init__()
        self.corners = corners
        self.lateral = nn.ModuleList(
            nn.Conv2d(c, width, 1, bias=False) for c in channels
        )
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.GroupNorm(8, width),
                nn.ReLU(inplace=True),
            )
            for _ in channels
        )
        self.head = nn.Conv2d(width, n_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(B, C, h, w)`` at the size of ``features[0]``."""
        x: Tensor | None = None
        stages = list(zip(features, self.lateral, self.mix, strict=True))
        for feature, lateral, mix in reversed(stages):
            here = lateral(feature)
            if x is not None:
                here = here + _resize(x, here.shape[-2:], self.corners)
            x = mix(here)
        logits: Tensor = self.head(x)
        return logits


def average_cells(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the means of ``(B, D, h, w)`` over cells, ``(B, D, *cells)``.

    The values are those of ``F.adaptive_avg_pool2d``, computed as matrix
    products, which can be exported to other runtimes
    (:mod:`explainer.export`).
    """
    down, right = (
        _averaging(n, n_cells).to(x)
        for n, n_cells in zip(x.shape[-2:], cells, strict=True)
    )
    return down @ x @ right.T


def _averaging(n: int, n_cells: int) -> Tensor:
    """Return ``(n_cells, n)``: each row averages the pixels of its cell."""
    cell, pixel = torch.arange(n_cells)[:, None], torch.arange(n)
    first = cell * n // n_cells
    end = ((cell + 1) * n + n_cells - 1) // n_cells
    return ((first <= pixel) & (pixel < end)) / (end - first)


def _unit(features: Tensor) -> Tensor:
    """Return ``(B, D, h, w)`` features as unit vectors, one per cell.

    First each channel is centred and scaled over the image.
    """
    centred = features - features.mean((2, 3), keepdim=True)
    spread = centred.square().mean((2, 3), keepdim=True).sqrt()
    return F.normalize(centred / (spread + 1e-5), dim=1)


@torch.no_grad()
def affinity(
    features: Sequence[Tensor],
    cells: tuple[int, int],
    temperature: float = 0.1,
    *,
    reach: float,
) -> Tensor:
    """Return row-stochastic weights ``(B, N, N)`` between N similar cells.

    Similar and near cells have the largest weights. Each row sums to 1.
    ``features`` are maps ``(B, D, h, w)`` of any sizes, each with the same
    influence. They are averaged to the grid ``cells``, rows by columns. The
    weight of cell j for cell i is the softmax over j of ``cos(f_i, f_j) /
    temperature - d_ij ** 2 / (2 * reach ** 2)``, with the distance d in
    widths of the image. No gradient flows through the weights, so that
    training cannot change the features to suit the masks.

    Departure: this is not in the paper. The loss says little about where a
    mask should end. On photographs the true outline often has a higher loss
    than a mask with some context, since the classifier uses the context
    too. The network therefore has a prior without parameters: similar pixels
    belong together, as in conditional random fields (Krähenbühl and Koltun,
    2011). Here it is a step of averaging as in non-local networks (Wang et
    al., 2018).
    """
    maps = [_unit(average_cells(f, cells)) for f in features]
    unit = F.normalize(torch.cat(maps, dim=1).flatten(2), dim=1)
    unit = unit / temperature**0.5
    rows, columns = (
        torch.arange(n, device=unit.device, dtype=unit.dtype) / n
        for n in cells
    )
    place = torch.cartesian_prod(rows, columns)
    far = torch.cdist(place, place).square() / (2 * reach**2)
    return torch.baddbmm(-far, unit.transpose(1, 2), unit).softmax(dim=-1)


def share(
    logits: Tensor, weights: Tensor, cells: tuple[int, int], rounds: int
) -> Tensor:
    """Return logits averaged over similar cells, ``(B, C, *cells)``.

    ``logits`` are ``(B, C, h, w)``, ``weights`` come from :func:`affinity`
    for the same ``cells``; they are applied ``rounds`` times.
    """
    values = average_cells(logits, cells).flatten(2)
    for _ in range(rounds):
        values = values @ weights.transpose(1, 2)
    return values.reshape(*logits.shape[:2], *cells)


class EncoderDecoder(nn.Module):
    """A light Explainer: an encoder's stages and a :class:`Decoder`.

    Parameters
    ----------
    encoder:
        Maps normalised images to a list of feature maps, finest first.
    channels:
        Their numbers of channels.
    n_classes:
        C.
    width:
        Channels of the decoder, a multiple of 8.
    normalisation:
        Mean and standard deviation that the encoder expects, by channel.
    sharpness:
        Factor on the decoder's logits. Above 1 the sigmoid saturates sooner,
        and fewer mask values stay near 1/2.
    initial_bias:
        The logit of a new network; negative means small masks.
    class_activation:
        Maps the coarsest features to class logits, which are added to the
        decoder's; None for none.
    scale:
        Approximate magnification of the image for the encoder (see
        :func:`seen_size`). A larger scale resolves finer parts; the time
        grows with its square.
    affinity_cells:
        Rows and columns of the grid on which logits are averaged over
        similar cells (:func:`affinity`); 0 for no averaging.
    affinity_reach, affinity_rounds:
        How far this reaches, in widths of the image, and how often it is
        done.
    """

    channels_last = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        channels: Sequence[int],
        n_classes: int,
        *,
        width: int,
        normalisation: tuple[Sequence[float], Sequence[float]] = HALVES,
        sharpness: float = 1.0,
        initial_bias: float = 0.0,
        class_activation: nn.Module | None = None,
        scale: float = 1.0,
        affinity_cells: int = 0,
        affinity_reach: float = 0.5,
        affinity_rounds: int = 2,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        # If the encoder needs an odd size, the corner cells of all stages
        # have the same centres.
        self.cell = getattr(encoder, "cell", None)
        self.decoder = Decoder(
            channels, width, n_classes, corners=self.cell is not None
        )
        self.class_activation = class_activation
        self.scale = scale
        self.affinity_cells = affinity_cells
        self.affinity_reach = affinity_reach
        self.affinity_rounds = affinity_rounds
        self.sharpness = sharpness
        bias = self.decoder.head.bias
        assert bias is not None
        nn.init.constant_(bias, initial_bias / sharpness)
        mean, std = normalisation
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "EncoderDecoder":
        """Return self; a pre-trained encoder's batch norm stays in eval mode.

        Its statistics come from far more images than a batch has.
        """
        super().train(mode)
        if isinstance(self.encoder, Lite0Encoder):
            self.encoder.eval()
        if self.class_activation is not None:
            self.class_activation.eval()
        return self

    @torch.no_grad()
    def sharpen(self, by: float) -> None:
        """Multiply all logits by a factor, in place.

        In training masks must be soft, since a saturated sigmoid has no
        gradient. Afterwards they may be made sharper.
        """
        self.sharpness *= by  # the decoder's factor alone
        if self.class_activation is not None:
            last = list(self.class_activation.children())[-1]
            for parameter in last.parameters():
                parameter.mul_(by)

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits ``(B, C, H, W)``."""
        x = (images - self.mean) / self.std
        corners = self.cell is not None
        size = [seen_size(n * self.scale, self.cell) for n in x.shape[-2:]]
        if size != list(x.shape[-2:]):
            x = _resize(x, size, corners)
        features = self.encoder(x)
        logits: Tensor = self.sharpness * self.decoder(features)
        if self.class_activation is not None:
            coarse = self.class_activation(features[-1])
            logits = logits + _resize(coarse, logits.shape[-2:], corners)
        if self.affinity_cells:
            cells = (self.affinity_cells, self.affinity_cells)
            # The colours and the finest features. Coarser ones are similar
            # over the whole neighbourhood of an object.
            weights = affinity(
                [x, *features[:2]], cells, reach=self.affinity_reach
            )
            logits = share(logits, weights, cells, self.affinity_rounds)
            corners = False  # cells of that grid are areas
        return _resize(logits, images.shape[-2:], corners)


class Lite0Encoder(nn.Module):
    """The convolutional stages of EfficientNet-Lite0, strides 4 to 32.

    The stage at stride 2 is left out: it would double the decoder's cost,
    and masks of photographs do not need edges that fine.

    The convolutions pad as in TensorFlow: for an even size only on the right
    and below. This shifts the cells' centres at each stage, by 15 pixels at
    the last. With ``cell * k + 1`` pixels every stage has an odd size and
    equal padding on both sides. The cells' centres then lie on every 4th,
    ..., 32nd pixel, and the corner cells on the image's corners.
    """

    channels = (24, 40, 112, 320)
    cell = 32

    def __init__(self) -> None:
        super().__init__()
        self.network = lite0_network(
            features_only=True, out_indices=(1, 2, 3, 4)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of four stages, finest first."""
        features: list[Tensor] = self.network(x)
        return features


class Lite0Head(nn.Module):
    """The last layers of EfficientNet-Lite0, without the average pooling.

    It returns a map of class logits, the class activation map (Zhou et al.,
    2016). Its mean over cells is the classifier's logit. An Explainer that
    adds the map knows where each class is and must learn only its extent.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        n_in, width = Lite0Encoder.channels[-1], 1280
        self.conv_head = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=1e-3)  # as trained
        self.classifier = nn.Conv2d(width, n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return class logits ``(B, C, h, w)`` of the coarsest features."""
        logits: Tensor = self.classifier(F.relu6(self.bn2(self.conv_head(x))))
        return logits


class DeepLab(nn.Module):
    """torchvision's DeepLabv3-ResNet50 with an output per class.

    The paper's Explainer: an ImageNet backbone and a new head.
    """

    channels_last = True
    mean: Tensor
    std: Tensor

    def __init__(self, n_classes: int, *, pretrained_backbone: bool) -> None:
        super().__init__()
        self.network = torchvision_network(
            "deeplabv3_resnet50", weights_backbone=None, num_classes=n_classes
        )
        if pretrained_backbone:
            state = imagenet_state(
                "resnet50", "or build it with pretrained_backbone=False"
            )
            backbone = self.network.backbone
            own = backbone.state_dict()
            backbone.load_state_dict({name: state[name] for name in own})
        mean, std = IMAGENET
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits ``(B, C, H, W)``.

        Raises :class:`~explainer.errors.UserError` for a batch of one image
        in training: batch norm cannot normalise one pooled value.
        """
        if self.training and len(images) == 1:
            raise UserError(
                "DeepLab cannot train on a batch of one image, because "
                "batch norm needs two; choose a larger batch size, or "
                "more images"
            )
        out: Tensor = self.network((images - self.mean) / self.std)["out"]
        return out


def small(
    n_classes: int,
    *,
    width: int = 32,
    decoder_width: int = 32,
    sharpness: float = 1.0,
    affinity_cells: int = 0,
) -> EncoderDecoder:
    """Return the Explainer of the scenes: 0.5 M parameters.

    For the options see :class:`EncoderDecoder`.
    """
    encoder = SmallEncoder(width)
    return EncoderDecoder(
        encoder,
        encoder.channels,
        n_classes,
        width=decoder_width,
        sharpness=sharpness,
        affinity_cells=affinity_cells,
    )


def light(
    n_classes: int,
    *,
    decoder_width: int = 64,
    sharpness: float = 1.0,
    initial_bias: float = 0.0,
    class_activation: bool = False,
    scale: float = 1.0,
    affinity_cells: int = 0,
    affinity_reach: float = 0.5,
    affinity_rounds: int = 2,
) -> EncoderDecoder:
    """Return a light Explainer on EfficientNet-Lite0 for photographs.

    ``class_activation`` adds the output of a :class:`Lite0Head`; for the
    other options see :class:`EncoderDecoder`.
    """
    return EncoderDecoder(
        Lite0Encoder(),
        Lite0Encoder.channels,
        n_classes,
        width=decoder_width,
        sharpness=sharpness,
        initial_bias=initial_bias,
        class_activation=Lite0Head(n_classes) if class_activation else None,
        scale=scale,
        affinity_cells=affinity_cells,
        affinity_reach=affinity_reach,
        affinity_rounds=affinity_rounds,
    )


def deeplabv3_resnet50(
    n_classes: int, *, pretrained_backbone: bool = False
) -> DeepLab:
    """Return the paper's Explainer: see :class:`DeepLab`."""
    return DeepLab(n_classes, pretrained_backbone=pretrained_backbone)


NETWORKS: Registry[Callable[..., nn.Module]] = Registry(
    "Explainer network",
    {
        "small": small,
        "light": light,
        "deeplabv3_resnet50": deeplabv3_resnet50,
    },
)


def build_explainer(
    name: str, n_classes: int, **options: object
) -> nn.Module:
    """Return an Explainer network by name.

    Raises ValueError for an unknown name.
    """
    return NETWORKS[name](n_classes, **options)


def start_from(network: nn.Module, classifier: nn.Module) -> nn.Module:
    """Return E with the classifier's convolutional features in its encoder.

    E is changed in place. If it has a :class:`Lite0Head`, the classifier's
    last layers are copied too. The paper's Explainer starts from an ImageNet
    backbone; on the scenes it starts from the classifier's own features.
    Raises ValueError if the two networks have no features in common.
    """
    features: Any = classifier
    while isinstance(getattr(features, "classifier", None), Classifier):
        features = features.classifier  # look inside Frozen
    source = getattr(features, "network", features)
    target = getattr(network, "encoder", None)
    if isinstance(target, SmallEncoder) and isinstance(source, SmallCNN):
        target.load_state_dict(source.encoder.state_dict())
    elif isinstance(target, Lite0Encoder) and hasattr(source, "conv_stem"):
        own = target.network.state_dict()
        state = source.state_dict()
        target.network.load_state_dict({k: state[k] for k in own})
        head = getattr(network, "class_activation", None)
        if isinstance(head, Lite0Head):
            # A linear layer on pooled features is a 1 x 1 convolution.
            state["classifier.weight"] = state["classifier.weight"][
                ..., None, None
            ]
            head.load_state_dict({k: state[k] for k in head.state_dict()})
    else:
        raise ValueError(
            f"{type(network).__name__} cannot start from the features of "
            f"{type(source).__name__}"
        )
    return network
