"""EP, extremal perturbations: the region of a given area that scores highest.

Fong, Patrick and Vedaldi, *Understanding Deep Networks via Extremal
Perturbations and Smooth Masks*, ICCV 2019 (arXiv 1910.08485). The settings
are those of Stalder et al. The notes of :func:`extremal_perturbation` say
what comes from the paper, what is ours and what could not be checked.

For each area a, EP seeks the smooth mask

    m_a = argmax_m  Phi(m (x) x) - lambda R_a(m),
    R_a(m) = || sort(m) - r_a ||^2,

where ``m (x) x`` blurs a pixel more the lower its mask value is, Phi is the
reward computed from the classifier's logits, and r_a is the sorted mask of a
binary region of area a. The area is a constraint, not traded against the
reward: lambda grows from step to step to enforce it.
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
"""The paper's lengths are in pixels of an image of this width."""


@dataclass(frozen=True)
class Variant:
    """The settings in which our EP and TorchRay's differ.

    Parameters
    ----------
    start:
        Initial value of all cells. Below 1 a cell can still rise.
    dampening:
        Share of the gradient that momentum leaves out after the first step.
        At 0.9 steps are a tenth as long.
    margin:
        Whether the area includes a border of zero cells around the image,
        as wide as the kernel's sigma less half a cell. With it an area of
        0.3 is 0.4 of an image 224 pixels wide.
    stretched:
        Whether the area's weight ends at the same value for any number of
        steps as after 800. Otherwise it grows by 1.0035 per step.
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
"""Our variant, and that of TorchRay, the library of EP's authors, which
Stalder et al. ran."""


def plain_reward(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of each row's class, ``(N,)`` from ``(N, C)``."""
    return logits.gather(1, classes[:, None])[:, 0]


def contrastive_reward(logits: Tensor, classes: Tensor) -> Tensor:
    """Return each row's class logit minus the largest other logit.

    The shape is ``(N,)`` for logits ``(N, C)``. With a single class it is
    that class's logit.
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

    It is 1 up to half a sigma, so that a mask can reach 1. Then it falls
    like a Gaussian with a standard deviation of half a sigma. This profile
    comes from public code for the method.
    """
    return torch.exp(-2 * (distance - 0.5).clamp(min=0) ** 2)


def smooth_masks(
    cells: Tensor,
    size: tuple[int, int],
    sigma: float,
    temperature: float = TEMPERATURE,
    margin: Sequence[int] = (0, 0),
) -> Tensor:
    """Return smooth masks of coarse cells: m(u) = smax_v k(u - v) cell(v).

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
        Pixels added above and below, and left and right. The cells there
        are 0. Without a margin, cells repeat beyond the border.

    Returns
    -------
    ``(N, H, W)`` with the margin added to H and W, never above the largest
    cell. The smooth maximum can stay a little below it: cells of 1 give
    0.98.

    Notes
    -----
    smax f = sum f exp(f / T) / sum exp(f / T) is a mean weighted by
    exponentials. It lies between the plain mean (T large) and the maximum
    (T to 0). The kernel depends only on the distance, so both sums are
    convolutions with one channel per distance.
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
    # Repeated beyond the border, constant cells give a constant mask.
    # Otherwise the area term would rank the border apart from the start.
    padded = F.pad(cells[:, None], (reach,) * 4, mode="replicate")
    values = (heights * padded).to(memory_format=torch.channels_last)
    weights = (values / temperature).exp()
    above, below = (
        F.conv2d(terms, rings, groups=len(rings)).sum(1, keepdim=True)
        for terms in (values * weights, weights)
    )
    masks = F.interpolate(above / below, whole, mode="bilinear").squeeze(1)
    # Whole cells were added: crop to the margin.
    top, left = (
        (w - n) // 2 - m for w, n, m in zip(whole, size, margin, strict=True)
    )
    return masks[..., top : whole[0] - top, left : whole[1] - left]


def area_loss(masks: Tensor, areas: Tensor) -> Tensor:
    """Return R_a, ``(N,)``: how far masks are from binary ones of area a.

    R_a is the mean over pixels of (sort(m) - r_a)^2. The reference r_a is
    zeros followed by round(a H W) ones. Equal pixels are sorted in raster
    order. ``masks`` is ``(N, H, W)``; ``areas`` ``(N,)`` are shares of the
    image.
    """
    ascending = masks.flatten(1).sort(dim=1, stable=True).values
    n = ascending.shape[1]
    zeros = n - (areas.float() * n).round()  # more than half can count
    reference = torch.arange(n, device=masks.device) >= zeros[:, None]
    return (ascending - reference.to(masks.dtype)).square().mean(1)


def blur_pyramid(images: Tensor, max_sigma: float, levels: int) -> Tensor:
    """Return images from sharp to blurred, ``(B, levels, 3, H, W)``.

    The standard deviations rise evenly from 0 to ``max_sigma`` pixels. In
    memory the channels come last, since convolutions on a CPU are faster
    that way.
    """
    sigmas = torch.linspace(0, max_sigma, levels).tolist()
    blurred = [gaussian_blur(images, s).movedim(1, -1) for s in sigmas]
    return torch.stack(blurred, 1).movedim(-1, 2)


def perturb(pyramids: Tensor, which: Tensor, masks: Tensor) -> Tensor:
    """Return the paper's m (x) x, ``(N, 3, H, W)``: images blurred by masks.

    Each pixel is blurred with sigma = (1 - m) max_sigma, interpolated
    linearly between the levels of a pyramid. ``pyramids`` is
    ``(B, levels, 3, H, W)`` and ``masks`` ``(N, H, W)``; ``which`` ``(N,)``
    is the index of the image that each mask perturbs.
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
    """Return the masks after ascending Phi - lambda R_a from the cells.

    ``cells`` is ``(N, h, w)``, the masks ``(N, H, W)``.
    """
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
        # Without a margin the first mask is constant: sorting it would say
        # nothing.
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

    It is the smallest area whose perturbed image scores at least as high as
    the full image, or the largest area if none does. ``logits`` ``(N, A)``
    are those of the perturbed images by rising area, ``full`` ``(N,)``
    those of the full images.
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
    """Return EP's masks: each target class's smallest sufficient region.

    Parameters
    ----------
    classifier:
        Maps images to logits ``(B, C)``; not changed.
    images:
        ``(B, 3, H, W)`` in [0, 1].
    targets:
        ``(B, C)``, 1 for the classes to explain.
    generator:
        Unused: the method draws nothing at random.
    progress:
        Show a bar over the iterations.
    variant:
        "ours", or "torchray" for the public code's settings: see
        :class:`Variant`.
    areas:
        Shares of the image, in (0, 1], optimised side by side. One is kept
        per class: see :func:`choose_area`.
    iterations:
        Steps of gradient ascent (Stalder et al. ran 800). The area's weight
        starts at 300 and grows with each step.
    reward:
        "contrastive", the class's logit minus the largest other, as the
        authors ran it; or "plain", the class's logit.
    jitter:
        Use the mirrored image in every second step.
    smoothing:
        Standard deviation of the final blur of the mask, as a share of the
        image's shorter side.
    step, sigma, max_blur:
        Distance between the mask's cells, width of the kernel that smooths
        them, and largest blur of the image. All are in pixels of an image
        224 wide and are scaled with the width.
    levels:
        Levels of blur from 0 to ``max_blur``, at least 2.
    scaling, power:
        How the map becomes a mask, see
        :func:`~explainer.attribution.common.final_scaling`.
    batch_size:
        Masks (image x class x area) optimised together. It limits memory
        and changes no result.

    Returns
    -------
    ``(B, C, H, W)`` in [0, 1], scaled per class; zero outside the targets.

    Raises
    ------
    ValueError for an unknown reward or variant, and for areas, lengths or
    levels out of range.

    Notes
    -----
    Sources. From the paper, whose full text could not be checked: the
    objective at a given area, R_a, the smooth maximum of kernel times cells,
    the pyramid of blurs, and the contrastive reward. From TorchRay, its
    authors' library, which Stalder et al. ran: the kernel's profile, the
    temperature of 1/20, the learning rate, the momentum, the area's first
    weight and its growth, and the linear interpolation between blurs.

    Variants. TorchRay uses SGD with a dampening equal to the momentum,
    starts from ones, and measures the area with a margin of zeros around
    the image; so does ``variant="torchray"``. Ours has no dampening and no
    margin. It starts at 0.9, uses only the reward in the first step, and
    repeats cells beyond the border. It stretches the growth of the area's
    weight, so that 50 steps end at the weight of 800. The two differ most
    after few steps, when TorchRay's masks are still far too large.

    Departures of both variants from TorchRay:

    - The smooth maximum is taken over a window of 1.5 sigma on the grid of
      cells and interpolated bilinearly; theirs is computed per pixel.
    - The mirrored image is used from the second step on, not the first.
    - The masks are those after the last step, not before it.
    - The final blur reflects at the border; theirs fades to 0.
    - The margin is equally wide on all sides; theirs is a cell wider above
      and on the left.

    Departures from the papers: R_a is a mean, not a sum. Lengths scale with
    the width: at 64 pixels a cell measures 2, so the kernel still spans
    three. Stalder et al. merge the classes' masks and then scale; here each
    class is scaled, which keeps masks comparable between methods.
    """
    rewarded, how = REWARDS[reward], VARIANTS[variant]
    if not areas or not all(0 < a <= 1 for a in areas):
        raise ValueError(
            f"areas must be shares of the image (0 to 1), not {areas}"
        )
    if not min(step, sigma) > 0:
        raise ValueError(
            f"step and sigma must be above 0, not {step} and {sigma}"
        )
    if levels < 2:
        raise ValueError(f"EP needs at least 2 levels, not {levels}")
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
