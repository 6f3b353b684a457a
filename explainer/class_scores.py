"""The class-score table: does the mask of a class show that class alone?

For the test images that contain class r, show the classifier only what the
mask of class k keeps, and note its probability of class r (paper, section
4). It should stay high where k = r and fall elsewhere.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.attribution._common import evaluating
from explainer.bootstrap import mean_interval
from explainer.contenders import Contender, EvaluationError, attribute
from explainer.data.base import LabelledImages
from explainer.masks import composite, make_fill
from explainer.metrics import THRESHOLDS
from explainer.selection import batches, device_of, to_device


@dataclass(frozen=True)
class ClassScores:
    """Softmax probabilities of class r (rows) under the mask of class k.

    ``columns`` is "none", the unmasked image, and the K classes; ``scores``
    and ``ci`` (bootstrap 95% intervals over images) have K rows of K + 1
    entries, None in a row without images; ``n`` counts the images of each
    row.
    """

    classes: list[str]
    columns: list[str]
    scores: list[list[float | None]]
    ci: list[list[tuple[float, float] | None]]
    n: list[int]

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON can hold it."""
        return asdict(self)


def _columns(classes: Sequence[str], data: LabelledImages) -> Tensor:
    """Return the indices of the named classes among the dataset's."""
    unknown = [c for c in classes if c not in data.classes]
    if unknown or not classes:
        raise EvaluationError(
            f"no class {', '.join(unknown) or 'given'}; the data has "
            f"{', '.join(data.classes)}"
        )
    return torch.tensor([data.classes.index(c) for c in classes])


def masked_scores(
    classifier: nn.Module,
    images: Tensor,
    class_masks: Tensor,
    fill: Tensor,
) -> Tensor:
    """Return the softmax of images under each class's binarised mask.

    Averaged over the thresholds 0.1, ..., 0.9. ``images`` is
    ``(B, 3, H, W)``, ``class_masks`` ``(B, K, H, W)`` of the K classes; the
    result is ``(B, 1 + K, C)``, first the unmasked image.
    """
    b = len(images)
    thresholds = torch.tensor(THRESHOLDS).to(class_masks)
    columns = [classifier(images).softmax(1)]
    copies = len(THRESHOLDS)
    background = fill.expand_as(images).repeat(copies, 1, 1, 1)
    repeated = images.repeat(copies, 1, 1, 1)
    for mask in class_masks.unbind(1):  # (B, H, W): all thresholds at once
        binary = (mask > thresholds[:, None, None, None]).to(mask.dtype)
        masked = composite(
            repeated, binary.reshape(-1, 1, *mask.shape[1:]), background
        )
        p = classifier(masked).softmax(1)
        columns.append(p.reshape(copies, b, -1).mean(0))
    return torch.stack(columns, 1)


def class_scores(
    contender: Contender,
    classifier: nn.Module,
    data: LabelledImages,
    *,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    fill: str = "mean",
    seed: int = 0,
    batch_size: int = 8,
    progress: bool = False,
) -> ClassScores:
    """Measure the class-score table of one method.

    The method is asked for the masks of *all* the classes of the table, in
    the image or not. An image with several of the classes counts in several
    rows.

    Parameters
    ----------
    contender:
        The method and its options; its ``limit`` and ``batch_size`` apply.
    classifier, data:
        As in :func:`explainer.evaluation.evaluate`; no masks are needed.
    classes:
        Names of the table's rows and columns; by default all.
    limit:
        At most so many images: the first that show one of the classes.
    fill, seed:
        As in :class:`~explainer.selection.Settings`.
    batch_size:
        Images at a time; the classifier sees nine times as many.

    Raises
    ------
    EvaluationError
        For a class that the data does not have, or no image of any.
    """
    names = list(data.classes if classes is None else classes)
    table = _columns(names, data)
    device = device_of(classifier)
    size = contender.batch_size or batch_size
    limits = [n for n in (limit, contender.limit) if n is not None]
    showing = (i for i in range(len(data)) if data[i].labels[table].any())
    indices = list(islice(showing, min(limits, default=None)))
    if not indices:
        raise EvaluationError(
            f"no image shows any of the classes {', '.join(names)}"
        )
    every = torch.zeros(len(data.classes))
    every[table] = 1
    scores, present = [], []
    with (
        evaluating(classifier),
        tqdm(
            total=len(indices), desc="class scores", disable=not progress
        ) as bar,
    ):
        for _, batch in batches(data, indices, size):
            present.append(batch.labels[:, table] > 0)
            batch = to_device(batch, device)
            targets = every.expand(len(batch.images), -1).to(device)
            masks = attribute(
                "the method", contender, classifier, batch, targets, seed
            )
            noise = torch.Generator(device).manual_seed(seed)
            background = make_fill(fill, batch.images, classifier, noise)
            with torch.no_grad():
                p = masked_scores(
                    classifier, batch.images, masks[:, table], background
                )
            scores.append(p[:, :, table].cpu())
            bar.update(len(batch.images))
    return _tabulate(names, torch.cat(scores), torch.cat(present), seed)


def _tabulate(
    names: list[str], scores: Tensor, present: Tensor, seed: int
) -> ClassScores:
    """Average over each class's images; ``scores`` is ``(N, 1 + K, K)``."""
    means: list[list[float | None]] = []
    ci: list[list[tuple[float, float] | None]] = []
    for r in range(len(names)):
        column = scores[present[:, r], :, r].double()
        if len(column):
            means.append(column.mean(0).tolist())
            ci.append([mean_interval(x, seed) for x in column.T.tolist()])
        else:
            means.append([None] * (len(names) + 1))
            ci.append([None] * (len(names) + 1))
    return ClassScores(
        classes=names,
        columns=["none", *names],
        scores=means,
        ci=ci,
        n=present.sum(0).tolist(),
    )
