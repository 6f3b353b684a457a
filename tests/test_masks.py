"""Merging masks, compositing, and what fills the rest."""

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.testing import assert_close

from explainer.classifiers import Classifier
from explainer.errors import UserError
from explainer.masks import (
    FILLS,
    IMAGENET_MEAN,
    complement,
    composite,
    gaussian_blur,
    make_fill,
    mean_colour,
    non_target_mask,
    random_masks,
    target_mask,
)
from explainer.streams import per_image

MEAN, STD = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(nn.Flatten(), "abc", MEAN, STD)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 24, 36, generator=torch.manual_seed(2))


def test_target_and_non_target_by_hand() -> None:
    class_masks = torch.tensor(
        [[[[0.1, 0.9]], [[0.6, 0.2]], [[0.3, 0.4]]]]
    ).expand(4, -1, -1, -1)
    labels = torch.tensor(
        [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0] * 3, [1.0] * 3]
    )
    m = [[0.6, 0.9], [0.3, 0.4], [0.0, 0.0], [0.6, 0.9]]
    n = [[0.3, 0.4], [0.6, 0.9], [0.6, 0.9], [0.0, 0.0]]
    assert target_mask(class_masks, labels).shape == (4, 1, 1, 2)
    assert_close(target_mask(class_masks, labels)[:, 0, 0], torch.tensor(m))
    assert_close(
        non_target_mask(class_masks, labels)[:, 0, 0], torch.tensor(n)
    )


def test_complement() -> None:
    mask = torch.tensor([0.0, 0.25, 1.0])
    assert_close(complement(mask), torch.tensor([1.0, 0.75, 0.0]))


def test_composite_by_hand() -> None:
    images = torch.tensor([0.2, 0.4, 0.6]).reshape(1, 3, 1, 1)
    images = images.expand(1, 3, 1, 3)
    mask = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    fill = torch.tensor([1.0, 0.0, 0.5]).reshape(1, 3, 1, 1)
    shown = composite(images, mask, fill)[0, :, 0]
    by_hand = [[1.0, 0.6, 0.2], [0.0, 0.2, 0.4], [0.5, 0.55, 0.6]]
    assert_close(shown, torch.tensor(by_hand))


def test_mean_fill_is_the_papers_multiplication(
    classifier: Classifier, images: torch.Tensor
) -> None:
    """The paper multiplies the normalised image by the mask."""
    mask = torch.rand(2, 1, 24, 36, generator=torch.manual_seed(3))
    fill = make_fill("mean", images, classifier)
    ours = classifier(composite(images, mask, fill))
    normalised = (images - classifier.mean) / classifier.std
    assert_close(ours, (mask * normalised).flatten(1))


def test_mean_colour_of_modules(classifier: Classifier) -> None:
    assert_close(mean_colour(classifier).flatten(), torch.tensor(MEAN))
    assert_close(
        mean_colour(nn.Identity()).flatten(), torch.tensor(IMAGENET_MEAN)
    )


@pytest.mark.parametrize("name", FILLS)
def test_every_fill_broadcasts_and_is_a_colour(
    name: str, classifier: Classifier, images: torch.Tensor
) -> None:
    fill = make_fill(name, images, classifier, torch.manual_seed(0))
    assert fill.expand_as(images).shape == images.shape
    assert fill.dtype == images.dtype
    assert 0 <= fill.min() <= fill.max() <= 1


def test_black_and_blur(classifier: Classifier, images: torch.Tensor) -> None:
    assert make_fill("black", images, classifier).abs().max() == 0
    assert_close(
        make_fill("blur", images, classifier), gaussian_blur(images, 3.0)
    )


def test_noise_is_a_function_of_the_generator(
    classifier: Classifier, images: torch.Tensor
) -> None:
    def noise(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return make_fill("noise", images, classifier, generator)

    before = torch.get_rng_state()
    assert_close(noise(1), noise(1), rtol=0, atol=0)
    assert not torch.equal(noise(1), noise(2))
    assert not torch.equal(noise(1)[0], noise(1)[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_of_an_image_is_its_own(
    classifier: Classifier, images: torch.Tensor
) -> None:
    n = len(images)
    together = make_fill(
        "noise", images, classifier, per_image(0, range(n), "noise")
    )
    alone = make_fill(
        "noise", images[-1:], classifier, per_image(0, [n - 1], "noise")
    )
    assert torch.equal(together[-1:], alone)


def test_unknown_fill_lists_the_known(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="known: mean, black, blur, noise"):
        make_fill("purple", images, nn.Identity())
    with pytest.raises(UserError):
        make_fill("purple", images, nn.Identity())


def test_blur_keeps_constants() -> None:
    images = torch.tensor([0.2, 0.4, 0.6]).reshape(1, 3, 1, 1)
    images = images.expand(2, 3, 9, 14).contiguous()
    for sigma in (0.5, 2.0, 40.0):
        assert_close(gaussian_blur(images, sigma), images)


def test_blur_is_scipys(images: torch.Tensor) -> None:
    """Its "mirror" is our reflection: the edge itself is not repeated."""
    blurred = gaussian_blur(images.double(), 2.0)[0, 0]
    theirs = gaussian_filter(
        images[0, 0].double().numpy(), 2.0, mode="mirror", radius=6
    )
    assert_close(blurred, torch.from_numpy(theirs))


def test_no_blur(images: torch.Tensor) -> None:
    assert torch.equal(gaussian_blur(images, 0.0), images)


def test_random_masks_range_over_small_and_large() -> None:
    images = torch.zeros(200, 3, 21, 28)
    masks = random_masks(images, torch.Generator().manual_seed(0))
    assert masks.shape == (200, 1, 21, 28)
    assert 0 <= masks.min() <= masks.max() <= 1
    kept = masks.mean((1, 2, 3))
    assert kept.min() < 0.2
    assert kept.max() > 0.8
    again = random_masks(images, torch.Generator().manual_seed(0))
    assert torch.equal(masks, again)
