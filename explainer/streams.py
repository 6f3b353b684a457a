"""Independent random streams by name.

Different random choices of a training step, such as mirroring and dropout,
must not use the same numbers. Each purpose has its own stream, named by a
word, for each step or image, named by a number.
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

    The draws for an image then depend on ``seed`` and its index, not on the
    batch.
    """
    return [generator(seed, index, *path) for index in indices]


def normal(
    like: Tensor, shape: Sequence[int], generators: Generators
) -> Tensor:
    """Return standard normal draws for each image, ``(B, *shape)``.

    B, type and device are those of the images ``like`` ``(B, ...)``. Numbers
    are drawn on the generator's device. With one generator for all images,
    they draw from it in turn.
    """
    return _draw(torch.randn, like, shape, generators)


def uniform(
    like: Tensor, shape: Sequence[int], generators: Generators
) -> Tensor:
    """Return uniform draws from [0, 1) per image; see :func:`normal`."""
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
