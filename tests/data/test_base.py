"""Samples, batches, and labels read off a mask."""

import torch

from explainer.data import VOID, Sample, collate, labels_in


def sample(name: str, mask: torch.Tensor | None) -> Sample:
    return Sample(torch.rand(3, 2, 2), torch.tensor([1.0, 0.0]), mask, name)


def test_collate_stacks_in_order() -> None:
    mask = torch.tensor([[0, 1], [2, VOID]])
    samples = [sample("a", mask), sample("b", 0 * mask)]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 2, 2)
    assert torch.equal(batch.images[1], samples[1].image)
    assert batch.labels.tolist() == [[1, 0], [1, 0]]
    assert batch.masks is not None
    assert batch.masks.dtype == torch.int64
    assert torch.equal(batch.masks[0], mask)
    assert batch.names == ["a", "b"]


def test_collate_without_a_mask_has_no_masks() -> None:
    mask = torch.zeros(2, 2, dtype=torch.int64)
    assert collate([sample("a", mask), sample("b", None)]).masks is None


def test_labels_in_ignores_background_and_void() -> None:
    mask = torch.tensor([[0, 0, VOID], [3, 3, 1]])
    assert labels_in(mask, 4).tolist() == [1, 0, 1, 0]
    assert labels_in(torch.full((2, 2), VOID), 4).tolist() == [0, 0, 0, 0]
