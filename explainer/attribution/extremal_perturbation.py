"""EP, extremal perturbations: the region of a given area that excites most.

Fong, Patrick and Vedaldi, *Understanding Deep Networks via Extremal
Perturbations and Smooth Masks*, ICCV 2019 (arXiv 1910.08485). The settings
are those which Stalder et al. ran. What rests on the paper, and what is ours
or could not be checked, stands under :func:`extremal_perturbation`.

For each area a, EP seeks the smooth mask

    m_a = argmax_m  Phi(m (x) x) - lambda R_a(m),
    R_a(m) = || sort(m) - r_a ||^2,

where ``m (x) x`` blurs the image the more, the lower the mask is, Phi is the
reward read off the classifier's logits, and r_a is the sorted mask of a
binary region of area a. No weight trades area against reward: the area is
given, and lambda only grows until the constraint holds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.attribution.common import evaluating, final_scaling
from explainer.errors import Registry
from explainer.masks import gaussian_blur

AREAS = (0.05, 0.1, 0.2, 0.3)
LEARNING_RATE = 0.01
MOMENTUM = 0.9
AREA_WEIGHT = 300.0
AREA_GROWTH = 1.0035
ITERATIONS = 800
TEMPERATURE = 1 / 20
WIDTH = 224
"""The width of image in which the paper's lengths are given."""


@dataclass(frozen=True)
class Variant:
    """What our EP and that of TorchRay do differently.

    Parameters
    ----------
    start:
        Value of all cells at first. Below 1 each can still rise.
    dampening:
        Share of the gradient that the momentum leaves out after the first
        step: at 0.9, steps are a tenth as long.
    margin:
        Whether a border of zero cells around the image counts in the area,
        as wide as the kernel's sigma less half a cell. So 0.3 of image and
        border is 0.4 of an image 224 wide.
    stretched:
        Whether the growth of the area's weight over 800 steps is
        stretched to fewer, so that it ends where it should. Otherwise it
        is 1.0035 a step, whatever their number.
    """

    start: float
    dampening: float
    margin: bool
    stretched: bool


VARIANTS = Registry(
    "variant of EP",
    {
        "ours": Variant(
            start=0.9, dampening=0.0, margin=False, stretched=True
        ),
        "torchray": Variant(
            start=1.0, dampening=MOMENTUM, margin=True, stretched=False
        ),
    },
)
"""Ours, and that of the library in which the method's authors published it:
TorchRay, which Stalder et al. ran."""


def plain_reward(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of the class, ``(N,)``, of logits ``(N, C)``."""
    return logits.gather(1, classes[:, None])[:, 0]


def contrastive_reward(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of the class less the largest of the others.

    ``(N,)`` of logits ``(N, C)``; with a single class it is that logit.
    """
    if logits.shape[1] == 1:
        return plain_reward(logits, classes)
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return plain_reward(logits, classes) - others.amax(1)


REWARDS: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry(
    "reward", {"contrastive": contrastive_reward, "plain": plain_reward}
)


def bump(distance: Tensor) -> Tensor:
    """Return the kernel k at a distance in units of sigma.

    1 up to half a sigma, then the fall of a Gaussian whose standard
    deviation is half a sigma: a flat top, so that a mask can reach 1. The
    profile is that of public code for the method.
    """
    return torch.exp(-2 * (distance - 0.5).clamp(min=0) ** 2)


def smooth_masks(
    cells: Tensor,
    size: tuple[int, int],
    sigma: float,
    temperature: float = TEMPERATURE,
    margin: Sequence[int] = (0, 0),
) -> Tensor:
    """Turn coarse cells into smooth masks, m(u) = smax_v k(u - v) cell(v).

    Parameters
    ----------
    cells:
        ``(N, h, w)``, values in [0, 1].
    size:
        (H, W) of the masks.
    sigma:
        Width of the kernel, in cells.
    temperature:
        T of the smooth maximum; below 1/80 its exponentials overflow.
    margin:
        Pixels that are added above and below, left and right; the cells
        there are 0. Without a margin, cells repeat beyond the border.

    Returns
    -------
    ``(N, H, W)``, the margin added to H and W, never above the largest cell.
    Where many cells of a kernel are high the smooth maximum stays a little
    below it: all ones give 0.98.

    Notes
    -----
    smax f = sum f exp(f / T) / sum exp(f / T), the mean of the values, each
    weighted by its exponential, lies between their mean (T large) and their
    maximum (T = 0). The kernel is round, so a cell takes part in only as
    many different products k c as there are distances: both sums are
    convolutions, one channel a distance, and no window is ever copied out.
    """
    reach = round(1.5 * sigma)
    steps = torch.arange(-reach, reach + 1, device=cells.device)
    distance = torch.hypot(steps[:, None].float(), steps[None].float())
    kernel = bump(distance / sigma).to(cells.dtype)
    heights = torch.unique(kernel)[:, None, None]
    rings = (kernel == heights).to(cells.dtype)[:, None]
    rims, whole = [], []
    for m, n, pixels in zip(margin, cells.shape[-2:], size, strict=True):
        rims.append(math.ceil(m * n / pixels))
        whole.append(pixels + 2 * round(rims[-1] * pixels / n))
    cells = F.pad(cells, (rims[1], rims[1], rims[0], rims[0]))
    # Repeated beyond the border, constant cells give a constant mask: a
    # border that stood out would win every rank before the reward speaks.
    padded = F.pad(cells[:, None], (reach,) * 4, mode="replicate")
    values = (heights * padded).to(memory_format=torch.channels_last)
    weights = (values / temperature).exp()
    above, below = (
        F.conv2d(terms, rings, groups=len(rings)).sum(1, keepdim=True)
        for terms in (values * weights, weights)
    )
    masks = F.interpolate(above / below, whole, mode="bilinear").squeeze(1)
    # Whole cells were added: cut off what is more than the margin.
    top, left = (
        (w - n) // 2 - m for w, n, m in zip(whole, size, margin, strict=True)
    )
    return masks[..., top : whole[0] - top, left : whole[1] - left]


def area_loss(masks: Tensor, areas: Tensor) -> Tensor:
    """Return R_a, ``(N,)``: how far masks are from binary ones of area a.

    ``masks`` is ``(N, H, W)`` and ``areas`` ``(N,)``, shares of the image.
    The mean over pixels of (sort(m) - r_a)^2, with r_a zeros and then
    round(a H W) ones. Equal pixels are in raster order.
    """
    ascending = masks.flatten(1).sort(dim=1, stable=True).values
    n = ascending.shape[1]
    zeros = n - (areas.float() * n).round()  # more than half can count
    reference = torch.arange(n, device=masks.device) >= zeros[:, None]
    return (ascending - reference.to(masks.dtype)).square().mean(1)


def blur_pyramid(images: Tensor, max_sigma: float, levels: int) -> Tensor:
    """Stack images from sharpest to most blurred, ``(B, levels, 3, H, W)``.

    The standard deviations rise evenly from 0 to ``max_sigma`` pixels. In
    memory the channels come last: then so they do in what is read off the
    pyramid, and that suits convolutions on a CPU.
    """
    sigmas = torch.linspace(0, max_sigma, levels).tolist()
    blurred = [gaussian_blur(images, s).movedim(1, -1) for s in sigmas]
    return torch.stack(blurred, 1).movedim(-1, 2)


def perturb(pyramids: Tensor, which: Tensor, masks: Tensor) -> Tensor:
    """Blur each pixel with sigma = (1 - m) max_sigma: the paper's m (x) x.

    Between the levels of a pyramid the blur is interpolated linearly.
    ``pyramids`` is ``(B, levels, 3, H, W)``, ``which`` ``(N,)`` says which
    of the B images each of the ``(N, H, W)`` masks perturbs; returns
    ``(N, 3, H, W)``.
    """
    levels, _, height, width = pyramids.shape[1:]
    depth = (1 - masks) * (levels - 1)
    lower = depth.detach().long().clamp(0, levels - 2)
    rows = torch.arange(height, device=masks.device)[:, None]
    columns = torch.arange(width, device=masks.device)
    pixels = pyramids.movedim(2, -1)
    image = which[:, None, None]
    sharper = pixels[image, lower, rows, columns]
    softer = pixels[image, lower + 1, rows, columns]
    mixed = torch.lerp(sharper, softer, (depth - lower)[..., None])
    return mixed.movedim(-1, 1)


def _optimise(
    classifier: nn.Module,
    pyramids: Tensor,
    which: Tensor,
    classes: Tensor,
    areas: Tensor,
    cells: Tensor,
    *,
    variant: Variant,
    reward: Callable[[Tensor, Tensor], Tensor],
    sigma: float,
    iterations: int,
    jitter: bool,
    progress: bool,
) -> Tensor:
    """Ascend Phi - lambda R_a from cells ``(N, h, w)``; return the masks."""
    height, width = pyramids.shape[-2:]
    size = (height, width)
    top, left = margin = [
        round(variant.margin * max(0, sigma - 0.5) * pixels / n)
        for pixels, n in zip(size, cells.shape[-2:], strict=True)
    ]
    smooth = partial(smooth_masks, size=size, sigma=sigma, margin=margin)
    inside = (..., slice(top, top + height), slice(left, left + width))
    pace = ITERATIONS / max(1, iterations) if variant.stretched else 1
    velocity = torch.zeros_like(cells)
    for step in tqdm(range(iterations), "EP", disable=not progress):
        cells.requires_grad_(True)
        masks = smooth(cells)
        seen = perturb(pyramids, which, masks[inside])
        if jitter and step % 2:
            seen = seen.flip(3)
        objective = reward(classifier(seen), classes)
        # Without a margin the first mask is constant, and its order chance.
        if step or variant.margin:
            weight = AREA_WEIGHT * AREA_GROWTH ** (step * pace)
            objective = objective - weight * area_loss(masks, areas)
        (gradient,) = torch.autograd.grad(objective.sum(), cells)
        if step:
            gradient = (1 - variant.dampening) * gradient
        velocity = MOMENTUM * velocity + LEARNING_RATE * gradient
        cells = (cells.detach() + velocity).clamp(0, 1)
    return smooth(cells)[inside]


def choose_area(logits: Tensor, full: Tensor) -> Tensor:
    """Return the index of the area to keep, ``(N,)``.

    The first of the perturbed logits ``(N, A)``, in order of rising area,
    that is no lower than the full image's ``(N,)``; the last where all are.
    """
    reached = logits >= full[:, None]
    reached[:, -1] = True
    return reached.int().argmax(1)


def extremal_perturbation(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    generator: torch.Generator | None = None,
    progress: bool = False,
    variant: str = "ours",
    areas: Sequence[float] = AREAS,
    iterations: int = ITERATIONS,
    reward: str = "contrastive",
    jitter: bool = True,
    smoothing: float = 0.09,
    step: float = 7,
    sigma: float = 21,
    max_blur: float = 20,
    levels: int = 8,
    scaling: str = "min_max",
    power: float = 1.0,
    batch_size: int = 32,
) -> Tensor:
    """Explain each target class by its smallest sufficient region.

    Parameters
    ----------
    classifier:
        Maps images to logits ``(B, C)``; left as it was found.
    images:
        ``(B, 3, H, W)`` in [0, 1].
    targets:
        ``(B, C)``, 1 for the classes to explain.
    generator:
        Unused: the method draws nothing at random.
    progress:
        Show a bar over the iterations.
    variant:
        "ours", or "torchray" for what public code does where ours departs
        from it: see :class:`Variant`.
    areas:
        Shares of the image, in (0, 1], optimised side by side; of each
        class the smallest is kept whose perturbed image scores a logit no
        lower than the full image's, else the largest.
    iterations:
        Steps of gradient ascent (Stalder et al. ran 800). From step to
        step the weight of the area grows, from 300.
    reward:
        "contrastive", the logit of the class less the largest other, as the
        authors ran it, or "plain", the logit of the class.
    jitter:
        Show every second step the mirror image.
    smoothing:
        Standard deviation of the Gaussian that blurs the mask kept, as a
        share of the image's shorter side.
    step, sigma, max_blur:
        Distance of the mask's cells, width of the kernel that smooths them,
        and blur of what the mask removes: pixels of an image 224 wide,
        scaled with the width.
    levels:
        Levels of blur from 0 to ``max_blur``, at least 2.
    scaling, power:
        How the map becomes a mask, see
        :func:`~explainer.attribution.common.final_scaling`.
    batch_size:
        Masks (image x class x area) optimised together: bounds memory,
        changes no result.

    Returns
    -------
    ``(B, C, H, W)`` in [0, 1], scaled per class; zero outside the targets.

    Raises
    ------
    ValueError for an unknown reward or variant, and for areas, lengths or
    levels outside of their range.

    Notes
    -----
    The paper's are the objective at a given area, R_a, the smooth maximum
    of kernel times cells, the perturbation by a pyramid of blurs, and the
    contrastive reward. Its text was not at hand. Its authors' library,
    TorchRay, which Stalder et al. ran, has the kernel's profile, the
    temperature of 1/20, the learning rate, the momentum, the area's first
    weight, its growth, and the linear interpolation between blurs.

    TorchRay ascends by SGD with a dampening equal to the momentum, starts
    from ones, and counts the area on a mask with a margin of zeros around
    the image; ``variant="torchray"`` does so too. Ours has neither dampening
    nor margin, starts at 0.9, lets the first step follow the reward alone,
    repeats cells beyond the border, and stretches the growth of the area's
    weight, so that 50 steps end where 800 would. The two differ most where
    steps are few: TorchRay's masks are still far too large then.

    Departures of both from TorchRay: the smooth maximum is taken over a
    window of 1.5 sigma on the grid of cells and interpolated bilinearly to
    pixels, where theirs is computed for each pixel; the mirror image comes
    at every second step from the second, not from the first; the masks are
    those after the last step, not before it; the final blur reflects at the
    border, where theirs fades to 0; the margin is equally wide on all
    sides, where theirs is a cell wider above and at the left. From the
    paper: R_a is a mean, not a sum. Lengths scale with the width: at 64
    pixels a cell measures 2, so the kernel still spans three. Stalder et al.
    merge the classes' masks first and scale the result; scaling each class
    keeps the masks comparable with those of other methods.
    """
    rewarded, how = REWARDS[reward], VARIANTS[variant]
    if not areas or not all(0 < a <= 1 for a in areas):
        raise ValueError(f"areas are shares of the image, not {areas}")
    if not min(step, sigma) > 0:
        raise ValueError(
            f"step and sigma are lengths above 0, not {step} and {sigma}"
        )
    if levels < 2:
        raise ValueError(f"a pyramid has at least 2 levels, not {levels}")
    scaled = final_scaling(scaling, power)
    height, width = images.shape[-2:]
    scale = width / WIDTH
    grid = [max(1, round(n / (step * scale))) for n in (height, width)]
    n_areas = len(areas)
    rising = images.new_tensor(sorted(areas))
    pairs = targets.nonzero()
    per_batch = max(1, batch_size // n_areas)
    explained = images.new_zeros(*targets.shape, height, width)
    with evaluating(classifier), torch.no_grad():
        full = classifier(images)
        pyramids = blur_pyramid(images, max_blur * scale, levels)
        for start in range(0, len(pairs), per_batch):
            image, target = pairs[start : start + per_batch].T
            which = image.repeat_interleave(n_areas)
            classes = target.repeat_interleave(n_areas)
            with torch.enable_grad():
                masks = _optimise(
                    classifier,
                    pyramids,
                    which,
                    classes,
                    rising.repeat(len(image)),
                    images.new_full((len(which), *grid), how.start),
                    variant=how,
                    sigma=sigma / step,
                    reward=rewarded,
                    iterations=iterations,
                    jitter=jitter,
                    progress=progress,
                )
            logits = classifier(perturb(pyramids, which, masks))
            logits = plain_reward(logits, classes).reshape(-1, n_areas)
            kept = choose_area(logits, full[image, target])
            masks = masks.reshape(-1, n_areas, height, width)
            best = masks.take_along_dim(kept[:, None, None, None], 1)
            best = gaussian_blur(best, smoothing * min(height, width))
            explained[image, target] = scaled(best[:, 0])
    return explained
