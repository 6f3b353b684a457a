"""Every method on the networks that people bring, as they bring them."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from explainer.attribution import METHODS
from explainer.attribution.extremal_perturbation import area_loss
from explainer.attribution.grad_cam import (
    feature_maps,
    grad_cam,
    last_feature_layer,
)
from explainer.classifiers import Classifier, frozen
from explainer.errors import UserError
from explainer.masks import mean_colour

ASKING = (
    "grad_cam",
    "rise",
    "extremal_perturbation",
    "igos",
    "input_gradient",
    "integrated_gradients",
)
SHORT = {
    "rise": {"n_masks": 12},
    "extremal_perturbation": {"iterations": 2, "areas": (0.1, 0.3)},
    "igos": {"iterations": 1, "steps": 2},
    "integrated_gradients": {"n_steps": 3},
}
EACH = pytest.mark.parametrize("name", ASKING)


def options(name, size=24, n_classes=3):
    given = dict(SHORT.get(name, {}))
    if name in ("explainer", "rtis"):
        given["network"] = nn.Conv2d(3, n_classes, 3, padding=1)
    if name == "ground_truth":
        given["truth"] = torch.rand(2, n_classes, size, size) > 0.5
    return given


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def batch():
    return torch.rand(2, 3, 24, 24), torch.eye(3)[:2]


class Net(nn.Module):
    """Logits, in whatever they are wrapped."""

    def __init__(self, how="tensor"):
        super().__init__()
        self.how = how
        self.features = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        hidden = self.features(x)
        return WRAPPED[self.how](20 * self.head(hidden.mean((2, 3))), hidden)


class ModelOutput(OrderedDict):
    """As in transformers: a dict with attributes."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


WRAPPED = {
    "tensor": lambda y, h: y,
    "tuple": lambda y, h: (y, h),
    "list": lambda y, h: [y, h],
    "dict": lambda y, h: {"hidden": h, "logits": y},
    "object": lambda y, h: SimpleNamespace(logits=y, hidden=h),
    "ModelOutput": lambda y, h: ModelOutput(logits=y, hidden_states=h),
    "a dict in a tuple": lambda y, h: ({"logits": y}, h),
    "one pixel": lambda y, h: y[:, :, None, None],
}


def classifier(how="tensor", **told):
    torch.manual_seed(1)
    colours = (0.2, 0.2, 0.2), (0.5, 0.5, 0.5)
    return Classifier(Net(how), "abc", *colours, **told).eval()


# --- outputs ---------------------------------------------------------------


@EACH
@pytest.mark.parametrize("how", [how for how in WRAPPED if how != "tensor"])
def test_logits_are_found_in_what_a_network_returns(name, how, batch):
    wanted = METHODS[name](classifier(), *batch, **options(name))
    masks = METHODS[name](classifier(how), *batch, **options(name))
    torch.testing.assert_close(masks, wanted)
    bare = METHODS[name](classifier(how).network, *batch, **options(name))
    assert bare.isfinite().all()


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (lambda y, h: h, r"a tensor \(1, 4, 12, 12\)"),
        (lambda y, h: y[:, 0], r"a tensor \(1,\)"),
        (lambda y, h: {"out": y}, "dict"),
        (lambda y, h: None, "NoneType"),
    ],
)
def test_what_holds_no_logits_is_named(output, kind, batch, monkeypatch):
    monkeypatch.setitem(WRAPPED, "other", output)
    with pytest.raises(UserError, match=f"Net returns {kind}.*logits"):
        METHODS["input_gradient"](Net("other"), *batch)


# --- wrappers --------------------------------------------------------------


@EACH
def test_inside_wrappers_masks_are_the_same(name, batch):
    plain = classifier(multi_label=False)
    wanted = METHODS[name](plain, *batch, **options(name))
    inside = Classifier(
        nn.DataParallel(plain.network),
        "abc",
        *((0.2, 0.2, 0.2), (0.5, 0.5, 0.5)),
        multi_label=False,
        cam_layer="features",
    )
    for wrapped in (
        nn.DataParallel(plain),
        frozen(nn.DataParallel(plain)),
        nn.DataParallel(torch.compile(plain)),
        inside,
    ):
        masks = METHODS[name](wrapped, *batch, **options(name))
        torch.testing.assert_close(masks, wanted)


# --- modes and number types -------------------------------------------------


@EACH
def test_inference_mode_changes_nothing(name, batch):
    images, targets = batch
    model = classifier()
    wanted = METHODS[name](model, images, targets, **options(name))
    with torch.inference_mode():
        made = images.clone(), targets.clone()
        inside = METHODS[name](model, *made, **options(name))
    outside = METHODS[name](model, *made, **options(name))
    assert torch.equal(inside, wanted)
    assert torch.equal(outside, wanted)


def test_a_classifier_built_in_inference_mode_is_named(batch):
    with torch.inference_mode():
        model = classifier()
    with pytest.raises(UserError, match=r"inference_mode.*deepcopy"):
        METHODS["grad_cam"](model, *batch)


class Red(nn.Module):
    """How red the upper left is, and how blue."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.eye(3)[..., None, None])

    def forward(self, x):
        seen = self.features(x)[:, :, 4:14, 4:14].mean((2, 3))
        return 3 * seen[:, [0, 2]]


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_much_the_same(name, dtype):
    given = {
        "rise": {"n_masks": 200, "cells": 4},
        "extremal_perturbation": {"iterations": 12},
        "igos": {"iterations": 4, "steps": 4, "l1": 0.05, "tv": 0.1},
        "integrated_gradients": {"n_steps": 8},
    }.get(name, {})
    images, targets = torch.rand(1, 3, 32, 32) / 5, torch.tensor([[1.0, 0]])
    images[:, 0, 4:14, 4:14] = 0.9
    model = Classifier(Red(), "rb", multi_label=False).eval()
    wanted = METHODS[name](model, images, targets, **given)[0, 0]
    assert wanted.std() > 0.05
    model.to(dtype)
    masks = METHODS[name](model, images.to(dtype), targets, **given)
    assert masks.dtype == dtype
    both = torch.stack([masks[0, 0].float().flatten(), wanted.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9
    # Only the network in half, or only the images.
    mixed = METHODS[name](model, images, targets, **given)
    assert mixed.dtype == torch.float32
    model.float()
    assert METHODS[name](model, images.to(dtype), targets, **given).any()


@EACH
def test_autocast_changes_nothing(name, batch):
    wanted = METHODS[name](classifier(), *batch, **options(name))
    with torch.autocast("cpu", torch.bfloat16):
        masks = METHODS[name](classifier(), *batch, **options(name))
    assert torch.equal(masks, wanted)


def test_what_overflows_is_named(batch):
    class Huge(Net):
        def forward(self, x):
            return super().forward(x) * torch.inf

    with pytest.raises(UserError, match=r"not numbers.*classifier\.float"):
        METHODS["rise"](Huge(), *batch, n_masks=2, score="logit")


def test_more_pixels_than_half_precision_counts():
    mask = (torch.rand(1, 304, 304) < 0.1).float()
    exact = area_loss(mask, torch.tensor([0.1])).item()
    half = area_loss(mask.half(), torch.tensor([0.1]).half()).item()
    assert half == pytest.approx(exact, abs=0.02)


# --- targets and images -----------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool])
def test_targets_of_every_number_type(name, dtype, batch):
    images, targets = batch
    given = options(name)
    wanted = METHODS[name](classifier(), images, targets, **given)
    masks = METHODS[name](classifier(), images, targets.to(dtype), **given)
    assert masks.dtype == images.dtype
    assert torch.equal(masks, wanted)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([0, 1]),
        torch.tensor([[0], [1]]),
        torch.tensor([[0, 2, 1], [1, 0, 2]]),
        torch.ones(3, 3),
        torch.ones(2, 4),
    ],
)
def test_class_indices_and_other_shapes_are_refused(name, targets, batch):
    with pytest.raises(UserError, match=r"targets.*\(B, C\)"):
        METHODS[name](classifier(), batch[0], targets, **options(name))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: (x - 0.5) / 0.25, r"the range is \[0, 1\].*normalis"),
        (lambda x: 255 * x, "divide bytes by 255"),
        (lambda x: (255 * x).byte(), "not uint8; divide bytes"),
        (lambda x: x.log(), "-inf|run from -"),
        (lambda x: x[0], r"\(B, 3, H, W\), not \(3, 24, 24\)"),
        (lambda x: x.movedim(1, -1), r"\(B, 3, H, W\), not \(2, 24, 24, 3\)"),
    ],
)
def test_images_of_another_range_or_shape_are_refused(
    name, spoil, message, batch
):
    images, targets = batch
    with pytest.raises(UserError, match=message):
        METHODS[name](classifier(), spoil(images), targets, **options(name))


# --- memory layout ----------------------------------------------------------


class View(nn.Module):
    """The network of PyTorch's CIFAR-10 tutorial, which flattens by view."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc = nn.Linear(16 * 5 * 5, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.view(x.size(0), -1))


@EACH
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_network_that_flattens_by_view_is_left_as_it_is(name, wrapped):
    images, targets = torch.rand(2, 3, 32, 32), torch.eye(3)[:2]
    network = View().eval()
    model = Classifier(network, "abc") if wrapped else network
    for layout in (torch.contiguous_format, torch.channels_last):
        given = images.contiguous(memory_format=layout)
        masks = METHODS[name](model, given, targets, **options(name))
        assert masks.isfinite().all()
    assert all(p.is_contiguous() for p in network.parameters())
    network(images)


# --- features ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((2, 5, 7, 7), (224, 224), (2, 5, 7, 7)),
        ((2, 7, 7, 5), (224, 224), (2, 5, 7, 7)),  # Swin
        ((2, 8, 8, 6), (64, 64), (2, 6, 8, 8)),
        ((2, 196, 5), (224, 224), (2, 5, 14, 14)),
        ((2, 197, 5), (224, 224), (2, 5, 14, 14)),  # with a class token
        ((2, 201, 5), (224, 224), (2, 5, 14, 14)),  # and four registers
        ((2, 51, 5), (80, 160), (2, 5, 5, 10)),
        ((2, 5, 7, 10), (224, 320), (2, 5, 7, 10)),
        ((2, 7, 10, 5), (224, 320), (2, 5, 7, 10)),
        ((2, 12, 197, 64), (224, 224), None),  # the heads of attention
        ((2, 13, 5), (224, 224), None),
        ((2, 5), (224, 224), None),
    ],
)
def test_layouts_of_features(shape, size, expected):
    features = torch.rand(shape)
    maps = feature_maps(features, *size)
    assert (None if maps is None else tuple(maps.shape)) == expected
    if maps is not None and features.ndim == 3:  # row by row, at the end
        second = shape[1] - maps[0, 0].numel() + 1
        assert torch.equal(maps[0, :, 0, 1], features[0, second])


class Swinlike(nn.Module):
    """Logit 0 is how much red there is; features are (B, 8, 8, 6)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.stage = nn.Identity()
        self.head = nn.Linear(6, 2, bias=False)
        with torch.no_grad():
            self.patches.weight[0].zero_()
            self.patches.weight[0, 0] = 1 / 64  # channel 0: mean red
            self.patches.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[0, 0] = 10

    def forward(self, x):
        x = self.stage(self.patches(x).permute(0, 2, 3, 1))
        return self.head(x.mean((1, 2)))


@pytest.mark.parametrize("layer", ["stage", None])
def test_channels_last_features_by_hand(layer):
    images = torch.zeros(1, 3, 64, 64)
    images[0, 0, 48:, 24:40] = 1  # red, at the bottom
    mask = grad_cam(Swinlike(), images, torch.tensor([[1.0, 0]]), layer=layer)
    assert mask[0, 0, 52:, 28:36].min() == 1
    assert mask[0, 0, :44].max() == 0


def test_tokens_of_a_transformer_by_the_definition():
    vit = torchvision.models.VisionTransformer(
        *(32, 8), num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    ).eval()
    nn.init.normal_(vit.heads.head.weight)  # torchvision starts it at 0
    images, targets = torch.rand(2, 3, 32, 32), torch.zeros(2, 1000)
    targets[:, 0] = 1
    layer = vit.encoder.layers[-1].ln_1
    kept = []
    handle = layer.register_forward_hook(lambda m, i, o: kept.append(o))
    logits = vit(images.clone().requires_grad_())
    handle.remove()
    (g,) = torch.autograd.grad(logits[:, 0].sum(), kept[0])
    a, g = kept[0][:, 1:], g[:, 1:]  # without the class token
    cam = (g.mean(1, keepdim=True) * a).sum(-1).relu().reshape(2, 1, 4, 4)
    cam = F.interpolate(cam.detach(), (32, 32), mode="bilinear")[:, 0]
    for chosen in (layer, "encoder.layers.encoder_layer_1.ln_1", None):
        masks = grad_cam(vit, images, targets, layer=chosen)
        low, high = cam.amin((1, 2), True), cam.amax((1, 2), True)
        torch.testing.assert_close(masks[:, 0], (cam - low) / (high - low))
    # What follows the last attention leaves only the class token.
    with pytest.raises(UserError, match="the class token; pass an earlier"):
        grad_cam(vit, images, targets, layer="encoder.ln")


def test_an_unknown_layout_asks_for_reshape():
    class Odd(Swinlike):
        def forward(self, x):
            tokens = self.patches(x).flatten(2).mT[:, :60]
            return self.head(self.stage(tokens).mean(1))

    images, targets = torch.rand(1, 3, 64, 64), torch.tensor([[1.0, 0]])
    with pytest.raises(UserError, match=r"\(1, 60, 6\).*pass reshape="):
        grad_cam(Odd(), images, targets, layer="stage")
    masks = grad_cam(
        *(Odd(), images, targets),
        layer="stage",
        reshape=lambda tokens: tokens.mT.unflatten(2, (6, 10)),
    )
    assert masks[0, 0].max() == 1


def test_a_layer_beside_the_way_is_named():
    model = Swinlike()
    model.unused = nn.Identity()
    with pytest.raises(UserError, match="takes no part"):
        grad_cam(
            *(model, torch.rand(1, 3, 64, 64), torch.ones(1, 2)),
            layer="unused",
        )


# --- the matrix -------------------------------------------------------------

NETWORKS = {
    "bare": Net,
    "view": View,
    **{
        f"torchvision/{name}": lambda name=name: torchvision.models.get_model(
            name, weights=None, num_classes=3
        )
        for name in (
            *("vgg11", "resnet18", "densenet121", "mobilenet_v3_small"),
            *("efficientnet_b0", "convnext_tiny", "swin_t"),
        )
    },
    "torchvision/vit": lambda: torchvision.models.VisionTransformer(
        *(32, 8, 2, 2, 32, 64), num_classes=3
    ),
    **{
        f"timm/{name}": lambda name=name, given=given: timm.create_model(
            name, num_classes=3, **given
        )
        for name, given in {
            "resnet10t": {},
            "vgg11": {"mlp_ratio": 1 / 64},
            "densenet121": {},
            "mobilenetv3_small_050": {},
            "efficientnet_lite0": {},
            "convnext_atto": {},
            "swin_tiny_patch4_window7_224": {
                "img_size": 64,
                "window_size": 2,
            },
            "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8},
            "vit_small_patch14_reg4_dinov2": {
                "img_size": 56,
                "depth": 2,
            },
        }.items()
    },
}
LAST = {
    "torchvision/resnet18": "layer4",
    "torchvision/swin_t": "permute",
    "torchvision/vit": "encoder.layers.encoder_layer_1.ln_1",
    "timm/resnet10t": "layer4",
    "timm/vit_tiny_patch16_224": "blocks.11.norm1",
    "timm/vit_small_patch14_reg4_dinov2": "blocks.1.norm1",
}
"""Layers that Grad-CAM must find by itself; inputs are 2 x 2 cells large."""


@pytest.mark.parametrize("key", NETWORKS)
def test_every_method_on_every_architecture(key):
    network = NETWORKS[key]().eval()
    for head in network.modules():  # torchvision's ViT starts it at 0
        if isinstance(head, nn.Linear) and head.out_features == 3:
            nn.init.normal_(head.weight)
    small = "vit" in key or key == "view"
    size = 56 if "dinov2" in key else 32 if small else 64
    images, targets = torch.rand(1, 3, size, size), torch.tensor([[1, 0, 1]])
    for name in ASKING:
        masks = METHODS[name](network, images, targets, **options(name))
        assert masks.shape == (1, 3, size, size), name
        assert masks.isfinite().all(), name
        assert not masks[:, 1].any(), name
    if key in LAST:
        own = network.get_submodule(LAST[key])
        assert last_feature_layer(network, images) is own


PLANTED = ("grad_cam", "rise", "extremal_perturbation", "input_gradient")


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("pool", ["mean", "view", "tokens"])
def test_the_planted_evidence_is_found(name, pool):
    """Toy twins of three kinds of network see red, at the lower left."""

    class Twin(Swinlike):
        def forward(self, x):
            maps = self.stage(self.patches(x))
            if pool == "tokens":
                pooled = self.last(maps.flatten(2).mT).mean(1)
            elif pool == "view":
                pooled = maps.view(len(x), 6, -1).mean(2)
            else:
                pooled = maps.mean((2, 3))
            return self.head(pooled) - 4.85  # what the mean colour gives

        last = nn.Identity()

    images = mean_colour(None).expand(1, 3, 64, 64).clone()
    images[0, 0, 40:56, 8:24] = 1
    given = {
        "rise": {"n_masks": 300, "score": "logit"},
        "extremal_perturbation": {"iterations": 15, "areas": (0.1,)},
    }.get(name, {})
    masks = METHODS[name](Twin(), images, torch.tensor([[1, 0]]), **given)[
        0, 0
    ]
    if name == "input_gradient":  # a linear network: the same everywhere
        assert masks.std() == 0
    else:
        assert masks[40:56, 8:24].mean() > 1.5 * masks.mean()
