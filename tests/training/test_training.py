"""The training loop: it resumes, it stops, it never reads a mask."""

import functools
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from explainer.checkpoints import CheckpointError
from explainer.classifiers import HALVES, Classifier, SmallCNN
from explainer.data import Sample, Scenes
from explainer.deadline import OutOfTime, time_limit
from explainer.losses import Loss, explainer_loss
from explainer.model import EncoderDecoder, small
from explainer.training import (
    MaskedInputs,
    Run,
    TrainingConfig,
    TrainingError,
    average_precision,
    fit_classifier,
    fit_explainer,
    labelled,
    logits_and_labels,
    mean_average_precision,
)
from explainer.training.loop import ShuffledBatches, parameter_groups

SIZE = 16
SHORT = TrainingConfig(
    steps=8,
    batch_size=4,
    learning_rate=5e-3,
    schedule="cosine",
    warmup=2,
    eval_every=2,
    flip=True,
    seed=3,
)


class Wrapped:
    """Scenes whose samples a function changes."""

    def __init__(
        self, data: Scenes, change: Callable[[int, Sample], Sample]
    ) -> None:
        self.data, self.change, self.classes = data, change, data.classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        return self.change(index, self.data[index])


@pytest.fixture(scope="module")
def train() -> Scenes:
    return Scenes("train", 13, size=SIZE)


@pytest.fixture(scope="module")
def val() -> Scenes:
    return Scenes("val", 6, size=SIZE)


def classifier_for(data: Scenes, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(
        SmallCNN(len(data.classes), width=8), data.classes, *HALVES
    )


def explainer_for(data: Scenes) -> EncoderDecoder:
    torch.manual_seed(1)
    return small(len(data.classes), width=8, decoder_width=8)


def fit(
    folder: Path,
    train: Any,
    val: Any,
    training: TrainingConfig = SHORT,
    classifier_seed: int = 0,
    **options: Any,
) -> Run:
    """Train a tiny Explainer of a classifier with random weights."""
    return fit_explainer(
        explainer_for(val),
        classifier_for(val, classifier_seed),
        train,
        val,
        training,
        folder=folder,
        config={"architecture": "small"},
        device="cpu",
        progress=False,
        **options,
    )


def weights(run: Run | Path) -> dict[str, Tensor]:
    path = run.weights if isinstance(run, Run) else run / "model.safetensors"
    return safetensors.torch.load_file(path)


def identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(run: Run | Path) -> list[dict[str, float]]:
    """The records of a run without what a clock decides."""
    folder = run.folder if isinstance(run, Run) else run
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


@pytest.fixture(scope="module")
def straight(
    train: Scenes, val: Scenes, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A run that nothing disturbed."""
    return fit(tmp_path_factory.mktemp("straight"), train, val)


# --- the order of the images --------------------------------------------


@settings(deadline=None)
@given(
    n=st.integers(1, 40), batch=st.integers(1, 12), seed=st.integers(0, 99)
)
def test_an_epoch_is_a_permutation(n: int, batch: int, seed: int) -> None:
    size = min(n, batch)
    per_epoch = n // size
    batches = list(ShuffledBatches(n, batch, seed, 0, 3 * per_epoch))
    assert len(batches) == 3 * per_epoch
    assert {len(b) for b in batches} == {size}
    for first in range(0, len(batches), per_epoch):
        seen = list(itertools.chain(*batches[first : first + per_epoch]))
        assert len(set(seen)) == len(seen) == per_epoch * size
        assert set(seen) <= set(range(n))
    if n > 20:
        assert batches[:per_epoch] != batches[per_epoch : 2 * per_epoch]


@settings(deadline=None)
@given(
    n=st.integers(1, 30), batch=st.integers(1, 9), start=st.integers(0, 25)
)
def test_batches_resume_where_they_were(
    n: int, batch: int, start: int
) -> None:
    straight = list(ShuffledBatches(n, batch, 7, 0, 25))
    resumed = ShuffledBatches(n, batch, 7, start, 25)
    assert len(resumed) == 25 - start
    assert list(resumed) == straight[start:]


# --- what a run leaves --------------------------------------------------


def test_folder_of_a_run(straight: Run, train: Scenes) -> None:
    names = {path.name for path in straight.folder.iterdir()}
    assert names == {
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "last.pt",
        "card.json",
    }
    config = json.loads((straight.folder / "config.json").read_text())
    assert config["kind"] == "explainer"
    assert config["architecture"] == "small"
    assert config["training"]["seed"] == SHORT.seed
    assert config["weights"]["a"] == 0.05
    card = json.loads((straight.folder / "card.json").read_text())
    assert card["environment"]["torch"] == torch.__version__
    assert card["scores"]["step"] == SHORT.steps
    assert [row["step"] for row in straight.history] == [2, 4, 6, 8]
    terms = ("total", "classification", "entropy", "bound", "smoothness")
    for row in straight.history:
        for term in terms:
            assert math.isfinite(row[f"train_{term}"])
            assert math.isfinite(row[f"val_{term}"])
    assert rows(straight)[-1]["step"] == SHORT.steps


def test_training_lowers_the_loss(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    longer = replace(SHORT, steps=40, eval_every=20)
    run = fit(tmp_path, train, val, longer)
    first = fit(tmp_path / "first", train, val, replace(SHORT, steps=1))
    assert run.history[-1]["train_total"] < first.history[0]["train_total"]


def test_same_seed_same_weights(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # the global stream decides nothing
    again = fit(tmp_path / "again", train, val)
    other = fit(tmp_path / "other", train, val, replace(SHORT, seed=4))
    assert identical(weights(again), weights(straight))
    assert rows(again) == rows(straight)
    assert not identical(weights(other), weights(straight))


def test_noise_fill_is_deterministic(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    short = replace(SHORT, steps=2)
    a, b = (
        fit(tmp_path / name, train, val, short, fill="noise") for name in "ab"
    )
    assert identical(weights(a), weights(b))
    assert rows(a) == rows(b)
    config = json.loads((a.folder / "config.json").read_text())
    assert config["fill"] == "noise"
    assert rows(a)[0] != rows(straight)[0]


def test_classifier_is_frozen_and_unchanged(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    classifier = classifier_for(val)
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    fit_explainer(
        explainer_for(val),
        classifier,
        train,
        val,
        replace(SHORT, steps=2),
        folder=tmp_path,
        config={},
        device="cpu",
        progress=False,
    )
    assert identical(before, classifier.state_dict())
    assert not any(p.requires_grad for p in classifier.parameters())
    assert not any(m.training for m in classifier.modules())


# --- pixel masks are never read -----------------------------------------


def test_pixel_masks_are_never_read(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    def noise(index: int, sample: Sample) -> Sample:
        generator = torch.Generator().manual_seed(index)
        mask = torch.randint(0, 256, (SIZE, SIZE), generator=generator)
        return sample._replace(mask=mask)

    def none(_: int, sample: Sample) -> Sample:
        return sample._replace(mask=None)

    for name, change in (("noise", noise), ("none", none)):
        run = fit(
            tmp_path / name, Wrapped(train, change), Wrapped(val, change)
        )
        assert identical(weights(run), weights(straight))
        assert rows(run) == rows(straight)


# --- interrupted runs ---------------------------------------------------


def stop_at(step: int) -> Callable[[list[dict[str, float]]], None]:
    def stop(history: list[dict[str, float]]) -> None:
        if history[-1]["step"] == step:
            raise KeyboardInterrupt

    return stop


def failing_after(calls: int) -> Callable[..., Loss]:
    """The paper's loss, until the machine is switched off."""
    count = itertools.count(1)

    @functools.wraps(explainer_loss)
    def loss(*args: Any, **kwargs: Any) -> Loss:
        if next(count) > calls:
            raise KeyboardInterrupt
        return explainer_loss(*args, **kwargs)

    return loss


def test_interrupted_run_continues_to_the_same_result(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, train, val, on_validation=stop_at(4))
    assert not (tmp_path / "card.json").exists()
    # And within the next validation, after two more steps.
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, train, val, loss=failing_after(3))
    assert rows(tmp_path) == rows(straight)[:2]
    resumed = fit(tmp_path, train, val)
    assert identical(weights(resumed), weights(straight))
    assert rows(resumed) == rows(straight)
    assert [r["step"] for r in resumed.history] == [2, 4, 6, 8]


def test_killed_between_two_files(
    straight: Run,
    train: Scenes,
    val: Scenes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At whichever file the power fails, resuming loses nothing."""
    from explainer import checkpoints, files
    from explainer.training import loop

    for n in range(3, 7):  # the second and third validation's files
        folder = tmp_path / str(n)
        count = itertools.count()

        def write(
            path: Path, content: bytes, count: Any = count, n: int = n
        ) -> None:
            if path.suffix != ".json" and next(count) == n:
                raise KeyboardInterrupt
            files.write_atomically(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "write_atomically", write)
            patch.setattr(checkpoints, "write_atomically", write)
            with pytest.raises(KeyboardInterrupt):
                fit(folder, train, val)
        resumed = fit(folder, train, val)
        assert rows(resumed) == rows(straight), n
        assert identical(weights(resumed), weights(straight)), n


def test_finished_run_is_not_trained_again(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    run = fit(tmp_path, train, val)
    again = fit(tmp_path, train, val, loss=failing_after(0))
    assert again.history == run.history
    assert identical(weights(again), weights(straight))


def test_truncated_record_is_tolerated(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, train, val, on_validation=stop_at(4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2}\n{"step": 6, "train_to')
    assert rows(fit(tmp_path, train, val)) == rows(straight)


def test_corrupt_resume_file_is_named(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, train, val, on_validation=stop_at(2))
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"last\.pt .* delete it"):
        fit(tmp_path, train, val)


def test_another_configuration_is_refused(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    two = replace(SHORT, steps=2)
    run = fit(tmp_path, train, val, two)
    before = weights(run)
    other: dict[str, dict[str, Any]] = {
        "training": {"training": replace(SHORT, steps=2, learning_rate=1)},
        "classifier": {"training": two, "classifier_seed": 1},
        "train": {"training": two, "train": Scenes("train", 8, size=SIZE)},
        "val": {"training": two, "val": Scenes("val", 4, size=SIZE)},
    }
    for what, changed in other.items():
        asked = {"train": train, "val": val} | changed
        with pytest.raises(TrainingError, match=rf"another .* \({what}\)"):
            fit(tmp_path, **asked)
    assert identical(before, weights(run))


def test_what_cannot_be_trained_is_said(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="has steps, not 0"):
        replace(SHORT, steps=0)
    for device, why in (("gpu", "not 'gpu'"), ("cuda", "no CUDA GPU")):
        if device != "cuda" or not torch.cuda.is_available():
            with pytest.raises(TrainingError, match=why):
                fit_classifier(
                    classifier_for(val),
                    train,
                    val,
                    SHORT,
                    folder=tmp_path,
                    config={},
                    device=device,
                )
    with pytest.raises(TrainingError, match="all parameters are frozen"):
        fit_classifier(
            classifier_for(val).requires_grad_(False),
            train,
            val,
            SHORT,
            folder=tmp_path,
            config={},
            device="cpu",
        )


def test_raising_callback_stops_the_run(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, train, val, on_validation=fail)
    assert [row["step"] for row in rows(tmp_path)] == [2]


# --- when to stop -------------------------------------------------------


def test_early_stopping_keeps_the_best(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    """No later loss is lower by 100: the first validation is the best."""
    patient = replace(SHORT, steps=20, patience=2, min_delta=100.0)
    run = fit(tmp_path / "a", train, val, patient)
    assert [row["step"] for row in run.history] == [2, 4, 6]
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "b", train, val, patient, on_validation=stop_at(2))
    assert identical(weights(tmp_path / "b"), weights(run))
    # A stopped run stays stopped, an interrupted one stops at the same step.
    again = fit(tmp_path / "a", train, val, patient)
    assert again.history == run.history
    resumed = fit(tmp_path / "b", train, val, patient)
    assert rows(resumed) == rows(run)
    assert identical(weights(resumed), weights(run))


@pytest.mark.parametrize("where", ["training", "validation"])
def test_nan_ends_the_run_and_spares_the_checkpoint(
    where: str, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, train, val, on_validation=stop_at(4))
    before = weights(tmp_path)
    last = (tmp_path / "last.pt").read_bytes()

    @functools.wraps(explainer_loss)
    def not_a_number(*args: Any, **kwargs: Any) -> Loss:
        loss = explainer_loss(*args, **kwargs)
        validating = not loss.total.requires_grad
        if validating == (where == "validation"):
            return loss._replace(total=loss.total * math.nan)
        return loss

    with pytest.raises(TrainingError, match="not a number by step 6; lower"):
        fit(tmp_path, train, val, loss=not_a_number)
    assert identical(before, weights(tmp_path))
    assert (tmp_path / "last.pt").read_bytes() == last
    assert [row["step"] for row in rows(tmp_path)] == [2, 4]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_network_is_left_with_the_weights_that_count(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    """With patience these are the best, from an earlier validation."""
    patient = replace(SHORT, steps=20, patience=2, min_delta=100.0)
    network = explainer_for(val)
    run = fit_explainer(
        network,
        classifier_for(val),
        train,
        val,
        patient,
        folder=tmp_path,
        config={},
        device="cpu",
        progress=False,
    )
    assert identical(network.state_dict(), weights(run))


def test_a_loss_may_be_a_partial_function(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    short = replace(SHORT, steps=2)
    loss = functools.partial(explainer_loss, fill="black")
    a = fit(tmp_path / "a", train, val, short, loss=loss)
    b = fit(tmp_path / "b", train, val, short, fill="black")
    assert identical(weights(a), weights(b))
    config = json.loads((a.folder / "config.json").read_text())
    assert config["loss"] == {"function": "explainer_loss", "fill": "black"}


# --- random streams -----------------------------------------------------


class Halves:
    """Images whose left half is white: a mirror shows."""

    classes = ("a",)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Sample:
        image = torch.zeros(3, 8, 8)
        image[..., :4] = 1
        return Sample(image, torch.ones(1), None, str(index))


class Watching(nn.Module):
    """A classifier that keeps what it is shown in training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images.clone())
        return self.weight * images.mean((1, 2, 3))[:, None]


def test_a_mirror_and_a_cover_are_independent(tmp_path: Path) -> None:
    """Once one seed drew both: of whole images none was mirrored."""
    net = Watching()
    fit_classifier(
        net,
        Halves(),
        Halves(),
        TrainingConfig(steps=16, batch_size=32, flip=True, eval_every=16),
        folder=tmp_path,
        config={},
        masked_inputs=MaskedInputs(masked=0.5, fill="black"),
        device="cpu",
        progress=False,
    )
    images = torch.cat(net.seen)
    whole = images.mean((1, 2, 3)) == 0.5
    mirrored = images[..., 7].sum((1, 2)) > images[..., 0].sum((1, 2))
    # 256 images in each group: the standard error of a share is 0.03.
    for group in (whole, ~whole):
        assert 0.35 < float(mirrored[group].float().mean()) < 0.65
    assert 0.4 < float(whole.float().mean()) < 0.6


class Viewing(Watching):
    """A network whose ``view`` needs the plain memory layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        return super().forward(x.view(len(x), 2, -1, 1))


def test_foreign_networks_keep_their_layout(
    val: Scenes, tmp_path: Path
) -> None:
    def is_plain(net: nn.Module) -> bool:
        return all(p.is_contiguous() for p in net.parameters())

    net, short = Viewing(), replace(SHORT, steps=1)
    one = Wrapped(val, lambda i, s: s._replace(labels=s.labels[:1] * 0 + 1))
    one.classes = ("a",)
    common = {"config": {}, "device": "cpu", "progress": False}
    fit_classifier(net, one, one, short, folder=tmp_path / "c", **common)
    assert is_plain(net)
    other = Viewing()
    other.conv.to(memory_format=torch.channels_last)
    strides = other.conv.weight.stride()
    fit_explainer(
        small(1, width=8, decoder_width=8),
        other,
        one,
        one,
        short,
        folder=tmp_path / "o",
        **common,
    )
    assert other.conv.weight.stride() == strides
    network = small(1, width=8, decoder_width=8)
    fit_explainer(
        network, net, one, one, short, folder=tmp_path / "e", **common
    )
    assert is_plain(net)


# --- a limit on the time ------------------------------------------------


def test_out_of_time_is_resumed_to_the_same_result(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    """Each call takes one step, and keeps it."""
    for _ in range(SHORT.steps - 1):
        with time_limit(0), pytest.raises(OutOfTime):
            fit(tmp_path, train, val)
    with time_limit(0):
        run = fit(tmp_path, train, val)
    assert identical(weights(run), weights(straight))
    assert rows(run) == rows(straight)


# --- images without labels ----------------------------------------------


def unlabelled(*indices: int) -> Callable[[int, Sample], Sample]:
    def change(index: int, sample: Sample) -> Sample:
        if index in indices:
            return sample._replace(labels=torch.zeros_like(sample.labels))
        return sample

    return change


def test_images_without_labels_are_dropped_and_counted(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    some = Wrapped(train, unlabelled(0, 5))
    kept, dropped = labelled(some)
    assert (len(kept), dropped) == (11, 2)
    assert kept.classes == train.classes
    assert [kept[0].name, kept[4].name] == [train[1].name, train[6].name]
    assert labelled(train) == (train, 0)
    fit(tmp_path, some, val, replace(SHORT, steps=2))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dropped"] == 2


def test_no_label_at_all_is_an_error(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    nothing = Wrapped(train, unlabelled(*range(13)))
    with pytest.raises(TrainingError, match="no image has any of"):
        fit(tmp_path / "run", nothing, val)
    assert not (tmp_path / "run").exists()


# --- the classifier -----------------------------------------------------


def fit_tiny(
    folder: Path,
    train: Any,
    val: Any,
    classifier: nn.Module | None = None,
    **options: Any,
) -> Run:
    return fit_classifier(
        classifier or classifier_for(val),
        train,
        val,
        options.pop("training", SHORT),
        folder=folder,
        config={"architecture": "tiny"},
        device="cpu",
        progress=False,
        **options,
    )


def test_classifier_resumes_with_covered_images_and_dropout(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    how = MaskedInputs(masked=0.4, blank=0.2, fill="noise", smoothing=0.1)
    straight = fit_tiny(tmp_path / "a", train, val, masked_inputs=how)
    with pytest.raises(KeyboardInterrupt):
        fit_tiny(
            tmp_path / "b",
            train,
            val,
            masked_inputs=how,
            on_validation=stop_at(4),
        )
    resumed = fit_tiny(tmp_path / "b", train, val, masked_inputs=how)
    assert identical(weights(straight), weights(resumed))
    assert rows(straight) == rows(resumed)
    assert 0 <= straight.history[-1]["map"] <= 1
    plain = fit_tiny(tmp_path / "c", train, val)
    assert not identical(weights(straight), weights(plain))


def test_only_the_head_of_frozen_features_is_trained(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    classifier = classifier_for(val)
    classifier.network.encoder.requires_grad_(False)
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    run = fit_tiny(tmp_path, train, val, classifier)
    after = weights(run)
    moved = {k for k in after if not torch.equal(after[k], before[k])}
    assert moved == {"network.head.weight", "network.head.bias"}


def test_softmax_classifiers_train(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    classifier = classifier_for(val)
    classifier.multi_label = False
    run = fit_tiny(
        tmp_path, train, val, classifier, training=replace(SHORT, steps=2)
    )
    assert math.isfinite(run.history[-1]["val_total"])


def test_predict_and_mode(val: Scenes) -> None:
    classifier = classifier_for(val).train()
    logits, labels = logits_and_labels(classifier, val, batch_size=4)
    assert classifier.training
    assert_close(labels, val.labels)
    images = torch.stack([val[i].image for i in range(len(val))])
    with torch.no_grad():
        assert_close(logits, classifier.eval()(images))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1))
def test_average_precision_by_its_definition(
    images: list[tuple[int, bool]],
) -> None:
    scores, labels = (
        torch.tensor(x).float() for x in zip(*images, strict=True)
    )
    expected, total = 0.0, labels.sum()
    for threshold in scores.unique():  # every image adds its precision
        taken = labels[scores >= threshold]
        new = labels[scores == threshold].sum() / total
        expected += float(new * taken.mean())
    found = float(average_precision(scores, labels))
    assert found == pytest.approx(expected, nan_ok=True)
    assert math.isnan(found) == (not any(labels))


def test_average_precision_by_hand() -> None:
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0]]).float()
    logits = torch.tensor([[2.0, 0, 0], [1, -1, 0], [0, 1, 0]])
    # First class: ranks 1 and 3 of 3, so (1/1 + 2/3) / 2. Second: its one
    # image is last. The third does not occur.
    expected = ((1 + 2 / 3) / 2 + 1 / 3) / 2
    assert mean_average_precision(logits, labels) == pytest.approx(expected)
    one = mean_average_precision(logits[:, :1], labels[:, :1])
    assert one == pytest.approx(5 / 6)
    assert math.isnan(mean_average_precision(logits, torch.zeros(3, 3)))


# --- Accelerate ---------------------------------------------------------


HALF = """
import sys
from dataclasses import replace
from pathlib import Path
from explainer.data import Scenes
from explainer.classifiers import HALVES, Classifier, SmallCNN
from explainer.model import small
from explainer.training import TrainingConfig, fit_explainer

train = Scenes("train", 8, size=16)
fit_explainer(
    small(len(train.classes), width=8, decoder_width=8),
    Classifier(SmallCNN(len(train.classes), width=8), train.classes, *HALVES),
    train,
    train,
    TrainingConfig(steps=2, batch_size=4, mixed_precision="bf16"),
    folder=Path(sys.argv[1]),
    config={},
    device="cpu",
    progress=False,
)
"""


def test_mixed_precision_keeps_full_weights(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HALF, tmp_path], check=True)
    assert math.isfinite(rows(tmp_path)[-1]["val_total"])
    kinds = {v.dtype for v in weights(tmp_path).values()}
    assert kinds == {torch.float32, torch.int64}  # the latter counts batches


def test_one_process_has_one_precision(
    straight: Run, train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="another precision; start a"):
        fit(tmp_path, train, val, replace(SHORT, mixed_precision="bf16"))


def test_a_given_encoder_learns_at_its_share_of_the_rate(val: Scenes) -> None:
    network = explainer_for(val)
    network.encoder.stages[0].requires_grad_(False)
    groups = parameter_groups(network, 0.1)
    held = {g["share"]: {id(p) for p in g["params"]} for g in groups}
    learning = (p for p in network.encoder.parameters() if p.requires_grad)
    assert held[0.1] == {id(p) for p in learning}
    assert held[1.0] == {id(p) for p in network.decoder.parameters()}
    (alike,) = parameter_groups(network, 1.0)
    assert len(alike["params"]) == sum(len(ids) for ids in held.values())


def test_encoder_rate_scales_its_steps(
    train: Scenes, val: Scenes, tmp_path: Path
) -> None:
    before = explainer_for(val).state_dict()
    moved = {}
    for rate in (1.0, 0.25):
        short = replace(
            SHORT, steps=1, warmup=0, eval_every=1, encoder_rate=rate
        )
        after = weights(fit(tmp_path / str(rate), train, val, short))
        for part in ("encoder.stages.0.0.weight", "decoder.head.weight"):
            step = (after[part] - before[part]).abs().max()
            moved[part.split(".")[0], rate] = float(step)
    # Adam's first step is as long as the learning rate.
    assert moved["encoder", 0.25] == pytest.approx(
        0.25 * moved["encoder", 1.0], rel=0.01
    )
    assert moved["decoder", 0.25] == moved["decoder", 1.0]
