"""The request of a reproduction, and its steps."""

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

SHORT_STEPS = {"scenes": 1200, "animals": 600}
"""Steps of a trial on the short schedule by experiment, else 1,000."""

SHORT_SCALE = 1.0
"""The magnification of that schedule, if the network magnifies."""


@dataclass(frozen=True)
class Experiment:
    """A reproduction: preset, output folder and limits.

    ``limit`` is the largest number of images per split; ``initial_weights``
    as in :meth:`Preset.train_classifier`; ``device`` is "cpu", "cuda" or None
    for the CPU; ``budget`` names the budget of RISE, EP and iGOS++, None for
    the experiment's own.
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
        """Return a split of the data, with at most ``most`` images."""
        data = self.preset.load(
            split, root=self.root, limit=self.limit, download=download
        )
        return data if most is None else First(data, most)

    @cached_property
    def classifier(self) -> Frozen:
        """Return the experiment's trained classifier, on its device."""
        loaded: Frozen = load_classifier(self.out / "classifier")
        return loaded.to(self.device or "cpu")

    def network(self, folder: str) -> nn.Module:
        """Return the network that was trained in a folder of ``out``."""
        network = load_explainer(self.out / folder, self.classifier.classes)
        return network.to(self.device or "cpu")

    @property
    def notes(self) -> dict[str, Any]:
        """Return additional entries of the trainings' configuration."""
        return {"preset": self.name, "limit": self.limit}

    def at_most(self, n: int) -> int:
        """Return ``n``, or the experiment's limit if that is smaller."""
        return n if self.limit is None else min(n, self.limit)

    def shortened(self, steps: int | None = None) -> "Experiment":
        """Return the experiment on the short schedule, for trials.

        It has 1,200 steps in one stage (600 for photographs, without
        magnification) and no averaging. The learning rate falls to zero at
        the last step. It never has more steps than the full training. Images
        keep the size that the classifier was trained with.
        """
        preset = self.preset
        steps = steps or SHORT_STEPS.get(self.name, 1000)
        steps = min(steps, preset.explainer_training.steps)
        options = dict(preset.explainer_options)
        if "scale" in options:
            options["scale"] = SHORT_SCALE
        short = replace(shortened(preset, steps), explainer_options=options)
        return replace(self, preset=short)

    @property
    def rtis_folder(self) -> Path:
        """Return the folder of the network trained with RTIS's loss."""
        return self.out / "rtis" / f"seed-{self.preset.seeds[0]}"

    @property
    def rtis(self) -> nn.Module:
        """Return the network trained with RTIS's loss."""
        return self.network(str(self.rtis_folder.relative_to(self.out)))

    def folder_of(self, kind: str) -> Path:
        """Return the folder of "classifier", "explainer" or "rtis"."""
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
        """Return the card of a results file.

        ``kinds`` are the networks that were measured.
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
    """One step: what it does, the last file it writes, how to run it.

    A step ``by_name`` is no part of the experiment and runs only if it is
    named.
    """

    name: str
    does: str
    leaves: Path
    run: Callable[[], object]
    by_name: bool = False

    @property
    def done(self) -> bool:
        """Return whether its file exists; files are written atomically."""
        return self.leaves.exists()


def once(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a JSON file's content; make and write it if it is missing."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)
