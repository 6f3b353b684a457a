"""The playground with a kernel: every slider redraws the mask.

It needs ipywidgets (``pip install "explainer-book[book]"``) for JupyterLab,
VS Code and Colab. :mod:`explainer.teaching.playground` computes the masks.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from explainer.classifiers import evaluating
from explainer.data import LabelledImages
from explainer.losses import LossWeights
from explainer.teaching.dials import Frame, still
from explainer.teaching.display import table
from explainer.teaching.pictures import overlay_layers
from explainer.teaching.playground import (
    DIALS,
    STEPS,
    STOPS,
    TERMS,
    FineTuned,
    fine_tune,
    optimise_mask,
    playground_frames,
)

SPAN = (-0.4, 1.0)
"""Lower end of the bars: L_e is at least -log(C) / C >= -0.37."""

LOOKS: dict[str, Any] = {
    "continuous_update": False,  # one redraw per move
    "readout_format": ".2f",
    "style": {"description_width": "7.5rem"},
    "layout": {"width": "95%"},
}

COLUMNS = {
    "grid_template_columns": (
        "repeat(auto-fit, minmax(min(100%, 24rem), 1fr))"
    ),
    "width": "100%",
}
"""A layout with as many columns as fit."""


class Playground:
    """Sliders for the loss weights, and the masks under these weights.

    The first tab optimises a mask for one image whenever a slider stops. The
    second tab fine-tunes a copy of the Explainer under the same weights. An
    error is shown in the message and raised.

    Parameters
    ----------
    classifier, network:
        F and E.
    images, labels:
        ``(B, 3, H, W)`` and ``(B, C)``, held out of training.
    train:
        The training data of the second tab.
    presets:
        Weights by name; the sliders start at the first.
    fill, steps:
        See :func:`explainer.teaching.playground.optimise_mask`.
    """

    def __init__(
        self,
        classifier: nn.Module,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        train: LabelledImages,
        *,
        presets: Mapping[str, LossWeights],
        fill: str = "mean",
        steps: int = STEPS,
    ) -> None:
        self.classifier, self.network = classifier, network
        self.images, self.labels, self.train = images, labels, train
        self.presets, self.fill, self.steps = dict(presets), fill, steps
        with evaluating(network), torch.no_grad():
            self.explained: Tensor = network(images).sigmoid()
        self._waiting = False

        start = next(iter(presets.values()))
        self.image = widgets.Dropdown(
            options=[(f"image {i + 1}", i) for i in range(len(images))],
            description="image",
        )
        self.preset = widgets.Dropdown(
            options=list(presets), description="preset"
        )
        self.targets = [
            widgets.Checkbox(
                value=bool(labels[0, c]),
                description=name,
                indent=False,
                layout={"width": "auto"},
            )
            for c, name in enumerate(train.classes)
        ]
        self.sliders = {
            field: self._slider(field, start)
            for field in DIALS
            if field not in ("a", "b")
        }
        # One slider with two handles, so that a never exceeds b.
        self.bounds = widgets.FloatRangeSlider(
            value=(start.a, start.b),
            min=0,
            max=1,
            step=0.01,
            description="a, b",
            **LOOKS,
        )
        self.view, self.message = widgets.HTML(), widgets.HTML()
        self.tuning_steps = widgets.IntSlider(
            200,
            20,
            500,
            20,
            description="steps",
            **{**LOOKS, "readout_format": "d"},
        )
        self.button = widgets.Button(
            description="Fine-tune", button_style="primary"
        )
        self.progress = widgets.IntProgress(0, 0, 1, layout={"width": "100%"})
        self.result = widgets.HTML()
        self.box = self._arranged()

        self.image.observe(self._guarded(self._choose_image), "value")
        self.preset.observe(self._guarded(self._choose_preset), "value")
        for control in (*self.targets, *self.sliders.values(), self.bounds):
            control.observe(self._guarded(self.redraw), "value")
        self.button.on_click(self._guarded(self.tune))
        self.redraw()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)  # type: ignore[no-untyped-call]

    def _slider(self, field: str, start: LossWeights) -> widgets.FloatSlider:
        """Return a slider whose range covers the stops and all presets."""
        of_presets = [getattr(w, field) for w in self.presets.values()]
        largest = max(STOPS[field][-1], *of_presets)
        return widgets.FloatSlider(
            value=getattr(start, field),
            min=0,
            max=largest,
            step=0.1 if largest > 2 else 0.01,
            description=DIALS[field],
            **LOOKS,
        )

    def _arranged(self) -> widgets.Widget:
        classes = widgets.Box(
            [widgets.HTML("target classes"), *self.targets],
            layout={"flex_flow": "row wrap", "grid_gap": "8px"},
        )
        one = [
            widgets.GridBox([self.image, self.preset], layout=COLUMNS),
            classes,
            widgets.GridBox(
                [*self.sliders.values(), self.bounds], layout=COLUMNS
            ),
            self.view,
        ]
        two = [
            widgets.HTML(
                "Train a copy of the Explainer under the weights of the "
                "first tab; its masks of held-out images, before and after."
            ),
            self.tuning_steps,
            self.button,
            self.progress,
            self.result,
        ]
        tabs = widgets.Tab(
            [widgets.VBox(one), widgets.VBox(two)],
            titles=["One image", "Fine-tune"],
        )
        return widgets.VBox([self.message, tabs])

    def _guarded(
        self, action: Callable[[], None]
    ) -> Callable[[object], None]:
        """Return a callback that shows an exception before raising it."""

        def callback(_: object) -> None:
            self.message.value = ""
            try:
                action()
            except Exception as error:
                what = escape(f"{type(error).__name__}: {error}")
                self.message.value = f'<b role="alert">{what}</b>'
                raise

        return callback

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Redraw once after many controls have moved."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        self.redraw()

    @property
    def weights(self) -> LossWeights:
        """Return the weights that the sliders show."""
        a, b = self.bounds.value
        return replace(
            self.presets[self.preset.value],
            a=a,
            b=b,
            **{field: s.value for field, s in self.sliders.items()},
        )

    def _choose_image(self) -> None:
        with self._at_once():
            for c, target in enumerate(self.targets):
                target.value = bool(self.labels[self.image.value, c])

    def _choose_preset(self) -> None:
        weights = self.presets[self.preset.value]
        with self._at_once():
            for field, slider in self.sliders.items():
                slider.value = getattr(weights, field)
            self.bounds.value = (weights.a, weights.b)

    def redraw(self) -> None:
        """Optimise the mask of the chosen image and show it."""
        if self._waiting:
            return
        i = self.image.value
        image, explained = self.images[i : i + 1], self.explained[i : i + 1]
        labels = image.new_tensor([[t.value for t in self.targets]])
        optimised = optimise_mask(
            self.classifier,
            image,
            labels,
            [self.weights],
            steps=self.steps,
            fill=self.fill,
        )
        (frame,) = playground_frames(
            self.classifier, image, labels, optimised, explained, self.fill
        )
        self.view.value = still(frame, "A picture and its mask.", SPAN)

    def tune(self) -> None:
        """Fine-tune a copy of the network; show it before and after."""
        self.button.disabled = True
        self.progress.value, self.progress.max = 0, self.tuning_steps.value
        try:
            tuned = fine_tune(
                self.network,
                self.classifier,
                self.train,
                self.images,
                self.labels,
                weights=self.weights,
                steps=self.tuning_steps.value,
                fill=self.fill,
                on_progress=lambda step: self.progress.set_trait(
                    "value", step
                ),
            )
        finally:
            self.button.disabled = False
        self.result.value = self._compared(tuned)

    def _compared(self, tuned: FineTuned) -> str:
        """Return the terms and masks of before and after as HTML."""
        looks = {"before": tuned.before, "after": tuned.after}
        terms = {
            name: [float(o.terms[term].mean()) for o in looks.values()]
            for term, name in TERMS.items()
        }
        html = table(list(looks), terms, digits=3)._repr_html_()
        for when, optimised in looks.items():
            masks = {
                f"image {i + 1}": overlay_layers(image, of_classes[y > 0])
                for i, (image, of_classes, y) in enumerate(
                    zip(
                        self.images,
                        optimised.class_masks,
                        self.labels,
                        strict=True,
                    )
                )
            }
            html += f"<h4>{when}</h4>"
            html += still(Frame(masks), f"Masks {when} fine-tuning.", SPAN)
        return html
