"""Trials on the short schedule: the effect of each part of the method.

The trials are the ablation of the loss, the effect of training and of the
network's parts, the number of seeds that confuse classes, and trainings on
few images. They train from nothing, except for the ablation on photographs
(:data:`CONTINUED`).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import fmean
from typing import Any

from torch import nn
from torch.utils.data import Subset

from explainer.checkpoints import save_weights
from explainer.data import LabelledImages, all_labels
from explainer.deadline import check_time
from explainer.evaluation.ablation import (
    PICTURED,
    VARIANTS,
    Ablation,
    ablate,
    fresh_network,
    mask_pictures,
    score,
    write_masks,
)
from explainer.evaluation.images import Settings, select
from explainer.evaluation.summary import summarise_seeds
from explainer.files import sha256, write_json
from explainer.provenance import command_line, environment
from explainer.reproduction.experiment import Experiment, Step, once
from explainer.reproduction.networks import fit, judged
from explainer.training.finish import merit, sharpness_scores

REMOVALS = [name for name in VARIANTS if name.startswith("no-")]
"""The variants of the loss that lack one of its parts."""

SEEDS: Mapping[str, Mapping[str, int]] = {
    "scenes": dict.fromkeys(VARIANTS, 1)
    | dict.fromkeys(["full", *REMOVALS], 3),
    "animals": dict.fromkeys(
        [
            *("full", "no-entropy", "no-area", "no-smoothness"),
            *("edges", "untrained"),
        ],
        1,
    ),
}
"""By experiment, the variants of the loss and with how many seeds each."""

CONTINUED = {"animals": 300}
"""Experiments whose ablation goes on from the trained Explainer, and for how
many steps. On photographs it takes hours from nothing until masks are good
enough to lose something when a term is removed."""

SHORT_SEEDS = {"scenes": 5}
"""By experiment, the number of short runs to check for confusions."""

VALIDATED = 100
"""The number of validation images for a trial's training and sharpness."""

PARTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "no-sharing": {"affinity_cells": 0},
    "no-class-activation": {"class_activation": False},
    "magnified": {"scale": 1.43},
}
"""The options of the networks to compare. "full" is that of the short
schedule, which does not magnify."""

BIASES = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Biases and factors of the logits to try for the untrained network."""

REACHES = (0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
ROUNDS = (1, 2, 4, 6)
"""Ways of sharing among similar cells: how far, and how often."""

IMAGES = {"scenes": (1, 10, 100, 1000)}
"""By experiment, the numbers of training images."""

SEEN = 100
"""The largest number of training images to measure such a network on."""


def trial_steps(experiment: Experiment) -> list[Step]:
    """Return the steps of all trials; none for the paper's data."""
    return [
        *ablation_steps(experiment),
        *seed_steps(experiment),
        *part_steps(experiment),
        *few_images_steps(experiment),
    ]


# --- the loss ------------------------------------------------------------


def ablation_steps(experiment: Experiment) -> list[Step]:
    """Return a step for each training, and one for the table."""
    seeds = SEEDS.get(experiment.name, {})
    trainings = [
        _variant_step(experiment, variant, seed)
        for variant in seeds
        for seed in range(seeds[variant])
    ]
    table = Step(
        "ablation",
        "tell what goes missing with each part of the loss",
        experiment.out / "ablation.json",
        partial(ablate_all, experiment),
    )
    return [*trainings, table] if trainings else []


def _variant_step(experiment: Experiment, variant: str, seed: int) -> Step:
    name = f"{variant}-{seed}"
    return Step(
        f"ablation-{name}",
        f"train the loss {variant!r} shortly, seed {seed}, and measure it",
        experiment.out / "ablation" / name / "scores.json",
        partial(try_variant, experiment, variant, seed),
    )


def ablation_of(experiment: Experiment) -> Ablation:
    """Return the experiment's ablation, on the short schedule."""
    short = experiment.shortened(CONTINUED.get(experiment.name))
    preset = short.preset
    if experiment.name in CONTINUED:
        trained = str(experiment.out / "explainer")
        preset = replace(preset, fine_tuned_from=trained)
    return Ablation(
        preset,
        experiment.classifier,
        short.load("train"),
        short.load("val", VALIDATED),
        short.load("test"),
        experiment.out / "ablation",
        experiment.device or "cpu",
    )


def try_variant(experiment: Experiment, variant: str, seed: int) -> None:
    """Train a variant of the loss with one seed, and measure it."""
    ablation = ablation_of(experiment)
    chosen = select(ablation.classifier, ablation.test, ablation.settings)
    ablation.trial(variant, seed, chosen, progress=True)


def ablate_all(experiment: Experiment) -> None:
    """Write ``ablation.json`` from the trials, and a file of masks."""
    start = ["explainer"] if experiment.name in CONTINUED else []
    ablate(
        ablation_of(experiment),
        experiment.out / "ablation.json",
        seeds=SEEDS[experiment.name],
        notes=experiment.notes
        | {"measured_with": experiment.measured_with("classifier", *start)},
    )


# --- the seeds -----------------------------------------------------------


def seed_steps(experiment: Experiment) -> list[Step]:
    """Return the steps that count confusions among short runs."""
    n = SHORT_SEEDS.get(experiment.name, 0)
    done = SEEDS.get(experiment.name, {}).get("full", 0)
    table = Step(
        "short_seeds",
        f"count how many of {n} short runs confuse classes",
        experiment.out / "short_seeds.json",
        partial(count_confusions, experiment),
    )
    more = [_variant_step(experiment, "full", i) for i in range(done, n)]
    return [*more, table] if n else []


def count_confusions(experiment: Experiment) -> None:
    """Write ``short_seeds.json``: class scores of short runs (validation).

    The runs are the ablation's with the full loss, each with its best
    sharpness. ``confused`` counts those that do not separate the classes
    (:func:`~explainer.reproduction.networks.judged`).
    """
    short = experiment.shortened()
    seeds = range(SHORT_SEEDS[experiment.name])

    def judge(seed: int) -> dict[str, Any]:
        network = experiment.network(f"ablation/full-{seed}")
        by = sharpen(network, short.load("val", VALIDATED), short)
        return {"sharpened": by, **judged(short, network)}

    runs = {
        str(seed): once(
            experiment.out / "ablation" / f"full-{seed}" / "judged.json",
            partial(judge, seed),
        )
        for seed in seeds
    }
    confused = [name for name, run in runs.items() if not run["tells_apart"]]
    write_json(
        experiment.out / "short_seeds.json",
        {
            "card": experiment.card(
                "classifier",
                split="val",
                seed=list(seeds),
                steps=short.preset.explainer_training.steps,
            ),
            "confused": len(confused),
            "runs": runs,
        },
    )


def sharpen(
    network: Any, val: LabelledImages, experiment: Experiment
) -> float:
    """Multiply a network's logits by the preset's best factor; return it."""
    scores = sharpness_scores(network, val, experiment.preset.sharpen)
    by = max(scores, key=lambda factor: merit(scores[factor]))
    network.sharpen(by)
    return by


# --- what training adds --------------------------------------------------


def has_parts(experiment: Experiment) -> bool:
    """Return whether the network uses the classifier's class activation."""
    options = experiment.preset.explainer_options
    return bool(options.get("class_activation"))


def part_steps(experiment: Experiment) -> list[Step]:
    """Return the steps on the network's parts, if it has them."""
    if not has_parts(experiment):
        return []
    out = experiment.out
    trainings = [
        Step(
            f"adds-{name}",
            f"train the network shortly, {name.replace('-', ' ')}",
            out / "adds" / name / "card.json",
            partial(train_part, experiment, name),
        )
        for name in PARTS
    ]
    return [
        Step(
            "untrained",
            "choose bias and sharpness of the network before any training",
            out / "untrained" / "card.json",
            partial(finish_untrained, experiment, "untrained"),
        ),
        Step(
            "adds-untrained",
            "the same without magnification",
            out / "adds" / "untrained" / "card.json",
            partial(
                finish_untrained, experiment.shortened(), "adds/untrained"
            ),
        ),
        Step(
            "sharing",
            "compare ways of sharing among similar cells",
            out / "sharing.json",
            partial(measure_sharing, experiment),
        ),
        *trainings,
        Step(
            "adds",
            "tell what training adds, and each part of the network",
            out / "adds.json",
            partial(measure_parts, experiment),
        ),
    ]


def train_part(experiment: Experiment, name: str) -> None:
    """Train a network of :data:`PARTS`, for few steps, in ``adds/NAME/``."""
    preset = experiment.shortened().preset
    options = {**preset.explainer_options, **PARTS[name]}
    preset = replace(preset, explainer_options=options, sharpen=(1.0,))
    fit(experiment, preset, f"adds/{name}", seed=0)


def finish_untrained(experiment: Experiment, folder: str) -> None:
    """Write the untrained network with its best bias and sharpness.

    Its decoder's output is zero. What remains is the classifier's class
    activation on the magnified image, shared among similar cells. Bias and
    sharpness are those with the best masks on validation images.
    """
    preset = experiment.preset
    network: Any = fresh_network(preset, experiment.classifier, seed=0)
    network.to(experiment.device or "cpu")
    head = network.decoder.head
    nn.init.zeros_(head.weight)
    val = experiment.load("val", VALIDATED)
    tried = {}
    for bias in BIASES:
        nn.init.constant_(head.bias, bias / network.sharpness)
        for by, scores in sharpness_scores(network, val, FACTORS).items():
            tried[bias, by] = scores
    bias, by = max(tried, key=lambda pair: merit(tried[pair]))
    nn.init.constant_(head.bias, bias / network.sharpness)
    network.sharpen(by)
    config = {
        **experiment.notes,
        "kind": "explainer",
        "data": preset.data,
        "architecture": preset.explainer,
        "options": {
            **preset.explainer_options,
            **preset.finished,
            "sharpness": network.sharpness,
        },
        "classes": list(experiment.classifier.classes),
        "size": preset.size,
    }
    weights = experiment.out / folder / "model.safetensors"
    save_weights(weights, network, config)
    write_json(
        weights.with_name("card.json"),
        {
            **config,
            "chosen": {"bias": bias, "sharpened": by, "val": tried[bias, by]},
            "sha256": sha256(weights),
            "command": command_line(),
            **environment(),
        },
    )


def measure_sharing(experiment: Experiment) -> None:
    """Write ``sharing.json``: the trained Explainer with other sharing.

    For each reach and number of rounds there are the scores of its masks on
    validation images; without rounds nothing is shared. Nothing is trained
    anew. :attr:`Preset.finished` was chosen in this way.
    """
    network: Any = experiment.network("explainer")
    val = experiment.load("val", VALIDATED)
    tried: list[dict[str, float]] = []
    for reach, rounds in [(REACHES[0], 0), *product(REACHES, ROUNDS)]:
        check_time()
        network.affinity_reach, network.affinity_rounds = reach, rounds
        scores = sharpness_scores(network, val, (1.0,))[1.0]
        tried.append({"reach": reach, "rounds": rounds, **scores})
    write_json(
        experiment.out / "sharing.json",
        {
            "card": experiment.card(
                "classifier", "explainer", split="val", n=len(val), seed=0
            ),
            "finished": dict(experiment.preset.finished),
            "tried": tried,
        },
    )


def columns_of(
    experiment: Experiment, network: nn.Module, data: LabelledImages
) -> dict[str, list[float | None]]:
    """Return the columns of :func:`score`, None where undefined."""
    settings = Settings(fill=experiment.preset.fill, steps=0)
    classifier = experiment.classifier
    found = score(
        network,
        classifier,
        data,
        select(classifier, data, settings),
        settings,
        experiment.preset.weights,
    )
    return {
        name: [v if v == v else None for v in column]
        for name, column in found.items()
    }


def measure_parts(experiment: Experiment) -> None:
    """Write ``adds.json``: test scores of the networks of :data:`PARTS`.

    The sharpness of each is chosen on validation images.
    """
    short = experiment.shortened()
    val, test = short.load("val", VALIDATED), short.load("test")
    scores, sharpened = {}, {}
    for name in ("untrained", *PARTS):
        network = experiment.network(f"adds/{name}")
        sharpened[name] = sharpen(network, val, short)
        scores[name] = [columns_of(short, network, test)]
    write_json(
        experiment.out / "adds.json",
        {
            "card": experiment.card(
                "classifier",
                split="test",
                n=len(scores["full"][0]["iou"]),
                size=short.preset.size,
                steps=short.preset.explainer_training.steps,
                seed=0,
                sharpened=sharpened,
            ),
            "variants": summarise_seeds(scores),
        },
    )


# --- few images ----------------------------------------------------------


def few_images_steps(experiment: Experiment) -> list[Step]:
    """Return a step for each number of training images, and the table."""
    counts = IMAGES.get(experiment.name, ())
    out = experiment.out
    trainings = [
        Step(
            f"few_images-{n}",
            f"train shortly on {n} images",
            out / "few_images" / str(n) / "card.json",
            partial(train_on_few, experiment, n),
        )
        for n in counts
    ]
    table = Step(
        "few_images",
        "tell how many training images the masks need",
        out / "few_images.json",
        partial(measure_few, experiment),
    )
    return [*trainings, table] if trainings else []


def repeated(data: LabelledImages, n: int, least: int) -> LabelledImages:
    """Return the first n images that have a class, repeated.

    There are at least ``least``, enough for a full batch.
    """
    shown = (all_labels(data).sum(1) > 0).nonzero()[:n, 0].tolist()
    times = -(-least // len(shown))
    subset: Any = Subset(data, shown * times)  # type: ignore[arg-type]
    subset.classes = data.classes
    found: LabelledImages = subset
    return found


def train_on_few(experiment: Experiment, n: int) -> None:
    """Train on n images, for few steps, in ``few_images/N/``."""
    preset = experiment.shortened().preset
    size = preset.explainer_training.batch_size
    train = repeated(experiment.load("train"), n, size)
    fit(experiment, preset, f"few_images/{n}", seed=0, train=train)


def measure_few(experiment: Experiment) -> None:
    """Write ``few_images.json``, and a file of masks of test images.

    For each network, and for one trained on all images (the ablation's with
    the full loss), it holds the means of :func:`score` on test images and on
    its own training images, and how well it separates classes on validation
    images.
    """
    short = experiment.shortened()
    train, test = short.load("train"), short.load("test")
    folders = {n: f"few_images/{n}" for n in IMAGES[experiment.name]} | {
        len(train): "ablation/full-0"
    }
    runs, pictures = {}, {}
    for n, folder in folders.items():
        network = experiment.network(folder)
        if folder.startswith("ablation"):
            sharpen(network, short.load("val"), short)
        seen = repeated(train, min(n, SEEN), 1)
        runs[str(n)] = {
            "test": means(columns_of(short, network, test)),
            "train": means(columns_of(short, network, seen)),
            **judged(short, network),
        }
        chosen = select(experiment.classifier, test, Settings(), PICTURED)
        pictures[str(n)] = mask_pictures(network, test, chosen)
    out = experiment.out / "few_images.json"
    write_masks(out.with_suffix(".npz"), pictures)
    write_json(
        out,
        {
            "card": experiment.card(
                "classifier",
                split="test",
                n=len(test),
                steps=short.preset.explainer_training.steps,
                seed=0,
            ),
            "pictures": [image.index for image in chosen.images],
            "runs": runs,
        },
    )


def means(columns: Mapping[str, list[float | None]]) -> dict[str, Any]:
    """Return the mean of each column's defined values, or None."""
    defined = {
        name: [v for v in column if v is not None]
        for name, column in columns.items()
    }
    return {name: fmean(v) if v else None for name, v in defined.items()}
