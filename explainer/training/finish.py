"""Steps after the last training step, none with a gradient.

They are averaging, calibration, sharpening and rounding, as the preset asks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from explainer.classifiers import evaluating
from explainer.data import LabelledImages, collate
from explainer.losses import classification_loss
from explainer.masks import target_mask
from explainer.metrics import accuracy, ground_truth, mae, mean_iou


def averaged(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of state dicts; counters keep the last one's value.

    The mean of the weights of networks that share the first part of their
    training is often better than each of them (Izmailov et al., 2018,
    *Averaging weights leads to wider optima*; Wortsman et al., 2022, *Model
    soups*).
    """
    return {
        name: torch.stack([state[name] for state in states]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[-1].items()
    }


@torch.no_grad()
def calibration(logits: Tensor, labels: Tensor) -> float:
    """Return the factor k for which k times the logits fit the labels best.

    Temperature scaling (Guo et al., 2017, *On calibration of modern neural
    networks*). It corrects smoothed targets, which leave probabilities too
    near 1/2. ``logits`` and ``labels`` are ``(N, C)``. k minimises the
    cross-entropy on a grid from 1/4 to 4 in steps of 0.01.
    """
    factors = torch.arange(25, 401) / 100
    entropies = torch.stack(
        [classification_loss(k * logits, labels) for k in factors]
    )
    return round(float(factors[entropies.argmin()]), 2)


@torch.no_grad()
def scale_logits(classifier: nn.Module, by: float) -> None:
    """Scale a classifier's logits in place, through its last linear layer."""
    last = [m for m in classifier.modules() if isinstance(m, nn.Linear)][-1]
    for parameter in last.parameters():
        parameter.mul_(by)


def merit(scores: Mapping[str, float]) -> float:
    """Return the score that settings are chosen by: IoU + accuracy - MAE.

    The IoU alone may favour wide grey maps, which the other two penalise.
    """
    return scores["iou"] + scores["accuracy"] - scores["mae"]


@torch.no_grad()
def sharpness_scores(
    network: nn.Module,
    val: LabelledImages,
    factors: Sequence[float],
    batch_size: int = 16,
) -> dict[float, dict[str, float]]:
    """Return mean IoU, accuracy and MAE of masks, by the logits' factor.

    They are means over the validation images that have a class and a mask.
    The choice of this factor is the only use of pixel labels in a training.
    Empty if no image has a mask.
    """
    rows: dict[float, list[Tensor]] = {factor: [] for factor in factors}
    device = next(network.parameters()).device
    loader: Any = DataLoader(val, batch_size, collate_fn=list)  # type: ignore[arg-type]
    with evaluating(network):
        for samples in loader:
            judged = [
                s for s in samples if s.mask is not None and s.labels.any()
            ]
            if not judged:
                continue
            batch = collate(judged)
            assert batch.masks is not None
            truth, valid = ground_truth(batch.masks, batch.labels.shape[1])
            logits = network(batch.images.to(device)).cpu()
            for factor in factors:
                m = target_mask((factor * logits).sigmoid(), batch.labels)
                columns = [
                    f(m, truth, valid) for f in (mean_iou, accuracy, mae)
                ]
                rows[factor].append(torch.stack(columns, 1))
    if not rows[factors[0]]:
        return {}
    means = {k: torch.cat(parts).nanmean(0) for k, parts in rows.items()}
    return {
        k: dict(zip(("iou", "accuracy", "mae"), mean.tolist(), strict=True))
        for k, mean in means.items()
    }
