"""How long an image takes to load, as a multiple of classifying it.

``make benchmark`` measures it: scenes, from the cache and drawn anew, beside
their classifier; and, where EXPLAINER_DATA is set, photographs of 224 pixels
beside EfficientNet-Lite0. Data that take longer than the network keep it
waiting. The test suite loads once.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from explainer.classifiers import build_classifier, frozen
from explainer.data import ANIMALS, LabelledImages, Scenes, collate, load_data
from explainer.data.scenes import draw_scene

IMAGES, ROUNDS = 32, 5


def compared(
    title: str,
    loads: dict[str, Callable[[], object]],
    classifier_name: str,
    data: LabelledImages,
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Let loading and classifying take turns; print the ratios."""
    classifier = frozen(build_classifier(classifier_name, data.classes))
    images = collate([data[i] for i in range(IMAGES)]).images

    def classify() -> object:
        with torch.no_grad():
            return classifier(images)

    taking_turns = {"classify": classify, **loads}
    seconds: dict[str, list[float]] = {name: [] for name in taking_turns}

    def round_of_all() -> None:
        for name, call in taking_turns.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)

    rounds = 1 if benchmark.disabled else ROUNDS
    benchmark.pedantic(round_of_all, rounds=rounds)
    middle = {k: statistics.median(v) for k, v in seconds.items()}
    bare = middle.pop("classify")
    ratios = {name: s / bare for name, s in middle.items()}
    benchmark.extra_info["ratios"] = ratios
    if not benchmark.disabled:
        with capsys.disabled():
            print(f"\n{title}: {1e3 * bare / IMAGES:.2f} CPU ms to classify")
            for name, ratio in ratios.items():
                print(f"{name:24}{ratio:10.2f} times that")


def test_scenes(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Scenes("test", IMAGES)
    loads: dict[str, Callable[[], object]] = {
        "from the cache": lambda: [data[i] for i in range(IMAGES)],
        "drawn anew": lambda: [draw_scene(i) for i in range(IMAGES)],
    }
    compared("scenes", loads, "small_cnn", data, benchmark, capsys)


def test_photographs(
    voc_root: Path,
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = load_data("voc2007", "test", root=voc_root, classes=ANIMALS)
    loads: dict[str, Callable[[], object]] = {
        "decoded and resized": lambda: [data[i] for i in range(IMAGES)]
    }
    compared(
        "photographs", loads, "efficientnet_lite0", data, benchmark, capsys
    )
