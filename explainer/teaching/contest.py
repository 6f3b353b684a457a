"""The contest of the methods: who takes part, and verdicts in words.

A verdict is a text in Markdown whose words are chosen by the numbers, so it
stays true when the results are measured anew. Without results a verdict is
"not run".
"""

from collections.abc import Iterable, Mapping, Sequence

from explainer.attribution import PAPER_METHODS
from explainer.classifiers import Classifier, Frozen
from explainer.errors import UserError
from explainer.evaluation.class_scores import diagonal_and_rest
from explainer.evaluation.images import device_of
from explainer.evaluation.methods import (
    BUDGETS,
    CONTROLS,
    PUBLIC_VARIANTS,
    Contender,
    Options,
    contenders,
)
from explainer.presets import PRESETS
from explainer.teaching.display import Table, table
from explainer.teaching.tables import (
    HEADINGS,
    LOWER_IS_BETTER,
    METRICS,
    NOT_AVAILABLE,
    NOT_RUN,
    Results,
    class_scores_of,
    excludes_zero,
    find,
    methods_of,
    number,
    percent,
    rank,
    rounded,
    title,
    with_interval,
)

RIVALS = (*PAPER_METHODS[1:], *PUBLIC_VARIANTS)
"""The methods that the Explainer is compared with, public versions too."""

BLIND = CONTROLS[:-1]
"""The controls that look at nothing."""

EXPOSING = {
    **HEADINGS,
    "auc": "AUC ↑",
    "class_iou_50": "IoU at 0.5 of single classes ↑",
}
"""Headings of the metrics that may expose a control."""


def ready(
    names: Iterable[str],
    classifier: Classifier | Frozen,
    preset: str,
    budget: Options = BUDGETS["reduced"],
) -> dict[str, Contender]:
    """Return the methods that have all they need, by name.

    For each of the others it prints a sentence that says what is missing: the
    trained ones need weights that belong to the classifier.
    """
    rows: dict[str, Contender] = {}
    for name in names:
        try:
            rows |= contenders(
                [name],
                preset=preset,
                classes=classifier.classes,
                device=str(device_of(classifier)),
                budget=budget,
            )
        except UserError as error:
            print(error)
    return rows


def needs_table() -> Table:
    """Return what each method needs of the classifier, and who is trained."""
    trained = [
        "in training only",
        "in training only",
        "no, but ours starts from them",
        "yes",
    ]
    to_image = ["yes", "yes, to the image", "no", "no"]
    rows = {
        "explainer": trained,
        "grad_cam": ["yes", "yes, to one layer", "yes, one", "no"],
        "rise": ["yes", "no", "no", "no"],
        "extremal_perturbation": to_image,
        "igos": to_image,
        "rtis": trained,
    }
    return table(
        ["outputs", "gradients", "inner layers", "a training"],
        {title(m): cells for m, cells in rows.items()},
    )


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence: "a, b and c"; "nobody" if empty."""
    *most, last = names or ["nobody"]
    return f"{', '.join(most)} and {last}" if most else last


def metric_name(metric: str) -> str:
    """Return a metric's heading without its arrow."""
    return EXPOSING[metric].rstrip(" ↑↓")


# --- the scoreboard ------------------------------------------------------


def gains(
    results: Results, metric: str, names: Iterable[str]
) -> dict[str, float]:
    """Return by how much methods are better than the Explainer, by name.

    Positive is better, whichever way the metric points. Methods without a
    defined difference are left out.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    means = {
        name: find(results, name, "difference", metric, "mean")
        for name in names
    }
    return {k: sign * mean for k, mean in means.items() if mean is not None}


def scoreboard_verdict(results: Results | None) -> str:
    """Return where the Explainer wins and where it loses, as a list.

    The first sentence is about the paper's methods, the list also about their
    public versions and the controls.
    """
    if not results or "explainer" not in results:
        return NOT_RUN
    won = [m for m in METRICS if rank(results, m)[0] == 1]
    lost = [metric_name(m) for m in METRICS if m not in won]
    _, among = rank(results, METRICS[0])
    if not lost:
        first = "in all four metrics, as the paper claims"
    elif won:
        names = listed([metric_name(m) for m in won])
        first = f"in {names}, but not in {listed(lost)}"
    else:
        first = "in none of the four metrics"
    lines = [f"- {metric_verdict(results, metric)}" for metric in METRICS]
    best = (
        f"The Explainer is first among the paper's {among} methods {first}."
    )
    return "\n".join([best, "", *lines])


def metric_verdict(results: Results, metric: str) -> str:
    """Return whom the Explainer leads in a metric, and who leads it.

    A lead is decided if its paired interval excludes zero.
    """
    found = gains(results, metric, (*RIVALS, *BLIND))
    decided = {
        name
        for name in found
        if excludes_zero(results[name]["difference"][metric])
    }
    rivals = [name for name in found if name in RIVALS]
    led = [name for name in rivals if found[name] < 0]
    open_ = [title(name) for name in led if name not in decided]
    whom = "all" if len(led) == len(rivals) else f"{len(led)} of"
    text = f"**{metric_name(metric)}**: it leads {whom} {len(rivals)} rivals"
    if open_:
        text += f"; the lead over {listed(open_)} is not decided"
    for name in (*rivals, *BLIND):
        if found.get(name, 0) > 0:
            how = "decided" if name in decided else "not decided"
            by = number(found[name]).replace("0.00", "less than 0.01")
            what = ", which looks at nothing," if name in BLIND else ""
            text += f"; *{title(name)}*{what} is ahead by {by} ({how})"
    return f"{text}."


def beaten(results: Results, control: str, metric: str) -> list[str] | None:
    """Return which of the paper's methods a control beats in a metric.

    They are compared by their paired differences to the Explainer. None if
    the control has none.
    """
    found = gains(results, metric, (*PAPER_METHODS[1:], control))
    if control not in found:
        return None
    own = found.pop(control)
    return [
        k for k, gain in ({"explainer": 0.0} | found).items() if own > gain
    ]


def beaten_table(results: Results) -> Table:
    """Return by metric which methods the ellipse beats, and the empty mask.

    A metric in which a control beats nobody exposes it.
    """
    rows = {}
    for metric, heading in EXPOSING.items():
        lists = [beaten(results, c, metric) for c in ("ellipse", "zero")]
        rows[heading] = [
            "undefined" if names is None else listed(list(map(title, names)))
            for names in lists
        ]
    columns = ["the ellipse beats", "the empty mask beats"]
    return table(columns, rows)


def ellipse_verdict(results: Results | None) -> str:
    """Return which metrics expose the ellipse, and where it does best."""
    if not results or "ellipse" not in results:
        return NOT_RUN
    lists = {m: beaten(results, "ellipse", m) for m in EXPOSING}
    beats = {m: names for m, names in lists.items() if names is not None}
    counts = {m: len(names) for m, names in beats.items()}
    most = max(counts, key=lambda m: counts[m])
    if not counts[most]:
        return "The ellipse beats no method in any of these metrics."
    fewest = min(counts.values())
    exposing = [metric_name(m) for m in counts if counts[m] == fewest]
    return (
        f"The ellipse is exposed most clearly by {listed(exposing)}, where "
        f"it beats {fewest or 'none'} of the methods. It does best in "
        f"{metric_name(most)}, where it beats "
        f"{listed([title(m) for m in beats[most]])}."
    )


PER_CLASS = ("more", "per_class_iou_50")


def best_rival(results: Results, name: str) -> tuple[float | None, str]:
    """Return the best rival's IoU of a class's own mask, and whose it is."""
    rivals = [
        (value, title(m))
        for m in RIVALS
        if (value := find(results, m, *PER_CLASS, name)) is not None
    ]
    return max(rivals, default=(None, "no rival"))


def per_class_table(results: Results) -> Table:
    """Return IoU at 0.5 of each class's own mask, a row per class.

    The Explainer stands beside the best rival and the ellipse.
    """
    rows = {}
    for c, ours in find(results, "explainer", *PER_CLASS).items():
        value, rival = best_rival(results, c)
        ellipse = find(results, "ellipse", *PER_CLASS, c)
        rows[c] = [
            number(ours),
            f"{number(value)} ({rival})",
            number(ellipse),
        ]
    return table(["Explainer", "best rival", "ellipse"], rows)


def per_class_verdict(results: Results | None) -> str:
    """Return where the Explainer is above the ellipse or below a rival."""
    if not results or not {"explainer", "ellipse"} <= set(results):
        return NOT_RUN
    ours, ellipse = (
        find(results, m, *PER_CLASS) for m in ("explainer", "ellipse")
    )
    below = [c for c in ours if ours[c] <= ellipse[c]]
    text = (
        f"The Explainer is above the ellipse in {len(ours) - len(below)} of "
        f"{len(ours)} classes"
    )
    text += f", not for {listed(below)}." if below else "."
    best = {c: best_rival(results, c) for c in ours}
    ahead = [
        f"{c} ({rival})"
        for c, (value, rival) in best.items()
        if value is not None and value > ours[c]
    ]
    return f"{text} A rival is ahead for {listed(ahead)}." if ahead else text


def headline(
    boards: Mapping[str, Results | None], speed: Results | None
) -> str:
    """Return how good and how fast the Explainer is, beside its rivals.

    ``boards`` has a scoreboard for each kind of test images ("drawn scenes");
    ``speed`` holds seconds per image of each method. A rival is compared on
    the images that it shares with the Explainer.
    """
    parts = []
    for images, board in boards.items():
        if not board:
            parts.append(f"on {images}: {NOT_RUN}")
            continue
        found = gains(board, "iou", PAPER_METHODS[1:])
        best = max(found, key=lambda m: found[m])
        own, n = board["explainer"]["iou"], board["explainer"]["n"]
        parts.append(
            f"on {n} {images} {number(own)} for the Explainer and "
            f"{number(own + found[best])} for the best of its {len(found)} "
            f"rivals, {title(best)}"
        )
    text = (
        "Mean overlap of the masks with the true objects (IoU, at most 1): "
        f"{'; '.join(parts)}."
    )
    seconds = find(speed, "seconds_per_image")
    if seconds:
        slower = sorted(seconds[m] / seconds["explainer"] for m in RIVALS
                        if m in seconds)  # fmt: skip
        text += (
            f" For a scene the Explainer takes {seconds['explainer']:.1g} s, "
            f"the others {slower[0]:.1f} to {slower[-1]:.0f} times as long."
        )
    return text


# --- budgets and tries ---------------------------------------------------

COUNTS = {"n_masks": "masks", "iterations": "iterations", "steps": "steps"}
"""The options that set how long a method runs, in words."""


def effort(options: Mapping[str, object]) -> str:
    """Return how long a method runs, as "50 iterations"; "–" if once."""
    counts = [f"{options[k]} {v}" for k, v in COUNTS.items() if k in options]
    return ", ".join(counts) or "–"


def cost_table(board: Results, speed: Results | None = None) -> Table:
    """Return each method's budget and seconds per image on a scoreboard.

    ``speed`` holds the seconds taken on an idle machine, if they are known.
    Otherwise they are the scoreboard's own, taken beside other work.
    """
    timed = find(speed, "seconds_per_image") or {}
    seconds = {
        m: timed.get(m, board[m]["seconds"])
        for m in ("explainer", *RIVALS)
        if m in board and (m in timed or not timed)
    }
    rows = {}
    for m, s in seconds.items():
        times = s / seconds["explainer"]
        rows[title(m)] = [
            effort(board["card"]["methods"][m]["options"]),
            rounded(s),
            f"{times:.0f}" if times >= 10 else f"{times:.1f}",
            board[m]["n"],
        ]
    return table(
        ["runs for", "s / image", "times the Explainer's", "images"], rows
    )


def tried_table(
    preset: str,
    search: Results | None,
    areas: Results | None,
    earlier: Sequence[Results | None] = (),
    sharing: Results | None = None,
) -> Table:
    """Return how much was tried for each method before the test images.

    ``search`` and ``areas`` are the searches for the rivals' settings and for
    the weight of RTIS's area; ``earlier`` are files of runs with other
    recipes for the Explainer, ``sharing`` is the comparison of ways to share
    its logits.
    """
    runs = {m for tries in earlier if tries for m in tries}
    recipes = len(runs - {"card", "ellipse"})
    ours = PRESETS[preset]
    settings = len(ours.sharpen) + len(find(sharing, "tried") or ())
    rows = {
        title("explainer"): [
            recipes or "not counted", len(ours.seeds), settings
        ]
    }  # fmt: skip
    for m in RIVALS:
        tried = find(search, m, "tried")
        if tried is not None:
            weights = len(find(areas, "tried") or ()) if m == "rtis" else 0
            rows[title(m)] = [weights, int(m == "rtis"), len(tried)]
    return table(
        ["earlier or short trainings", "seeds", "settings tried"], rows
    )


# --- what training adds --------------------------------------------------

ADDED = ("iou", "iou_50", "mae")
PARTS = {
    "full": "trained (short schedule)",
    "untrained": "untrained",
    "no-class-activation": "without class activation",
    "no-sharing": "without sharing",
    "magnified": "with magnification",
}


def adds_table(adds: Results) -> Table:
    """Return the scores of the network untrained and without its parts."""
    variants = adds["variants"]
    rows = {
        name: [
            with_interval(
                variants[key][k]["mean"], variants[key][k]["image_ci"]
            )
            for k in ADDED
        ]
        for key, name in PARTS.items()
        if key in variants
    }
    return table([HEADINGS[k] for k in ADDED], rows)


def adds_verdict(adds: Results | None) -> str:
    """Return what training adds in IoU, and what each part does."""
    if not adds:
        return NOT_RUN
    variants, steps = adds["variants"], adds["card"]["steps"]
    trained, untrained = (
        variants[k]["iou"]["mean"] for k in ("full", "untrained")
    )
    text = (
        f"Untrained the network has an IoU of {number(untrained)}, after "
        f"{steps:,} steps one of {number(trained)}."
    )
    if trained < untrained:
        text += (
            " So this training is too short to help the masks; the rows "
            "*untrained* and *Explainer* of the scoreboard show the long one."
        )
    for key, name in PARTS.items():
        change = find(variants, key, "difference", "iou")
        if key == "untrained" or not change:
            continue
        ci = change["image_ci"]
        sure = "" if excludes_zero({"ci": ci}) else " (not decided)"
        by = number(change["mean"], "+")
        text += f" Trained {name} its IoU changes by {by}{sure}."
    return text


# --- class scores --------------------------------------------------------


MOST = 4
"""The number of confusions that a verdict names."""


def pairs_of(results: Results | None) -> dict[str, tuple[float, float]]:
    """Return diagonal and rest of each method's class scores, by name."""
    return {
        m: diagonal_and_rest(class_scores_of(results, m) or ())
        for m in methods_of(results or {})
    }


def by_ratio(results: Results | None) -> list[str]:
    """Return the paper's methods, that with the highest ratio first."""
    pairs = pairs_of(results)
    ratios = {
        m: pairs[m][0] / pairs[m][1] for m in PAPER_METHODS if m in pairs
    }
    return sorted(ratios, key=lambda m: ratios[m], reverse=True)


def ratio_table(sources: Mapping[str, Results | None]) -> Table:
    """Return diagonal, rest and their ratio by method and source.

    A source is our class scores or the authors' notebook's.
    """
    rows = {}
    for method in (*PAPER_METHODS, "untrained", "ellipse", "ground_truth"):
        cells: list[str] = []
        for results in sources.values():
            scores = class_scores_of(results, method)
            if scores is None:
                theirs = results is not None and "methods" in results
                cells += [NOT_AVAILABLE if theirs else NOT_RUN, "–", "–"]
            else:
                own, rest = diagonal_and_rest(scores)
                cells += [percent(own), percent(rest), f"{own / rest:.2f}"]
        if method != "untrained" or set(cells) - {
            NOT_RUN,
            NOT_AVAILABLE,
            "–",
        }:
            rows[title(method)] = cells
    headings = [
        text for s in sources for text in (f"{s}: diagonal", "rest", "ratio")
    ]
    return table(headings, rows)


def class_score_verdict(results: Results | None) -> str:
    """Return who tells the classes apart best, and by what."""
    if not results or "explainer" not in results:
        return NOT_RUN
    pairs = pairs_of(results)
    methods = {m: pairs[m] for m in by_ratio(results)}
    order = [
        f"{title(m)} ({own / rest:.2f})" for m, (own, rest) in methods.items()
    ]
    own, rest = methods["explainer"]
    higher = [title(m) for m in methods if methods[m][0] > own]
    lower = [title(m) for m in methods if methods[m][1] < rest]
    text = (
        f"By the ratio: {', '.join(order)}. A diagonal higher than the "
        f"Explainer's: {listed(higher)}. A lower rest: {listed(lower)}."
    )
    owns, rests = zip(*methods.values(), strict=True)
    widths = [100 * (max(v) - min(v)) for v in (owns, rests)]
    least, most = (percent(f(rests)) for f in (min, max))
    if widths[1] < widths[0] / 2:
        text += (
            f" All rests lie between {least} and {most}: what separates "
            "these methods is the diagonal."
        )
    else:
        text += f" The rests reach from {least} to {most}."
    if "ellipse" in pairs:
        same = pairs["ellipse"][0]
        below = [title(m) for m in methods if methods[m][0] < same]
        text += (
            f" The ellipse has {percent(same)} on the diagonal and off it. "
            f"A diagonal lower than that: {listed(below)}."
        )
    for control, name in (
        ("ground_truth", "the true outlines"),
        ("untrained", "the network before any training"),
    ):
        if control in pairs:
            ratio = pairs[control][0] / pairs[control][1]
            where = "above" if ratio > own / rest else "not above"
            text += (
                f" The ratio of {name} is {ratio:.2f}, {where} the "
                "Explainer's."
            )
    return text


def confusions(
    scores: Sequence[Sequence[float | None]], share: float = 0.5
) -> list[tuple[int, int, float]]:
    """Return the cells off the diagonal that should be dark and are not.

    Each is the class in the image, the class of the mask and the score, the
    highest first. A cell counts if it is more than ``share`` of its row's
    diagonal: the wrong mask shows the class at least that well.
    """
    cells = [
        (r, k, value)
        for r, row in enumerate(scores)
        for k, value in enumerate(row[1:])
        if k != r and value is not None and value > share * (row[1 + r] or 0)
    ]
    return sorted(cells, key=lambda cell: -cell[2])


def seeds_table(seeds: Results | None) -> Table | str:
    """Return how each seed's Explainer scores on validation images.

    ``seeds`` is a file ``seeds_PRESET.json``.
    """
    if seeds is None:
        return NOT_RUN
    columns = ["IoU", "weakest own mask", "strongest wrong mask"]
    rows = {
        f"seed {seed}": [
            number(run["masks"]["iou"]),
            percent(run["least_own"]),
            percent(run["greatest_other"]),
        ]
        for seed, run in seeds["runs"].items()
    }
    return table(columns, rows)


def seeds_verdict(seeds: Results | None) -> str:
    """Return how many seeds tell classes apart, and which one was taken."""
    if seeds is None:
        return f"The Explainer's seeds: {NOT_RUN}."
    runs = seeds["runs"]
    apart = [seed for seed, run in runs.items() if run["tells_apart"]]
    best = max(runs, key=lambda seed: runs[seed]["masks"]["iou"])
    chosen = str(seeds["chosen"])
    if chosen == best:
        rest = ", which also has the highest IoU."
    else:
        rest = f"; the highest IoU is that of seed {best}"
        rest += "." if best in apart else ", which confuses classes."
    return (
        f"Of {len(runs)} trainings that differ in their seed alone, "
        f"{len(apart) or 'none'} tell{'s' * (len(apart) == 1)} all classes "
        f"apart. The package has seed {chosen}{rest}"
    )


def confusion_verdict(results: Results | None, method: str) -> str:
    """Return a method's confusions in words, and its weakest own mask."""
    scores = class_scores_of(results, method)
    if results is None or scores is None:
        return NOT_RUN
    names = results[method]["classes"]
    found = confusions(scores)
    parts = [
        f"the mask of *{names[k]}* shows *{names[r]}* with {percent(value)} "
        f"(*{names[r]}*'s own mask: {percent(scores[r][1 + r])})"
        for r, k, value in found
    ]
    if len(parts) > MOST:
        parts[MOST:] = [f"and {len(parts) - MOST} more pairs"]
    if parts:
        text = f"{title(method)} confuses classes: {'; '.join(parts)}."
    else:
        text = (
            f"{title(method)} confuses no classes: no wrong mask shows a "
            "class half as well as its own does."
        )
    shares = {
        r: (row[1 + r] or 0) / row[0]
        for r, row in enumerate(scores)
        if row[0]
    }
    r = min(shares, key=lambda r: shares[r])
    return (
        f"{text} Beside what the whole image scores, the weakest own mask is "
        f"that of *{names[r]}*: {percent(scores[r][1 + r])}, where the whole "
        f"image has {percent(scores[r][0])}."
    )
