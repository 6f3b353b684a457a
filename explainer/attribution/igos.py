"""iGOS++: the cells whose removal hurts, and whose presence suffices."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.attribution.common import (
    evaluating,
    final_scaling,
    seeded,
)
from explainer.classifiers import IMAGENET, probabilities
from explainer.errors import Registry
from explainer.masks import make_fill

AUTHORS = {"iterations": 20, "steps": 15}
"""The two counts as Stalder et al. ran them: iGOS++'s defaults, swapped."""

CELL = 8
"""Pixels along a cell's side: an image of 224 pixels has 28 cells."""

CELLS = 28
"""Cells along a side of the paper's masks, for which BTV's weight is set."""

ALPHA = 1000.0
ALPHA_DECAY = 0.2
ARMIJO = 1e-4
SIGNS = (1.0, -1.0, 1.0, -1.0)


def bilateral_tv(
    masks: Tensor, images: Tensor, beta: float = 2.0, sigma: float = 0.01
) -> Tensor:
    """Return BTV, ``(N,)``: variation of a mask where its image is flat.

    It is the sum over neighbouring pixels u, v of ``|m(u) - m(v)|^beta``,
    weighted by ``exp(-|I(u) - I(v)|^2 / sigma^2)``: at an edge of the image
    a mask may change at low cost. ``masks`` is ``(N, H, W)``, ``images``
    ``(N, 3, H, W)``.
    """
    total = masks.new_zeros(len(masks))
    for dim in (-2, -1):
        edges = images.diff(dim=dim).square().sum(1)
        steps = masks.diff(dim=dim).abs() ** beta
        total = total + (torch.exp(-edges / sigma**2) * steps).sum((1, 2))
    return total


def two_variations(
    cells: Tensor, masks: Tensor, images: Tensor, sigma: float = 0.01
) -> Tensor:
    """Return (TV + BTV) / 2, ``(N,)``, as the authors of iGOS++ compute it.

    TV is the mean squared difference of neighbouring cells ``(N, h, w)``,
    vertical plus horizontal, independent of the image. BTV is the same for
    the upsampled ``masks`` ``(N, H, W)``, weighted by the mean over colours
    of ``exp(-|I(u) - I(v)|^2 / sigma)``. ``images`` ``(N, 3, H, W)`` are
    normalised as the classifier's.
    """
    total = masks.new_zeros(len(masks))
    for dim in (-2, -1):
        flat = torch.exp(-images.diff(dim=dim).square() / sigma).mean(1)
        coarse = cells.diff(dim=dim).square()
        fine = flat * masks.diff(dim=dim).square()
        for terms in (coarse, fine):  # a single cell has no neighbours
            total = total + terms.sum((1, 2)) / max(1, terms[0].numel())
    return total / 2


@dataclass(frozen=True)
class Variant:
    """The settings in which our iGOS++ and its authors' code differ.

    Parameters
    ----------
    variation:
        Function that returns the term weighted by tv, ``(N,)``. It takes M
        on the cells, M on the pixels, the images in [0, 1], and their
        normalised unit ``(3, 1, 1)``.
    share:
        Factor on the scores' gradient in the direction of a step. In F the
        scores always have the factor 1.
    noisy:
        Whether the line search uses scores averaged along the path, with
        new noise for each step that it tries; otherwise it uses F itself.
    least:
        Step length below which the line search stops. Ours is 0.1; shorter
        steps move no cell visibly.
    insists:
        Whether a step that short is taken anyway; otherwise the masks stay
        as they are. Even a short step can matter, since the final scaling
        stretches it to [0, 1].
    probability:
        Function from a classifier and its logits to scores ``(N, C)``. Ours
        is the classifier's own probability, a sigmoid for several labels. A
        softmax over few classes may not change when the object is removed.
    """

    variation: Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]
    share: float
    noisy: bool
    least: float
    insists: bool
    probability: Callable[[nn.Module, Tensor], Tensor]


def _by_outline(
    cells: Tensor, masks: Tensor, images: Tensor, unit: Tensor | float
) -> Tensor:
    """Return BTV of the pixels, scaled to be comparable between grids."""
    # An outline's length in cells grows with the cells along a side.
    n = CELLS * math.sqrt(cells[0].numel())
    return bilateral_tv(masks, images) / n


def _by_neighbours(
    cells: Tensor, masks: Tensor, images: Tensor, unit: Tensor | float
) -> Tensor:
    """Return :func:`two_variations` of the normalised images."""
    return two_variations(cells, masks, images / unit)


VARIANTS = Registry(
    "variant of iGOS++",
    {
        "ours": Variant(
            _by_outline,
            share=1.0,
            noisy=False,
            least=0.1,
            insists=False,
            probability=probabilities,
        ),
        "khorram": Variant(
            _by_neighbours,
            share=0.5,
            noisy=True,
            least=1e-5,
            insists=True,
            probability=lambda _, logits: logits.softmax(1),
        ),
    },
)
"""Our variant, and that of iGOS++'s authors, Khorram, Lawson and Fuxin.
Stalder et al. ran a copy of the authors' code."""


@dataclass(frozen=True)
class _Objective:
    """iGOS++'s objective F for N pairs of an image and a class.

    ``images`` and their blurred ``baselines`` are ``(N, 3, H, W)``,
    ``classes`` is ``(N,)``; masks are ``(N, 2, h, w)``, deletion first.
    ``unit`` converts a difference in normalised images to [0, 1].
    """

    classifier: nn.Module
    images: Tensor
    baselines: Tensor
    classes: Tensor
    l1: float
    tv: float
    unit: Tensor | float = 1.0
    variant: Variant = VARIANTS["ours"]

    def __getitem__(self, items: Tensor) -> "_Objective":
        """Return the objective of some of the pairs."""
        return replace(
            self,
            images=self.images[items],
            baselines=self.baselines[items],
            classes=self.classes[items],
        )

    def _upsampled(self, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the two masks and their product, ``(N, H, W)`` each."""
        three = torch.cat([masks, masks.prod(1, keepdim=True)], 1)
        size = self.images.shape[-2:]
        x, y, both = F.interpolate(three, size, mode="bilinear").unbind(1)
        return x, y, both

    def scores(
        self, masks: Tensor, share: float = 1.0, noise: Tensor | float = 0.0
    ) -> Tensor:
        """Return the signed sum of the four probabilities, ``(N,)``.

        ``share`` multiplies the masks: it is the position on the path of
        the integrated gradient.
        """
        x, y, both = (share * m for m in self._upsampled(masks))
        shown = torch.stack([x, 1 - y, both, 1 - both], 1)[:, :, None]
        seen = torch.lerp(
            self.baselines[:, None], self.images[:, None], shown
        )
        logits = self.classifier((seen + noise).flatten(0, 1))
        index = self.classes.repeat_interleave(len(SIGNS))[:, None]
        p = self.variant.probability(self.classifier, logits)
        p = p.gather(1, index).reshape(-1, len(SIGNS))
        signed: Tensor = p @ p.new_tensor(SIGNS)
        return signed

    def penalty(self, masks: Tensor) -> Tensor:
        """Return g(M), ``(N,)``, of M, the product of the two masks."""
        _, _, both = self._upsampled(masks)
        cells = masks.prod(1)
        removed = (1 - cells).mean((1, 2))
        variation = self.variant.variation(
            cells, both, self.images, self.unit
        )
        return self.l1 * removed + self.tv * variation

    def __call__(self, masks: Tensor) -> Tensor:
        """Return F, ``(N,)``."""
        return self.scores(masks) + self.penalty(masks)

    def along_path(self, masks: Tensor, noises: Tensor) -> Tensor:
        """Return F with the mean of its scores along the path, ``(N,)``.

        ``noises`` ``(S, 3, H, W)`` holds the noise added at each of S steps.
        """
        scores = [
            self.scores(masks, (s + 1) / len(noises), noise)
            for s, noise in enumerate(noises)
        ]
        return torch.stack(scores).mean(0) + self.penalty(masks)


def _spawned(source: torch.Generator) -> torch.Generator:
    """Return a new CPU generator, seeded by a draw from ``source``."""
    seed = torch.randint(2**62, (), generator=source, device=source.device)
    return torch.Generator().manual_seed(int(seed))


def _normalised_unit(classifier: nn.Module) -> Tensor:
    """Return the [0, 1] size of one normalised unit, ``(3, 1, 1)``."""
    std = getattr(classifier, "std", None)
    if not isinstance(std, Tensor):
        std = torch.tensor(IMAGENET[1])
    return std.reshape(3, 1, 1)


def _total_gradient(
    objective: _Objective, masks: Tensor, steps: int, noises: Tensor
) -> Tensor:
    """Return the scores' integrated gradient plus the penalty's gradient.

    The scores' gradient is multiplied by the variant's ``share``.
    """
    share = objective.variant.share / steps
    with torch.enable_grad():
        masks = masks.detach().requires_grad_(True)
        value = objective.penalty(masks).sum()
        (total,) = torch.autograd.grad(value, masks)
        for s in range(steps):
            value = objective.scores(masks, (s + 1) / steps, noises[s]).sum()
            (gradient,) = torch.autograd.grad(value, masks)
            total = total + share * gradient
    return total


Judge = Callable[[_Objective, Tensor], Tensor]
"""Maps an objective and masks ``(N, 2, h, w)`` to values ``(N,)``."""


def _quietly(objective: _Objective, masks: Tensor) -> Tensor:
    """Return F itself, ``(N,)``."""
    return objective(masks)


def _line_search(
    objective: _Objective,
    masks: Tensor,
    values: Tensor,
    direction: Tensor,
    judge: Judge,
    variant: Variant,
) -> tuple[Tensor, Tensor]:
    """Return the masks after the longest accepted step, and their values.

    Each item has a step length of its own. ``judge`` maps an objective and
    masks to values ``(N,)``; ``values`` are those of the current masks. The
    variant's ``insists`` decides what happens where no step is accepted.
    """
    masks, values = masks.clone(), values.clone()
    pending = torch.arange(len(masks), device=masks.device)
    alpha = ALPHA
    while len(pending) and alpha >= variant.least:
        old = masks[pending]
        new = (old - alpha * direction[pending]).clamp(0, 1)
        asked = ARMIJO * (direction[pending] * (old - new)).sum((1, 2, 3))
        found = judge(objective[pending], new)
        accepted = found < values[pending] - asked
        masks[pending[accepted]] = new[accepted]
        values[pending[accepted]] = found[accepted]
        pending = pending[~accepted]
        alpha *= ALPHA_DECAY
    if variant.insists:
        short = masks[pending] - alpha * direction[pending]
        masks[pending] = short.clamp(0, 1)
    return masks, values


def _optimise(
    objective: _Objective,
    masks: Tensor,
    *,
    iterations: int,
    steps: int,
    noise: Tensor,
    generator: torch.Generator,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the masks that minimise F, and the history of F.

    Masks are ``(N, 2, h, w)``. The history ``(iterations + 1, N)`` holds the
    values used by the line search. ``noise`` ``(3, 1, 1)`` is the standard
    deviation of the noise along the path.
    """

    def drawn(source: torch.Generator) -> Tensor:
        # One draw for all items: masks do not depend on the batch.
        shape = (steps, *objective.images.shape[1:])
        draws = torch.randn(shape, generator=source, device=source.device)
        return noise * draws.to(masks)

    def noisily(source: torch.Generator) -> Judge:
        return lambda some, at: some.along_path(at, drawn(source))

    judge: Judge = _quietly
    with torch.no_grad():
        history = [objective(masks)]
        for _ in tqdm(range(iterations), "iGOS++", disable=not progress):
            direction = _total_gradient(
                objective, masks, steps, drawn(generator)
            )
            values = history[-1]
            if objective.variant.noisy:
                # A separate generator: the number of steps tried depends on
                # the items, and later draws must not.
                judge = noisily(_spawned(generator))
                values = judge(objective, masks)
            masks, values = _line_search(
                objective, masks, values, direction, judge, objective.variant
            )
            history.append(values)
    return masks, torch.stack(history)


def igos(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    variant: str = "ours",
    iterations: int = 15,
    steps: int = 20,
    cells: int | None = None,
    l1: float = 1.0,
    tv: float = 20.0,
    noise: float = 0.2,
    scaling: str = "min_max",
    power: float = 1.0,
    batch_size: int = 16,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return iGOS++'s masks of the target classes.

    Two coarse masks are optimised: Mx deletes the class, and the complement
    of My inserts it. Their product M does both. With
    Phi(m) = m * I + (1 - m) * blurred I and f_c the class's probability,

    F = f_c(Phi(Mx)) - f_c(Phi(1 - My)) + f_c(Phi(M)) - f_c(Phi(1 - M))
        + l1 mean(1 - M) + tv BTV(M) / 28^2

    is minimised along its integrated gradient: for the four scores, the mean
    over s = 1...S of the gradient at s/S times the masks, on noisy images. A
    back-tracking line search sets each step's length (Khorram, Lawson and
    Fuxin, *iGOS++: Integrated Gradient Optimized Saliency by Bilateral
    Perturbations*, CHIL 2021, arXiv 2012.15783). The result is 1 - M, scaled
    to [0, 1] by its least and largest value.

    Parameters
    ----------
    classifier:
        Maps images to logits ``(B, C)``.
    images, targets:
        ``(B, 3, H, W)`` in [0, 1] and ``(B, C)``, 1 for a target class.
    variant:
        "ours", or "khorram" for the settings of its authors' code: see
        :class:`Variant`.
    iterations, steps:
        Steps of descent, and S. The defaults are iGOS++'s;
        ``**AUTHORS`` gives the two as Stalder et al. ran them, swapped.
    cells:
        Masks have ``cells`` x ``cells`` cells. By default a cell measures 8
        pixels, so an image of 224 pixels has the paper's 28 x 28.
    l1, tv:
        Weights of the mean of 1 - M and of the variation, which is
        :func:`bilateral_tv` in ours and :func:`two_variations` in theirs.
    noise:
        Standard deviation of the noise, in units of the classifier's
        normalised images (ImageNet's if the module has no ``std``).
    scaling, power:
        How the map becomes a mask, see
        :func:`~explainer.attribution.common.final_scaling`.
    batch_size:
        Pairs of an image and a class that are optimised together; the
        classifier sees four times as many images at once. It limits memory
        and changes no result.
    generator:
        Source of the noise; without one, a generator of seed 0. All images
        of the batch share the noise.
    progress:
        Show a bar with one step per iteration.

    Returns
    -------
    Masks ``(B, C, H, W)`` in [0, 1].

    Raises
    ------
    ValueError for an unknown variant, and for no steps or cells.

    Notes
    -----
    Sources. From the paper's abstract (its full text could not be checked):
    masks that delete and insert, optimised together, and a bilateral total
    variation. From its authors' code, a copy of which Stalder et al. ran:
    the objective, with penalties that are means over the cells of M; the
    path of the integration; the noise on the composites along it; the
    counts, l1, tv, beta and sigma; the softmax score; and a line search from
    1000 with decay 0.2 and slope 1e-4. (The command in its documentation has
    l1 10 and 20 iterations; Stalder et al. ran l1 1.)

    The authors' code, and ``variant="khorram"``:

    - The score is a softmax of the logits. Over few classes it may stay at 1
      whatever is removed.
    - M's variation is weighted by ``exp(-d^2 / sigma)`` of normalised
      colours, and averaged with an unweighted one of the cells.
    - The scores' gradient is halved, but not the scores in the line search.
    - The line search uses scores along the path with new noise each time, so
      F may rise. A step below 1e-5 is taken even if not accepted.

    Ours:

    - The score is the classifier's own probability, a sigmoid where an image
      may have several labels.
    - M's variation is weighted by ``exp(-d^2 / sigma^2)`` of colours in
      [0, 1], and is far weaker for the same mask. There is no other one. An
      outline costs the same on any grid as on 28 x 28.
    - The line search uses F without noise, so F falls at every accepted
      step. It stops below 0.1: a shorter step moves no cell visibly.

    Departures of both variants from the authors' code:

    - The line search asks for a decrease in proportion to the step after
      clipping to [0, 1].
    - Cells are interpolated from their centres, after the product. In theirs
      the outer cells lie on the image's border, and the scores multiply the
      upsampled masks.
    - The noise is the same for the four scores.
    - For vertical differences theirs averages colours before it squares;
      ours never does.
    - The baseline is a blur with a standard deviation of a twelfth of the
      width; theirs is a nearly flat one over 51 of 224 pixels.
    """
    how = VARIANTS[variant]
    if steps < 1 or (cells is not None and cells < 1):
        raise ValueError(
            f"iGOS++ needs at least one step and one cell, not {steps} "
            f"and {cells}"
        )
    scaled = final_scaling(scaling, power)
    height, width = images.shape[-2:]
    if cells is None:
        grid = [max(1, round(n / CELL)) for n in (height, width)]
    else:
        grid = [cells, cells]
    source = seeded(generator)
    seed = torch.randint(
        2**62, (), generator=source, device=source.device
    ).item()
    unit = _normalised_unit(classifier).to(images)
    pairs = targets.nonzero()
    explained = images.new_zeros(*targets.shape, height, width)
    with evaluating(classifier):
        baselines = make_fill("blur", images, classifier)
        for start in range(0, len(pairs), batch_size):
            which, classes = pairs[start : start + batch_size].T
            objective = _Objective(
                classifier,
                images[which],
                baselines[which],
                classes,
                l1,
                tv,
                unit,
                how,
            )
            masks, _ = _optimise(
                objective,
                images.new_ones(len(which), 2, *grid),
                iterations=iterations,
                steps=steps,
                noise=noise * unit,
                generator=torch.Generator().manual_seed(int(seed)),
                progress=progress,
            )
            removed = 1 - masks.prod(1, keepdim=True)
            removed = F.interpolate(removed, (height, width), mode="bilinear")
            explained[which, classes] = scaled(removed[:, 0])
    return explained
