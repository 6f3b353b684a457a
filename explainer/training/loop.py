"""The training loop: steps, validations, checkpoints, resuming.

A run is a folder: ``config.json`` (the configuration), ``metrics.jsonl`` (one
line per validation), ``model.safetensors`` (the resulting weights),
``last.pt`` (the state to resume from) and ``card.json`` (data, seed,
versions, hardware, commit, scores, the weights' SHA-256; written when the run
ends).

Every random choice has its own stream (:mod:`explainer.streams`), a function
of the seed, the step and the image's place in the batch. An interrupted and
resumed run therefore takes the same steps as an uninterrupted one, and no
random state is stored.
"""

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from tqdm.auto import tqdm

from explainer.checkpoints import (
    CheckpointError,
    read_weights,
    save_weights,
)
from explainer.classifiers import layout_of
from explainer.data import Batch, LabelledImages, Sample, collate, flip
from explainer.deadline import OutOfTime, check_time
from explainer.errors import UserError
from explainer.files import read_json, sha256, write_atomically, write_json
from explainer.losses import Loss
from explainer.provenance import environment
from explainer.streams import Streams, generator, per_image

History = list[dict[str, float]]
"""The record of each validation: ``step``, losses and scores by name."""

BatchLoss = Callable[[nn.Module, Batch, Streams], Loss]
Score = Callable[[nn.Module, torch.device], dict[str, float]]

STATE = {"model", "optimizer", "scaler", "step", "best", "stale", "sums"}
"""The keys of ``last.pt``."""

STATE_EVERY = 600.0
"""Seconds between two writes of the state to resume from."""


class TrainingError(UserError):
    """A run that cannot continue; the message names cause and remedy."""


@dataclass(frozen=True)
class TrainingConfig:
    """The length and the optimiser of a training.

    ``steps`` batches of ``batch_size``; AdamW (Adam for a ``weight_decay`` of
    0) at ``learning_rate``, constant or falling to zero along a cosine, after
    a linear rise over ``warmup`` steps; validation every ``eval_every``
    steps. Training stops when the validation loss has not fallen by
    ``min_delta`` for ``patience`` validations, and the result is the weights
    of the best validation. With ``patience`` None all steps are taken, and
    the result is the last weights. ``flip`` mirrors half of the images.
    ``encoder_rate`` scales the learning rate of a network's ``encoder`` and
    ``class_activation``, for pretrained ones. ``mixed_precision`` is
    Accelerate's; ``workers`` is the number of processes that read images.
    ``seed`` determines every random choice.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-4
    encoder_rate: float = 1.0
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

    def __post_init__(self) -> None:
        """Raise :class:`TrainingError` for a training without steps."""
        if self.steps < 1:
            raise TrainingError(f"a training has steps, not {self.steps}")


@dataclass
class Run:
    """The result of a training: its folder and its validations' records."""

    folder: Path
    history: History = field(default_factory=list)

    @property
    def weights(self) -> Path:
        """Return the path of the resulting weights."""
        return self.folder / "model.safetensors"


def without_masks(samples: Sequence[Sample]) -> Batch:
    """Return a batch without masks, which training must not see."""
    return collate([s._replace(mask=None) for s in samples])


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step."""
    rate = config.learning_rate * min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return rate


class ShuffledBatches(Sampler[list[int]]):
    """Batches of shuffled indices over epochs, from a given step on.

    The order in epoch e is a function of (seed, e). An incomplete last batch
    is dropped, unless it is the only one.
    """

    drop_last = True
    """Accelerate requires this of a sampler shared among processes."""

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
                stream = generator(self.seed, epoch, "shuffle")
                order = torch.randperm(self.n, generator=stream).tolist()
                shuffled_for = epoch
            yield order[i * self.batch_size : (i + 1) * self.batch_size]


class Average:
    """A running mean of named scalars, synchronised only when read.

    ``sums`` holds the sum of each, and of the weights as "weight".
    """

    def __init__(self, sums: dict[str, Tensor] | None = None) -> None:
        self.sums = sums or {}

    def add(self, loss: Loss, weight: float = 1.0) -> None:
        """Add a loss and its terms, counted ``weight`` times."""
        one = torch.ones_like(loss.total)
        for name, value in {
            "total": loss.total,
            **loss.terms,
            "weight": one,
        }.items():
            term = weight * value.detach().float()
            before = self.sums.get(name)
            self.sums[name] = term if before is None else before + term

    def read(self, over: Accelerator | None = None) -> dict[str, float]:
        """Return the means, over all processes if ``over`` is given."""
        if not self.sums:
            return {}
        sums = {k: v for k, v in self.sums.items() if k != "weight"}
        values = torch.stack(list(sums.values())) / self.sums["weight"]
        if over is not None:
            values = over.reduce(values, "mean")
        return dict(zip(sums, values.tolist(), strict=True))


def parameter_groups(
    model: nn.Module, encoder_rate: float
) -> list[dict[str, Any]]:
    """Return groups of trainable parameters, each with its rate's factor."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            given = name.startswith(("encoder.", "class_activation."))
            share = encoder_rate if given else 1.0
            groups.setdefault(share, []).append(parameter)
    if not groups:
        raise TrainingError(
            "nothing to train: all parameters are frozen "
            "(requires_grad_(True) thaws them)"
        )
    return [{"params": ps, "share": share} for share, ps in groups.items()]


# --- resuming an interrupted run ----------------------------------------


def check_config(path: Path, config: dict[str, Any]) -> None:
    """Refuse to resume a run with another configuration.

    ``path`` is the run's ``config.json``; raises :class:`TrainingError`.
    """
    if not path.exists():
        return
    held, asked = read_json(path), json.loads(json.dumps(config))
    if changed := [k for k in held | asked if held.get(k) != asked.get(k)]:
        raise TrainingError(
            f"{path.parent} holds a run with another configuration "
            f"({', '.join(changed)}); choose another folder, or delete this "
            "one to start again"
        )


def read_state(path: Path) -> dict[str, Any]:
    """Return the state to resume from, empty for a fresh run.

    ``path`` is the run's ``last.pt``. Raises
    :class:`~explainer.checkpoints.CheckpointError` if it is damaged.
    """
    if not path.exists():
        return {}
    try:
        state: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True
        )
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read; delete it to start the run again"
        ) from error
    if not isinstance(state, dict) or set(state) != STATE:
        raise CheckpointError(
            f"{path} is not the state of a run; delete it to start the run "
            "again"
        )
    return state


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """Name the state's file in errors raised within the block.

    They become a :class:`~explainer.checkpoints.CheckpointError`.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit the networks of this run; delete it to "
            "start the run again"
        ) from error


def read_history(path: Path, up_to: int) -> History:
    """Return a run's validation records up to the step ``up_to``.

    ``path`` is the run's ``metrics.jsonl``; lines that are not records are
    skipped.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:  # a copied file may end within a line
            row = json.loads(line)
            if row["step"] <= up_to and row["seconds"] >= 0:
                rows.append(row)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return rows


# --- the loop -----------------------------------------------------------


def _accelerator(precision: str, device: str | None) -> Accelerator:
    """Return this process's Accelerator.

    The first run's device and precision apply to all later runs.
    """
    if device not in (None, "cpu", "cuda", "mps"):
        raise TrainingError(
            f'a device is "cpu", "cuda" or "mps", not {device!r}'
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("this machine has no CUDA GPU; train on the cpu")
    try:
        found = Accelerator(
            mixed_precision=precision,
            cpu=device == "cpu",
            dataloader_config=DataLoaderConfiguration(split_batches=True),
        )
    except ValueError:
        found = None
    if found is None or (device and found.device.type != device):
        raise TrainingError(
            "this process has already trained on another device or in "
            "another precision; start a new one for this run"
        )
    return found


class Loop:
    """One run: ``Loop(...).run()`` trains, or resumes an interrupted run.

    At the end ``model`` holds the resulting weights. Raises
    :class:`TrainingError` if the folder holds a run with another
    configuration or the loss becomes NaN or infinite,
    :class:`~explainer.checkpoints.CheckpointError` if the state to resume
    from is damaged or of other networks, and
    :class:`~explainer.deadline.OutOfTime` when the command's time limit has
    passed; the state is then written.

    Parameters
    ----------
    model:
        The network, trained in place.
    batch_loss:
        Maps (model, batch, streams) to a :class:`Loss`. Its random draws come
        from ``streams(name)``, one generator per image.
    train, val:
        The data; pixel masks are dropped when batches are collated.
    training:
        The length and the optimiser.
    folder:
        Output folder; an interrupted run in it is resumed.
    config:
        Stored with the weights, and compared when a run resumes.
    score:
        Returns additional values for each validation's record.
    on_validation:
        Called with the history after each validation.
    device:
        "cpu" or "cuda"; None leaves the choice to Accelerate.
    progress:
        Show a bar.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_loss: BatchLoss,
        train: LabelledImages,
        val: LabelledImages,
        training: TrainingConfig,
        *,
        folder: Path,
        config: dict[str, Any],
        score: Score = lambda model, device: {},
        on_validation: Callable[[History], None] | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> None:
        self.batch_loss, self.val, self.training = batch_loss, val, training
        self.score, self.on_validation = score, on_validation
        self.folder, self.progress = folder, progress
        self.config = {**config, "training": asdict(training)}
        check_config(folder / "config.json", self.config)
        state = read_state(folder / "last.pt")
        if not state:  # an old card would describe another run
            (folder / "card.json").unlink(missing_ok=True)
        write_json(folder / "config.json", self.config)
        self.accelerator = _accelerator(training.mixed_precision, device)
        self._prepare(model, train, state)

    def _prepare(
        self, model: nn.Module, train: LabelledImages, state: dict[str, Any]
    ) -> None:
        """Set up a fresh run, or restore the state of an interrupted one."""
        training = self.training
        self.step: int = state.get("step", 0)
        self.best: float = state.get("best", math.inf)
        self.stale: int = state.get("stale", 0)
        self.average = Average(state.get("sums"))
        self.history = read_history(self.folder / "metrics.jsonl", self.step)
        last = self.folder / "last.pt"
        if state:
            with resuming(last):
                model.load_state_dict(state["model"])
        self.layout = layout_of(model)
        if self.layout == torch.channels_last:  # others keep what they have
            model = model.to(memory_format=self.layout)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, training.encoder_rate),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
        )
        loader: Any = DataLoader(
            train,  # type: ignore[arg-type]
            batch_sampler=ShuffledBatches(
                len(train),
                training.batch_size,
                training.seed,
                self.step,
                training.steps,
            ),
            collate_fn=without_masks,
            num_workers=training.workers,
            pin_memory=self.accelerator.device.type == "cuda",
            persistent_workers=training.workers > 0,
        )
        self.net, self.optimizer, self.loader = self.accelerator.prepare(
            model, optimizer, loader
        )
        if state:
            with resuming(last):
                self.optimizer.load_state_dict(state["optimizer"])
                if self.accelerator.scaler is not None:
                    self.accelerator.scaler.load_state_dict(state["scaler"])

    @property
    def model(self) -> nn.Module:
        """Return the model without Accelerate's wrapper."""
        # The weights keep their names even if the model is compiled.
        model: nn.Module = self.accelerator.unwrap_model(
            self.net, keep_torch_compile=False
        )
        return model

    @property
    def _is_over(self) -> bool:
        patience = self.training.patience
        tired = patience is not None and self.stale >= patience
        return tired or self.step == self.training.steps

    def run(self) -> Run:
        """Take the remaining steps; return the run."""
        self.since = self.written = time.perf_counter()
        with tqdm(
            total=self.training.steps,
            initial=self.step,
            disable=not (self.progress and self.accelerator.is_main_process),
            unit="step",
        ) as bar:
            for batch in () if self._is_over else self.loader:
                self.average.add(self._take_step(batch))
                bar.update()
                if self.step % 20 == 0 and not bar.disable:
                    terms = self.average.read().items()
                    bar.set_postfix({k: f"{v:.3f}" for k, v in terms})
                last = self.step == self.training.steps
                if self.step % self.training.eval_every == 0 or last:
                    self._record()
                if self._is_over:
                    break
                self._mind_the_time()
        self._restore()
        if self.accelerator.is_main_process:
            self._write_card()
        return Run(self.folder, self.history)

    def _mind_the_time(self) -> None:
        """Write the state at intervals and when the time is over."""
        try:
            check_time()
        except OutOfTime:
            self._write_state()
            raise
        if time.perf_counter() - self.written > STATE_EVERY:
            self._write_state()

    def _restore(self) -> None:
        """Load the resulting weights from their file into the model."""
        self.accelerator.wait_for_everyone()
        path = self.folder / "model.safetensors"
        self.model.load_state_dict(read_weights(path)[0])

    def _to_device(self, batch: Batch) -> Batch:
        """Return a batch on the device, in the model's memory layout."""
        device = self.accelerator.device
        images = batch.images.to(
            device, non_blocking=True, memory_format=self.layout
        )
        labels = batch.labels.to(device, non_blocking=True)
        return batch._replace(images=images, labels=labels)

    def _take_step(self, batch: Batch) -> Loss:
        accelerator, training = self.accelerator, self.training
        n, process = len(batch.images), accelerator.process_index

        def streams(name: str) -> list[torch.Generator]:
            first = process * n
            return [
                generator(training.seed, self.step, name, first + i)
                for i in range(n)
            ]

        # Dropout draws from the global stream.
        dropout = generator(training.seed, self.step, "dropout", process)
        torch.manual_seed(dropout.initial_seed())
        batch = self._to_device(batch)
        if training.flip:
            batch = flip(batch, streams("flip"))
        for group in self.optimizer.param_groups:
            rate = learning_rate(training, self.step)
            group["lr"] = group["share"] * rate
        self.net.train()
        with accelerator.autocast():
            loss = self.batch_loss(self.net, batch, streams)
        self.optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss.total)
        self.optimizer.step()
        self.step += 1
        return loss

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Return the mean loss and terms over held-out images."""
        self.model.eval()
        average = Average()
        batches: Any = DataLoader(
            self.val,  # type: ignore[arg-type]
            self.training.batch_size,
            collate_fn=without_masks,
        )
        seen = 0
        for batch in batches:
            indices = range(seen, seen + len(batch.images))
            streams = partial(
                per_image, self.training.seed, indices, "validation"
            )
            with self.accelerator.autocast():
                loss = self.batch_loss(
                    self.model, self._to_device(batch), streams
                )
            average.add(loss, len(indices))
            seen += len(indices)
        return average.read()

    def _record(self) -> None:
        """Validate, and write the record and the state."""
        trained = self.average.read(self.accelerator)
        held_out = self._validate()
        if not math.isfinite(trained["total"] + held_out["total"]):
            raise TrainingError(
                f"the loss is not a number by step {self.step}; lower the "
                "learning rate, and check the data for broken images"
            )
        self.history.append(
            {
                "step": self.step,
                **{f"train_{k}": v for k, v in trained.items()},
                **{f"val_{k}": v for k, v in held_out.items()},
                **self.score(self.model, self.accelerator.device),
                "seconds": round(time.perf_counter() - self.since, 3),
            }
        )
        self.average, self.since = Average(), time.perf_counter()
        better = held_out["total"] < self.best - self.training.min_delta
        self.best = held_out["total"] if better else self.best
        self.stale = 0 if better else self.stale + 1
        if not self.accelerator.is_main_process:
            return
        if better or self.training.patience is None:
            save_weights(
                self.folder / "model.safetensors", self.model, self.config
            )
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        write_atomically(self.folder / "metrics.jsonl", lines.encode())
        self._write_state()  # last: records beyond it are dropped on resuming
        if self.on_validation is not None:
            self.on_validation(self.history)

    def _write_state(self) -> None:
        """Write the state to resume from, atomically."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "step": self.step,
            "best": self.best,
            "stale": self.stale,
            "sums": self.average.sums,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_atomically(self.folder / "last.pt", content.getvalue())
        self.written = time.perf_counter()

    def _write_card(self) -> None:
        seconds = sum(row["seconds"] for row in self.history)
        write_json(
            self.folder / "card.json",
            {
                **self.config,
                "sha256": sha256(self.folder / "model.safetensors"),
                "scores": self.history[-1] if self.history else {},
                "train_seconds": round(seconds, 1),
                "environment": environment(),
            },
        )
