"""The ablation: what a mask loses when a term of the loss is turned off.

Every variant of the loss is trained with several seeds and measured on the
same images; :mod:`explainer.evaluation.summary` tells the spread over seeds
from that over images.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.checkpoints import load_explainer
from explainer.classifiers import Frozen, evaluating
from explainer.data import LabelledImages, collate
from explainer.deadline import check_time
from explainer.errors import Registry, UserError
from explainer.evaluation import belief, mask_metrics
from explainer.evaluation.images import (
    Chosen,
    Selection,
    Settings,
    describe_data,
    device_of,
    select,
    to_device,
)
from explainer.evaluation.jsonl import (
    Row,
    is_number,
    measured_rows,
    open_rows,
)
from explainer.evaluation.methods import measured_with
from explainer.evaluation.summary import summarise_seeds
from explainer.files import DamagedFileError, write_atomically, write_json
from explainer.losses import LossWeights, area, total_variation
from explainer.masks import (
    complement,
    composite,
    make_fill,
    non_target_mask,
    target_mask,
)
from explainer.presets import Preset
from explainer.provenance import command_line, describe, environment
from explainer.streams import per_image

AREA = ("bound", "target_area", "non_target_area")
"""The three parts of the area term: B, A(m) and A(n)."""

TERMS = ("classification", "entropy", *AREA, "smoothness")


def _all_but(*off: str) -> tuple[str, ...]:
    return tuple(term for term in TERMS if term not in off)


VARIANTS: Registry[tuple[str, ...]] = Registry(
    "variant",
    {
        "full": TERMS,
        "no-classification": _all_but("classification"),
        "no-entropy": _all_but("entropy"),
        "no-area": _all_but(*AREA),
        "no-target-area": _all_but("target_area"),
        "no-non-target-area": _all_but("non_target_area"),
        "no-bound": _all_but("bound"),
        "no-smoothness": _all_but("smoothness"),
        "classification": ("classification",),
        "classification+entropy": ("classification", "entropy"),
        "classification+area": ("classification", *AREA),
        "classification+smoothness": ("classification", "smoothness"),
    },
)
"""The terms that each variant of the loss keeps."""


def variant_weights(weights: LossWeights, variant: str) -> LossWeights:
    """Return weights with the terms that a variant lacks set to zero."""
    off = [term for term in TERMS if term not in VARIANTS[variant]]
    return replace(weights, **dict.fromkeys(off, 0.0))  # type: ignore[arg-type]


COLUMNS = (
    *("iou", "iou_50", "class_iou", "mae", "accuracy", "saliency"),
    *("target_area", "non_target_area", "variation", "kept", "left"),
)
"""What :func:`network_rows` measures."""

PICTURED = 4
"""The masks themselves are stored for so many images."""


def shortened(
    preset: Preset, steps: int, batch_size: int | None = None
) -> Preset:
    """Return a preset whose Explainer is trained for ``steps`` in one stage.

    Nothing is done to the weights after the last step; the classifier's
    training stays. ``batch_size`` is the preset's own by default.
    """
    whole = preset.explainer_training
    return replace(
        preset,
        explainer_training=replace(
            whole,
            steps=steps,
            batch_size=batch_size or whole.batch_size,
            warmup=min(whole.warmup, steps // 10),
            eval_every=max(1, steps // 4),
            patience=None,
        ),
        stages=(),
        averaged=1,
        sharpen=(1.0,),
    )


@torch.no_grad()
def network_rows(
    network: nn.Module,
    classifier: nn.Module,
    data: LabelledImages,
    images: Mapping[int, Chosen],
    settings: Settings,
    indices: Sequence[int],
) -> list[Row]:
    """Return :data:`COLUMNS` of a network's masks, a row per image.

    Beside metrics of :func:`explainer.evaluation.mask_metrics`:
    ``class_iou``, the mean of an image's classes if it shows two or more;
    ``target_area`` and ``non_target_area``, A(m) and A(n); ``variation``,
    TV(m); ``kept`` and ``left``, the mean probability of the present classes
    on what m keeps and on what its complement leaves. NaN where undefined.

    ``images`` are by index, ``indices`` those of the batch. Network and
    classifier answer in eval mode, and are left in the mode they were in.
    """
    batch = collate([data[index] for index in indices])
    batch = to_device(batch, device_of(classifier))
    x = batch.images
    targets = torch.stack([images[index].targets for index in indices]).to(x)
    noise = per_image(settings.seed, indices, "noise")
    with evaluating(network), evaluating(classifier):
        fill = make_fill(settings.fill, x, classifier, noise)
        s = network(x).sigmoid()
        m, n = target_mask(s, targets), non_target_mask(s, targets)
        table = mask_metrics(classifier, batch, targets, s, fill, settings)
        kept = composite(x, m, fill)
        left = composite(x, complement(m), fill)
        table["kept"] = belief(classifier, kept, targets)
        table["left"] = belief(classifier, left, targets)
    several = (~table["class_iou"].isnan()).sum(1) >= 2
    mean = table["class_iou"].nanmean(1)
    table["class_iou"] = torch.where(several, mean, torch.nan)
    table["target_area"] = area(m, "none")
    table["non_target_area"] = area(n, "none")
    table["variation"] = total_variation(m, "none")
    values = {name: table[name].tolist() for name in COLUMNS}
    return [
        {"index": index, **{name: values[name][i] for name in COLUMNS}}
        for i, index in enumerate(indices)
    ]


def _is_sound(row: Row) -> bool:
    """Return whether a row read from disk holds :data:`COLUMNS`."""
    return all(
        name in row and (row[name] is None or is_number(row[name]))
        for name in COLUMNS
    )


@dataclass(frozen=True)
class Ablation:
    """Trainings of variants of the loss, and what they are measured on.

    Parameters
    ----------
    preset:
        Networks, weights and recipe; see :func:`shortened`.
    classifier:
        F, frozen.
    train, val, test:
        The data; only ``test`` needs masks.
    folder:
        Each training has the folder ``VARIANT-SEED`` in it, where it
        resumes if it was interrupted and is not repeated if it has ended;
        ``scores.jsonl`` has the rows of single images.
    device:
        "cpu" or "cuda".
    """

    preset: Preset
    classifier: Frozen
    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    folder: Path
    device: str = "cpu"

    @property
    def settings(self) -> Settings:
        """How masks are measured."""
        return Settings(fill=self.preset.fill, steps=0)

    @property
    def card(self) -> dict[str, Any]:
        """What all trainings have in common."""
        training = asdict(self.preset.explainer_training)
        del training["seed"]
        return {
            "classifier": describe(self.classifier.classifier),
            "architecture": self.preset.explainer,
            "train": describe_data(self.train),
            "test": describe_data(self.test),
            "training": training,
            "measured": describe(self.settings),
        }

    def fit(
        self, variant: str, seed: int, progress: bool = False
    ) -> nn.Module:
        """Return the network of a variant and a seed, trained or resumed."""
        preset = replace(
            self.preset,
            weights=variant_weights(self.preset.weights, variant),
        )
        folder = preset.train_explainer(
            self.folder / f"{variant}-{seed}",
            self.classifier,
            self.train,
            self.val,
            seed=seed,
            device=self.device,
            progress=progress,
        )
        return load_explainer(folder).to(self.device)

    @torch.no_grad()
    def pictures(self, network: nn.Module, chosen: Selection) -> Tensor:
        """Return m and n of the first images, ``(K, 2, H, W)``."""
        first = chosen.images[:PICTURED]
        batch = collate([self.test[image.index] for image in first])
        labels = torch.stack([image.targets for image in first])
        with evaluating(network):
            s = network(batch.images.to(self.device)).sigmoid().cpu()
        m, n = target_mask(s, labels), non_target_mask(s, labels)
        return torch.cat([m, n], 1)


def _write_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
    """Write masks by variant, 8 bits per pixel."""
    arrays = {
        name: (255 * values).round().byte().numpy()
        for name, values in masks.items()
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def read_masks(path: Path) -> dict[str, Tensor]:
    """Return stored masks by variant: m and n, ``(K, 2, H, W)`` in [0, 1].

    Raises :class:`DamagedFileError` where the file cannot be read as masks.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                name: torch.from_numpy(file[name]).float() / 255
                for name in file.files
            }
    except Exception as error:  # zipfile, zlib and NumPy have one each
        raise DamagedFileError(
            f"{path} cannot be read as masks ({error}); restore it, or run "
            "the ablation again"
        ) from error


def ablate(
    experiment: Ablation,
    out: Path,
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: int = 3,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the results of variants of the loss, trained and measured.

    Parameters
    ----------
    out:
        A ``.json`` file for the results; the masks of the first images,
        those of seed 0, go to the ``.npz`` file beside it.
    variants:
        Keys of :data:`VARIANTS`.
    seeds:
        How many; they are 0, 1, ..., the same for all variants.
    notes:
        What the card should say besides.

    Returns
    -------
    The content of ``out``: ``variants``, see
    :func:`explainer.evaluation.summary.summarise_seeds`; ``pictures``, the
    indices of the images whose masks are stored; and ``card``.

    Raises
    ------
    UserError
        For an unknown variant, no seed, or no image to measure.
    OutOfTime
        When a time limit has passed; what was trained is kept.
    """
    VARIANTS.check(*variants)
    if seeds < 1 or not variants:
        raise UserError("an ablation has at least one variant and one seed")
    classifier = experiment.classifier.to(experiment.device)
    chosen = select(classifier, experiment.test, experiment.settings)
    if not chosen.images:
        raise UserError(
            f"none of the {len(experiment.test)} images has a class and a "
            "mask; choose another split or a higher --limit"
        )
    file = open_rows(experiment.folder / "scores.jsonl", _is_sound)
    scores: dict[str, list[dict[str, list[float | None]]]] = {}
    masks: dict[str, Tensor] = {}
    checkpoints = measured_with(classifier)
    trials = [(v, seed) for seed in range(seeds) for v in variants]
    for variant, seed in tqdm(trials, unit="training", disable=not progress):
        check_time()
        network = experiment.fit(variant, seed, progress)
        name = f"{variant}-{seed}"
        checkpoints[name] = str(network.sha256)
        settings = {**experiment.card, "network": checkpoints[name]}
        how = (network, classifier, experiment.test, chosen.by_index)
        rows = measured_rows(
            file,
            name,
            settings,
            list(chosen.by_index),
            partial(network_rows, *how, experiment.settings),
            batch_size=experiment.settings.batch_size,
        )
        columns = {key: [row[key] for row in rows] for key in COLUMNS}
        scores.setdefault(variant, []).append(columns)
        if seed == 0:
            masks[variant] = experiment.pictures(network, chosen)
    _write_masks(out.with_suffix(".npz"), masks)
    results = {
        "variants": summarise_seeds(scores),
        "pictures": [image.index for image in chosen.images[:PICTURED]],
        "card": {
            **experiment.card,
            "weights": {
                v: asdict(variant_weights(experiment.preset.weights, v))
                for v in variants
            },
            "seeds": list(range(seeds)),
            "n": len(chosen.images),
            "measured_with": checkpoints,
            "command": command_line(),
            **(notes or {}),
            **environment(),
        },
    }
    write_json(out, results)
    return results
