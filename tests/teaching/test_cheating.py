"""What the pages say of cheating, chosen by numbers."""

from typing import Any

from explainer.teaching.cheating import marker_verdict, random_verdict, sides
from explainer.teaching.tables import NOT_RUN


def about(mean: float | None, half: float = 0.05) -> dict[str, Any]:
    ci = None if mean is None else [mean - half, mean + half]
    return {"mean": mean, "ci": ci, "n": 0 if mean is None else 9}


def marker(share: float, pointing: float, shape: float) -> dict[str, Any]:
    return {
        "marker": about(share),
        "pointing": about(pointing),
        "shape": about(shape),
        "even": about(0.02, 0),
    }


def test_a_method_is_on_the_side_of_its_interval() -> None:
    estimates = {
        name: {"x": about(value)}
        for name, value in (
            ("a", 0.6), ("b", 0.54), ("c", 0.4), ("d", None)
        )
    }  # fmt: skip
    assert sides(estimates, "x", 0.5) == {
        "above": ["a"],
        "around": ["b"],
        "below": ["c"],
    }


def test_who_misses_the_marker_is_named() -> None:
    text = marker_verdict(
        {
            "explainer": marker(0.7, 0.9, 0.2),
            "rise": marker(-0.1, 0.2, 0.01),
            "grad_cam": marker(0.03, 0.5, 0.12),
        }
    )
    assert text.splitlines() == [
        "- More of the mask is on the marker than of a constant mask (0.02): "
        "Explainer (0.70).",
        "- Not clearly more: Grad-CAM (0.03).",
        "- Less: RISE (−0.10).",
        "- The highest pixel is on the marker in at least three of four "
        "images: Explainer (0.90).",
        "- In fewer images: RISE (0.20), Grad-CAM (0.50).",
        "- On images with a star at least a tenth of the mask is on it: "
        "Explainer (0.20), Grad-CAM (0.12).",
    ]


def test_who_does_not_fall_apart_is_named() -> None:
    def fall(auc: float, correlation: float | None) -> dict[str, Any]:
        return {"auc_after": about(auc), "correlation": about(correlation)}

    text = random_verdict(
        {
            "explainer": fall(0.3, -0.2),
            "rise": fall(0.44, 0.6),
            "igos": fall(0.5, None),
            "extremal_perturbation": fall(0.7, 0.4),
        }
    )
    lines = [line.split(": ") for line in text.splitlines()]
    assert [names for _, names in lines] == [
        "EP (ours) (0.70).",
        "iGOS++ (ours) (0.50).",
        "Explainer (0.30), RISE (0.44).",
        "RISE (0.60), EP (ours) (0.40).",
        "iGOS++ (ours).",
    ]
    assert "less often than chance" in lines[2][0]


def test_without_results_nothing_is_said() -> None:
    assert marker_verdict({}) == random_verdict({}) == NOT_RUN
