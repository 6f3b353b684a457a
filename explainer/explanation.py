"""Explanations of photographs, from a model and a method."""

import base64
import inspect
import io
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from explainer.attribution import METHODS, Method, guarded
from explainer.attribution.common import evaluating
from explainer.checkpoints import Pair, load, load_classifier, load_explainer
from explainer.classifiers import (
    Classifier,
    Explanandum,
    found,
    probabilities,
    told_apart,
    unfrozen,
)
from explainer.data.base import DataError
from explainer.data.pictures import (
    Picture,
    named_pictures,
    own_size,
    to_pixels,
)
from explainer.errors import UnknownNameError, UserError
from explainer.figures import COLOURS, heat, legend, spotlight, to_image
from explainer.files import write_atomically
from explainer.masks import composite, make_fill

SIZE = 224
"""Height and width of photographs for a model without a size."""


# --- the answer -----------------------------------------------------------


def _in_filename(name: str) -> str:
    """Return a class's name in the form used in file names."""
    return re.sub(
        r'[\\/:*?"<>|%\x00-\x1f]', lambda m: f"%{ord(m[0]):02X}", name
    )


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


@dataclass(frozen=True, repr=False)
class Explanation:
    """The explanation of a classifier's answer for one photograph.

    Attributes
    ----------
    photo:
        The photograph's path, or its position among several.
    classes:
        The K target classes.
    scores:
        Their probabilities.
    masks:
        ``(K, H, W)`` in [0, 1], at the classifier's input size.
    after:
        Their probabilities for the masked photograph, with the rest in the
        classifier's mean colour.
    found:
        The classes that the classifier finds, targets or not.
    method:
        The attribution method's name.
    source:
        The source of the pixels; read again for drawing.
    """

    photo: str
    classes: tuple[str, ...]
    scores: tuple[float, ...]
    masks: Tensor
    after: tuple[float, ...]
    found: tuple[str, ...]
    method: str
    source: Picture = field(repr=False)

    def __repr__(self) -> str:
        """Return the photograph's name, the classes and their scores."""
        said = ", ".join(self._lines()) or "none of the classes"
        return f"<{self.method} of {Path(self.photo).name}: {said}>"

    def _lines(self) -> list[str]:
        return [
            f"{name} {score:.0%}"
            for name, score in zip(self.classes, self.scores, strict=True)
        ]

    def _index(self, target: str | int | None) -> list[int]:
        if target is None:
            return list(range(len(self.classes)))
        if isinstance(target, int) and target in range(len(self.classes)):
            return [target]
        if target not in self.classes:
            raise UnknownNameError(
                "class explained", str(target), self.classes
            )
        return [self.classes.index(str(target))]

    def draw(
        self, target: str | int | None = None, *, heatmap: bool = False
    ) -> Image.Image:
        """Return the photograph at its own size with its masks on it.

        Each class has a colour (:func:`~explainer.figures.spotlight`). With
        ``heatmap`` the pixel-wise maximum of the masks is a heatmap. A
        legend gives classes and probabilities. ``target`` is one of the
        ``classes`` or its index in them; by default all are drawn. A picture
        of more than 12 million pixels is drawn smaller.
        """
        photo = own_size(self.source)
        chosen = self._index(target)
        masks = _scaled(self.masks[chosen], photo.shape[-2:])
        colours = [COLOURS[k % len(COLOURS)] for k in chosen]
        covered = (
            masks.amax(0) if chosen else photo.new_zeros(photo.shape[-2:])
        )
        if heatmap:
            colours = ["#fca50a"] * len(chosen)
            image = to_image(heat(photo, covered))
        else:
            image = to_image(spotlight(photo, masks, colours))
        lines = self._lines()
        if chosen:
            texts = [lines[k] for k in chosen]
            legend(image, list(zip(colours, texts, strict=True)), covered)
        return image

    def save(
        self, folder: str | Path, *, heatmap: bool = False
    ) -> dict[str, Any]:
        """Return a record of the explanation; write its picture and masks.

        ``STEM_overlay.png`` is :meth:`draw`'s picture, ``STEM_CLASS.png`` a
        mask at the photograph's size; a class whose file would replace
        another gets an index there. The record has the ``photo``, the
        classes ``found`` and, for each explained class, its probability
        ``before`` and ``after`` masking and the file of its ``mask``. Raises
        :class:`~explainer.files.DiskError` if a file cannot be written.
        """
        folder, stem = Path(folder), Path(self.photo).stem
        overlay = self.draw(heatmap=heatmap)
        record: dict[str, Any] = {
            "photo": self.photo,
            "found": list(self.found),
            "classes": {},
        }
        endings = told_apart([*map(_in_filename, self.classes), "overlay"])
        for k, name in enumerate(self.classes):
            file = folder / f"{stem}_{endings[k]}.png"
            mask = _scaled(self.masks[k : k + 1], overlay.size[::-1])[0]
            write_atomically(file, _png(to_image(mask)))
            record["classes"][name] = {
                "before": self.scores[k],
                "after": self.after[k],
                "mask": str(file),
            }
        write_atomically(folder / f"{stem}_overlay.png", _png(overlay))
        return record

    def _repr_html_(self) -> str:
        image = self.draw()
        image.thumbnail((640, 640))
        content = base64.b64encode(_png(image)).decode()
        said = escape(", ".join(self._lines()) or "none of the classes")
        return (
            f'<figure><img src="data:image/png;base64,{content}" '
            f'alt="{escape(self.photo)}: {said}">'
            f"<figcaption>{said}</figcaption></figure>"
        )


class Explanations(list[Explanation]):
    """Explanations of several photographs; each attribute is a list."""

    @property
    def masks(self) -> list[Tensor]:
        """Return the masks of each photograph, ``(K, H, W)``."""
        return [one.masks for one in self]

    @property
    def classes(self) -> list[tuple[str, ...]]:
        """Return the classes explained on each photograph."""
        return [one.classes for one in self]

    @property
    def scores(self) -> list[tuple[float, ...]]:
        """Return the probabilities of these classes."""
        return [one.scores for one in self]

    def draw(self, *, heatmap: bool = False) -> list[Image.Image]:
        """Return a picture of each photograph (:meth:`Explanation.draw`)."""
        return [one.draw(heatmap=heatmap) for one in self]

    def save(
        self, folder: str | Path, *, heatmap: bool = False
    ) -> list[dict[str, Any]]:
        """Write the files of each (:meth:`Explanation.save`)."""
        check_stems([one.photo for one in self])
        return [one.save(folder, heatmap=heatmap) for one in self]

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self)


def check_stems(photos: Sequence[str]) -> None:
    """Raise :class:`DataError` if two pictures would have the same files."""
    stems = [Path(photo).stem for photo in photos]
    # Cat and cat are one file on macOS and Windows.
    plain = Counter(stem.casefold() for stem in stems)
    shared = sorted({stem for stem in stems if plain[stem.casefold()] > 1})
    if shared:
        raise DataError(
            f"several pictures are named {', '.join(shared)}; explain them "
            "into different folders"
        )


def _scaled(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return masks ``(K, H, W)`` at another size."""
    if not len(masks):
        return masks.new_zeros(0, *size)
    return F.interpolate(masks[None], tuple(size), mode="bilinear")[0]


# --- the model ------------------------------------------------------------

Model = nn.Module | Pair | str | Path


def named_model(name: str | Path) -> Pair | nn.Module:
    """Return the pair or the classifier of a name.

    ``name`` is ``torchvision/NAME`` or ``timm/NAME`` (see
    :meth:`Classifier.from_torchvision`), a run's folder or a checkpoint of a
    classifier, or the name of a shipped pair. Raises
    :class:`~explainer.errors.UserError` if there is no such model.
    """
    library, slash, model = str(name).partition("/")
    if slash and library in LIBRARIES and not Path(name).exists():
        return LIBRARIES[library](model)
    path = Path(name)
    if path.is_file() or (path / "model.safetensors").is_file():
        return load_classifier(path)
    return load(str(name))


LIBRARIES: dict[str, Callable[[str], Classifier]] = {
    "torchvision": Classifier.from_torchvision,
    "timm": Classifier.from_timm,
}
"""The libraries whose models are known by name."""


class _Opened(NamedTuple):
    """A model: its classifier, its Explainer, its size, and its name."""

    classifier: Explanandum
    network: nn.Module | None
    size: int | None
    name: Model


@torch.inference_mode(False)
def _opened(
    model: Model, told: Mapping[str, Any], size: int | None
) -> _Opened:
    """Return a model's parts; ``told`` describes a bare module."""
    told = {name: value for name, value in told.items() if value is not None}
    name, network = model, None
    if isinstance(model, str | Path):
        model = named_model(model)
    if isinstance(model, Pair):
        size = size or model.size
        model, network = model.classifier, model.network
    if not isinstance(model, nn.Module):
        raise UserError(
            "a model is a torch.nn.Module, a Classifier, a Pair, a run's "
            "folder, or a name such as 'animals', 'torchvision/resnet50' or "
            f"'timm/vit_small_patch16_224', not {type(model).__name__}"
        )
    inner = unfrozen(model)
    if not isinstance(inner, Classifier):
        _warn_of_assumptions(inner, told)
        with evaluating(inner):  # from_module leaves it in eval mode
            inner = Classifier.from_module(inner, **told)
    elif told:
        raise UserError(
            f"{', '.join(told)}: this model is a Classifier and has its own; "
            "set them there"
        )
    return _Opened(Explanandum(inner), network, size or inner.size, name)


def _warn_of_assumptions(network: nn.Module, told: Mapping[str, Any]) -> None:
    """Warn of the assumptions about a bare module, and how to change them."""
    assumed = {
        "multi_label": "a softmax over its outputs (else multi_label=True)",
        "mean": "ImageNet's normalisation (else mean= and std=)",
        "classes": "numbered classes (else classes=)",
    }
    left = [text for name, text in assumed.items() if name not in told]
    if left:
        warnings.warn(
            f"{type(network).__name__} is taken to have {', '.join(left)}",
            stacklevel=6,
        )


# --- the method -----------------------------------------------------------


class _AskedFirst(Explanandum):
    """A classifier whose logits start with the target classes.

    The others follow, since a softmax and a contrastive reward need them.
    """

    def __init__(self, classifier: nn.Module, asked: Sequence[int]) -> None:
        super().__init__(classifier)
        self.asked = list(asked)
        self.classes = tuple(map(str, asked))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, C)``."""
        logits = super().forward(images)
        rest = set(range(logits.shape[1])) - set(self.asked)
        return logits[:, [*self.asked, *sorted(rest)]]


class _Asked(nn.Module):
    """An Explainer that returns the masks of the target classes only."""

    def __init__(self, network: nn.Module, asked: Sequence[int]) -> None:
        super().__init__()
        self.network, self.asked = network, list(asked)

    def forward(self, images: Tensor) -> Tensor:
        """Return mask logits ``(B, K, H, W)``."""
        logits: Tensor = self.network(images)
        return logits[:, self.asked]


def _untrained() -> list[str]:
    """Return the names of the methods that need no trained network."""
    return [
        name
        for name, method in METHODS.items()
        if "network" not in inspect.signature(method).parameters
        and not method.__module__.endswith("controls")
    ]


def _check_options(method: Method, options: dict[str, Any]) -> None:
    """Raise for options that a method lacks and for missing ones."""
    # After the classifier, the images and the targets.
    _, _, _, *known = inspect.signature(method).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in known):
        return
    name = getattr(method, "__name__", "the method")
    for option in options:
        if option not in [p.name for p in known]:
            raise UnknownNameError(
                f"option of {name}", option, [p.name for p in known]
            )
    needed = {p.name for p in known if p.default is p.empty} - {*options}
    if "network" in needed:
        raise UserError(
            f"{name} needs a network that was trained for this model, and "
            "there is none; train one with "
            "explainer.training.fit_explainer(network, classifier, ...) and "
            "pass Pair(classifier, network, classes, size), or with "
            "`explainer train explainer --classifier RUN --out FOLDER`; "
            f"without training: {', '.join(_untrained())}"
        )
    if needed:
        raise UserError(f"{name} needs the option {min(needed)}=")


# --- the classes ----------------------------------------------------------

Target = int | str | Sequence[int | str] | Tensor | np.ndarray[Any, Any]


def _class_index(target: Any, names: Sequence[str]) -> int:
    """Return the index of a class given by index or name."""
    if isinstance(target, str):
        same = [
            i
            for i, name in enumerate(names)
            if target.casefold() in (name.casefold(), *_parts(name))
        ]
        exact = [i for i, name in enumerate(names) if name == target]
        if len(exact or same) == 1:
            return (exact or same)[0]
        if same:
            raise UserError(
                f"{target!r} may be "
                f"{' or '.join(f'{i} ({names[i]})' for i in same)}; pass the "
                "number"
            )
        raise UnknownNameError("class", target, names)
    try:
        index = operator.index(target)
    except TypeError as error:
        raise UserError(
            f"a class is given by its name or its number, not {target!r}"
        ) from error
    if index not in range(len(names)):
        raise UserError(
            f"no class {index}; there are {len(names)}, from 0 to "
            f"{len(names) - 1}: {', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''}"
        )
    return index


def _parts(name: str) -> list[str]:
    """Return the synonyms in a name like "tabby, tabby cat"."""
    return [part.strip().casefold() for part in name.split(",")]


def target_classes(
    target: Target, names: Sequence[str], photo: int = 0
) -> list[int]:
    """Return the indices of the target classes, each once.

    Parameters
    ----------
    target:
        An index, a name, or several of these; or a multi-hot tensor or
        array ``(C,)``, or ``(B, C)`` with a row per photograph, of any
        number type. (A tensor of another length holds indices.)
    names:
        The C names.
    photo:
        The row of a ``(B, C)`` target to use.

    Raises
    ------
    UserError
        If a class does not exist; the message lists the known ones.
    """
    if isinstance(target, list | tuple) and all(
        type(t) is bool for t in target
    ):
        target = torch.tensor(target)
    if isinstance(target, Tensor | np.ndarray):
        values = torch.as_tensor(target).detach().cpu()
        if values.ndim == 2:
            if photo >= len(values) or values.shape[1] != len(names):
                raise UserError(
                    f"a target per photograph is (B, {len(names)}), not "
                    f"{tuple(values.shape)}"
                )
            values = values[photo]
        if values.ndim > 2:
            raise UserError(
                f"targets are (C,) or (B, C), not {tuple(values.shape)}"
            )
        hot = values.shape == (len(names),)
        if hot and ((values == 0) | (values == 1)).all():
            return [int(c) for c in values.nonzero()[:, 0]]
        if values.dtype == torch.bool:
            raise UserError(
                f"a multi-hot target has {len(names)} values, a class each, "
                f"not {tuple(values.shape)}"
            )
        target = values.reshape(-1).tolist()
    several: Any = target
    if isinstance(target, str) or not isinstance(target, Iterable):
        several = [target]
    return list(dict.fromkeys(_class_index(c, names) for c in several))


# --- all of it ------------------------------------------------------------


def _answer(classifier: nn.Module, images: Tensor) -> Tensor:
    """Return logits; raise a UserError for images the network rejects."""
    try:
        with evaluating(classifier):
            logits: Tensor = classifier(images)
            return logits
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        height, width = images.shape[-2:]
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"the classifier fails on an image of {height} x {width} pixels "
            f"({reason}); if it takes another size, say so with size="
        ) from error


def _class_names(classifier: nn.Module, logits: Tensor) -> tuple[str, ...]:
    """Return the names of the classes, or numbers if there are none."""
    names: tuple[str, ...] = getattr(classifier, "classes", ())
    n = logits.shape[1]
    if names and len(names) != n:
        raise UserError(
            f"the classifier has {n} outputs, and {len(names)} classes are "
            "named; name each"
        )
    if n == 1 and not getattr(classifier, "multi_label", True):
        raise UserError(
            "a softmax over one output is always 1; pass multi_label=True"
        )
    return names or tuple(map(str, range(n)))


@torch.inference_mode(False)
@torch.no_grad()
def _explain_one(
    photo: str,
    source: Picture,
    place: int,
    *,
    classifier: nn.Module,
    method: Method,
    size: int | None,
    target: Target | None,
    top: int | None,
    options: dict[str, Any],
) -> Explanation:
    """Return the explanation of the photograph at position ``place``."""
    if size is None and isinstance(source, str | Path | Image.Image):
        size = SIZE
    pixels = to_pixels(source, None if size is None else (size, size))
    image = pixels[None].to(classifier.mean.device)  # type: ignore
    logits = _answer(classifier, image)
    names = _class_names(classifier, logits)
    p = probabilities(classifier, logits)[0]
    finds = found(classifier, logits)[0].nonzero()[:, 0].tolist()
    if target is not None:
        asked = target_classes(target, names, place)
    elif top is not None:
        asked = p.topk(min(top, len(names))).indices.tolist()
    else:
        asked = finds
    masks = _masks(method, classifier, image, asked, options)
    fill = make_fill("mean", image, classifier)
    after = []
    for k, c in enumerate(asked):
        seen = composite(image, masks[None, k : k + 1], fill)
        kept = probabilities(classifier, _answer(classifier, seen))
        after.append(float(kept[0, c]))
    return Explanation(
        photo,
        tuple(names[c] for c in asked),
        tuple(float(p[c]) for c in asked),
        masks.float().cpu(),
        tuple(after),
        tuple(names[c] for c in finds),
        getattr(method, "__name__", "method"),
        source,
    )


def _masks(
    method: Method,
    classifier: nn.Module,
    image: Tensor,
    asked: Sequence[int],
    options: dict[str, Any],
) -> Tensor:
    """Return a method's masks of the target classes, ``(K, H, W)``."""
    size = image.shape[-2:]
    if not asked:
        return image.new_zeros(0, *size)
    if "network" in options:
        network = _Asked(options["network"], asked)
        options = {**options, "network": network}
    masks = method(
        _AskedFirst(classifier, asked),
        image,
        image.new_ones(1, len(asked)),
        **options,
    )
    shape = tuple(masks.shape)
    if len(shape) != 4 or shape[2:] != size or shape[1] < len(asked):
        raise UserError(
            f"the method returns masks {shape}, where (B, C, H, W) = "
            f"{(1, len(asked), *size)} are needed"
        )
    return masks[0, : len(asked)]


def _explained(
    items: Sequence[tuple[str, Picture]],
    model: Model = "animals",
    *,
    method: str | Method | None = None,
    target: Target | None = None,
    top: int | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    **options: Any,
) -> Iterator[Explanation | DataError]:
    """Yield each photograph's explanation, or the error on reading it."""
    if target is not None and top is not None:
        raise UserError("give a target or top, not both")
    if top is not None and top < 1:
        raise UserError(f"top is at least 1, not {top}")
    told = {
        "classes": classes,
        "multi_label": multi_label,
        "mean": mean,
        "std": std,
    }
    opened = _opened(model, told, size)
    if method is None:
        method = "grad_cam" if opened.network is None else "explainer"
    function = METHODS[method] if isinstance(method, str) else guarded(method)
    if "network" not in options:
        if method == "explainer" and opened.network is not None:
            options["network"] = opened.network
        if method == "rtis" and isinstance(opened.name, str):
            names = opened.classifier.classes
            options["network"] = load_explainer(opened.name, names, "rtis")
    _check_options(function, options)
    for place, (photo, source) in enumerate(items):
        try:
            yield _explain_one(
                photo,
                source,
                place,
                classifier=opened.classifier,
                method=function,
                size=opened.size,
                target=target,
                top=top,
                options=options,
            )
        except DataError as error:
            yield error


def explain_each(
    images: Any, model: Model = "animals", **asked: Any
) -> Iterator[Explanation | DataError]:
    """Yield the :class:`Explanation` of each photograph.

    For one that cannot be read the :class:`~explainer.data.DataError` is
    yielded, and the next photograph follows.
    """
    return _explained(named_pictures(images)[0], model, **asked)


def explain(
    images: Any,
    model: Model = "animals",
    *,
    method: str | Method | None = None,
    target: Target | None = None,
    top: int | None = None,
    **options: Any,
) -> Explanation | Explanations:
    """Return the explanations of a classifier's answers for photographs.

    Parameters
    ----------
    images:
        A path, a folder, a picture of Pillow, a NumPy array ``(H, W, 3)`` of
        bytes or floats, a tensor ``(3, H, W)`` in [0, 1], a batch or a list
        of these. They are scaled to the model's input size; the aspect ratio
        is not kept, as in the paper.
    model:
        The name of a shipped pair, ``torchvision/NAME`` or ``timm/NAME``,
        a run's folder, a :class:`~explainer.checkpoints.Pair`, a
        :class:`~explainer.classifiers.Classifier`, or any module. Describe
        a bare module by ``classes``, ``multi_label``, ``mean``, ``std`` and
        ``size``, as in :meth:`Classifier.from_module`.
    method:
        A name among :data:`~explainer.attribution.METHODS`, or a function
        that is called like them; by default the model's Explainer, if it
        has one, or Grad-CAM.
    target:
        The classes to explain (:func:`target_classes`): an index, a name,
        several, or a multi-hot tensor; by default the classes that the
        classifier finds (:func:`~explainer.classifiers.found`).
    top:
        Instead of a target: the number of likeliest classes to explain.
    **options:
        The description of a bare module, see above; all others go to the
        method.

    Returns
    -------
    An :class:`Explanation`, or :class:`Explanations` for several images.

    Raises
    ------
    UserError
        If an image, model, method or class cannot be used; the message says
        what to do.
    """
    items, single = named_pictures(images)
    results = Explanations()
    for result in _explained(
        items, model, method=method, target=target, top=top, **options
    ):
        if isinstance(result, DataError):
            raise result
        results.append(result)
    return results[0] if single else results
