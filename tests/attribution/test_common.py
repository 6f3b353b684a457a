"""What several attribution methods share."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explainer.attribution.common import SCALINGS, final_scaling

MAPS = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]])


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("min_max", [0.0, 0.25, 0.5, 1]),
        ("max", [0.0, 0, 1 / 3, 1]),
        ("none", [0.0, 0, 1, 1]),
    ],
)
def test_scalings_by_hand(scaling, expected):
    found = final_scaling(scaling)(MAPS)
    assert found[0].flatten().tolist() == pytest.approx(expected)
    assert found[1].eq(0).all()  # a map that says nothing shows nothing
    squared = final_scaling(scaling, 2)(MAPS)
    torch.testing.assert_close(squared, found**2)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.1, 5),
    st.sampled_from(sorted(SCALINGS)),
)
def test_masks_lie_in_0_to_1_and_keep_the_order(seed, power, scaling):
    maps = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(seed))
    masks = final_scaling(scaling, power)(maps)
    assert masks.min() >= 0
    assert masks.max() <= 1
    order = maps.flatten(1).argsort(1)
    assert masks.flatten(1).gather(1, order).diff(dim=1).min() >= 0


def test_what_cannot_scale():
    with pytest.raises(ValueError, match="'sum'; known: min_max, max, none"):
        final_scaling("sum")
    with pytest.raises(ValueError, match="above 0, not 0"):
        final_scaling("max", 0)
