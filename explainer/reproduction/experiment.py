"""What a reproduction is asked for, and the steps that it is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from explainer.checkpoints import load_classifier, load_explainer
from explainer.classifiers import Frozen
from explainer.data import First, LabelledImages
from explainer.evaluation.ablation import shortened
from explainer.files import read_json, write_json
from explainer.presets import Preset
from explainer.provenance import command_line, environment

SHORT_STEPS = {"animals": 600}
"""Steps of a trial on the short schedule; 1,000 elsewhere."""

SHORT_SIZE, SHORT_SCALE = 160, 1.4
"""Pixels and magnification of that schedule, for networks that magnify."""


@dataclass(frozen=True)
class Experiment:
    """What is asked for, and where it goes.

    ``limit`` keeps to the first so many images of each split;
    ``initial_weights`` as in :meth:`Preset.train_classifier`; ``device`` is
    "cpu", "cuda" or None for the CPU; ``budget`` names what RISE, EP and
    iGOS++ may take, None for the experiment's own.
    """

    name: str
    preset: Preset
    out: Path
    root: Path | None = None
    limit: int | None = None
    device: str | None = None
    initial_weights: str | None = None
    budget: str | None = None

    def load(
        self, split: str, most: int | None = None, download: bool = False
    ) -> LabelledImages:
        """Return a split of the experiment's data; ``most`` images of it."""
        data = self.preset.load(
            split, root=self.root, limit=self.limit, download=download
        )
        return data if most is None else First(data, most)

    @cached_property
    def classifier(self) -> Frozen:
        """The classifier that the experiment trained, on its device."""
        loaded: Frozen = load_classifier(self.out / "classifier")
        return loaded.to(self.device or "cpu")

    def network(self, folder: str) -> nn.Module:
        """Return the network trained in a folder of ``out``."""
        network = load_explainer(self.out / folder, self.classifier.classes)
        return network.to(self.device or "cpu")

    @property
    def notes(self) -> dict[str, Any]:
        """What the configuration of its trainings says besides."""
        return {"preset": self.name, "limit": self.limit}

    def at_most(self, n: int) -> int:
        """Return a number of images, or the experiment's limit if less."""
        return n if self.limit is None else min(n, self.limit)

    def shortened(self, steps: int | None = None) -> "Experiment":
        """Return the experiment on the short schedule, for trials.

        1,000 steps in one stage (photographs 600, at 160 pixels magnified
        1.4 times), no averaging, the learning rate falling to zero by then;
        never more steps than the full training has.
        """
        preset = self.preset
        steps = steps or SHORT_STEPS.get(self.name, 1000)
        steps = min(steps, preset.explainer_training.steps)
        changes: dict[str, Any] = {}
        if "scale" in preset.explainer_options:
            changes = {
                "size": SHORT_SIZE,
                "explainer_options": {
                    **preset.explainer_options,
                    "scale": SHORT_SCALE,
                },
            }
        short = replace(shortened(preset, steps), **changes)
        return replace(self, preset=short)

    @property
    def rtis_folder(self) -> Path:
        """The folder of the network that was trained with RTIS's loss."""
        return self.out / "rtis" / f"seed-{self.preset.seeds[0]}"

    @property
    def rtis(self) -> nn.Module:
        """That network."""
        return self.network(str(self.rtis_folder.relative_to(self.out)))

    def folder_of(self, kind: str) -> Path:
        """Return where "classifier", "explainer" or "rtis" lies."""
        return self.rtis_folder if kind == "rtis" else self.out / kind

    def measured_with(self, *kinds: str) -> dict[str, str]:
        """Return the SHA-256 of networks' files.

        ``kinds`` are "classifier", "explainer" and "rtis".
        """
        return {
            kind: read_json(self.folder_of(kind) / "card.json")["sha256"]
            for kind in kinds
        }

    def card(self, *kinds: str, **about: Any) -> dict[str, Any]:
        """Return what a results file says of its making.

        ``kinds`` are the networks that it was measured with.
        """
        return {
            **self.notes,
            "measured_with": self.measured_with(*kinds),
            **about,
            "command": command_line(),
            **environment(),
        }


@dataclass(frozen=True)
class Step:
    """One step: what it does, the file it leaves last, and how to run it."""

    name: str
    does: str
    leaves: Path
    run: Callable[[], object]

    @property
    def done(self) -> bool:
        """Whether its file is there; files are written whole or not."""
        return self.leaves.exists()


def once(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a JSON file holds; make and write it if it is not there."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)
