"""Use the package for long in one process: does anything grow?

    python tools/measure_long_use.py [--explanations 1000] [--moves 200]

Writes ``book/results/long_use.json``: the resident memory after every tenth
of the explanations (one image at a time, the Explainer and Grad-CAM in
turn), and of the moves of the playground's sliders; and how long the first
twenty moves took and the last twenty. CPU seconds, so that other work on the
machine does not count. A move optimises its mask in a few steps only
(``steps`` on the card): a leak leaks whatever the number of steps.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from explainer.attribution import grad_cam
from explainer.checkpoints import load
from explainer.data import Scenes, collate
from explainer.files import write_json
from explainer.provenance import command_line, environment
from explainer.teaching.live import Playground
from explainer.teaching.playground import weight_presets

RESULTS = Path(__file__).parents[1] / "book" / "results"
STEPS = 3
END = 20


def repeated(call: Callable[[int], object], times: int) -> dict[str, Any]:
    """Call with 0, 1, ... and note memory and time.

    ``memory_mb`` is the resident memory after the first tenth, in which
    everything is used for the first time, and after each further one;
    ``tensors`` how many were alive then and at the end.
    """
    process = psutil.Process()
    memory: list[float] = []
    tensors: list[int] = []
    seconds = []
    tenth = max(1, times // 10)
    for i in range(times):
        start = time.process_time()
        call(i)
        seconds.append(time.process_time() - start)
        if (i + 1) % tenth == 0:
            memory.append(process.memory_info().rss / 1e6)
        if i + 1 in (tenth, times):
            tensors.append(living_tensors())
    end = min(END, times // 2)
    return {
        "times": times,
        "memory_mb": memory,
        "grown_mb": memory[-1] - memory[0],
        "tensors": tensors,
        "first_seconds": statistics.median(seconds[:end]),
        "last_seconds": statistics.median(seconds[-end:]),
    }


def living_tensors() -> int:
    """Return how many tensors Python knows of, without garbage."""
    gc.collect()
    # type(), for isinstance would wake lazy modules.
    return sum(
        issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()
    )


def explanations(images: torch.Tensor) -> Callable[[int], object]:
    """Return what explains one image, by either method in turn."""
    pair = load("scenes")

    def explain(i: int) -> object:
        image = images[i // 2 % len(images)][None]
        if i % 2 == 0:
            return pair.explain(image)
        targets = pair.found(image).float()
        return grad_cam(pair.classifier, image, targets)

    return explain


def moves(batch: Any, data: Scenes) -> Callable[[int], object]:
    """Return what moves one slider of the playground, each in its turn."""
    pair = load("scenes")
    app = Playground(
        pair.classifier,
        pair.network,
        batch.images,
        batch.labels,
        data,
        presets=weight_presets(),
        steps=STEPS,
    )
    sliders = list(app.sliders.values())

    def move(i: int) -> object:
        slider = sliders[i % len(sliders)]
        share = (i * 0.37) % 1
        slider.value = slider.min + share * (slider.max - slider.min)
        return app.view.value

    return move


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure and write; return the file."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--explanations", type=int, default=1000)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    data = Scenes("test", 50)
    batch = collate([data[i] for i in range(len(data))])
    few = collate([data[i] for i in range(4)])
    found = {
        "explanations": repeated(
            explanations(batch.images), asked.explanations
        ),
        "slider_moves": repeated(moves(few, data), asked.moves),
    }
    card = {
        "preset": "scenes",
        "seed": 0,
        "steps": STEPS,
        "end": END,
        "threads": torch.get_num_threads(),
        "command": command_line(),
        **environment(),
    }
    path = asked.results / "long_use.json"
    write_json(path, {"card": card, **found})
    for name, entry in found.items():
        print(
            f"{name}: {entry['times']} times, memory grew by "
            f"{entry['grown_mb']} MB, tensors {entry['tensors']}, "
            f"{1e3 * entry['first_seconds']:.1f} CPU ms at first, "
            f"{1e3 * entry['last_seconds']:.1f} at last"
        )
    print(path)
    return path


if __name__ == "__main__":
    main()
