"""The ablation: how masks change when a term of the loss is turned off.

Every variant of the loss is trained with several seeds and measured on the
same images; :mod:`explainer.evaluation.summary` separates the spread over
seeds from the spread over images.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.checkpoints import load_explainer
from explainer.classifiers import Frozen, evaluating
from explainer.data import Batch, LabelledImages, collate, describe_data
from explainer.deadline import check_time
from explainer.errors import Registry, UserError
from explainer.evaluation import mask_metrics, mean_probability
from explainer.evaluation.images import (
    Chosen,
    Selection,
    Settings,
    batches,
    device_of,
    select,
    to_device,
)
from explainer.evaluation.jsonl import is_number
from explainer.evaluation.methods import measured_with
from explainer.evaluation.summary import summarise_seeds
from explainer.files import (
    DamagedFileError,
    read_json,
    write_atomically,
    write_json,
)
from explainer.losses import (
    LossWeights,
    area,
    area_bound,
    negative_entropy,
    total_variation,
)
from explainer.masks import (
    complement,
    composite,
    make_fill,
    non_target_mask,
    target_mask,
)
from explainer.model import build_explainer, start_from
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
        "edges": TERMS,
        "untrained": (),
    },
)
"""The terms that each variant of the loss keeps.

"edges" keeps all terms and makes the smoothness edge-aware, a departure from
the paper (:func:`~explainer.losses.total_variation`). "untrained" is the
network that the trainings start from."""

EDGES = 20.0
"""The weight ``edges`` of the variant "edges"."""


def variant_weights(weights: LossWeights, variant: str) -> LossWeights:
    """Return weights with the terms that a variant lacks set to zero."""
    off = [term for term in TERMS if term not in VARIANTS[variant]]
    changes = dict.fromkeys(off, 0.0)
    if variant == "edges":
        changes["edges"] = EDGES
    return replace(weights, **changes)  # type: ignore[arg-type]


COLUMNS = (
    *("iou", "iou_50", "class_iou", "mae", "accuracy", "saliency"),
    *("target_area", "non_target_area", "bound", "class_blindness"),
    *("variation", "pieces", "boundary", "kept", "left", "undecided"),
)
"""What :func:`score` returns."""

PICTURED = 4
"""The number of images whose masks are stored."""


def shortened(
    preset: Preset, steps: int, batch_size: int | None = None
) -> Preset:
    """Return a preset that trains its Explainer for ``steps`` in one stage.

    Weights are not averaged, and the learning rate falls to zero at the last
    step. The classifier's training is unchanged. ``batch_size`` is the
    preset's by default.
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
    )


def fresh_network(preset: Preset, classifier: Frozen, seed: int) -> nn.Module:
    """Return the preset's Explainer network as it is without any training.

    Seeds the global random state, as a training does.
    """
    torch.manual_seed(seed)
    options = {**preset.explainer_options, **preset.finished}
    network = build_explainer(
        preset.explainer, len(classifier.classes), **options
    )
    if preset.encoder_from_classifier:
        start_from(network, classifier)
    return network


@torch.no_grad()
def score(
    network: nn.Module,
    classifier: nn.Module,
    data: LabelledImages,
    chosen: Selection,
    settings: Settings,
    weights: LossWeights,
) -> dict[str, list[float]]:
    """Return the scores :data:`COLUMNS` of a network's masks, per image.

    These are the metrics of :func:`explainer.evaluation.mask_metrics`, and
    scores for each term of the loss. Classification: ``kept``, the mean
    probability of the present classes on the image under m. Entropy:
    ``left``, the same under the complement of m, and ``undecided``, the
    entropy there as a share of its maximum. Area: ``target_area`` and
    ``non_target_area``, A(m) and A(n); ``bound``, the sum of B(s_c) with the
    bounds in ``weights``; ``class_blindness``, the share of m that n covers
    too (1 if the masks do not depend on the class); ``class_iou``, the mean
    over an image's classes if it shows two or more. Smoothness:
    ``variation``, TV(m); ``pieces``, the number of connected components of
    the pixels where m exceeds 1/2, and ``boundary``, the length of their
    outline in pixel sides. NaN where undefined. Network and classifier are
    evaluated in eval mode. Their own mode is restored afterwards.
    """
    device = device_of(classifier)
    columns: dict[str, list[float]] = {}
    indices = [image.index for image in chosen.images]
    with evaluating(network), evaluating(classifier):
        for start, part in batches(data, indices, settings.batch_size):
            batch = to_device(part, device)
            here = chosen.images[start : start + len(batch.images)]
            values = _scores_of(
                network, classifier, batch, here, settings, weights
            )
            for name, column in values.items():
                columns.setdefault(name, []).extend(column.tolist())
    return columns


def _scores_of(
    network: nn.Module,
    classifier: nn.Module,
    batch: Batch,
    chosen: Sequence[Chosen],
    settings: Settings,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """Return the metrics of a batch, each ``(B,)``."""
    images = batch.images
    targets = torch.stack([image.targets for image in chosen]).to(images)
    indices = [image.index for image in chosen]
    noise = per_image(settings.seed, indices, "noise")
    fill = make_fill(settings.fill, images, classifier, noise)
    class_masks = network(images).sigmoid()
    table = mask_metrics(
        classifier, batch, targets, class_masks, fill, settings
    )
    m = target_mask(class_masks, targets)
    n = non_target_mask(class_masks, targets)

    kept = classifier(composite(images, m, fill))
    left = classifier(composite(images, complement(m), fill))
    several = (~table["class_iou"].isnan()).sum(1) >= 2
    return {
        **{k: table[k] for k in ("iou", "iou_50")},
        "class_iou": torch.where(
            several, table["class_iou"].nanmean(1), torch.nan
        ),
        **{k: table[k] for k in ("mae", "accuracy", "saliency")},
        "target_area": area(m, "none"),
        "non_target_area": area(n, "none"),
        "bound": area_bound(
            class_masks, targets, weights.a, weights.b, "none"
        ),
        "class_blindness": torch.minimum(m, n).sum((1, 2, 3))
        / m.sum((1, 2, 3)),
        "variation": total_variation(m, "none"),
        **outlines(m[:, 0] > 0.5),
        "kept": mean_probability(classifier, kept, targets),
        "left": mean_probability(classifier, left, targets),
        "undecided": negative_entropy(left, "undivided", "none")
        / -math.log(left.shape[1]),
    }


def outlines(shown: Tensor) -> dict[str, Tensor]:
    """Return ``pieces`` and ``boundary`` of binary masks ``(B, H, W)``.

    ``pieces`` is the number of connected components (4 neighbours per pixel).
    ``boundary`` is the number of neighbouring pairs with different values.
    """
    pieces = [int(label(each)[1]) for each in shown.cpu().numpy()]
    sides = [shown.diff(dim=dim).sum((1, 2)) for dim in (1, 2)]
    return {
        "pieces": torch.tensor(pieces, dtype=torch.float32),
        "boundary": (sides[0] + sides[1]).float(),
    }


@dataclass(frozen=True)
class Ablation:
    """Trainings of variants of the loss, and the data to measure them on.

    Parameters
    ----------
    preset:
        Networks, weights and recipe: see :func:`shortened`.
    classifier:
        F, frozen.
    train, val, test:
        The data; only ``test`` needs masks.
    folder:
        Each training has a folder ``VARIANT-SEED`` in it. An interrupted
        training resumes; a finished one is not repeated.
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
        """The settings of the measurement."""
        return Settings(fill=self.preset.fill, steps=0)

    def fit(
        self, variant: str, seed: int, progress: bool = False
    ) -> nn.Module:
        """Return the network of a variant and a seed; train it or resume.

        Its logits are not sharpened, so that only the loss differs.
        """
        if not VARIANTS[variant]:
            network = fresh_network(self.preset, self.classifier, seed)
            return network.to(self.device)
        preset = replace(
            self.preset,
            weights=variant_weights(self.preset.weights, variant),
            sharpen=(1.0,),
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

    def trial(
        self,
        variant: str,
        seed: int,
        chosen: Selection,
        progress: bool = False,
    ) -> dict[str, Any]:
        """Return ``scores``, as :func:`score`, and the network's ``sha256``.

        Undefined scores are None. The untrained network has no ``sha256``.
        The result is kept in ``scores.json`` of the training's folder, the
        masks of the first images in ``masks.npz``. Files that exist are read
        instead of measured again. Raises :class:`DamagedFileError` if
        ``scores.json`` does not hold scores.
        """
        folder = self.folder / f"{variant}-{seed}"
        weights = asdict(variant_weights(self.preset.weights, variant))
        asked = {**self.card, "seed": seed, "weights": weights}
        asked = json.loads(json.dumps(asked))
        path = folder / "scores.json"
        stored = read_json(path) if path.exists() else {}
        if stored.get("settings") != asked:
            network = self.fit(variant, seed, progress)
            classifier = self.classifier.to(self.device)
            columns = score(
                network,
                classifier,
                self.test,
                chosen,
                self.settings,
                self.preset.weights,
            )
            masks = mask_pictures(network, self.test, chosen)
            write_masks(folder / "masks.npz", {variant: masks})
            stored = {
                "settings": asked,
                "sha256": getattr(network, "sha256", None),
                "scores": {
                    name: [v if v == v else None for v in column]
                    for name, column in columns.items()
                },
            }
            write_json(path, stored)
        n = len(chosen.images)
        if not _are_scores(stored.get("scores"), n):
            raise DamagedFileError(
                f"{path} does not hold the scores of {n} images; delete it "
                "to have them measured again"
            )
        return stored

    @property
    def card(self) -> dict[str, Any]:
        """Return what all trainings have in common."""
        training = asdict(self.preset.explainer_training)
        del training["seed"]
        start: dict[str, Any] = {}
        if self.preset.fine_tuned_from is not None:
            network: Any = load_explainer(self.preset.fine_tuned_from)
            start = {"started_from": network.sha256}
        return {
            **start,
            "classifier": describe(self.classifier.classifier),
            "architecture": self.preset.explainer,
            "train": describe_data(self.train),
            "test": describe_data(self.test),
            "training": training,
            "measured": describe(self.settings),
        }


def _are_scores(content: object, n: int) -> bool:
    """Return whether JSON content is the scores of n images."""
    return (
        isinstance(content, dict)
        and content.keys() == set(COLUMNS)
        and all(
            isinstance(column, list)
            and len(column) == n
            and all(value is None or is_number(value) for value in column)
            for column in content.values()
        )
    )


@torch.no_grad()
def mask_pictures(
    network: nn.Module, data: LabelledImages, chosen: Selection
) -> Tensor:
    """Return m and n of the first :data:`PICTURED` images, ``(K, 2, H, W)``.

    On the CPU.
    """
    first = chosen.images[:PICTURED]
    batch = collate([data[image.index] for image in first])
    labels = torch.stack([image.targets for image in first])
    with evaluating(network):
        s = network(batch.images.to(device_of(network))).sigmoid().cpu()
    return torch.cat([target_mask(s, labels), non_target_mask(s, labels)], 1)


def write_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
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

    Raises :class:`DamagedFileError` if the file cannot be read as masks.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                name: torch.from_numpy(file[name]).float() / 255
                for name in file.files
            }
    except Exception as error:  # zipfile, zlib and NumPy raise different ones
        raise DamagedFileError(
            f"{path} cannot be read as masks ({error}); restore it, or "
            "delete the scores.json beside it to have both made again"
        ) from error


def ablate(
    experiment: Ablation,
    out: Path,
    *,
    seeds: Mapping[str, int],
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the results of variants of the loss, trained and measured.

    Parameters
    ----------
    out:
        A ``.json`` file for the results; the masks of the first images,
        those of seed 0, go to the ``.npz`` file beside it.
    seeds:
        The number of seeds of each variant, a key of :data:`VARIANTS`. The
        seeds are 0, 1, ..., the same for all variants.
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
        When a time limit has passed; finished trainings are kept.
    """
    VARIANTS.check(*seeds)
    if min(seeds.values(), default=0) < 1:
        raise UserError("an ablation has at least one variant and one seed")
    classifier = experiment.classifier.to(experiment.device)
    chosen = select(classifier, experiment.test, experiment.settings)
    if not chosen.images:
        raise UserError(
            f"none of the {len(experiment.test)} images has a class and a "
            "mask; choose another split or a higher --limit"
        )
    scores: dict[str, list[dict[str, list[float | None]]]] = {}
    checkpoints = measured_with(classifier)
    most = range(max(seeds.values()))
    trials = [(v, seed) for seed in most for v in seeds if seed < seeds[v]]
    for variant, seed in tqdm(trials, unit="training", disable=not progress):
        check_time()
        found = experiment.trial(variant, seed, chosen, progress)
        scores.setdefault(variant, []).append(found["scores"])
        if found["sha256"] is not None:
            checkpoints[f"{variant}-{seed}"] = found["sha256"]
    masks = {
        v: read_masks(experiment.folder / f"{v}-0" / "masks.npz")[v]
        for v in seeds
    }
    write_masks(out.with_suffix(".npz"), masks)
    results = {
        "variants": summarise_seeds(scores),
        "pictures": [image.index for image in chosen.images[:PICTURED]],
        "card": {
            **experiment.card,
            "weights": {
                v: asdict(variant_weights(experiment.preset.weights, v))
                for v in seeds
            },
            "seeds": list(most),
            "n": len(chosen.images),
            "measured_with": checkpoints,
            "command": command_line(),
            **(notes or {}),
            **environment(),
        },
    }
    write_json(out, results)
    return results
