"""A training step at the paper's size on a GPU, and what speeds it up.

DeepLabv3-ResNet50 with EfficientNet-Lite0 at 224 x 224. ``make benchmark`` on
a machine with CUDA prints, for each way to run it, the time as a ratio to
the plain float32 step, the share of the bare networks' step and the peak
memory. It skips elsewhere.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from explainer.classifiers import build_classifier, frozen
from explainer.data import ANIMALS
from explainer.losses import LossWeights, explainer_loss
from explainer.masks import complement, composite, mean_colour
from explainer.model import build_explainer

BATCH, SIZE, WARM_UP, ROUNDS = 32, 224, 10, 30


@contextmanager
def never_waiting() -> Iterator[None]:
    """Make every wait of the host for the device an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def steps(
    device: str,
    batch: int,
    size: int,
    *,
    channels_last: bool,
    bfloat16: bool,
    compiled: bool,
) -> dict[str, Callable[[], None]]:
    """Return a whole step, and the bare networks' passes of it alone."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    classifier = frozen(build_classifier("efficientnet_lite0", ANIMALS))
    network = build_explainer("deeplabv3_resnet50", len(ANIMALS)).train()
    images = torch.rand(batch, 3, size, size, device=device)
    images = images.contiguous(memory_format=layout)
    labels = (torch.rand(batch, len(ANIMALS), device=device) < 0.3) * 1.0
    for module in (classifier, network):
        module.to(device).to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    fill = mean_colour(classifier)
    explain: nn.Module = network
    classify: nn.Module = classifier
    if compiled:
        explain, classify = torch.compile(network), torch.compile(classifier)  # type: ignore[assignment]

    def precision() -> AbstractContextManager[object]:
        return (
            torch.autocast(device, torch.bfloat16)
            if bfloat16
            else nullcontext()
        )

    def learn(total: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def bare() -> None:
        with precision():
            mask = explain(images)[:, :1].float()
            seen = composite(images, mask, fill)
            hidden = composite(images, complement(mask), fill)
            total = classify(torch.cat([seen, hidden])).float().sum()
        learn(total)

    def whole() -> None:
        with precision():
            class_masks = explain(images).float().sigmoid()
            loss = explainer_loss(
                classify, images, labels, class_masks, LossWeights()
            )
        learn(loss.total)

    return {"bare": bare, "whole": whole}


def milliseconds(step: Callable[[], None]) -> float:
    """Return the median time of a step, by the device's own clock."""
    for _ in range(WARM_UP):
        step()
    with never_waiting():
        step()
    times = []
    for _ in range(ROUNDS):
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()  # type: ignore[no-untyped-call]
        step()
        end.record()  # type: ignore[no-untyped-call]
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


WAYS = {
    "float32": (False, False, False),
    "channels_last": (True, False, False),
    "channels_last, bfloat16": (True, True, False),
    "channels_last, bfloat16, compiled": (True, True, True),
}


def measured() -> dict[str, dict[str, float]]:
    """Return for each way what this file is about."""
    found: dict[str, dict[str, float]] = {}
    for name, (layout, half, compiled) in WAYS.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        both = steps(
            "cuda",
            BATCH,
            SIZE,
            channels_last=layout,
            bfloat16=half,
            compiled=compiled,
        )
        whole, bare = milliseconds(both["whole"]), milliseconds(both["bare"])
        plain = found.get("float32", {"milliseconds": whole})
        found[name] = {
            "milliseconds": whole,
            "ratio": whole / plain["milliseconds"],
            "bare_share": bare / whole,
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        }
    return found


@pytest.mark.parametrize("bfloat16", [False, True])
def test_both_steps_run_on_a_cpu(bfloat16: bool) -> None:
    options = {"channels_last": True, "compiled": False}
    both = steps("cpu", 2, 32, bfloat16=bfloat16, **options)
    for step in both.values():
        step()


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="NO CUDA DEVICE, so the step on a GPU was not measured",
)
def test_ways_to_run_a_step(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    found = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info["ways"] = found
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name()}, batch {BATCH}")
        for name, values in found.items():
            print(
                f"{name:<36}{values['milliseconds']:>8.1f} ms"
                f"{values['ratio']:>7.2f} x float32"
                f"{100 * values['bare_share']:>7.1f}% bare (goal: 95)"
                f"{values['peak_gb']:>7.1f} GB"
            )
