"""Sentences that are chosen by the numbers, by hand."""

from typing import Any

import pytest
import torch

from explainer.evaluation.ablation import COLUMNS
from explainer.evaluation.summary import summarise_seeds
from explainer.reproduction.trials import REMOVALS
from explainer.teaching.ablation import (
    ABOUT,
    MASKS,
    NAMES,
    WORDS,
    about_table,
    confusions,
    few_images_table,
    few_images_verdict,
    is_clear,
    mask_rows,
    masks_table,
    seed_ranges,
    trained_with,
    verdict,
    without,
)


def cell(mean: float, sd: float | None, low: float, high: float):
    return {"mean": mean, "seed_sd": sd, "image_ci": [low, high]}


def columns(**scores: float) -> dict[str, list[float | None]]:
    """Return scores of two images, 0.5 where nothing else is said."""
    return {name: [scores.get(name, 0.5)] * 2 for name in COLUMNS}


def results(n_seeds: int = 3, **variants: dict[str, float]) -> dict[str, Any]:
    scores = {"full": [columns()] * n_seeds}
    for variant in NAMES:
        changed = variants.get(variant.replace("-", "_"), {})
        scores[variant] = [columns(**changed)] * n_seeds
    return {"variants": summarise_seeds(scores), "card": {}}


def test_the_chapter_tells_of_every_removal_and_of_measured_scores() -> None:
    assert list(NAMES) == list(ABOUT) == REMOVALS
    told = {m for about in ABOUT.values() for m in about} | set(MASKS)
    assert told == set(WORDS)
    assert told <= set(COLUMNS)


def test_a_difference_is_clear_beyond_seeds_and_images() -> None:
    assert is_clear(cell(-0.3, 0.1, -0.4, -0.2))
    assert not is_clear(cell(-0.3, 0.2, -0.4, -0.2))  # seeds differ as much
    assert not is_clear(cell(-0.3, 0.1, -0.4, 0.1))  # images do
    assert is_clear(cell(-0.3, None, -0.4, -0.2))  # one seed
    assert not is_clear({"mean": None, "seed_sd": None, "image_ci": None})


def test_verdict_sorts_the_terms_by_what_goes_missing() -> None:
    found = verdict(
        results(
            no_entropy={"iou": 0.2, "left": 0.9},
            no_classification={"class_iou": 0.1},
            no_bound={"bound": 0.9},
            no_target_area={"iou": 0.7},
        )
    ).splitlines()
    assert found[0].endswith(
        "worse without the classification term or the entropy term."
    )
    assert found[1].startswith("- **Felt, but not in the overlap.**")
    assert "Without B what" in found[1]
    assert found[2].startswith("- **Not missed here.**")
    assert "the whole area term, A(m), A(n) or the smoothness" in found[2]
    assert found[3] == (
        "- **In the way.** Without A(m) a score of the masks is clearly "
        "better."
    )
    assert len(found) == 4


def test_verdict_names_nulls_and_a_single_seed() -> None:
    found = verdict(results(n_seeds=1))
    assert "**Needed.** No single term" in found
    assert "Felt" not in found
    assert "one seed per variant" in found
    worse = {name.replace("-", "_"): {"iou": 0.1} for name in NAMES}
    assert "**Not missed here.** None." in verdict(results(**worse))


def test_the_training_is_told_with_its_hardware_and_commit() -> None:
    found = results()
    found["card"] = {
        "training": {"steps": 1200, "batch_size": 16},
        "n": 500,
        "gpu": None,
        "cpu": "a processor",
        "commit": "0123456789",
        "measured_with": {"classifier": "ab"},
    }
    assert trained_with(found) == (
        "8 losses, seeds of each: 3; 1,200 steps of 16 images; measured on "
        "500 test images; a processor, commit 0123456."
    )
    continued = {**found, "card": {**found["card"]}}
    continued["card"]["measured_with"] = {"explainer": "cd"}
    told = "16 images from the trained Explainer on; measured on"
    assert told in trained_with(continued)
    full = found["variants"]["full"]["iou"]
    full["seeds"] = full["seeds"][:1]
    assert "seeds of each: 1 to 3;" in trained_with(found)
    assert trained_with(None) == ""


def test_without_tells_clear_changes_and_others() -> None:
    found = results(no_entropy={"left": 0.9, "iou": 0.25})
    assert without(found, "no-entropy") == (
        "Networks trained without the entropy term (3 seeds): probability "
        "left rises from 0.50 to 0.90 and indecision left does not change "
        "clearly (0.50 to 0.50). As for the masks, IoU falls from 0.50 to "
        "0.25 and IoU of a class does not change clearly (0.50 to 0.50)."
    )
    assert "(one seed)" in without(results(1), "no-bound")


def test_a_change_of_all_seeds_is_told_even_if_it_is_not_clear() -> None:
    found = results()
    kept = found["variants"]["no-classification"]["kept"]
    before = found["variants"]["full"]["kept"]["mean"]
    kept |= {"seeds": [0.1 * before, 0.9 * before], "mean": 0.5 * before}
    assert (
        "probability kept falls from 0.50 to 0.25 on average, but the seeds "
        "lie too far apart (0.05 to 0.45) to call it clear."
    ) in without(found, "no-classification")
    kept["seeds"] = [0.96 * before, 0.9 * before]
    assert "kept does not change clearly" in without(
        found, "no-classification"
    )


@pytest.mark.parametrize("missing", [None, {"variants": {}}])
def test_what_was_not_run_says_so(missing: dict[str, Any] | None) -> None:
    assert without(missing, "no-bound") == (
        "Networks trained without B: not run."
    )
    if missing is None:
        assert about_table(None) == masks_table(None) == "not run"
        assert few_images_table(None) == "not run"
        for words in (verdict(None), few_images_verdict(None)):
            assert "not run" in words
        assert "not run" in confusions(None)


def test_tables_hold_spreads_and_star_what_is_clear() -> None:
    found = results(no_bound={"bound": 0.9})
    shown = about_table(found)
    assert not isinstance(shown, str)
    assert shown.rows["B: sum of B"] == [
        "0.500 ± 0.000",
        "0.900 ± 0.000",
        "+0.400 *",
    ]
    assert shown.rows["A(m): A(m)"][2] == "+0.000"
    masks = masks_table(found)
    assert not isinstance(masks, str)
    assert masks.rows["full"] == ["0.500 ± 0.000", "", "0.500 ± 0.000", ""]
    assert masks.rows["no-bound"][1] == "+0.000"


def test_metrics_and_values_that_a_file_lacks_are_left_out() -> None:
    old = results()
    for row in old["variants"].values():
        del row["bound"]
        row["class_iou"] = {
            "mean": None,
            "seeds": [],
            "seed_sd": None,
            "image_ci": None,
        }
    shown = about_table(old)
    assert not isinstance(shown, str)
    assert "B: sum of B" not in shown.rows
    assert "nothing was measured. As for" in without(old, "no-bound")
    masks = masks_table(old)
    assert not isinstance(masks, str)
    assert masks.rows["full"][2] == "undefined"
    assert seed_ranges(old, "class_iou") == {}
    assert seed_ranges(old, "iou")["full"] == (0.5, 0.5, 0.5)


def test_confusions_are_counted() -> None:
    runs = {str(seed): {} for seed in range(5)}
    assert confusions({"runs": runs, "confused": 2}).startswith(
        "Of 5 such runs with the full loss, 2 confuse"
    )
    assert "none confuse" in confusions({"runs": runs, "confused": 0})


# --- few images ----------------------------------------------------------


def runs(*values: tuple[int, float, float, float]) -> dict[str, Any]:
    """Return runs from (images, left on own, left on new, IoU on new)."""
    return {
        "runs": {
            str(n): {
                "train": {"kept": 0.9, "left": own, "iou": 0.5},
                "test": {"kept": 0.8, "left": new, "iou": iou},
            }
            for n, own, new, iou in values
        }
    }


def test_masks_learned_by_heart_are_named() -> None:
    found = few_images_verdict(
        runs(
            (1, 0.1, 0.6, 0.3),
            (10, 0.1, 0.3, 0.5),
            (100, 0.1, 0.15, 0.68),
            (1000, 0.1, 0.1, 0.7),
        )
    )
    assert "Trained on 1 image, " in found
    assert "probability of 0.10" in found
    assert "networks with 1 or 10 training images." in found
    assert "0.30 with 1 image and 0.70 with 1,000 images" in found
    assert "from 100 images on" in found


def test_no_noise_is_a_result_as_well() -> None:
    found = few_images_verdict(
        runs((1, 0.1, 0.15, 0.69), (10, 0.1, 0.1, 0.7))
    )
    assert "none of them learned its masks by heart" in found
    assert "from 1 image on" in found
    alone = few_images_verdict(runs((1, 0.1, 0.5, 0.2), (10, 0.1, 0.1, 0.7)))
    assert "networks with 1 training image. " in alone


def test_few_images_table() -> None:
    shown = few_images_table(runs((1000, 0.1, 0.2, 0.3)))
    assert not isinstance(shown, str)
    assert shown.columns[:2] == [
        "probability kept, own",
        "probability left, own",
    ]
    assert shown.rows == {"1,000": [0.9, 0.1, 0.5, 0.8, 0.2, 0.3]}


def test_mask_rows_show_the_images_first() -> None:
    masks = torch.zeros(2, 2, 8, 8)
    picture = mask_rows(torch.rand(2, 3, 8, 8), {"a": masks, "b": masks}, 1)
    labels = [ax.get_ylabel() for ax in picture.axes if ax.get_ylabel()]
    assert labels == ["image", "a", "b"]
    assert picture.axes[0].get_title() == "image 1"
