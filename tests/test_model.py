"""The Explainer networks."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from explainer.classifiers import (
    Classifier,
    WeightsError,
    efficientnet_lite0,
    frozen,
    small_cnn,
)
from explainer.errors import UserError
from explainer.model import (
    NETWORKS,
    Decoder,
    EncoderDecoder,
    affinity,
    average_cells,
    build_explainer,
    seen_size,
    share,
    start_from,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(n: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, height, width)


def test_small_is_small_and_keeps_the_size() -> None:
    network = build_explainer("small", 8)
    assert sum(p.numel() for p in network.parameters()) < 1_000_000
    for size in ((64, 64), (40, 56), (37, 51)):
        assert network(images(2, *size)).shape == (2, 8, *size)


def test_light_keeps_the_size() -> None:
    network = build_explainer("light", 6).eval()
    assert network(images(1, 64, 96)).shape == (1, 6, 64, 96)


def test_deeplab_keeps_the_size() -> None:
    network = build_explainer("deeplabv3_resnet50", 5).eval()
    with torch.no_grad():
        assert network(images(1, 48, 33)).shape == (1, 5, 48, 33)


def test_deeplab_says_what_to_do_without_a_network(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="pretrained_backbone=False"):
        build_explainer("deeplabv3_resnet50", 5, pretrained_backbone=True)


def test_decoder_works_at_the_finest_stage() -> None:
    decoder = Decoder((4, 6), width=8, n_classes=3)
    features = [torch.rand(2, 4, 10, 12), torch.rand(2, 6, 5, 6)]
    assert decoder(features).shape == (2, 3, 10, 12)
    # Both stages count.
    for i in (0, 1):
        changed = [f.clone() for f in features]
        changed[i] += torch.rand_like(changed[i])
        assert not torch.allclose(decoder(changed), decoder(features))


def test_same_seed_same_network() -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build_explainer("small", 3).state_dict()

    assert_close(build(1), build(1), rtol=0, atol=0)
    assert not torch.equal(
        build(1)["decoder.head.weight"], build(2)["decoder.head.weight"]
    )


class _Flat(nn.Module):
    """An encoder of one stage: the images themselves."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]


def test_sharpness_scales_and_bias_starts_the_logits() -> None:
    def build(**options: float) -> EncoderDecoder:
        torch.manual_seed(3)
        return EncoderDecoder(_Flat(), (3,), 2, width=8, **options)

    plain, sharp = build(), build(sharpness=5.0)
    shifted = build(sharpness=5.0, initial_bias=-2.0)
    x = images(1, 8, 8)
    assert_close(sharp(x), 5 * plain(x))
    assert_close(shifted(x), sharp(x) - 2)


def test_light_rests_its_batch_norm_but_trains_its_encoder() -> None:
    network = build_explainer("light", 3).train()
    assert network.decoder.training
    assert not network.encoder.training
    before = network.encoder.network.bn1.running_mean.clone()
    network(images(2, 64, 64)).sum().backward()
    assert torch.equal(network.encoder.network.bn1.running_mean, before)
    assert network.encoder.network.conv_stem.weight.grad is not None


def test_small_trains_its_batch_norm() -> None:
    network = build_explainer("small", 3).train()
    before = {k: v.clone() for k, v in network.named_buffers()}
    network(images(2))
    moved = [
        not torch.equal(v, before[k]) for k, v in network.named_buffers()
    ]
    assert any(moved)


@pytest.mark.parametrize("hold", [False, True])
def test_start_from_copies_the_features(hold: bool) -> None:
    classifier = small_cnn(("a", "b"))
    given = frozen(classifier) if hold else classifier
    network = build_explainer("small", 2)
    theirs = classifier.network.encoder.state_dict()
    stem = network.encoder.stages[0][0].weight
    assert not torch.equal(stem, theirs["stages.0.0.weight"])
    assert start_from(network, given) is network
    assert_close(network.encoder.state_dict(), theirs, rtol=0, atol=0)
    # A copy: training E must not change F, nor is E frozen with it.
    with torch.no_grad():
        network.encoder.stages[0][0].weight += 1
    assert not torch.equal(
        network.encoder.stages[0][0].weight,
        classifier.network.encoder.stages[0][0].weight,
    )
    assert all(p.requires_grad for p in network.parameters())


def test_light_starts_from_efficientnet() -> None:
    classifier = efficientnet_lite0(("a", "b"))
    network = build_explainer("light", 2)
    start_from(network, frozen(classifier))
    x = images(1)
    own = network.eval().encoder.network.conv_stem(x)
    assert_close(own, classifier.network.conv_stem(x))
    last = network.encoder.network.blocks[6][0].conv_pw.weight
    theirs = classifier.network.blocks[6][0].conv_pw.weight
    assert_close(last.detach(), theirs, rtol=0, atol=0)


def test_class_activation_map_has_the_classifiers_logits_as_its_mean() -> (
    None
):
    classifier = efficientnet_lite0(("a", "b")).eval()
    network = build_explainer(
        "light", 2, class_activation=True, initial_bias=-2.0
    )
    start_from(network, classifier).train()
    assert not network.class_activation.bn2.training
    x = images()
    with torch.no_grad():
        features = network.encoder((x - network.mean) / network.std)
        coarse = network.class_activation(features[-1])
        assert coarse.shape == (2, 2, 2, 2)
        assert_close(coarse.mean((2, 3)), classifier(x))
        network.decoder.head.weight.zero_()
        flat = network(x) + 2  # the decoder's share is its bias now
        seen = torch.nn.functional.interpolate(
            (x - network.mean) / network.std,
            (65, 65),
            mode="bilinear",
            align_corners=True,
        )
        coarse = network.class_activation(network.encoder(seen)[-1])
        assert_close(flat[..., 0, 0], coarse[..., 0, 0])
        assert_close(flat[..., -1, -1], coarse[..., -1, -1])


def test_the_encoder_sees_the_image_magnified() -> None:
    torch.manual_seed(0)
    plain = build_explainer("light", 2).eval()
    closer = build_explainer("light", 2, scale=2.0).eval()
    closer.load_state_dict(plain.state_dict())
    x = images()

    def resize(x: torch.Tensor, size: int) -> torch.Tensor:
        return torch.nn.functional.interpolate(
            x, (size, size), mode="bilinear", align_corners=True
        )

    large = resize((x - plain.mean) / plain.std, 2 * x.shape[-1] + 1)
    with torch.no_grad():
        features = plain.encoder(large)
        small = resize(plain.decoder(features), x.shape[-1])
        assert_close(closer(x), small, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(closer(x), plain(x), atol=1e-3)


@pytest.mark.parametrize(
    ("wished", "cell", "seen"),
    [
        (160.4, None, 160),
        (160, 32, 161),
        (352, 32, 353),
        (335, 32, 321),
        (337, 32, 353),
        (3, 32, 33),
    ],
)
def test_seen_size(wished: float, cell: int | None, seen: int) -> None:
    assert seen_size(wished, cell) == seen


def test_stages_are_aligned_at_the_size_that_is_seen() -> None:
    # With kernels that are their own mirror images a mirrored picture gives
    # mirrored features, if only the padding is the same on both sides.
    encoder = build_explainer("light", 2).eval().encoder
    with torch.no_grad():
        for p in encoder.parameters():
            if p.ndim == 4:
                p.copy_((p + p.flip(-1)) / 2)
        for size, aligned in ((65, True), (97, True), (64, False)):
            x = torch.rand(1, 3, size, size)
            for a, b in zip(encoder(x), encoder(x.flip(-1)), strict=True):
                assert torch.allclose(a, b.flip(-1), atol=1e-4) == aligned
                if aligned:  # the corners' cells are there
                    stride = (size - 1) // (a.shape[-1] - 1)
                    assert (a.shape[-1] - 1) * stride == size - 1


def test_start_from_needs_common_features() -> None:
    with pytest.raises(ValueError, match="cannot start from"):
        start_from(build_explainer("small", 2), Classifier(nn.Flatten(), "a"))
    with pytest.raises(ValueError, match="cannot start from"):
        start_from(build_explainer("light", 2), small_cnn(("a", "b")))


def test_unknown_network_lists_the_known() -> None:
    with pytest.raises(UserError, match="known: small, light, deeplab"):
        build_explainer("large", 3)
    assert set(NETWORKS) == {"small", "light", "deeplabv3_resnet50"}


# --- similar cells share their logits -------------------------------------


def two_halves(cells: int = 4) -> torch.Tensor:
    """Return a picture ``(1, 2, cells, cells)``: a left and a right kind."""
    picture = torch.zeros(1, 2, cells, cells)
    picture[:, 0, :, : cells // 2] = 1
    picture[:, 1, :, cells // 2 :] = 1
    return picture


def test_means_of_overlapping_cells_by_hand() -> None:
    """Two cells of three pixels share the middle one."""
    x = torch.tensor([[[[1.0, 2.0, 6.0]]]])
    assert average_cells(x, (1, 2)).flatten().tolist() == [1.5, 4.0]


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_means_are_those_of_adaptive_pooling(
    size: tuple[int, int], cells: tuple[int, int]
) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_avg_pool2d(x, cells)
    assert_close(average_cells(x, cells), expected, rtol=0, atol=1e-6)


def test_two_cells_by_hand() -> None:
    """Features +1 and -1 have cosine -1, the cells are half a width apart."""
    picture = torch.tensor([[[[3.0, 5.0]]]])
    weights = affinity([picture], (1, 2), temperature=1.0, reach=0.5)
    own, other = 1.0, -1.0 - 0.25 / (2 * 0.25)
    expected = torch.tensor([[own, other], [other, own]]).softmax(1)
    # The normalisation divides by a hair more than the spread.
    assert_close(weights[0], expected, rtol=0, atol=1e-5)


def test_a_logit_spreads_over_its_own_kind_and_no_further() -> None:
    cells = (4, 4)
    weights = affinity([two_halves()], cells, temperature=0.05, reach=100.0)
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 1, 0] = 8  # one cell of the left half's eight
    shared = share(logits, weights, cells, 2)
    assert_close(shared[0, 0, :, :2], torch.ones(4, 2), rtol=0, atol=1e-3)
    assert_close(shared[0, 0, :, 2:], torch.zeros(4, 2), rtol=0, atol=1e-3)


def test_a_short_reach_keeps_a_logit_where_it_is() -> None:
    cells = (4, 4)
    weights = affinity([two_halves()], cells, reach=0.01)
    logits = torch.randn(1, 3, 4, 4)
    assert_close(share(logits, weights, cells, 2), logits)


@given(
    st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6),
    st.floats(0.05, 1),
)  # fmt: skip
def test_rows_sum_to_one_and_an_average_stays_between(
    seed: int, height: int, width: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    several = [
        torch.randn(2, 3, 12, 9, generator=generator),
        torch.rand(2, 5, 3, 4, generator=generator),
    ]
    cells = (height, width)
    weights = affinity(several, cells, temperature, reach=0.5)
    assert weights.shape == (2, height * width, height * width)
    assert_close(weights.sum(2), torch.ones(2, height * width))
    assert (weights >= 0).all()
    logits = torch.randn(2, 4, 8, 8, generator=generator)
    shared = share(logits, weights, cells, 2)
    assert shared.shape == (2, 4, height, width)
    assert shared.max() <= logits.max() + 1e-5
    assert shared.min() >= logits.min() - 1e-5


def test_no_gradient_bends_the_affinity() -> None:
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert not affinity([features], (4, 4), reach=0.5).requires_grad


def test_an_image_of_one_colour_is_no_trouble() -> None:
    weights = affinity([torch.full((1, 3, 8, 8), 0.5)], (2, 2), reach=0.5)
    assert torch.isfinite(weights).all()


def test_the_light_network_shares_and_still_learns() -> None:
    torch.manual_seed(0)
    plain = build_explainer("light", 2).eval()
    sharing = build_explainer("light", 2, affinity_cells=4).eval()
    sharing.load_state_dict(plain.state_dict())
    # A noisy head, so that there is something to average.
    plain.decoder.head.weight.data *= 10
    sharing.decoder.head.weight.data *= 10
    images = torch.rand(2, 3, 32, 48)
    alone, together = plain(images), sharing(images)
    assert together.shape == (2, 2, 32, 48)
    assert together.std() < alone.std()
    together.sum().backward()
    for part in (sharing.encoder, sharing.decoder):
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0
            for p in part.parameters()
        )


def test_deeplab_says_that_it_needs_two_images_to_train_on() -> None:
    network = build_explainer(
        "deeplabv3_resnet50", 2, pretrained_backbone=False
    )
    with pytest.raises(UserError, match=r"batch of one image.*larger batch"):
        network.train()(torch.rand(1, 3, 32, 32))
    assert network.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 2, 32, 32)
