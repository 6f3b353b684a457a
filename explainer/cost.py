"""What an explanation costs, counted in passes of the classifier.

Seconds depend on the machine, passes do not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Passes:
    """How many images a network has seen, and sent gradients back for."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted_passes(network: nn.Module) -> Iterator[Passes]:
    """Count a network's passes within the block, image by image.

    A batch of B images counts B times. Only calls of ``network`` itself
    count, not those of its parts; the network must return one tensor.
    """
    passes = Passes()

    def on_backward(gradient: Tensor) -> None:
        passes.backward += len(gradient)

    def on_forward(module: nn.Module, args: object, output: Tensor) -> None:
        passes.forward += len(output)
        if output.requires_grad:
            output.register_hook(on_backward)  # type: ignore[no-untyped-call]

    handle = network.register_forward_hook(on_forward)
    try:
        yield passes
    finally:
        handle.remove()
