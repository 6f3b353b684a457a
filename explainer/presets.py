"""Presets: all hyper-parameters of an experiment in one dataclass.

The four paper configurations hold the values of the authors' configuration
files. ``scenes`` is the built-in experiment. ``animals`` uses photographs and
can be trained on a laptop. ``shortcut`` fine-tunes the scenes' networks on
images with a planted marker.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from explainer.attribution.rtis import RTISWeights, rtis_loss
from explainer.checkpoints import (
    load_classifier,
    load_explainer,
    read_weights,
    save_weights,
)
from explainer.classifiers import build_classifier
from explainer.data import ANIMALS, LabelledImages, load_data
from explainer.errors import Registry
from explainer.files import read_json, sha256, write_atomically, write_json
from explainer.losses import LossWeights, classification_loss
from explainer.model import EncoderDecoder, build_explainer, start_from
from explainer.provenance import command_line, environment
from explainer.training import (
    MaskedInputs,
    Run,
    TrainingConfig,
    fit_classifier,
    fit_explainer,
    logits_and_labels,
)
from explainer.training.finish import (
    averaged,
    calibration,
    merit,
    scale_logits,
    sharpness_scores,
)


@dataclass(frozen=True)
class Stage:
    """A part of an Explainer's training with options of its own.

    ``steps`` replaces the training's, ``options`` some of the network's.
    """

    steps: int
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """One experiment: data, networks, losses and both trainings.

    ``classes`` None means all of the dataset's. ``encoder_from_classifier``
    starts the Explainer's encoder from the classifier's features, a departure
    from the paper, which starts from an ImageNet backbone. ``plain_training``
    is a first phase of the classifier's training without ``masked_inputs``,
    since whole shapes are learned faster. ``calibrate`` then scales its
    logits to fit the validation labels. ``stages`` splits the Explainer's
    training into consecutive parts, the fastest first; the weights of the
    last ``averaged`` stages are averaged. ``finished`` are options of the
    network that change after its last step. The masks' logits are multiplied
    by the factor in ``sharpen`` that gives the best masks on validation
    images.
    No other choice of a training uses pixel labels. ``seeds`` are the
    Explainer's; if there are several, the reproduction chooses one of the
    runs. ``half`` stores the weights in float16. ``rtis`` are the weights of
    RTIS's loss; a reproduction searches for the weight of its area.
    ``fine_tuned_from`` names a preset whose shipped networks all trainings
    start from; a path names an Explainer of one's own.
    """

    data: str
    size: int
    classifier: str
    classifier_training: TrainingConfig
    explainer: str
    explainer_training: TrainingConfig
    weights: LossWeights
    classes: tuple[str, ...] | None = None
    rtis: RTISWeights = field(default_factory=RTISWeights)
    fill: str = "mean"
    plain_training: TrainingConfig | None = None
    masked_inputs: MaskedInputs = field(default_factory=MaskedInputs)
    calibrate: bool = False
    explainer_options: dict[str, object] = field(default_factory=dict)
    encoder_from_classifier: bool = False
    stages: tuple[Stage, ...] = ()
    averaged: int = 1
    finished: Mapping[str, float] = field(default_factory=dict)
    sharpen: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (42,)
    half: bool = False
    fine_tuned_from: str | None = None

    def objective(self, loss: str) -> dict[str, Any]:
        """Return ``fit_explainer``'s loss for "explainer" or "rtis"."""
        if loss == "rtis":
            return {"weights": self.rtis, "loss": rtis_loss}
        return {"weights": self.weights, "fill": self.fill}

    def load(
        self,
        split: str,
        *,
        root: Path | str | None = None,
        limit: int | None = None,
        download: bool = False,
    ) -> LabelledImages:
        """Return a split of the preset's data; see :func:`load_data`."""
        return load_data(
            self.data,
            split,
            root=root,
            size=self.size,
            classes=self.classes,
            limit=limit,
            download=download,
        )

    def train_classifier(
        self,
        folder: Path,
        train: LabelledImages,
        val: LabelledImages,
        *,
        initial_weights: str | Path | None = None,
        device: str | None = None,
        progress: bool = True,
        notes: Mapping[str, object] | None = None,
    ) -> Path:
        """Train the classifier; return its folder.

        ``folder`` holds a run per phase and the final weights. After an
        interruption the same call resumes. ``initial_weights`` are
        "imagenet", "random" or a path, by default the architecture's own;
        ``notes`` are added to the configuration. Raises
        :class:`~explainer.classifiers.WeightsError` if the weights are not
        available, and the errors of
        :func:`~explainer.training.fit_classifier`.
        """
        initial = initial_weights or (
            "random" if self.classifier == "small_cnn" else "imagenet"
        )
        torch.manual_seed(self.classifier_training.seed)
        classifier = build_classifier(self.classifier, train.classes, initial)
        if self.fine_tuned_from is not None:
            source = load_classifier(self.fine_tuned_from).classifier
            classifier.load_state_dict(source.state_dict())
        config: dict[str, Any] = {
            **(notes or {}),
            "data": self.data,
            "architecture": self.classifier,
            "initial_weights": self.fine_tuned_from or str(initial),
            "classes": list(train.classes),
            "size": self.size,
        }
        plain = MaskedInputs(smoothing=self.masked_inputs.smoothing)
        phases = {
            "plain": (self.plain_training, plain),
            "masked": (self.classifier_training, self.masked_inputs),
        }
        runs = [
            fit_classifier(
                classifier,
                train,
                val,
                training,
                folder=folder / name,
                config=config,
                masked_inputs=masked,
                device=device,
                progress=progress,
            )
            for name, (training, masked) in phases.items()
            if training is not None
        ]
        ending: dict[str, Any] = {}
        if self.calibrate:
            logits, labels = logits_and_labels(classifier, val, device=device)
            by = calibration(logits, labels)
            scale_logits(classifier, by)
            ending["calibrated"] = {
                "by": by,
                "val_before": float(classification_loss(logits, labels)),
                "val_after": float(classification_loss(by * logits, labels)),
            }
        return self._end(folder, classifier, runs, ending, {})

    def train_explainer(
        self,
        folder: Path,
        classifier: nn.Module,
        train: LabelledImages,
        val: LabelledImages,
        *,
        loss: str = "explainer",
        seed: int | None = None,
        initial_weights: str | None = None,
        device: str | None = None,
        progress: bool = True,
        notes: Mapping[str, object] | None = None,
    ) -> Path:
        """Train the Explainer of a classifier; return its folder.

        As :meth:`train_classifier`, with a run per stage. ``loss`` is
        "explainer" or "rtis"; ``seed`` replaces the preset's;
        ``initial_weights="random"`` avoids the download of a backbone's
        ImageNet weights. Raises the errors of
        :func:`~explainer.training.fit_explainer`.
        """
        training = self.explainer_training
        if seed is not None:
            training = replace(training, seed=seed)
        options = dict(self.explainer_options)
        if initial_weights == "random" and "pretrained_backbone" in options:
            options["pretrained_backbone"] = False
        stages = self.stages or (Stage(training.steps),)
        source: Any = None
        start: dict[str, Any] = {}
        if self.fine_tuned_from is not None:
            source = load_explainer(self.fine_tuned_from, kind=loss)
            # So that a run is not resumed after its start has changed.
            start = {"started_from": source.sha256}
        network: nn.Module | None = None
        runs = []
        for number, stage in enumerate(stages, start=1):
            here = {**options, **stage.options}
            network = self._start(
                network, classifier, here, training.seed, source
            )
            run = fit_explainer(
                network,
                classifier,
                train,
                val,
                replace(training, steps=stage.steps),
                folder=folder / f"stage-{number}",
                config={
                    **(notes or {}),
                    "data": self.data,
                    "architecture": self.explainer,
                    "options": here,
                    "fine_tuned_from": self.fine_tuned_from,
                    **start,
                    "classes": list(train.classes),
                    "size": self.size,
                },
                device=device,
                progress=progress,
                **self.objective(loss),
            )
            runs.append(run)
        assert network is not None
        ending: dict[str, Any] = {}
        if self.averaged > 1:
            last = runs[-self.averaged :]
            network.load_state_dict(
                averaged([read_weights(run.weights)[0] for run in last])
            )
            ending["averaged"] = [run.folder.name for run in last]
        here |= self.finished
        for option, value in self.finished.items():
            setattr(network, option, value)
        scores: dict[float, dict[str, float]] = {}
        if self.sharpen != (1.0,):
            scores = sharpness_scores(network, val, self.sharpen)
        if scores:
            by = max(scores, key=lambda k: merit(scores[k]))
            network.sharpen(by)  # type: ignore[operator]
            ending["sharpened"] = {
                "by": by,
                "val": {f"{k:g}": v for k, v in scores.items()},
            }
            here["sharpness"] = network.sharpness
        return self._end(folder, network, runs, ending, {"options": here})

    def _start(
        self,
        before: nn.Module | None,
        classifier: nn.Module,
        options: dict[str, object],
        seed: int,
        source: Any,
    ) -> nn.Module:
        """Return the network that a stage starts from."""
        torch.manual_seed(seed)
        n_classes = len(classifier.classes)  # type: ignore[arg-type]
        network = build_explainer(self.explainer, n_classes, **options)
        if before is not None:
            network.load_state_dict(before.state_dict())
        elif source is not None:
            if isinstance(network, EncoderDecoder):
                # As soft as a new one: a saturated sigmoid has no gradient.
                source.sharpen(network.sharpness / source.sharpness)
            network.load_state_dict(source.state_dict())
        elif self.encoder_from_classifier:
            start_from(network, classifier)
        return network

    def _end(
        self,
        folder: Path,
        module: nn.Module,
        runs: Sequence[Run],
        ending: Mapping[str, Any],
        changed: Mapping[str, Any],
    ) -> Path:
        """Write the final weights, their configuration and card.

        ``ending`` describes what was done after the last step. ``changed``
        replaces entries of the last run's configuration.
        """
        config = read_json(runs[-1].folder / "config.json") | dict(changed)
        weights = folder / "model.safetensors"
        save_weights(
            weights, module, config, torch.float16 if self.half else None
        )
        write_json(folder / "config.json", config)
        cards = {
            run.folder.name: read_json(run.folder / "card.json")
            for run in runs
        }
        rows = [
            json.dumps({"phase": run.folder.name, **row}) + "\n"
            for run in runs
            for row in run.history
        ]
        write_atomically(folder / "metrics.jsonl", "".join(rows).encode())
        write_json(
            folder / "card.json",
            {
                **config,
                **ending,
                "stored_as": "float16" if self.half else "float32",
                "sha256": sha256(weights),
                "train_seconds": sum(
                    card["train_seconds"] for card in cards.values()
                ),
                "phases": cards,
                "command": command_line(),
                "environment": environment(),
            },
        )
        return folder


def _paper(
    data: str,
    classifier: str,
    classifier_learning_rate: float,
    learning_rate: float,
    patience: int,
    weights: LossWeights,
) -> Preset:
    """Return one of the paper's configurations, with their shared values."""
    return Preset(
        data=data,
        size=224,
        classifier=classifier,
        classifier_training=TrainingConfig(
            steps=50_000,
            batch_size=16,
            learning_rate=classifier_learning_rate,
            patience=patience,
        ),
        explainer="deeplabv3_resnet50",
        explainer_options={"pretrained_backbone": True},
        explainer_training=TrainingConfig(
            steps=50_000,
            batch_size=16,
            learning_rate=learning_rate,
            patience=patience,
        ),
        weights=weights,
    )


PRESETS: Registry[Preset] = Registry(
    "preset",
    {
        "scenes": Preset(
            data="scenes",
            size=64,
            classifier="small_cnn",
            plain_training=TrainingConfig(
                steps=9_000,
                batch_size=32,
                learning_rate=1e-2,
                weight_decay=1e-2,
                schedule="cosine",
                warmup=100,
                eval_every=1000,
                flip=True,
            ),
            classifier_training=TrainingConfig(
                steps=1_500,
                batch_size=32,
                learning_rate=3e-3,
                weight_decay=1e-2,
                schedule="cosine",
                warmup=50,
                eval_every=500,
                flip=True,
            ),
            masked_inputs=MaskedInputs(
                masked=0.55, blank=0.05, smoothing=0.02
            ),
            explainer="small",
            explainer_options={"sharpness": 2.0},
            encoder_from_classifier=True,
            # Sharing makes a step three times as long, and outlines are
            # learned last.
            stages=(Stage(3_000), Stage(600, {"affinity_cells": 32})),
            sharpen=(1.0, 2.0, 4.0, 8.0),
            # Runs may confuse classes, so one of several is chosen.
            seeds=(42, 43, 44),
            explainer_training=TrainingConfig(
                steps=3_600,
                batch_size=32,
                learning_rate=4e-3,
                schedule="cosine",
                warmup=100,
                eval_every=500,
                flip=True,
            ),
            # Smaller images than the paper's have more edge per area, hence a
            # smaller weight of the smoothness. Their objects are smaller,
            # hence b. A larger weight of the area fits masks to objects.
            weights=LossWeights(
                entropy=2,
                bound=1,
                target_area=0.6,
                non_target_area=0.5,
                smoothness=0.1,
                b=0.2,
            ),
        ),
        "animals": Preset(
            data="voc2007",
            classes=ANIMALS,
            # The paper's size; smaller images lose outlines.
            size=224,
            classifier="efficientnet_lite0",
            # Only the last layer learns. Trained features would memorise the
            # photographs and recognise them by a corner. The entropy term
            # then makes masks too large.
            classifier_training=TrainingConfig(
                steps=500,
                batch_size=32,
                learning_rate=3e-3,
                schedule="cosine",
                eval_every=250,
                flip=True,
            ),
            masked_inputs=MaskedInputs(
                masked=0.4, blank=0.1, fill="noise", smoothing=0.05
            ),
            calibrate=True,
            explainer="light",
            # For sharper outlines the encoder sees the image magnified, and
            # similar cells share their logits.
            explainer_options={
                "sharpness": 3.0,
                "initial_bias": -1.5,
                "class_activation": True,
                "scale": 1.57,
                "affinity_cells": 40,
            },
            encoder_from_classifier=True,
            stages=(
                Stage(1_000, {"scale": 0.72}),
                Stage(700, {"scale": 1.0}),
                Stage(400, {"scale": 1.43}),
                Stage(500, {"scale": 1.57}),
            ),
            averaged=2,
            # Nearer cells and more rounds follow the outlines better. This
            # was found on validation photographs after the training.
            finished={"affinity_reach": 0.15, "affinity_rounds": 6},
            sharpen=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
            half=True,
            explainer_training=TrainingConfig(
                steps=2_600,
                batch_size=8,
                learning_rate=5e-4,
                encoder_rate=0.1,
                schedule="cosine",
                warmup=100,
                eval_every=500,
                flip=True,
            ),
            fill="noise",
            # A larger weight of the area than the paper's fits masks to the
            # animals. ``encoder_rate`` is small so that the encoder keeps the
            # classes apart, and not zero so that masks learn edges.
            weights=LossWeights(
                entropy=4,
                bound=0.8,
                target_area=0.7,
                non_target_area=0.5,
                smoothness=0.5,
                b=0.5,
            ),
        ),
        "voc2007-vgg16": _paper(
            "voc2007",
            "vgg16",
            1e-5,
            1e-5,
            5,
            LossWeights(
                entropy=1,
                bound=1,
                target_area=0.1,
                non_target_area=0.3,
                smoothness=1,
            ),
        ),
        "voc2007-resnet50": _paper(
            "voc2007",
            "resnet50",
            1e-4,
            1e-4,
            5,
            LossWeights(
                entropy=3,
                bound=0.8,
                target_area=0.01,
                non_target_area=0.3,
                smoothness=1,
            ),
        ),
        "coco2014-vgg16": _paper(
            "coco2014",
            "vgg16",
            1e-5,
            1e-5,
            2,
            LossWeights(
                entropy=1,
                bound=0.3,
                target_area=0.03,
                non_target_area=0.1,
                smoothness=0.3,
            ),
        ),
        "coco2014-resnet50": _paper(
            "coco2014",
            "resnet50",
            1e-4,
            1e-5,
            2,
            LossWeights(
                entropy=3,
                bound=0.1,
                target_area=0.01,
                non_target_area=0.03,
                smoothness=0.05,
            ),
        ),
    },
)
"""Every experiment by name."""

PRESETS["shortcut"] = replace(
    PRESETS["scenes"],
    data="shortcut",
    fine_tuned_from="scenes",
    explainer_options={"sharpness": 2.0, "affinity_cells": 32},
    stages=(),
    plain_training=None,
    classifier_training=TrainingConfig(
        steps=600,
        batch_size=32,
        learning_rate=3e-3,
        weight_decay=1e-2,
        schedule="cosine",
        warmup=30,
        eval_every=100,
        flip=True,
    ),
    # Fewer masked images: the label stays even if a mask hides the marker.
    masked_inputs=MaskedInputs(masked=0.3, blank=0.05, smoothing=0.02),
    explainer_training=TrainingConfig(
        steps=500,
        batch_size=16,
        learning_rate=3e-3,
        schedule="cosine",
        warmup=30,
        eval_every=100,
        flip=True,
    ),
    # The marker is far smaller than an object, hence a.
    weights=replace(PRESETS["scenes"].weights, a=0.02),
    seeds=(42,),
)
