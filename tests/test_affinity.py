"""Which cells listen to which, and what their logits become."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from explainer.affinity import affinity, average_cells, share
from explainer.model import build_explainer


def two_halves(cells: int = 4) -> torch.Tensor:
    """Return a picture ``(1, 2, cells, cells)``: a left and a right kind."""
    picture = torch.zeros(1, 2, cells, cells)
    picture[:, 0, :, : cells // 2] = 1
    picture[:, 1, :, cells // 2 :] = 1
    return picture


def test_means_of_overlapping_cells_by_hand() -> None:
    """Two cells of three pixels share the middle one."""
    x = torch.tensor([[[[1.0, 2.0, 6.0]]]])
    assert average_cells(x, (1, 2)).flatten().tolist() == [1.5, 4.0]


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_means_are_those_of_adaptive_pooling(
    size: tuple[int, int], cells: tuple[int, int]
) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_avg_pool2d(x, cells)
    assert_close(average_cells(x, cells), expected, rtol=0, atol=1e-6)


def test_two_cells_by_hand() -> None:
    """Features +1 and -1 have cosine -1, the cells are half a width apart."""
    picture = torch.tensor([[[[3.0, 5.0]]]])
    weights = affinity([picture], (1, 2), temperature=1.0, reach=0.5)
    own, other = 1.0, -1.0 - 0.25 / (2 * 0.25)
    expected = torch.tensor([[own, other], [other, own]]).softmax(1)
    # The normalisation divides by a hair more than the spread.
    assert_close(weights[0], expected, rtol=0, atol=1e-5)


def test_a_logit_spreads_over_its_own_kind_and_no_further() -> None:
    cells = (4, 4)
    weights = affinity([two_halves()], cells, temperature=0.05, reach=100.0)
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 1, 0] = 8  # one cell of the left half's eight
    shared = share(logits, weights, cells)
    assert_close(shared[0, 0, :, :2], torch.ones(4, 2), rtol=0, atol=1e-3)
    assert_close(shared[0, 0, :, 2:], torch.zeros(4, 2), rtol=0, atol=1e-3)


def test_a_short_reach_keeps_a_logit_where_it_is() -> None:
    cells = (4, 4)
    weights = affinity([two_halves()], cells, reach=0.01)
    logits = torch.randn(1, 3, 4, 4)
    assert_close(share(logits, weights, cells), logits)


@given(
    st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6),
    st.floats(0.05, 1),
)  # fmt: skip
def test_rows_sum_to_one_and_an_average_stays_between(
    seed: int, height: int, width: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    several = [
        torch.randn(2, 3, 12, 9, generator=generator),
        torch.rand(2, 5, 3, 4, generator=generator),
    ]
    cells = (height, width)
    weights = affinity(several, cells, temperature)
    assert weights.shape == (2, height * width, height * width)
    assert_close(weights.sum(2), torch.ones(2, height * width))
    assert (weights >= 0).all()
    logits = torch.randn(2, 4, 8, 8, generator=generator)
    shared = share(logits, weights, cells)
    assert shared.shape == (2, 4, height, width)
    assert shared.max() <= logits.max() + 1e-5
    assert shared.min() >= logits.min() - 1e-5


def test_no_gradient_bends_the_affinity() -> None:
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert not affinity([features], (4, 4)).requires_grad


def test_an_image_of_one_colour_is_no_trouble() -> None:
    weights = affinity([torch.full((1, 3, 8, 8), 0.5)], (2, 2))
    assert torch.isfinite(weights).all()


def test_the_light_network_shares_and_still_learns() -> None:
    torch.manual_seed(0)
    plain = build_explainer("light", 2).eval()
    sharing = build_explainer("light", 2, affinity_cells=4).eval()
    sharing.load_state_dict(plain.state_dict())
    # A noisy head, so that there is something to average.
    plain.decoder.head.weight.data *= 10
    sharing.decoder.head.weight.data *= 10
    images = torch.rand(2, 3, 32, 48)
    alone, together = plain(images), sharing(images)
    assert together.shape == (2, 2, 32, 48)
    assert together.std() < alone.std()
    together.sum().backward()
    for part in (sharing.encoder, sharing.decoder):
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0
            for p in part.parameters()
        )
