"""Verdicts on the contest: the words follow from the numbers, by hand."""

from typing import Any

import pytest

from explainer.attribution import METHOD_TITLES, METHODS, PAPER_METHODS
from explainer.checkpoints import load_classifier
from explainer.evaluation.class_scores import diagonal_and_rest
from explainer.presets import PRESETS
from explainer.teaching import contest
from explainer.teaching.contest import (
    adds_table,
    adds_verdict,
    beaten,
    beaten_table,
    class_score_verdict,
    confusion_verdict,
    confusions,
    cost_table,
    effort,
    ellipse_verdict,
    headline,
    listed,
    metric_verdict,
    needs_table,
    per_class_table,
    per_class_verdict,
    ratio_table,
    ready,
    scoreboard_verdict,
    seeds_table,
    seeds_verdict,
    tried_table,
)
from explainer.teaching.tables import METRICS, NOT_AVAILABLE, NOT_RUN


def difference(mean: float, spread: float = 0.01) -> dict[str, Any]:
    return {"mean": mean, "ci": [mean - spread, mean + spread], "n": 9}


def row(gain: float | None, **more: Any) -> dict[str, Any]:
    """A method better than the Explainer by ``gain`` in every metric."""
    differences: dict[str, Any] = {}
    if gain is not None:
        differences = dict.fromkeys(contest.EXPOSING, difference(gain))
        for metric in ("saliency", "mae"):  # where lower is better
            differences[metric] = difference(-gain)
    return {"difference": differences, "seconds": 0.5, "n": 4, **more}


def board(**gains: float) -> dict[str, Any]:
    return {
        "explainer": row(None),
        **{name: row(gain) for name, gain in gains.items()},
        "card": {},
    }


def test_all_of_the_papers_methods_have_needs() -> None:
    rows = needs_table().rows
    assert list(rows) == [METHOD_TITLES[m] for m in PAPER_METHODS]
    assert [m for m, cells in rows.items() if cells[1] == "no"] == ["RISE"]


def test_names_as_in_a_sentence() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([]) == "nobody"


def test_who_has_no_weights_is_named_and_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    classifier = load_classifier("scenes")
    rows = ready(["grad_cam", "explainer"], classifier, "scenes")
    assert rows["grad_cam"].method is METHODS["grad_cam"]
    assert "network" in rows["explainer"].options
    assert capsys.readouterr().out == ""
    assert list(ready(["explainer", "zero"], classifier, "none")) == ["zero"]
    assert capsys.readouterr().out.startswith("explainer needs a trained")


def test_a_clean_win_is_the_papers_claim() -> None:
    text = scoreboard_verdict(board(rise=-0.1, igos=-0.2, zero=-0.3))
    first, _, *lines = text.splitlines()
    assert first == (
        "The Explainer is first among the paper's 3 methods in all four "
        "metrics, as the paper claims."
    )
    assert lines[0] == "- **accuracy**: it leads all 2 rivals."
    assert len(lines) == len(METRICS)


def test_defeats_are_named_in_every_metric() -> None:
    results = board(rise=0.2, igos=-0.2, zero=0.3)
    results["igos"]["difference"]["iou"] = difference(-0.005)
    first = scoreboard_verdict(results).splitlines()[0]
    assert first.endswith("3 methods in none of the four metrics.")
    assert metric_verdict(results, "iou") == (
        "**IoU**: it leads 1 of 2 rivals; the lead over iGOS++ (ours) is not "
        "decided; *RISE* is ahead by 0.20 (decided); *0 everywhere*, which "
        "looks at nothing, is ahead by 0.30 (decided)."
    )
    assert "*RISE* is ahead by 0.20" in metric_verdict(results, "mae")


def test_a_single_lost_metric_is_named_first() -> None:
    results = board(rise=-0.1)
    results["rise"]["difference"]["saliency"] = difference(-0.001)
    text = scoreboard_verdict(results)
    assert text.startswith(
        "The Explainer is first among the paper's 2 methods in accuracy, IoU "
        "and MAE, but not in saliency."
    )
    assert "*RISE* is ahead by less than 0.01 (not decided)" in text


def test_what_was_not_measured_has_no_verdict() -> None:
    for verdict in (
        scoreboard_verdict,
        ellipse_verdict,
        per_class_verdict,
        adds_verdict,
        class_score_verdict,
    ):
        assert verdict(None) == NOT_RUN
    assert confusion_verdict(None, "explainer") == NOT_RUN
    assert scoreboard_verdict({"rise": row(0.1)}) == NOT_RUN


def test_whom_a_control_beats() -> None:
    results = board(rise=-0.2, grad_cam=-0.05, ellipse=-0.1)
    assert beaten(results, "ellipse", "iou") == ["rise"]
    assert beaten(results, "ellipse", "mae") == ["rise"]
    assert beaten(results, "zero", "mae") is None
    shown = beaten_table(results)
    assert shown.rows["MAE ↓"] == ["RISE", "undefined"]


def test_the_ellipse_is_exposed_where_it_beats_fewest() -> None:
    results = board(rise=-0.2, grad_cam=-0.05, ellipse=-0.1)
    results["ellipse"]["difference"]["saliency"] = difference(0.9)
    text = ellipse_verdict(results)
    assert text == (
        "The ellipse is exposed most clearly by saliency, where it beats "
        "none of the methods. It does best in accuracy, where it beats RISE."
    )
    weak = ellipse_verdict(board(rise=-0.2, ellipse=-0.3))
    assert weak == "The ellipse beats no method in any of these metrics."


def test_classes_beside_the_ellipse() -> None:
    def scored(cat: float, dog: float) -> dict[str, Any]:
        return {"more": {"per_class_iou_50": {"cat": cat, "dog": dog}}}

    results = {
        "explainer": scored(0.5, 0.25),
        "rise": scored(0.125, 0.3),
        "rtis": scored(0.25, 0.2),
        "ellipse": scored(0.25, 0.3),
        "card": {},
    }
    shown = per_class_table(results)
    assert shown.rows["cat"] == ["0.50", "0.25 (RTIS)", "0.25"]
    assert shown.rows["dog"] == ["0.25", "0.30 (RISE)", "0.30"]
    assert per_class_verdict(results) == (
        "The Explainer is above the ellipse in 1 of 2 classes, not for dog. "
        "A rival is ahead for dog (RISE)."
    )
    results["explainer"] = scored(0.5, 0.4)
    assert per_class_verdict(results).endswith("in 2 of 2 classes.")


def test_budget_and_seconds() -> None:
    assert effort({"iterations": 50, "areas": [0.1]}) == "50 iterations"
    assert effort({"power": 2}) == "–"
    results = board(rise=0.1, igos=0.1)
    results["card"]["methods"] = {
        "explainer": {"options": {}},
        "rise": {"options": {"n_masks": 300, "p": 0.5}},
        "igos": {"options": {}},
    }
    results["rise"]["seconds"] = 10.0
    shown = cost_table(results)
    assert shown.rows["RISE"] == ["300 masks", "10", "20", 4]
    assert shown.rows["iGOS++ (ours)"] == ["–", "0.5", "1.0", 4]
    speed = {"seconds_per_image": {"explainer": 0.25, "rise": 1.0}}
    shown = cost_table(results, speed)
    assert list(shown.rows) == ["Explainer", "RISE"]
    assert shown.rows["RISE"] == ["300 masks", "1", "4.0", 4]


def test_tries_of_both_sides_are_counted() -> None:
    search: dict[str, Any] = {
        "rise": {"tried": [{}] * 7},
        "rtis": {"tried": [{}] * 3},
        "card": {},
    }
    earlier: dict[str, Any] = {
        "one": {},
        "two": {},
        "ellipse": {},
        "card": {},
    }
    again: dict[str, Any] = {"two": {}, "card": {}}
    shown = tried_table(
        "scenes", search, {"tried": [{}] * 2}, [earlier, again, None]
    )
    seeds, factors = len(PRESETS["scenes"].seeds), PRESETS["scenes"].sharpen
    assert shown.rows == {
        "Explainer": [2, seeds, len(factors)],
        "RISE": [0, 0, 7],
        "RTIS": [2, 1, 3],
    }
    shared = tried_table(
        "scenes", None, None, [earlier], {"tried": [{}] * 5, "card": {}}
    )
    assert shared.rows == {"Explainer": [2, seeds, len(factors) + 5]}
    alone = tried_table("scenes", None, None)
    assert alone.rows == {"Explainer": ["not counted", seeds, len(factors)]}


def test_what_training_and_the_parts_add() -> None:
    def scored(mean: float) -> dict[str, Any]:
        ci = [mean - 0.1, mean + 0.1]
        return {k: {"mean": mean, "image_ci": ci} for k in contest.ADDED}

    adds = {
        "variants": {
            "full": scored(0.5),
            "untrained": scored(0.3) | {"difference": scored(-0.2)},
            "no-sharing": scored(0.45) | {"difference": scored(-0.05)},
            "magnified": scored(0.7) | {"difference": scored(0.2)},
        },
        "card": {"steps": 1200},
    }
    assert adds_verdict(adds) == (
        "Untrained the network has an IoU of 0.30, after 1,200 steps one of "
        "0.50. "
        "Trained without sharing its IoU changes by −0.05 (not decided). "
        "Trained with magnification its IoU changes by +0.20."
    )
    better = adds | {
        "variants": adds["variants"] | {"untrained": scored(0.6)}
    }
    assert "too short to help" in adds_verdict(better)
    shown = adds_table(adds)
    assert shown.rows["untrained"][0] == "0.30 [0.20, 0.40]"
    assert next(iter(shown.rows)) == "trained (short schedule)"
    assert len(shown.rows) == 4


# --- class scores --------------------------------------------------------


def scores(own: float, rest: float, none: float = 0.5) -> dict[str, Any]:
    return {
        "classes": ["ant", "bee"],
        "scores": [[none, own, rest], [none, rest, own]],
    }


def test_a_verdict_by_the_diagonal() -> None:
    results = {
        "explainer": scores(0.8, 0.2),
        "rise": scores(0.3, 0.19),
        "rtis": scores(0.5, 0.25),
        "ellipse": scores(0.5, 0.5),
        "card": {},
    }
    assert class_score_verdict(results) == (
        "By the ratio: Explainer (4.00), RTIS (2.00), RISE (1.58). A "
        "diagonal higher than the Explainer's: nobody. A lower rest: RISE. "
        "All rests lie between 19.0 and 25.0: what separates these methods "
        "is the diagonal. The ellipse has 50.0 on the diagonal and off it. A "
        "diagonal lower than that: RISE."
    )


def test_a_verdict_by_the_rest() -> None:
    results = {
        "explainer": scores(0.8, 0.2),
        "rtis": scores(0.9, 0.85),
        "card": {},
    }
    text = class_score_verdict(results)
    assert "A diagonal higher than the Explainer's: RTIS." in text
    assert text.endswith("The rests reach from 20.0 to 85.0.")
    results["ground_truth"] = scores(0.9, 0.2)
    results["untrained"] = scores(0.8, 0.2)
    assert class_score_verdict(results).endswith(
        "The ratio of the true outlines is 4.50, above the Explainer's. The "
        "ratio of the network before any training is 4.00, not above the "
        "Explainer's."
    )


def test_ratios_by_source() -> None:
    notebook = {"methods": {"rise": [[0.5, 0.4, 0.1], [0.5, 0.1, 0.4]]}}
    ours = {
        "rise": scores(0.5, 0.25),
        "ellipse": scores(0.4, 0.4),
        "card": {},
    }
    shown = ratio_table({"theirs": notebook, "ours": ours, "none": None})
    assert shown.columns[:3] == [*("theirs: diagonal", "rest", "ratio")]
    assert shown.rows["RISE"] == [
        *("40.0", "10.0", "4.00"),
        *("50.0", "25.0", "2.00"),
        *(NOT_RUN, "–", "–"),
    ]
    assert shown.rows["ellipse"][:3] == [NOT_AVAILABLE, "–", "–"]
    assert shown.rows["ellipse"][3:6] == ["40.0", "40.0", "1.00"]
    assert "untrained" not in shown.rows
    with_it = ratio_table({"ours": {"untrained": scores(0.4, 0.2)}})
    assert with_it.rows["untrained"] == ["40.0", "20.0", "2.00"]


def test_a_mask_that_is_the_same_for_all_classes_has_ratio_one() -> None:
    # Each row repeats one value, whatever the rows are.
    own, rest = diagonal_and_rest([[0.9, 0.7, 0.7], [0.4, 0.1, 0.1]])
    assert own == pytest.approx(rest)


def test_confusions_are_cells_brighter_than_half_their_diagonal() -> None:
    table: list[list[float | None]] = [
        [0.9, 0.8, 0.3, 0.5],
        [0.9, 0.1, 0.1, None],
        [None] * 4,
    ]
    assert confusions(table) == [(0, 2, 0.5), (1, 0, 0.1)]
    assert confusions(table, share=0.9) == [(1, 0, 0.1)]


def run(own: float, other: float, iou: float) -> dict[str, object]:
    return {
        "least_own": own,
        "greatest_other": other,
        "tells_apart": other < 0.25,
        "masks": {"iou": iou},
    }


def test_seeds_are_told_apart_by_class_scores() -> None:
    runs = {"1": run(0.9, 0.18, 0.83), "2": run(0.81, 0.9, 0.84)}
    found = {"chosen": 1, "runs": runs}
    assert seeds_verdict(found) == (
        "Of 2 trainings that differ in their seed alone, 1 tells all classes "
        "apart. The package has seed 1; the highest IoU is that of seed 2, "
        "which confuses classes."
    )
    both = {"chosen": 1, "runs": {**runs, "2": run(0.9, 0.2, 0.84)}}
    assert seeds_verdict(both).endswith("the highest IoU is that of seed 2.")
    shown = seeds_table(found)
    assert not isinstance(shown, str)
    assert shown.rows["seed 2"] == ["0.84", "81.0", "90.0"]
    runs["2"] = run(0.81, 0.9, 0.8)
    assert seeds_verdict(found).endswith("which also has the highest IoU.")
    runs["1"] = run(0.8, 0.4, 0.83)
    assert "none tell all classes" in seeds_verdict(found)
    assert seeds_table(None) == NOT_RUN
    assert NOT_RUN in seeds_verdict(None)


def test_confusions_in_words() -> None:
    results = {
        "explainer": {
            "classes": ["ant", "bee"],
            "scores": [[0.9, 0.8, 0.7], [0.6, 0.1, 0.3]],
        },
        "rise": scores(0.4, 0.1),
        "card": {},
    }
    assert confusion_verdict(results, "explainer") == (
        "Explainer confuses classes: the mask of *bee* shows *ant* with 70.0 "
        "(*ant*'s own mask: 80.0). Beside what the whole image scores, the "
        "weakest own mask is that of *bee*: 30.0, where the whole image has "
        "60.0."
    )
    alike = {"classes": list("abc"), "scores": [[0.5] * 4] * 3}
    text = confusion_verdict({"igos": alike}, "igos")
    assert text.count("shows") == contest.MOST
    assert "; and 2 more pairs. Beside" in text
    assert confusion_verdict(results, "rise").startswith(
        "RISE confuses no classes: no wrong mask shows"
    )


def test_the_headline_compares_on_the_images_of_both() -> None:
    found = board(rise=-0.1, rtis=-0.3, zero=0.2)
    found["explainer"]["iou"] = 0.7
    seconds = {"explainer": 0.002, "rise": 0.4, "rtis": 0.003}
    text = headline(
        {"scenes": found, "photographs": None}, {"seconds_per_image": seconds}
    )
    assert text == (
        "Mean overlap of the masks with the true objects (IoU, at most 1): "
        "on 4 scenes 0.70 for the Explainer and 0.60 for the best of its 2 "
        f"rivals, RISE; on photographs: {NOT_RUN}. For a scene the Explainer "
        "takes 0.002 s, the others 1.5 to 200 times as long."
    )
    assert "takes" not in headline({"scenes": found}, None)
