"""Checkpoints: one file with weights and their network's configuration.

The file is in the safetensors format. Its header holds the configuration of
the training: the kind (classifier or explainer), the architecture and its
options, the classes and the image size. Nothing is ever unpickled.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from explainer.attribution.explainer import explainer as masks_of
from explainer.classifiers import (
    Frozen,
    build_classifier,
    check_images,
    evaluating,
    found,
    frozen,
    probabilities,
)
from explainer.errors import UserError
from explainer.files import read_json, sha256, write_atomically
from explainer.model import build_explainer


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file."""


def save_weights(
    path: Path,
    module: nn.Module,
    config: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Save a module's weights with its configuration in the header.

    Floating-point tensors are stored as ``dtype`` (for example float16). They
    are loaded as float32. Raises :class:`~explainer.files.DiskError`.
    """
    state = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        if dtype is None or not tensor.is_floating_point()
        else tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }
    content = safetensors.torch.save(
        state, metadata={"config": json.dumps(config)}
    )
    write_atomically(path, content)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors (float32) and its configuration.

    Raises :class:`CheckpointError` if it is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except KeyError as error:
        raise CheckpointError(
            f"{path} has no configuration in its header; it was not written "
            "by this package"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error})"
        ) from error
    return {
        k: v.float() if v.is_floating_point() else v for k, v in state.items()
    }, config


MISFITS = (KeyError, TypeError, ValueError, AttributeError, RuntimeError)
"""What building a network may raise if the header does not describe one."""


def _rebuild(
    build: Callable[[], nn.Module], state: dict[str, Tensor], path: Path
) -> nn.Module:
    """Return the network that a header describes, with its weights."""
    try:
        module = build()
        module.load_state_dict(state)
    except UserError as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error
    except MISFITS as error:
        raise CheckpointError(
            f"the weights in {path} do not fit the architecture that its "
            "header names; the file was changed or written by another version"
        ) from error
    return module


def _expect(config: dict[str, Any], kind: str, path: Path) -> None:
    if config.get("kind") != kind:
        raise CheckpointError(
            f"{path} is a checkpoint of kind {config.get('kind')!r}, where "
            f"{kind!r} is asked for"
        )


def _in_package(name: str) -> Path:
    """Return the path that a shipped checkpoint of this name would have."""
    folder = Path(str(resources.files("explainer") / "weights"))
    return folder / f"{name}.safetensors"


def _remedy(name: str) -> str:
    """Return the command that trains a preset's network, for an error."""
    preset, _, kind = name.rpartition("_")
    command = {
        "classifier": "classifier",
        "explainer": "explainer",
        "rtis": "explainer --loss rtis",
    }.get(kind)
    if command is None or Path(name).name != name:  # no preset's name
        return ""
    return (
        f"; to train it, run `explainer train {command} --preset {preset} "
        f"--out runs/{name}` in {Path.cwd()}"
    )


def shipped(name: str) -> Path:
    """Return the path of a checkpoint that comes with the package.

    ``name`` is the stem, like "scenes_classifier". Raises
    :class:`CheckpointError` if there is none, or if its SHA-256 differs from
    the one on its card, the JSON file beside it.
    """
    path = _in_package(name)
    card = path.with_suffix(".json")
    if not path.is_file() or not card.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.safetensors"))
        raise CheckpointError(
            f"no shipped weights named {name!r} (there are: "
            f"{', '.join(known) or 'none'}), and no run's folder or "
            f"checkpoint file either{_remedy(name)}"
        )
    if read_json(card).get("sha256") != sha256(path):
        raise CheckpointError(
            f"{path} is not the file its card describes; reinstall the "
            "package"
        )
    return path


def _in_run(folder: Path) -> Path | None:
    """Return the path of a run's checkpoint, or None if there is none.

    Raises :class:`CheckpointError` if its SHA-256 differs from the one on the
    card, which was written when the run ended.
    """
    path, card = folder / "model.safetensors", folder / "card.json"
    if not path.is_file():
        return None
    # Runs of early versions have cards without a hash.
    told = read_json(card).get("sha256") if card.is_file() else None
    if told is not None and told != sha256(path):
        raise CheckpointError(
            f"{path} is not the file that {card} describes; restore it, or "
            "train again"
        )
    return path


def _locate(where: Path | str, kind: str) -> Path:
    """Return a checkpoint's path, given a name, a run's folder or a file."""
    path = Path(where)
    in_run = _in_run(path)
    if in_run is not None:
        return in_run
    # A folder of pictures may be named "animals" too.
    if path.is_file() or path.suffix == ".safetensors":
        return path
    name = f"{where}_{kind}"
    if not _in_package(name).is_file():
        trained = _in_run(Path("runs", name))
        if trained is not None:
            return trained
    return shipped(name)


def load_classifier(where: Path | str) -> Frozen:
    """Return a classifier, frozen, with its ``config`` and its ``sha256``.

    ``where`` is a run's folder, a checkpoint file, the name of a shipped pair
    ("scenes"), or the name of a preset without shipped weights
    ("voc2007-vgg16") that was trained in ``runs/voc2007-vgg16_classifier``.
    Raises :class:`CheckpointError`.
    """
    path = _locate(where, "classifier")
    state, config = read_weights(path)
    _expect(config, "classifier", path)
    loaded = frozen(
        _rebuild(
            lambda: build_classifier(
                config["architecture"], config["classes"]
            ),
            state,
            path,
        )
    )
    loaded.config = config  # type: ignore[assignment]
    loaded.sha256 = sha256(path)  # type: ignore[assignment]
    loaded.classifier.size = config.get("size")  # type: ignore[assignment]
    return loaded


def load_explainer(
    where: Path | str,
    classes: tuple[str, ...] | None = None,
    kind: str = "explainer",
) -> nn.Module:
    """Return an Explainer in eval mode, with ``config`` and ``sha256``.

    ``where`` is as in :func:`load_classifier`; the ``kind`` "rtis" looks for
    the network that was trained with the loss of RTIS. Raises
    :class:`CheckpointError`, also if the checkpoint's classes are not
    ``classes``.
    """
    path = _locate(where, kind)
    state, config = read_weights(path)
    _expect(config, "explainer", path)
    known = config.get("classes", ())
    if classes is not None and tuple(known) != tuple(classes):
        raise CheckpointError(
            f"{path} explains the classes {', '.join(known)}, "
            f"not {', '.join(classes)}"
        )
    # The checkpoint holds the backbone: nothing is downloaded for it.
    options = {**config.get("options", {})}
    if "pretrained_backbone" in options:
        options["pretrained_backbone"] = False
    module = _rebuild(
        lambda: build_explainer(
            config["architecture"], len(config["classes"]), **options
        ),
        state,
        path,
    )
    module.eval().requires_grad_(False)
    module.config = config  # type: ignore[assignment]
    module.sha256 = sha256(path)  # type: ignore[assignment]
    return module


@dataclass(frozen=True)
class Pair:
    """A classifier and the Explainer that was trained for it.

    ``size`` is the height and width in pixels at which both were trained.
    Both are evaluated in eval mode. Their own mode is restored afterwards.
    """

    classifier: Frozen
    network: nn.Module
    classes: tuple[str, ...]
    size: int

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return probabilities ``(B, C)`` of images ``(B, 3, H, W)``."""
        return probabilities(self.classifier, self._logits(images))

    @torch.no_grad()
    def explain(
        self, images: Tensor, targets: Tensor | None = None
    ) -> Tensor:
        """Return masks ``(B, C, H, W)``, zero outside the target classes.

        ``targets`` is ``(B, C)``, 0 or 1; by default the classes that the
        classifier finds (:func:`~explainer.classifiers.found`).
        """
        check_images(images)
        if targets is None:
            targets = self.found(images).to(images.dtype)
        return masks_of(
            self.classifier, images, targets, network=self.network
        )

    @torch.no_grad()
    def found(self, images: Tensor) -> Tensor:
        """Return which classes the classifier finds, ``(B, C)`` bool."""
        return found(self.classifier, self._logits(images))

    def _logits(self, images: Tensor) -> Tensor:
        check_images(images)
        with evaluating(self.classifier):
            logits: Tensor = self.classifier(images)
        return logits


def load(
    name: str = "scenes",
    *,
    classifier: Path | str | None = None,
    explainer: Path | str | None = None,
) -> Pair:
    """Return a classifier with its Explainer.

    By default these are the shipped pair ``name``. Other checkpoints are
    given as in :func:`load_classifier`. Raises :class:`CheckpointError`, also
    if the two have different classes, or the classifier's run did not record
    the size of its images.
    """
    explanandum = load_classifier(classifier or name)
    network = load_explainer(explainer or name, explanandum.classes)
    if explanandum.size is None:
        raise CheckpointError(
            f"{classifier or name} does not say at which size it was trained"
            '; give its training config={"size": ..., ...}, or build a Pair'
        )
    size = int(explanandum.size)
    return Pair(explanandum, network, explanandum.classes, size)
