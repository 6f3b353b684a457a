"""The playground with a kernel: every slider redraws the mask.

Built of ipywidgets (``pip install "explainer-book[book]"``) for JupyterLab,
VS Code and Colab. All it computes is done by :mod:`explainer.teaching.playground`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from html import escape

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
    STEPS,
    FineTuned,
    fine_tune,
    optimise_mask,
)
from explainer.teaching.playground_page import NAMES, STOPS, TERMS, redraw

SPAN = (-0.4, 1.0)
"""Of the bars: L_e is never below -log(C) / C, at least -0.37."""


class Playground:
    """Sliders, and what a mask becomes under them.

    The first tab optimises a mask for one image whenever a slider stops.
    The second one fine-tunes a copy of the Explainer under the same weights.
    What goes wrong is shown in the message and raised.

    Parameters
    ----------
    classifier, network:
        F and E.
    images, labels:
        ``(B, 3, H, W)`` and ``(B, C)``, held out of training.
    train:
        What the second tab trains on.
    presets:
        Weights by name; the first are those at the start.
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
        names = [f"image {i + 1}" for i in range(len(images))]
        self.image = widgets.Dropdown(
            options=[(name, i) for i, name in enumerate(names)],
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
                layout=widgets.Layout(width="auto"),
            )
            for c, name in enumerate(train.classes)
        ]
        self.sliders = {
            field: _slider(
                name,
                getattr(start, field),
                max(
                    STOPS[field][-1],
                    *(getattr(w, field) for w in presets.values()),
                ),
            )
            for field, name in NAMES.items()
            if field not in ("a", "b")
        }
        # One slider with two handles: a never passes b.
        self.bounds = widgets.FloatRangeSlider(
            value=(start.a, start.b),
            min=0,
            max=1,
            step=0.01,
            description="a, b",
            readout_format=".2f",
            **_looks(),
        )
        self.view = widgets.HTML()
        self.message = widgets.HTML()

        self.tuning_steps = widgets.IntSlider(
            200, 20, 500, 20, description="steps", **_looks()
        )
        self.button = widgets.Button(
            description="Fine-tune", button_style="primary"
        )
        self.progress = widgets.IntProgress(
            0, 0, 1, layout=widgets.Layout(width="100%")
        )
        self.result = widgets.HTML()
        self.box = self._arranged()

        self.image.observe(self._guarded(self._choose_image), "value")
        self.preset.observe(self._guarded(self._choose_preset), "value")
        for control in (
            *self.targets,
            *self.sliders.values(),
            self.bounds,
        ):
            control.observe(self._guarded(self.redraw), "value")
        self.button.on_click(self._guarded(self.tune))
        self.redraw()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)  # type: ignore[no-untyped-call]

    def _arranged(self) -> widgets.Widget:
        wrap = widgets.Layout(
            grid_template_columns=(
                "repeat(auto-fit, minmax(min(100%, 24rem), 1fr))"
            ),
            width="100%",
        )
        one = widgets.VBox(
            [
                widgets.GridBox([self.image, self.preset], layout=wrap),
                widgets.Box(
                    [widgets.HTML("target classes"), *self.targets],
                    layout=widgets.Layout(
                        flex_flow="row wrap", grid_gap="8px"
                    ),
                ),
                widgets.GridBox(
                    [*self.sliders.values(), self.bounds], layout=wrap
                ),
                self.view,
            ]
        )
        two = widgets.VBox(
            [
                widgets.HTML(
                    "Train a copy of the Explainer under the weights of the "
                    "first tab; its masks of held-out images, before and "
                    "after."
                ),
                self.tuning_steps,
                self.button,
                self.progress,
                self.result,
            ]
        )
        tabs = widgets.Tab([one, two], titles=["One image", "Fine-tune"])
        return widgets.VBox([self.message, tabs])

    def _guarded(
        self, action: Callable[[], None]
    ) -> Callable[[object], None]:
        """Return a callback that shows an exception before it goes on."""

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
        """What the sliders say."""
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
        image = self.images[i : i + 1]
        labels = image.new_tensor([[t.value for t in self.targets]])
        optimised = optimise_mask(
            self.classifier,
            image,
            labels,
            [self.weights],
            steps=self.steps,
            fill=self.fill,
        )
        (frame,) = redraw(
            self.classifier,
            image,
            labels,
            optimised,
            self.explained[i : i + 1],
            self.fill,
        )
        self.view.value = still(frame, "A picture and its mask.", SPAN)

    def tune(self) -> None:
        """Fine-tune a copy of the network; show it before and after."""
        self.button.disabled = True
        self.progress.value, self.progress.max = 0, self.tuning_steps.value

        def on_progress(step: int) -> None:
            self.progress.value = step

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
                on_progress=on_progress,
            )
        finally:
            self.button.disabled = False
        self.result.value = self._compared(tuned)

    def _compared(self, tuned: FineTuned) -> str:
        """Return both networks' masks and terms as HTML."""
        rows = {
            name: [float(o.terms[term].mean()) for o in tuned[1:]]
            for term, name in TERMS.items()
        }
        pictures = [
            "<h4>{}</h4>{}".format(
                when,
                still(
                    Frame(
                        {
                            f"image {i + 1}": overlay_layers(
                                image, masks[self.labels[i] > 0]
                            )
                            for i, (image, masks) in enumerate(
                                zip(self.images, o.class_masks, strict=True)
                            )
                        }
                    ),
                    f"Masks {when} fine-tuning.",
                    SPAN,
                ),
            )
            for when, o in zip(("before", "after"), tuned[1:], strict=True)
        ]
        terms = table(["before", "after"], rows, digits=3)._repr_html_()
        return "".join([terms, *pictures])


def _looks() -> dict[str, object]:
    return {
        "continuous_update": False,  # one redraw a move
        "style": {"description_width": "7.5rem"},
        "layout": widgets.Layout(width="95%"),
    }


def _slider(name: str, value: float, largest: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value=value,
        min=0,
        max=largest,
        step=0.1 if largest > 2 else 0.01,
        description=name,
        readout_format=".2f",
        **_looks(),
    )
