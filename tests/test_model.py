"""The Explainer networks."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
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
    build_explainer,
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


def test_encoder_can_be_left_as_it_is() -> None:
    network = build_explainer("light", 3, train_encoder=False).train()
    assert not network.encoder.training
    assert not any(p.requires_grad for p in network.encoder.parameters())
    assert all(p.requires_grad for p in network.decoder.parameters())


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
        assert_close(flat[..., :8, :8].mean((2, 3)), coarse[..., 0, 0])


def test_the_encoder_sees_the_image_magnified() -> None:
    torch.manual_seed(0)
    plain = build_explainer("light", 2).eval()
    closer = build_explainer("light", 2, scale=2.0).eval()
    closer.load_state_dict(plain.state_dict())
    x = images()
    large = torch.nn.functional.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=False
    )
    with torch.no_grad():
        small = torch.nn.functional.interpolate(
            plain.decoder(plain.encoder((large - plain.mean) / plain.std)),
            x.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        assert_close(closer(x), small, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(closer(x), plain(x), atol=1e-3)


def test_start_from_needs_common_features() -> None:
    with pytest.raises(ValueError, match="cannot start from"):
        start_from(build_explainer("small", 2), Classifier(nn.Flatten(), "a"))
    with pytest.raises(ValueError, match="cannot start from"):
        start_from(build_explainer("light", 2), small_cnn(("a", "b")))


def test_unknown_network_lists_the_known() -> None:
    with pytest.raises(UserError, match="known: small, light, deeplab"):
        build_explainer("large", 3)
    assert set(NETWORKS) == {"small", "light", "deeplabv3_resnet50"}
