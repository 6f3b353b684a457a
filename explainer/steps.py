"""What a training step is made of: its images, its rates, its losses' mean.

Every choice is a function of a seed and of the step's number, so that a run
can go on where it stopped.
"""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Sampler

from explainer.losses import Loss


def seed_of(seed: int, step: int) -> int:
    """Mix a seed and a counter into one number below 2**63."""
    mixed = seed * 6_364_136_223_846_793_005 + step * 1_442_695_040_888_963
    return mixed % 2**63


def parameter_groups(
    model: nn.Module, encoder_rate: float
) -> list[dict[str, Any]]:
    """Return the parameters that learn, with their share of the rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            given = name.startswith(("encoder.", "class_activation."))
            share = encoder_rate if given else 1.0
            groups.setdefault(share, []).append(parameter)
    return [{"params": ps, "share": share} for share, ps in groups.items()]


class ShuffledBatches(Sampler[list[int]]):
    """Batches of shuffled indices, epoch after epoch, from a given step on.

    Epoch e's order is a function of (seed, e); an incomplete last batch is
    dropped, unless there is no other.
    """

    drop_last = True
    """What Accelerate asks of a sampler that it shares among processes."""

    def __init__(
        self, n: int, batch_size: int, seed: int, start: int, stop: int
    ) -> None:
        self.n, self.batch_size = n, min(n, batch_size)
        self.seed, self.start, self.stop = seed, start, stop

    def __len__(self) -> int:
        """Return the number of batches left."""
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield one list of indices per step."""
        per_epoch = self.n // self.batch_size
        order: list[int] = []
        shuffled_for = -1
        for step in range(self.start, self.stop):
            epoch, i = divmod(step, per_epoch)
            if epoch != shuffled_for:
                generator = torch.Generator().manual_seed(
                    seed_of(self.seed, epoch)
                )
                order = torch.randperm(self.n, generator=generator).tolist()
                shuffled_for = epoch
            yield order[i * self.batch_size : (i + 1) * self.batch_size]


class Average:
    """A mean of named scalars that waits for the device only when read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight = 0.0

    def add(self, loss: Loss, weight: float = 1.0) -> None:
        """Add a loss and its terms, counted ``weight`` times."""
        for name, value in {"total": loss.total, **loss.terms}.items():
            term = weight * value.detach().float()
            self.sums[name] = self.sums.get(name, 0) + term
        self.weight += weight

    def read(self, over: Accelerator | None = None) -> dict[str, float]:
        """Return the means; with ``over`` those of all its processes."""
        if not self.sums:
            return {}
        values = torch.stack(list(self.sums.values())) / self.weight
        if over is not None:
            values = over.reduce(values, "mean")
        return dict(zip(self.sums, values.tolist(), strict=True))
