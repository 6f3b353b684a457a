"""The classifiers, and the promise that a frozen one stays as it is."""

import copy
import pickle
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import skimage.data
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.testing import assert_close

from explainer.classifiers import (
    CLASSIFIERS,
    HALVES,
    IMAGENET,
    Classifier,
    SmallCNN,
    SmallEncoder,
    WeightsError,
    _load_file,
    build_classifier,
    efficientnet_lite0,
    found,
    frozen,
    lite0_weights,
    probabilities,
    resnet50,
    small_cnn,
    vgg16,
)
from explainer.errors import UserError
from explainer.losses import LossWeights, explainer_loss

CLASSES = ("cat", "dog", "cow")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def classifier() -> Classifier:
    """One with everything that training mode upsets."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    return Classifier(network, CLASSES, cam_layer="1")


def images(n: int = 4, size: int = 16) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.manual_seed(1))


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(dict(module.named_buffers()))


# --- a classifier owns its normalisation --------------------------------


def test_normalisation_by_hand() -> None:
    classifier = Classifier(
        nn.Flatten(), CLASSES, mean=(0.5, 0.0, 0.1), std=(0.5, 1.0, 0.2)
    )
    pixel = torch.tensor([1.0, 0.25, 0.3]).reshape(1, 3, 1, 1)
    assert_close(classifier(pixel), torch.tensor([[1.0, 0.25, 1.0]]))


def test_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0]])
    sigmoid = Classifier(nn.Identity(), "ab")
    softmax = Classifier(nn.Identity(), "ab", multi_label=False)
    assert_close(probabilities(sigmoid, logits), torch.tensor([[0.5, 0.5]]))
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    assert probabilities(softmax, logits).tolist() == [[0.25] * 4]
    assert probabilities(nn.Identity(), logits).tolist() == [[0.5] * 4]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("logits", "several", "one"),
    [
        # Sigmoid: 1/2 is enough. Softmax: one, though below 1/2.
        ([0.0, -0.1, 0.2], [1, 0, 1], [0, 0, 1]),
        ([-3.0, -2.0, -4.0], [0, 0, 0], [0, 1, 0]),
        ([0.1, 0.2, 0.15], [1, 1, 1], [0, 1, 0]),
        ([-1.0, 2.0, 2.0], [0, 1, 1], [0, 1, 0]),  # a tie: the first
        ([0.0, 0.0, 0.0], [1, 1, 1], [1, 0, 0]),
        ([99.0, 300.0, 299.0], [1, 1, 1], [0, 1, 0]),
        ([-INF, -INF, -1.0], [0, 0, 0], [0, 0, 1]),
        ([1.0, INF, 0.0], [1, 1, 1], [0, 1, 0]),
        ([NAN, 3.0, -1.0], [0, 1, 0], [0, 0, 0]),
        ([NAN, NAN, NAN], [0, 0, 0], [0, 0, 0]),
    ],
)
def test_found_by_hand(
    logits: list[float], several: list[int], one: list[int]
) -> None:
    many = Classifier(nn.Identity(), CLASSES)
    single = Classifier(nn.Identity(), CLASSES, multi_label=False)
    row = torch.tensor([logits])
    for classifier, expected in (
        (many, several),
        (nn.Identity(), several),
        (single, one),
        (frozen(single), one),
    ):
        assert found(classifier, row).dtype == torch.bool
        assert found(classifier, row).tolist() == [expected]
    # Each image by itself, and none is no error.
    assert found(single, row.repeat(2, 1)).tolist() == [one, one]
    assert found(single, row[:0]).shape == (0, 3)


def test_frozen_features_keep_their_statistics(
    classifier: Classifier,
) -> None:
    """A fresh head trains, with its dropout; batch norm below it rests."""
    classifier.network[:2].requires_grad_(False)
    classifier.train()
    before = buffers_of(classifier)
    classifier(images())
    assert_close(dict(classifier.named_buffers()), before, rtol=0, atol=0)
    assert classifier.network[2].training
    assert classifier.network[5].training
    classifier.eval()
    assert not any(m.training for m in classifier.modules())


# --- frozen -------------------------------------------------------------


def test_frozen_is_the_very_module(classifier: Classifier) -> None:
    held = frozen(classifier)
    assert held.classifier is classifier
    assert frozen(held) is held
    assert held.classes == CLASSES
    assert held.cam_layer == "1"
    assert held.multi_label
    assert held.mean is classifier.mean
    with pytest.raises(AttributeError):
        _ = held.no_such_thing


def test_parent_cannot_wake_a_frozen_classifier(
    classifier: Classifier,
) -> None:
    """The authors' code trains with dropout on and statistics adrift."""
    before = buffers_of(classifier)
    with torch.no_grad():
        expected = classifier.eval()(images())
    classifier.train()
    parent = nn.ModuleDict({"f": frozen(classifier), "e": nn.Dropout()})
    parent.train()
    assert parent["e"].training
    assert not any(m.training for m in parent["f"].modules())
    for _ in range(3):  # dropout would differ between calls
        assert_close(parent["f"](images()), expected, rtol=0, atol=0)
    assert_close(dict(classifier.named_buffers()), before, rtol=0, atol=0)


def test_gradients_reach_the_input_not_the_parameters(
    classifier: Classifier,
) -> None:
    held = frozen(classifier)
    x = images().requires_grad_()
    held(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert not any(p.requires_grad for p in held.parameters())
    assert all(p.grad is None for p in held.parameters())


def test_frozen_classifiers_copy_and_pickle(classifier: Classifier) -> None:
    held = frozen(classifier)
    for twin in (copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        assert_close(twin(images()), held(images()))
        assert not twin.train().training


def test_any_module_can_be_explained() -> None:
    """Images to logits is all that is asked, sigmoid or softmax."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.mean((2, 3)))

    plain, softmax = Plain(), Plain()
    softmax.multi_label = False  # type: ignore[assignment]
    softmax.load_state_dict(plain.state_dict())
    labels = torch.eye(3)[[0, 1, 2, 0]]
    losses = []
    for module in (plain, softmax):
        class_masks = torch.full((4, 3, 16, 16), 0.5, requires_grad=True)
        loss = explainer_loss(
            frozen(module), images(), labels, class_masks, LossWeights()
        )
        loss.total.backward()
        assert class_masks.grad is not None
        assert torch.isfinite(class_masks.grad).all()
        losses.append(loss.terms["classification"].item())
    assert losses[0] != losses[1]


# --- the networks -------------------------------------------------------


def trainable(classifier: Classifier) -> set[str]:
    return {
        name
        for name, p in classifier.network.named_parameters()
        if p.requires_grad
    }


def test_an_exported_network_is_refused_in_a_sentence() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    exported = torch.export.export(network, (torch.zeros(1, 3, 2, 2),))
    with pytest.raises(UserError, match="not ExportedProgram"):
        Classifier.from_module(exported)  # type: ignore[arg-type]
    for use in (Classifier.from_module, frozen):
        with pytest.raises(UserError, match="give the module"):
            use(exported.module())


def test_small_cnn() -> None:
    classifier = small_cnn(CLASSES)
    assert classifier(images(2, 64)).shape == (2, 3)
    assert sum(p.numel() for p in classifier.parameters()) < 1_000_000
    assert classifier.network.get_submodule(classifier.cam_layer)
    assert isinstance(classifier.network, SmallCNN)
    encoder = classifier.network.encoder
    assert isinstance(encoder, SmallEncoder)
    shapes = [f.shape[1:] for f in encoder(images(1, 64))]
    assert [s[0] for s in shapes] == list(encoder.channels)
    assert [s[1] for s in shapes] == [32, 16, 8]
    with pytest.raises(WeightsError, match="use 'random'"):
        small_cnn(CLASSES, "imagenet")


def test_vgg16_is_the_papers() -> None:
    with torch.device("meta"):  # its head alone has 119 M parameters
        classifier = vgg16(CLASSES, "random").train()
        logits = classifier(torch.rand(2, 3, 224, 224))
    assert logits.shape == (2, 3)
    network = classifier.network
    assert trainable(classifier) == {
        f"classifier.{i}.{what}"
        for i in (0, 3, 6)
        for what in ("weight", "bias")
    }
    sizes = [
        (m.in_features, m.out_features)
        for m in network.classifier
        if isinstance(m, nn.Linear)
    ]
    assert sizes == [(25088, 4096), (4096, 4096), (4096, 3)]
    assert not any(m.training for m in network.features)
    assert [m.p for m in network.classifier if isinstance(m, nn.Dropout)] == [
        0.5,
        0.5,
    ]
    assert all(m.training for m in network.classifier)
    assert network.get_submodule(classifier.cam_layer) is network.features


def test_resnet50_trains_its_linear_layer_only() -> None:
    classifier = resnet50(CLASSES, "random").train()
    assert trainable(classifier) == {"fc.weight", "fc.bias"}
    before = buffers_of(classifier)
    assert classifier(images(2, 32)).shape == (2, 3)
    assert_close(dict(classifier.named_buffers()), before, rtol=0, atol=0)
    norms = [m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert not any(m.training for m in norms)
    assert classifier.network.get_submodule(classifier.cam_layer)


def test_efficientnet_lite0_knows_a_cat() -> None:
    """The package's weights fit, in order, and so does [-1, 1]."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    _load_file(network, lite0_weights())
    photo = torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1) / 255
    photo = nn.functional.interpolate(
        photo[None], (224, 224), mode="bilinear", antialias=True
    )
    classifier = Classifier(network, map(str, range(1000)), *HALVES).eval()
    with torch.no_grad():
        assert classifier(photo).argmax().item() == 285  # Egyptian cat


def test_efficientnet_lite0_gets_a_fresh_head() -> None:
    classifier = efficientnet_lite0(CLASSES).train()
    assert classifier(images(2, 64)).shape == (2, 3)
    assert trainable(classifier) == {"classifier.weight", "classifier.bias"}
    assert not classifier.network.bn1.training
    assert classifier.network.get_submodule(classifier.cam_layer)
    random = efficientnet_lite0(CLASSES, "random")
    own = classifier.state_dict()
    assert own.keys() == random.state_dict().keys()
    stem = "network.conv_stem.weight"
    assert not torch.equal(own[stem], random.state_dict()[stem])


def test_unknown_classifier_lists_the_known() -> None:
    with pytest.raises(ValueError, match="known: small_cnn, vgg16"):
        build_classifier("vgg61", CLASSES)
    assert set(CLASSIFIERS) == {
        "small_cnn",
        "vgg16",
        "resnet50",
        "efficientnet_lite0",
    }


# --- initial weights ----------------------------------------------------


def test_initial_weights_come_from_a_file(tmp_path: Path) -> None:
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    state = theirs.state_dict()
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    # Another library's names of modules: their order counts.
    renamed = {
        f"x{modules.index(module)}.{local}": value
        for name, value in state.items()
        for module, _, local in [name.rpartition(".")]
    }
    torch.save(renamed, tmp_path / "theirs.pt")
    ours = efficientnet_lite0(CLASSES, tmp_path / "theirs.pt")
    assert_close(
        ours.network.conv_head.weight, theirs.conv_head.weight, rtol=0, atol=0
    )


def drawn_norms() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a network of two norms, and weights that differ everywhere."""
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    state = {
        k: torch.rand(v.shape) if v.is_floating_point() else v + 7
        for k, v in network.state_dict().items()
    }
    return network, state


def test_a_norms_weight_and_bias_do_not_trade_places(tmp_path: Path) -> None:
    """Another library wrote the bias first; the shapes are equal."""
    network, state = drawn_norms()
    order = [f"{i}.{k}" for i in (0, 1) for k in ("bias", "weight")]
    order += [name for name in state if name not in order]
    torch.save({f"norm{k}": state[k] for k in order}, tmp_path / "theirs")
    _load_file(network, tmp_path / "theirs")
    assert_close(network.state_dict(), state, rtol=0, atol=0)


def test_equal_names_count_more_than_order(tmp_path: Path) -> None:
    network, state = drawn_norms()
    torch.save(dict(reversed(state.items())), tmp_path / "sorted")
    _load_file(network, tmp_path / "sorted")
    assert_close(network.state_dict(), state, rtol=0, atol=0)


def test_tensors_of_another_kind_are_refused(tmp_path: Path) -> None:
    """Equal shapes, but which of the two is the bias?"""
    network, state = drawn_norms()
    before = copy.deepcopy(network.state_dict())
    renamed = {k.replace("bias", "beta"): v for k, v in state.items()}
    torch.save(renamed, tmp_path / "beta")
    with pytest.raises(WeightsError, match="local names"):
        _load_file(network, tmp_path / "beta")
    assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_failed_download_names_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for build in (vgg16, resnet50):
        with pytest.raises(WeightsError, match="pass its path") as caught:
            build(CLASSES, "imagenet")
        assert build.__name__ in str(caught.value)
        assert isinstance(caught.value, UserError)


class _Code:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_unfit_weights_are_refused(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    good = network.state_dict()
    trap = tmp_path / "executed"
    files = {
        "shape": {**good, "bias": torch.zeros(3)},
        "fewer": {"weight": good["weight"]},
        "tensor": torch.zeros(3),
        "list": [torch.zeros(2, 2), torch.zeros(2)],
        "code": {"weight": _Code(trap)},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "garbage").write_bytes(b"\x00garbage" * 9)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "pickle").write_bytes(pickle.dumps(_Code(trap)))
    names = [*files, "garbage", "empty", "pickle", "missing"]
    before = copy.deepcopy(good)
    for name in names:
        with pytest.raises(WeightsError, match=name):
            _load_file(network, tmp_path / name)
    assert not trap.exists()
    assert_close(network.state_dict(), before, rtol=0, atol=0)


# --- foreign classifiers ----------------------------------------------------


def test_torchvisions_names_and_normalisation_are_its_weights() -> None:
    model = Classifier.from_torchvision("resnet18", "random")
    assert model.classes[281:283] == ("tabby", "tiger cat")
    assert len(set(model.classes)) == 1000
    assert (model.size, model.multi_label) == (224, False)
    assert not model.training
    assert model.mean.flatten().tolist() == pytest.approx(IMAGENET[0])
    large = Classifier.from_torchvision("efficientnet_b1", "random")
    assert large.size == 240


def published(name: str) -> dict[str, Tensor]:
    """Return a state such as torchvision's file of ImageNet weights has."""
    options: dict[str, dict[str, object]] = {
        "googlenet": {"aux_logits": True, "init_weights": False},
        "inception_v3": {"aux_logits": True, "init_weights": False},
        "vit_h_14": {"image_size": 518},
    }
    network = torchvision.models.get_model(name, **options.get(name, {}))
    # Old files have no counts, and DenseNet's have other names.
    return {
        re.sub(r"(denselayer\d+\.[a-z]+)([12])", r"\1.\2", key): value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(
    "name",
    [
        *("googlenet", "inception_v3", "vit_h_14", "resnet18"),
        *("densenet121", "densenet161", "densenet169", "densenet201"),
    ],
)
def test_torchvisions_networks_are_those_of_its_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: list[dict[str, object]] = []

    def fetched(url: str, **options: object) -> dict[str, Tensor]:
        how.append(options)
        return published(name)

    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", fetched
    )
    with torch.device("meta"):
        own = torchvision.models.get_model(name, weights="DEFAULT").eval()
        for weights in ("imagenet", "random"):
            ours = Classifier.from_torchvision(name, weights).network
            assert repr(ours) == repr(own)
            for attribute in ("transform_input", "image_size", "aux_logits"):
                theirs = getattr(own, attribute, None)
                assert getattr(ours, attribute, None) == theirs
            shapes = {k: v.shape for k, v in ours.state_dict().items()}
            assert shapes == {k: v.shape for k, v in own.state_dict().items()}
    assert [options.get("weights_only") for options in how] == [None, True]


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "resnet18"])
def test_torchvisions_files_load_by_hand(name: str, tmp_path: Path) -> None:
    """The published one, that of a network, another library's names."""
    state = published(name)
    torch.save(state, tmp_path / "published.pth")
    path = tmp_path / "published.pth"
    own = Classifier.from_torchvision(name, path).network.state_dict()
    assert_close(
        [v for k, v in own.items() if not k.endswith("num_batches_tracked")],
        [v for k, v in state.items() if not k.startswith("aux")],
        rtol=0,
        atol=0,
    )
    for prefix in ("", "x."):
        torch.save({prefix + k: v for k, v in own.items()}, path)
        again = Classifier.from_torchvision(name, str(path)).network
        assert_close(again.state_dict(), own, rtol=0, atol=0)


def test_initial_weights_are_two_names_or_a_file_that_loads() -> None:
    for weights in ("imagenett", "no/such.pth", Path("random")):
        for build in (
            lambda w: Classifier.from_torchvision("resnet18", w),
            lambda w: Classifier.from_timm("resnet18", w),
            lambda w: build_classifier("resnet50", CLASSES, w),
            lambda w: build_classifier("efficientnet_lite0", CLASSES, w),
        ):
            with pytest.raises(WeightsError, match=f"weights from {weights}"):
                build(weights)


def test_timms_names_and_normalisation_are_its_configuration() -> None:
    model = Classifier.from_timm("vit_tiny_patch16_224", "random")
    assert model.classes[281] == "tabby"
    assert model.classes[134] == "crane (134)"  # the bird; 517 lifts
    assert model.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert (model.size, model.multi_label) == (224, False)


def test_timm_and_our_own_are_the_same_real_classifier() -> None:
    """ImageNet's weights of a package; the cat is scikit-image's."""
    model = Classifier.from_timm("tf_efficientnet_lite0", lite0_weights())
    cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0) / 255
    images = torch.nn.functional.interpolate(
        cat[None], (224, 224), mode="bilinear", antialias=True
    )
    p = probabilities(model, model(images))[0]
    assert model.classes[int(p.argmax())] == "Egyptian cat"
    assert p.max() > 0.7


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_weights_that_cannot_be_had_tell_the_step_by_hand(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", offline
    )
    monkeypatch.setattr("timm.create_model", offline)
    load = getattr(Classifier, f"from_{library}")
    with pytest.raises(WeightsError, match=r"no network.*by hand") as raised:
        load("resnet18")
    assert "https://" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_names_that_libraries_lack_are_refused(library: str) -> None:
    load = getattr(Classifier, f"from_{library}")
    with pytest.raises(ValueError, match=f"in {library} 'resnet5'; known"):
        load("resnet5", "random")


def test_the_devices_of_a_module_are_the_normalisations() -> None:
    network = torch.nn.Conv2d(3, 2, 1, device="meta")
    assert Classifier.from_module(network).mean.device.type == "meta"
