"""Which images an evaluation measures, and how."""

import pytest
import torch
from torch import Tensor, nn

from explainer.data.base import Sample, describe_data, labels_in
from explainer.errors import UserError
from explainer.evaluation.images import (
    Settings,
    batches,
    select,
)


class Halves:
    """Colours of the left and the right half; 0 is black, no class.

    Image 1 shows nothing, 3 is not segmented, 4 shows another class.
    """

    classes = ("red", "green", "blue")
    split = "test"
    halves = ((1, 1), (0, 0), (1, 2), (3, 3), (2, 0), (3, 1))

    def __len__(self) -> int:
        return len(self.halves)

    def __getitem__(self, index: int) -> Sample:
        ids = torch.tensor([self.halves[index]] * 2)
        image = torch.stack([(ids == c).float() for c in (1, 2, 3)])
        mask = None if index == 3 else ids
        return Sample(image, labels_in(ids, 3), mask, f"halves-{index}")

    def other_objects(self, index: int) -> tuple[str, ...]:
        return ("yellow",) if index == 4 else ()


class Eye(nn.Module):
    """Sees a class if its colour fills more than a quarter."""

    def __init__(self, sign: int = 1) -> None:
        super().__init__()
        self.sign = sign
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.sign * (self.dropout(images).mean((2, 3)) - 0.25)


def test_images_without_target_or_mask_are_counted() -> None:
    chosen = select(Eye(), Halves(), Settings(batch_size=4))
    assert list(chosen.by_index) == [0, 2, 4, 5]
    assert (chosen.no_class, chosen.no_mask) == (1, 1)
    assert chosen.other_objects == 1
    assert chosen.resolution == (2, 2)
    assert chosen.by_index[2].name == "halves-2"
    assert chosen.by_index[2].targets.tolist() == [1, 1, 0]
    few = select(Eye(), Halves(), Settings(batch_size=4), limit=2)
    assert list(few.by_index) == [0, 2]
    assert (few.no_class, few.no_mask, few.other_objects) == (1, 0, 0)


def test_predicted_targets_are_those_of_a_perfect_classifier() -> None:
    labelled = select(Eye(), Halves(), Settings())
    predicted = select(Eye(), Halves(), Settings(targets="predicted"))
    assert all(image.right for image in labelled.images)
    for a, b in zip(labelled.images, predicted.images, strict=True):
        assert (a.index, a.targets.tolist()) == (b.index, b.targets.tolist())
    wrong = select(Eye(-1), Halves(), Settings())
    assert not any(image.right for image in wrong.images)


def test_a_softmax_predicts_one_class_even_in_a_tie() -> None:
    class Single(Eye):
        multi_label = False

    predicted = select(Single(), Halves(), Settings(targets="predicted"))
    assert [i.targets.sum() for i in predicted.images] == [1] * 5
    # Image 1 is black, the logits are equal: the first class.
    assert predicted.by_index[1].targets.tolist() == [1, 0, 0]


def test_the_classifier_s_precision_on_the_images_looked_at() -> None:
    assert select(Eye(), Halves(), Settings()).classifier_map == 1
    # Of images 0, 1 and 2 red is in two and green in one; seen the wrong
    # way round, black comes before them: red is second and third of three
    # ((1/2 + 2/3) / 2), green third (1/3).
    wrong = select(Eye(-1), Halves(), Settings(), limit=2)
    assert wrong.classifier_map == pytest.approx((7 / 12 + 1 / 3) / 2)
    assert select(Eye(), Halves(), Settings(), 0).classifier_map is None


def test_a_classifier_in_training_mode_answers_and_stays_in_it() -> None:
    classifier = Eye().train()
    chosen = select(classifier, Halves(), Settings())
    assert all(image.right for image in chosen.images)
    assert classifier.dropout.training


def test_batches_cover_the_images_in_order() -> None:
    found = list(batches(Halves(), [4, 0, 5], 2))
    assert [start for start, _ in found] == [0, 2]
    assert [batch.names for _, batch in found] == [
        ["halves-4", "halves-0"],
        ["halves-5"],
    ]


def test_a_card_names_the_data() -> None:
    assert describe_data(Halves()) == {
        "type": "Halves",
        "images": 6,
        "classes": ["red", "green", "blue"],
        "split": "test",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "all"}, "no targets 'all'; known: labels, predicted"),
        ({"void": "keep"}, "'keep'; known: ignore, object"),
    ],
)
def test_settings_that_do_not_exist(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Settings(**options)  # type: ignore[arg-type]


def test_a_batch_holds_an_image() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        Settings(batch_size=0)
