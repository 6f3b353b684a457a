"""The training loop: steps, validations, checkpoints, resuming.

A run is a folder: ``config.json`` (what was asked), ``metrics.jsonl`` (one
line per validation), ``model.safetensors`` (the weights that count),
``last.pt`` (where to resume) and ``card.json`` (data, seed, versions,
hardware, commit, scores, the weights' SHA-256; written when the run ends).

Every random choice of step t is a function of the seed and of t alone. So a
run that is interrupted and resumed takes the very steps it would have
taken, and no random state has to be stored.
"""

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from explainer.card import environment
from explainer.checkpoints import save_weights
from explainer.data import Batch, LabelledImages, Sample, collate, flip
from explainer.files import sha256, write_atomically, write_json
from explainer.losses import Loss
from explainer.memory import keep_freed_memory
from explainer.resuming import (
    History,
    TrainingError,
    check_config,
    read_history,
    read_state,
    resuming,
)
from explainer.steps import (
    Average,
    ShuffledBatches,
    parameter_groups,
    seed_of,
)

BatchLoss = Callable[[nn.Module, Batch, torch.Generator], Loss]
Score = Callable[[nn.Module, torch.device], dict[str, float]]


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how to train.

    ``steps`` batches of ``batch_size``; AdamW (Adam for a ``weight_decay``
    of 0) at ``learning_rate``, constant or falling to zero along a cosine,
    after a linear rise over ``warmup`` steps; validation every
    ``eval_every`` steps, and an end when the validation loss has not fallen
    by ``min_delta`` for ``patience`` validations. With patience the weights
    of the best validation count; without (None) all steps are taken and the
    last weights count. ``flip`` mirrors half of the images.
    ``encoder_rate`` scales the learning rate of a network's ``encoder`` and
    ``class_activation``, for those that start from another network's.
    ``mixed_precision`` is Accelerate's; ``workers`` processes read images.
    Every random choice follows from ``seed``.
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


@dataclass
class Run:
    """What training returns: the folder, and the validations' records."""

    folder: Path
    history: History = field(default_factory=list)

    @property
    def weights(self) -> Path:
        """The file of the weights that count."""
        return self.folder / "model.safetensors"


def without_masks(samples: Sequence[Sample]) -> Batch:
    """Collate without masks: training never sees what they hold."""
    return collate([s._replace(mask=None) for s in samples])


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step."""
    rate = config.learning_rate * min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return rate


class Loop:
    """One run: ``Loop(...).run()`` trains, or goes on where a run stopped.

    Raises :class:`~explainer.resuming.TrainingError` where the folder holds
    a run with another configuration, or the loss is no number any more, and
    :class:`~explainer.checkpoints.CheckpointError` where the state to resume
    from is damaged or of other networks.

    Parameters
    ----------
    model:
        What is trained, in place.
    batch_loss:
        Maps (model, batch, generator) to a :class:`Loss`; what it draws at
        random comes from the generator.
    train, val:
        The data; pixel masks are dropped before anyone can look at them.
    training:
        How long and how.
    folder:
        The run's; what it holds of an interrupted run is gone on with.
    config:
        Stored with the weights, and compared when a run is resumed.
    score:
        More numbers for each validation's record.
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
        if not state:  # a card tells of the run that began anew
            (folder / "card.json").unlink(missing_ok=True)
        write_json(folder / "config.json", self.config)
        keep_freed_memory()
        # Accelerate keeps the first run's device and precision for all later
        # ones of a process; every run has its own here.
        AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(
            mixed_precision=training.mixed_precision,
            cpu=device == "cpu",
            dataloader_config=DataLoaderConfiguration(split_batches=True),
        )
        self._prepare(model, train, state)

    def _prepare(
        self, model: nn.Module, train: LabelledImages, state: dict[str, Any]
    ) -> None:
        """Set everything to the state that a run stopped in, or to none."""
        training = self.training
        self.step: int = state.get("step", 0)
        self.best: float = state.get("best", math.inf)
        self.stale: int = state.get("stale", 0)
        self.history = read_history(self.folder / "metrics.jsonl", self.step)
        last = self.folder / "last.pt"
        if state:
            with resuming(last):
                model.load_state_dict(state["model"])
        model = model.to(memory_format=torch.channels_last)
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
        """The model without what Accelerate wrapped around it."""
        # Compiled or not, the weights keep their names.
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
        """Take the steps that are left; return the run."""
        average, since = Average(), time.perf_counter()
        with tqdm(
            total=self.training.steps,
            initial=self.step,
            disable=not (self.progress and self.accelerator.is_main_process),
            unit="step",
        ) as bar:
            for batch in () if self._is_over else self.loader:
                average.add(self._take_step(batch))
                bar.update()
                if self.step % 20 == 0 and not bar.disable:
                    terms = average.read().items()
                    bar.set_postfix({k: f"{v:.3f}" for k, v in terms})
                last = self.step == self.training.steps
                if self.step % self.training.eval_every == 0 or last:
                    self._record(average.read(self.accelerator), since)
                    average, since = Average(), time.perf_counter()
                if self._is_over:
                    break
        if self.accelerator.is_main_process:
            self._write_card()
        return Run(self.folder, self.history)

    def _to_device(self, batch: Batch) -> Batch:
        """Move a batch, in the layout that convolutions like best."""
        device = self.accelerator.device
        images = batch.images.to(
            device, non_blocking=True, memory_format=torch.channels_last
        )
        labels = batch.labels.to(device, non_blocking=True)
        return batch._replace(images=images, labels=labels)

    def _take_step(self, batch: Batch) -> Loss:
        accelerator, training = self.accelerator, self.training
        seed = seed_of(training.seed, self.step) + accelerator.process_index
        torch.manual_seed(seed)  # dropout draws from the global stream
        generator = torch.Generator(accelerator.device).manual_seed(seed)
        batch = self._to_device(batch)
        if training.flip:
            batch = flip(batch, torch.Generator().manual_seed(seed))
        for group in self.optimizer.param_groups:
            rate = learning_rate(training, self.step)
            group["lr"] = group["share"] * rate
        self.net.train()
        with accelerator.autocast():
            loss = self.batch_loss(self.net, batch, generator)
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
        for i, batch in enumerate(batches):
            generator = torch.Generator(self.accelerator.device)
            with self.accelerator.autocast():
                loss = self.batch_loss(
                    self.model,
                    self._to_device(batch),
                    generator.manual_seed(i),
                )
            average.add(loss, len(batch.images))
        return average.read()

    def _record(self, trained: dict[str, float], since: float) -> None:
        """Validate, and write down where the run stands."""
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
                "seconds": round(time.perf_counter() - since, 3),
            }
        )
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
        """Write where to resume, whole or not at all."""
        scaler = self.accelerator.scaler
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "step": self.step,
            "best": self.best,
            "stale": self.stale,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_atomically(self.folder / "last.pt", content.getvalue())

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
