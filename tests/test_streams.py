"""Named random streams repeat, and no two of them are related."""

from itertools import combinations

import pytest
import torch

from explainer.streams import generator, normal, per_image, uniform

NAMES = ("flip", "cover", "dropout", "noise", "shuffle")


def first_numbers(seed: int, name: str, n: int = 2000) -> torch.Tensor:
    """Return the first number that a stream draws in each of ``n`` steps."""
    return torch.cat(
        [torch.rand(1, generator=generator(seed, s, name)) for s in range(n)]
    )


def correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])


@pytest.mark.parametrize(("one", "other"), list(combinations(NAMES, 2)))
def test_streams_of_a_step_are_not_correlated(one: str, other: str) -> None:
    # The standard error is 1 / sqrt(2000) = 0.022.
    x, y = first_numbers(42, one), first_numbers(42, other)
    assert abs(correlation(x, y)) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_steps_and_seeds_are_not_correlated(name: str) -> None:
    x = first_numbers(42, name)
    assert abs(correlation(x[1:], x[:-1])) < 0.1
    assert abs(correlation(x, first_numbers(43, name))) < 0.1
    assert 0.45 < float(x.mean()) < 0.55


def test_a_stream_repeats_and_its_path_is_read_whole() -> None:
    first = torch.rand(3, generator=generator(1, 12, "noise"))
    again = torch.rand(3, generator=generator(1, 12, "noise"))
    assert torch.equal(first, again)
    other = torch.rand(3, generator=generator(11, 2, "noise"))
    assert not torch.equal(first, other)


@pytest.mark.parametrize("draw", [normal, uniform])
def test_an_image_draws_the_same_beside_others(draw) -> None:
    images = torch.zeros(5, 3, 8, 8)
    together = draw(images, (3, 7, 7), per_image(0, range(5), "noise"))
    alone = draw(images[:1], (3, 7, 7), per_image(0, [3], "noise"))
    assert torch.equal(together[3:4], alone)
    assert not torch.equal(together[0], together[3])


def test_generators_and_images_must_match_in_number() -> None:
    with pytest.raises(ValueError, match="2 generators for 3 images"):
        normal(torch.zeros(3, 1), (1,), per_image(0, range(2), "noise"))
