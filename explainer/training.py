"""One training loop, for the classifier and for the Explainer.

A run is a folder: ``config.json`` (what was asked), ``metrics.jsonl`` (one
line per validation), ``model.safetensors`` (the best weights so far),
``last.pt`` (where to resume) and ``card.json`` (data, seed, versions,
hardware, commit, scores; written when the run ends).

Every random choice of step t is a function of the seed and of t alone. So a
run that is interrupted and resumed takes the very steps it would have
taken, and no random state has to be stored.
"""

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, Subset
from torchmetrics.functional.classification import (
    binary_average_precision,
)
from tqdm.auto import tqdm

from explainer.card import environment
from explainer.checkpoints import CheckpointError, save_weights
from explainer.classifiers import frozen
from explainer.data import (
    Batch,
    LabelledImages,
    Sample,
    all_labels,
    collate,
    flip,
)
from explainer.errors import UserError
from explainer.files import write_atomically, write_json
from explainer.losses import (
    Loss,
    LossWeights,
    classification_loss,
    explainer_loss,
)
from explainer.masks import composite, make_fill, random_masks

BatchLoss = Callable[[nn.Module, Batch, torch.Generator], Loss]


class TrainingError(UserError):
    """A run that cannot go on; the message names cause and remedy."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how to train; everything a run's seed does not fix.

    ``steps`` batches of ``batch_size``; Adam at ``learning_rate``, constant
    or falling to zero along a cosine, after a linear rise over ``warmup``
    steps; validation every ``eval_every`` steps,
    and an end when the validation loss has not fallen by ``min_delta`` for
    ``patience`` validations (None: never). ``flip`` mirrors half of the
    images. ``mixed_precision`` is Accelerate's.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    eval_every: int = 200
    patience: int | None = None
    min_delta: float = 0.001
    flip: bool = False
    seed: int = 42
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    workers: int = 0


@dataclass(frozen=True)
class MaskedInputs:
    """Let a classifier meet in training what masking will show it.

    A share ``masked`` of the images is covered in part by a random mask
    (labels kept, since what is left still shows), a share ``blank``
    entirely (labelled as nothing); ``fill`` is what covers them, see
    :func:`explainer.masks.make_fill`. Targets are pulled by ``smoothing``
    towards 1/2. Departs from the paper, whose classifiers never saw a
    masked image.
    """

    masked: float = 0.0
    blank: float = 0.0
    fill: str = "mean"
    smoothing: float = 0.0


@dataclass
class Run:
    """What training returns: the folder, and the validations' records."""

    folder: Path
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def weights(self) -> Path:
        """The file of the best weights."""
        return self.folder / "model.safetensors"


class ShuffledBatches(Sampler[list[int]]):
    """Batches of shuffled indices, epoch after epoch, from a given step on.

    Epoch e's order is a function of (seed, e); an incomplete last batch is
    dropped, unless there is no other.
    """

    drop_last = True

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
                    _seed_of(self.seed, epoch)
                )
                order = torch.randperm(self.n, generator=generator).tolist()
                shuffled_for = epoch
            yield order[i * self.batch_size : (i + 1) * self.batch_size]


def _seed_of(seed: int, step: int) -> int:
    """Mix a seed and a counter into one number below 2**63."""
    return (
        seed * 6_364_136_223_846_793_005 + step * 1_442_695_040_888_963
    ) % (2**63)


def _learning_rate(config: TrainingConfig, step: int) -> float:
    rate = config.learning_rate * min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return rate


def _to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch, in the layout that convolutions like best."""
    images = batch.images.to(
        device, non_blocking=True, memory_format=torch.channels_last
    )
    labels = batch.labels.to(device, non_blocking=True)
    return batch._replace(images=images, labels=labels)


def _drop_masks(samples: Sequence[Sample]) -> Batch:
    """Collate without masks: training never sees what they hold."""
    return collate([s._replace(mask=None) for s in samples])


def _load_last(folder: Path, config: dict[str, object]) -> dict[str, object]:
    """Return the state to resume from, empty for a fresh run."""
    path = folder / "config.json"
    if path.exists() and json.loads(path.read_text()) != json.loads(
        json.dumps(config)
    ):
        raise TrainingError(
            f"{folder} holds a run with another configuration; choose "
            "another folder, or delete this one to start again"
        )
    last = folder / "last.pt"
    if not last.exists():
        return {}
    try:
        state: dict[str, object] = torch.load(
            last, map_location="cpu", weights_only=True
        )
    except Exception as error:
        raise CheckpointError(
            f"{last} cannot be read; delete it to start the run again"
        ) from error
    return state


def _read_history(path: Path, up_to: int) -> list[dict[str, float]]:
    """Read the records of a run's past, without those after ``up_to``."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the run was killed while writing
            continue
        if row["step"] <= up_to:
            rows.append(row)
    return rows


class _Average:
    """A mean of named scalars that waits for the device only when read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight = 0.0

    def add(self, loss: Loss, weight: float = 1.0) -> None:
        for name, value in {"total": loss.total, **loss.terms}.items():
            term = weight * value.detach().float()
            self.sums[name] = (
                self.sums.get(name, torch.zeros_like(term)) + term
            )
        self.weight += weight

    def read(self) -> dict[str, float]:
        names = list(self.sums)
        if not names:
            return {}
        values = torch.stack([self.sums[n] for n in names]) / self.weight
        return dict(zip(names, values.tolist(), strict=True))


def _fit(
    model: nn.Module,
    batch_loss: BatchLoss,
    train: LabelledImages,
    val: LabelledImages,
    training: TrainingConfig,
    *,
    folder: Path,
    config: dict[str, object],
    score: Callable[[nn.Module, torch.device], dict[str, float]],
    on_validation: Callable[[list[dict[str, float]]], None] | None,
    device: str | None,
    progress: bool,
) -> Run:
    """Train ``model``; see the module's text for what the folder holds."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**config, "training": asdict(training)}
    state = _load_last(folder, config)
    write_json(folder / "config.json", config)
    torch.manual_seed(training.seed)
    # Accelerate keeps the first run's device and precision for all later
    # ones of a process; every run has its own here.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision,
        cpu=device == "cpu",
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    step = int(state.get("step", 0))  # type: ignore[call-overload]
    best = float(state.get("best", math.inf))  # type: ignore[arg-type]
    stale = int(state.get("stale", 0))  # type: ignore[call-overload]
    if "model" in state:
        model.load_state_dict(state["model"])  # type: ignore[arg-type]
    model = model.to(memory_format=torch.channels_last)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    batches = ShuffledBatches(
        len(train), training.batch_size, training.seed, step, training.steps
    )
    loader: Any = DataLoader(
        train,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=_drop_masks,
        num_workers=training.workers,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=training.workers > 0,
    )
    net, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    history = _read_history(folder / "metrics.jsonl", step)
    average = _Average()
    seconds = sum(row.get("seconds", 0.0) for row in history)
    since = time.perf_counter()
    stopped = training.patience is not None and stale >= training.patience
    with tqdm(
        total=training.steps,
        initial=step,
        disable=not (progress and accelerator.is_main_process),
        unit="step",
    ) as bar:
        for batch in () if stopped else loader:
            seed = _seed_of(training.seed, step) + accelerator.process_index
            torch.manual_seed(seed)  # dropout draws from the global stream
            generator = torch.Generator(accelerator.device).manual_seed(seed)
            batch = _to_device(batch, accelerator.device)
            if training.flip:
                batch = flip(batch, torch.Generator().manual_seed(seed))
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(training, step)
            net.train()
            with accelerator.autocast():
                loss = batch_loss(net, batch, generator)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss.total)
            optimizer.step()
            average.add(loss)
            step += 1
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(_short(average.read()))
            if step % training.eval_every and step != training.steps:
                continue
            trained = average.read()
            average = _Average()
            bare = accelerator.unwrap_model(net)
            held_out = _validate(bare, batch_loss, val, training, accelerator)
            if not math.isfinite(trained["total"] + held_out["total"]):
                raise TrainingError(
                    f"the loss is not a number by step {step}; lower the "
                    "learning rate, and check the data for broken images"
                )
            row = {
                "step": step,
                "seconds": round(time.perf_counter() - since, 3),
                **{f"train_{k}": v for k, v in trained.items()},
                **{f"val_{k}": v for k, v in held_out.items()},
                **score(bare, accelerator.device),
            }
            since = time.perf_counter()
            seconds += row["seconds"]
            history.append(row)
            # Without patience the last weights count, not a lucky validation.
            better = held_out["total"] < best - training.min_delta
            stale = 0 if better else stale + 1
            if better:
                best = held_out["total"]
            if accelerator.is_main_process:
                if better or training.patience is None:
                    save_weights(folder / "model.safetensors", bare, config)
                lines = "".join(json.dumps(r) + "\n" for r in history)
                write_atomically(folder / "metrics.jsonl", lines.encode())
                # Last: records beyond it are dropped on resuming.
                _save_last(folder, bare, optimizer, step, best, stale)
                if on_validation is not None:
                    on_validation(history)
            if training.patience is not None and stale >= training.patience:
                break
    if accelerator.is_main_process:
        write_json(
            folder / "card.json",
            {
                **config,
                "scores": history[-1] if history else {},
                "train_seconds": round(seconds, 1),
                "environment": environment(),
            },
        )
    return Run(folder, history)


def _short(values: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.3f}" for name, value in values.items()}


def _save_last(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    best: float,
    stale: int,
) -> None:
    """Write where to resume, whole or not at all."""
    content = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "best": best,
        "stale": stale,
    }
    torch.save(state, content)
    write_atomically(folder / "last.pt", content.getvalue())


@torch.no_grad()
def _validate(
    model: nn.Module,
    batch_loss: BatchLoss,
    val: LabelledImages,
    training: TrainingConfig,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Return the mean loss and terms over held-out images."""
    model.eval()
    average = _Average()
    for i, batch in enumerate(
        DataLoader(
            val,  # type: ignore[arg-type]
            training.batch_size,
            collate_fn=_drop_masks,
        )
    ):
        generator = torch.Generator(accelerator.device).manual_seed(i)
        batch = _to_device(batch, accelerator.device)
        with accelerator.autocast():
            loss = batch_loss(model, batch, generator)
        average.add(loss, len(batch.images))
    return average.read()


@torch.no_grad()
def predict(
    classifier: nn.Module,
    data: LabelledImages,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a classifier's logits and the labels, ``(N, C)`` each."""
    was_training = classifier.training
    classifier.eval()
    logits, labels = [], []
    for batch in DataLoader(
        data,  # type: ignore[arg-type]
        batch_size,
        collate_fn=_drop_masks,
    ):
        logits.append(classifier(batch.images.to(device)).cpu())
        labels.append(batch.labels)
    classifier.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def mean_average_precision(logits: Tensor, labels: Tensor) -> float:
    """Return the mean over classes that occur of the average precision.

    ``logits`` and ``labels`` are ``(N, C)``; NaN where no class occurs.
    """
    per_class = [
        binary_average_precision(logits[:, c].sigmoid(), labels[:, c].long())
        for c in labels.any(0).nonzero()[:, 0].tolist()
    ]
    return float(torch.stack(per_class).mean()) if per_class else math.nan


def labelled(data: LabelledImages) -> tuple[LabelledImages, int]:
    """Leave out images with none of the classes; return how many."""
    has_label = all_labels(data).sum(1) > 0
    dropped = int((~has_label).sum())
    if dropped == 0:
        return data, 0
    if dropped == len(data):
        raise TrainingError(
            "no image has any of the classes "
            f"{', '.join(data.classes)}; choose other classes or data"
        )
    subset = Subset(data, has_label.nonzero()[:, 0].tolist())  # type: ignore
    subset.classes = data.classes  # type: ignore[attr-defined]
    return subset, dropped  # type: ignore[return-value]


def fit_classifier(
    classifier: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    training: TrainingConfig,
    *,
    folder: Path | str,
    config: dict[str, object],
    masked_inputs: MaskedInputs = MaskedInputs(),
    on_validation: Callable[[list[dict[str, float]]], None] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Run:
    """Train a classifier with binary cross-entropy (or cross-entropy).

    Images with none of the classes are kept: they are true negatives.
    ``config`` says how the classifier was built and is stored with the
    weights; ``folder`` resumes if it holds an interrupted run. The
    validation's ``map`` is the mean average precision. ``on_validation``
    is called with the history after each validation, say to draw it.
    """
    multi_label = getattr(classifier, "multi_label", True)

    def batch_loss(
        net: nn.Module, batch: Batch, generator: torch.Generator
    ) -> Loss:
        images, labels = batch.images, batch.labels
        if net.training:
            images, labels = _cover(
                images, labels, masked_inputs, classifier, generator
            )
        value = classification_loss(net(images), labels, multi_label)
        return Loss(value, {})

    def score(net: nn.Module, device: torch.device) -> dict[str, float]:
        logits, labels = predict(net, val, device=device)
        return {"map": mean_average_precision(logits, labels)}

    config = {**config, "masked_inputs": asdict(masked_inputs)}
    return _fit(
        classifier,
        batch_loss,
        train,
        val,
        training,
        folder=Path(folder),
        config={**config, "kind": "classifier"},
        score=score,
        on_validation=on_validation,
        device=device,
        progress=progress,
    )


def _cover(
    images: Tensor,
    labels: Tensor,
    how: MaskedInputs,
    classifier: nn.Module,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Cover some images in part and some entirely (:class:`MaskedInputs`)."""
    if how.masked or how.blank:
        chance = torch.rand(
            len(images), generator=generator, device=images.device
        )
        keep = random_masks(images, generator)
        blank = chance < how.blank
        whole = chance >= how.blank + how.masked
        keep = torch.where(whole[:, None, None, None], 1.0, keep)
        keep = torch.where(blank[:, None, None, None], 0.0, keep)
        fill = make_fill(how.fill, images, classifier, generator)
        images = composite(images, keep, fill)
        labels = labels * (~blank)[:, None]
    return images, labels + how.smoothing * (0.5 - labels)


def fit_explainer(
    network: nn.Module,
    classifier: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    training: TrainingConfig,
    *,
    folder: Path | str,
    config: dict[str, object],
    loss: Callable[..., Loss] = explainer_loss,
    weights: object = LossWeights(),
    on_validation: Callable[[list[dict[str, float]]], None] | None = None,
    device: str | None = None,
    progress: bool = True,
    **loss_options: object,
) -> Run:
    """Train an Explainer for a classifier from image labels alone.

    The classifier is frozen (in place); pixel masks are never read. Images
    with none of the classes are dropped and counted (``dropped`` in the
    configuration). ``loss`` and ``weights`` belong together: the paper's
    loss by default; ``loss_options`` (say ``fill="noise"``) are passed on.
    """
    explanandum = frozen(classifier)
    train, dropped = labelled(train)
    val, _ = labelled(val)

    def batch_loss(
        net: nn.Module, batch: Batch, generator: torch.Generator
    ) -> Loss:
        class_masks = net(batch.images).sigmoid()
        explanandum.to(batch.images.device)
        return loss(
            explanandum,
            batch.images,
            batch.labels,
            class_masks,
            weights,
            generator=generator,
            **loss_options,
        )

    return _fit(
        network,
        batch_loss,
        train,
        val,
        training,
        folder=Path(folder),
        config={
            **config,
            "kind": "explainer",
            "dropped": dropped,
            "loss": loss.__name__,
            "weights": asdict(weights),  # type: ignore[call-overload]
            **loss_options,
        },
        score=lambda net, device: {},
        on_validation=on_validation,
        device=device,
        progress=progress,
    )
