"""Random streams by name, each independent of all others.

A mirror, a cover and a dropout mask of the same training step must not
follow from the same numbers. Each purpose has a stream of its own, named by
a word; each step or image has a stream of its own, named by a number.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for all images of a batch, one per image, or the global."""

Streams = Callable[[str], list[torch.Generator]]
"""Maps a stream's name to a generator per image of a batch."""


def generator(seed: int, *path: int | str) -> torch.Generator:
    """Return the generator (on the CPU) of the stream that ``path`` names.

    ``generator(42, 7, "flip")`` is the stream "flip" of step 7 under seed
    42. Streams with different seeds or paths are independent: each starts
    from its own part of a SHA-256 hash.
    """
    name = "/".join(str(part) for part in (seed, *path))
    digest = hashlib.sha256(name.encode()).digest()
    number = int.from_bytes(digest[:8], "big") % 2**63
    return torch.Generator().manual_seed(number)


def per_image(
    seed: int, indices: Sequence[int], *path: int | str
) -> list[torch.Generator]:
    """Return the generators of images, by their index in the dataset.

    What is drawn for an image then depends on ``seed`` and its index, not
    on the images beside it.
    """
    return [generator(seed, index, *path) for index in indices]


def normal(
    like: Tensor, shape: Sequence[int], generators: Generators
) -> Tensor:
    """Return standard normal draws for each image, ``(B, *shape)``.

    As many, and of the type and on the device, as the images ``like``
    ``(B, ...)``; drawn where the generator is. With one generator for all,
    the images draw from it in turn.
    """
    return _draw(torch.randn, like, shape, generators)


def uniform(
    like: Tensor, shape: Sequence[int], generators: Generators
) -> Tensor:
    """Return draws from [0, 1) for each image; see :func:`normal`."""
    return _draw(torch.rand, like, shape, generators)


def _draw(
    sample: Callable[..., Tensor],
    like: Tensor,
    shape: Sequence[int],
    generators: Generators,
) -> Tensor:
    each: Sequence[torch.Generator | None]
    if isinstance(generators, Sequence):
        each = generators
    else:
        each = [generators] * len(like)
    if len(each) != len(like):
        raise ValueError(
            f"{len(each)} generators for {len(like)} images; give one per "
            "image, or one for all"
        )
    numbers = [
        sample(tuple(shape), generator=g, device=g.device if g else None)
        for g in each
    ]
    return torch.stack(numbers).to(like, non_blocking=True)
