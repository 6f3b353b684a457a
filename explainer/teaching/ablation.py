"""The ablation and the trainings on few images, as the chapters tell them.

Every sentence is chosen by the numbers of a results file. A difference to
the full loss is called clear if it is more than twice its standard deviation
over seeds and its interval over images excludes zero. With one seed only the
second counts, and the sentence says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from explainer.evaluation.class_scores import LEAST_OWN, MOST_OTHER
from explainer.figures import COLOURS, Picture, grid, overlay
from explainer.teaching.display import Table, table
from explainer.teaching.tables import NOT_RUN, Results, made_on

NAMES: Mapping[str, str] = {
    "no-classification": "the classification term",
    "no-entropy": "the entropy term",
    "no-area": "the whole area term",
    "no-target-area": "A(m)",
    "no-non-target-area": "A(n)",
    "no-bound": "B",
    "no-smoothness": "the smoothness term",
}
"""What each variant lacks, in words."""

ABOUT: Mapping[str, Mapping[str, int]] = {
    "no-classification": {"kept": -1},
    "no-entropy": {"left": 1, "undecided": -1},
    "no-area": {"target_area": 1},
    "no-target-area": {"target_area": 1},
    "no-non-target-area": {"non_target_area": 1, "class_blindness": 1},
    "no-bound": {"bound": 1},
    "no-smoothness": {"variation": 1, "pieces": 1, "boundary": 1},
}
"""What a term is about, and the sign of a change for the worse."""

MASKS: Mapping[str, int] = {"iou": -1, "class_iou": -1}
"""The scores that decide whether masks are worse."""

WORDS: Mapping[str, str] = {
    "kept": "probability kept",
    "left": "probability left",
    "undecided": "indecision left",
    "target_area": "A(m)",
    "non_target_area": "A(n)",
    "class_blindness": "class-blindness",
    "bound": "sum of B",
    "variation": "TV(m)",
    "pieces": "pieces",
    "boundary": "outline",
    "iou": "IoU",
    "class_iou": "IoU of a class",
}
"""The short name of each quantity."""


def is_clear(cell: Mapping[str, Any]) -> bool:
    """Return whether a difference exceeds what seeds and images explain."""
    if cell["mean"] is None:
        return False
    low, high = cell["image_ci"]
    beyond_seeds = abs(cell["mean"]) > 2 * (cell["seed_sd"] or 0.0)
    return beyond_seeds and not low <= 0 <= high


def _known(results: Results, metrics: Mapping[str, int]) -> dict[str, int]:
    """Return the metrics that the results file holds."""
    full = results["variants"]["full"]
    return {name: sign for name, sign in metrics.items() if name in full}


def _clear(
    results: Results, variant: str, metrics: Mapping[str, int]
) -> dict[str, bool]:
    """Return the clear changes without a term: whether each is worse."""
    difference = results["variants"][variant]["difference"]
    return {
        name: sign * difference[name]["mean"] > 0
        for name, sign in _known(results, metrics).items()
        if is_clear(difference[name])
    }


# --- tables and pictures -------------------------------------------------


def _spread(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None:
        return "undefined"
    sd = cell["seed_sd"]
    return f"{cell['mean']:.3f}" + ("" if sd is None else f" ± {sd:.3f}")


def _change(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None:
        return "undefined"
    star = " *" if is_clear(cell) else ""
    return f"{cell['mean']:+.3f}{star}".replace("-", "−")


def about_table(results: Results | None) -> Table | str:
    """Return what each term is about, with the full loss and without it.

    Values are means ± their standard deviation over seeds. A star marks a
    clear difference.
    """
    if results is None:
        return NOT_RUN
    variants, rows = results["variants"], {}
    for variant, about in ABOUT.items():
        if variant not in variants:
            continue
        for metric in _known(results, about):
            rows[f"{NAMES[variant]}: {WORDS[metric]}"] = [
                _spread(variants["full"][metric]),
                _spread(variants[variant][metric]),
                _change(variants[variant]["difference"][metric]),
            ]
    return table(["full loss", "without", "difference"], rows)


def masks_table(results: Results | None) -> Table | str:
    """Return how good the masks of each variant are, and the difference.

    As :func:`about_table`, for :data:`MASKS`.
    """
    if results is None:
        return NOT_RUN
    columns = [
        heading
        for metric in MASKS
        for heading in (WORDS[metric], "difference")
    ]
    rows = {}
    for variant, row in results["variants"].items():
        rows[variant] = [
            cell
            for metric in MASKS
            for cell in (
                _spread(row[metric]),
                _change(row["difference"][metric])
                if "difference" in row
                else "",
            )
        ]
    return table(columns, rows)


def seed_ranges(
    results: Results, metric: str
) -> dict[str, tuple[float, float, float]]:
    """Return mean, lowest and highest seed of a metric, by variant."""
    return {
        variant: (row[metric]["mean"], min(seeds), max(seeds))
        for variant, row in results["variants"].items()
        if (seeds := row[metric]["seeds"])
    }


def mask_rows(
    images: Tensor, masks: Mapping[str, Tensor], which: int = 0
) -> Picture:
    """Return a figure with a row per entry of ``masks``, a column per image.

    ``images`` is ``(K, 3, H, W)``. Each of ``masks`` is ``(K, 2, H, W)``: the
    target mask (``which`` = 0, drawn in blue) and the non-target mask (1,
    vermilion).
    """
    rows = {"image": images}
    for name, both in masks.items():
        panels = zip(images, both[:, which, None], strict=True)
        views = [overlay(*panel, COLOURS[which:]) for panel in panels]
        rows[name] = torch.stack(views)
    columns = torch.stack(list(rows.values()), 1)
    titles = [f"image {k + 1}" for k in range(len(images))]
    return grid(dict(zip(titles, columns, strict=True)), list(rows))


# --- sentences on the ablation -------------------------------------------


def trained_with(results: Results | None) -> str:
    """Return how long, on what and where the networks were trained."""
    if results is None:
        return ""
    card, variants = results["card"], results["variants"]
    training = card["training"]
    counts = [len(row["iou"]["seeds"]) for row in variants.values()]
    low, high = min(counts), max(counts)
    seeds = f"{low}" if low == high else f"{low} to {high}"
    # The trained Explainer is named only where the trainings start from it.
    continued = "explainer" in card["measured_with"]
    start = " from the trained Explainer on" if continued else ""
    return (
        f"{len(variants)} losses, seeds of each: {seeds}; "
        f"{training['steps']:,} steps of {training['batch_size']} images"
        f"{start}; "
        f"measured on {card['n']} test images; {made_on(card)}."
    )


def without(results: Results | None, variant: str) -> str:
    """Return what happens without a term, in two sentences."""
    if results is None or variant not in results["variants"]:
        return f"Networks trained without {NAMES[variant]}: {NOT_RUN}."
    about = _changes(results, variant, ABOUT[variant])
    masks = _changes(results, variant, MASKS)
    n_seeds = len(results["variants"][variant]["iou"]["seeds"])
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    return (
        f"Networks trained without {NAMES[variant]} ({seeds}): {about}. "
        f"As for the masks, {masks}."
    )


SLIGHT = 0.05
"""If all seeds change by more than this share, the change is told of even
where it is not clear."""


def _changes(
    results: Results, variant: str, metrics: Mapping[str, int]
) -> str:
    """Return the change of each metric, "no clear change" included."""
    row, full = results["variants"][variant], results["variants"]["full"]
    clear = _clear(results, variant, metrics)
    parts = []
    for name in _known(results, metrics):
        before, after = full[name]["mean"], row[name]["mean"]
        if before is None or after is None:
            continue
        way = "rises" if after > before else "falls"
        told = f"{_short(before)} to {_short(after)}"
        seeds, slight = row[name]["seeds"], SLIGHT * abs(before)
        low, high = min(seeds), max(seeds)
        if name in clear:
            parts.append(f"{WORDS[name]} {way} from {told}")
        elif low < high and (low > before + slight or high < before - slight):
            parts.append(
                f"{WORDS[name]} {way} from {told} on average, but the seeds "
                f"lie too far apart ({_short(low)} to {_short(high)}) to "
                "call it clear"
            )
        else:
            parts.append(f"{WORDS[name]} does not change clearly ({told})")
    return " and ".join(parts) or "nothing was measured"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def verdict(results: Results | None) -> str:
    """Return the answer to which terms one could do without, as Markdown.

    A term is needed if the masks are clearly worse without it. Of the others
    the answer tells whether what they are about gets clearly worse.
    """
    if results is None:
        return f"The ablation: {NOT_RUN}."
    groups: dict[str, list[str]] = {"needed": [], "own": [], "null": []}
    better = []
    removed = [v for v in NAMES if v in results["variants"]]
    for variant in removed:
        masks = _clear(results, variant, MASKS)
        own = _clear(results, variant, ABOUT[variant])
        if True in masks.values():
            groups["needed"].append(NAMES[variant])
        elif True in own.values():
            groups["own"].append(NAMES[variant])
        else:
            groups["null"].append(NAMES[variant])
        if False in masks.values():
            better.append(NAMES[variant])
    lines = [
        f"- **Needed.** Masks are clearly worse without {_list(found)}."
        if (found := groups["needed"])
        else "- **Needed.** No single term: without any one of them masks "
        "are not clearly worse.",
        f"- **Felt, but not in the overlap.** Without {_list(found)} what "
        "the term is about gets clearly worse, the masks do not."
        if (found := groups["own"])
        else "",
        f"- **Not missed here.** Without {_list(found)} neither changes "
        "clearly for the worse."
        if (found := groups["null"])
        else "- **Not missed here.** None.",
        f"- **In the way.** Without {_list(better)} a score of the masks is "
        "clearly better."
        if better
        else "",
        _seeds_note(results, removed),
    ]
    return "\n".join(line for line in lines if line)


def _seeds_note(results: Results, removed: Sequence[str]) -> str:
    variants = results["variants"]
    if any(len(variants[v]["iou"]["seeds"]) > 1 for v in removed):
        return ""
    return (
        "\nThere is one seed per variant here, so *clear* is judged by the "
        "spread over images alone: another seed might answer differently."
    )


def _list(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]][len(names) < 2 :])


def confusions(short_seeds: Results | None) -> str:
    """Return how many short runs of the full loss confuse classes."""
    if short_seeds is None:
        return f"Short runs that confuse classes: {NOT_RUN}."
    n = len(short_seeds["runs"])
    how_many = short_seeds["confused"] or "none"
    return (
        f"Of {n} such runs with the full loss, {how_many} confuse classes. "
        "They differ in the seed only. A run confuses classes if a class's "
        f"own mask shows it with less than {LEAST_OWN:.0%}, or a wrong one "
        f"with more than {MOST_OTHER:.0%} ([class "
        "scores](12_class_scores.ipynb))."
    )


# --- few images ----------------------------------------------------------

CLOSE = 0.05
"""An IoU this near that of all images counts as the same."""

GAP = 0.1
"""A larger probability left on new images than on those trained on, by more
than this, means that the masks were learned by heart."""


def few_images_table(results: Results | None) -> Table | str:
    """Return scores of networks by their number of training images.

    On their own training images and on test images.
    """
    if results is None:
        return NOT_RUN
    metrics = ("kept", "left", "iou")
    columns = [
        f"{WORDS[metric]}, {where}"
        for where in ("own", "new")
        for metric in metrics
    ]
    rows = {
        f"{int(n):,}": [
            run[split][metric]
            for split in ("train", "test")
            for metric in metrics
        ]
        for n, run in results["runs"].items()
    }
    return table(columns, rows)


def few_images_verdict(results: Results | None) -> str:
    """Return from how many training images on masks are no longer noise.

    Noise works only where it was made: the masks leave less evidence on the
    network's own training images than on new ones, by more than :data:`GAP`.
    """
    if results is None:
        return f"Trainings on few images: {NOT_RUN}."
    runs = {int(n): run for n, run in results["runs"].items()}
    by_heart = [
        n
        for n, run in runs.items()
        if run["test"]["left"] - run["train"]["left"] > GAP
    ]
    most = max(runs)
    best = runs[most]["test"]["iou"]
    enough = min(
        n for n, run in runs.items() if run["test"]["iou"] >= best - CLOSE
    )
    first = runs[min(runs)]
    return (
        f"Trained on {_images(min(runs))}, the network leaves the classes a "
        f"probability of {first['train']['left']:.2f} on what it was trained "
        f"on and of {first['test']['left']:.2f} on new images. "
        + (
            f"Masks learned by heart (a gap of more than {GAP}) are those of "
            f"the networks with {_list([f'{n:,}' for n in by_heart])} "
            f"training image{'s' * (by_heart != [1])}. "
            if by_heart
            else f"No network has a gap of more than {GAP}: none of them "
            "learned its masks by heart. "
        )
        + f"The IoU on new images is {first['test']['iou']:.2f} with "
        f"{_images(min(runs))} and {best:.2f} with {_images(most)}; from "
        f"{_images(enough)} on it is within {CLOSE} of the latter."
    )


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n:,} images"
