"""The front door: pictures of every kind, any model, any target."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from explainer.attribution import METHODS
from explainer.checkpoints import Pair, save_weights
from explainer.classifiers import Classifier, build_classifier, frozen
from explainer.data import DataError
from explainer.errors import UserError
from explainer.explanation import (
    Explanation,
    Explanations,
    explain,
    explain_each,
    target_classes,
)

CLASSES = ("red", "green", "blue")
SIZE = 20


class Colours(nn.Module):
    """Logits: how much of each colour there is, above a fifth."""

    def forward(self, images: Tensor) -> Tensor:
        return 20 * (images.mean((2, 3)) - 0.2)


class Where(nn.Module):
    """Masks: where each colour is."""

    def forward(self, images: Tensor) -> Tensor:
        return 40 * (images - 0.5)


def explain_photo(pair: Pair, path: Path, folder: Path) -> dict[str, Any]:
    result = explain(path, pair)
    assert isinstance(result, Explanation)
    return result.save(folder)


def explain_photos(
    pair: Pair, paths: list[Path], folder: Path
) -> list[dict[str, Any]]:
    result = explain(paths, pair)
    assert isinstance(result, Explanations)
    return result.save(folder)


@pytest.fixture
def pair() -> Pair:
    eye = Classifier(Colours(), CLASSES, mean=(0, 0, 0), std=(1, 1, 1))
    return Pair(frozen(eye), Where(), CLASSES, SIZE)


def photo(path: Path, **colours: slice) -> Path:
    """Write 60 x 40 black pixels with columns of pure colours."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    for name, columns in colours.items():
        pixels[:, columns, CLASSES.index(name)] = 255
    Image.fromarray(pixels).save(path)
    return path


def grey(path: str) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image) / 255


def test_mask_and_probabilities_of_each_class_found(
    pair: Pair, tmp_path: Path
) -> None:
    path = photo(tmp_path / "two.png", red=slice(0, 30), blue=slice(30, 60))
    out = tmp_path / "deep" / "out"
    record = explain_photo(pair, path, out)
    assert record["photo"] == str(path)
    assert record["found"] == ["red", "blue"]
    assert {p.name for p in out.iterdir()} == {
        "two_overlay.png",
        "two_red.png",
        "two_blue.png",
    }
    red = record["classes"]["red"]
    mask = grey(red["mask"])
    assert mask.shape == (40, 60)  # the picture's size, not the network's
    assert mask[:, :27].min() > 0.95
    assert mask[:, 33:].max() < 0.05
    # Half of the picture is red, with and without the rest.
    expected = torch.tensor(20 * (0.5 - 0.2)).sigmoid().item()
    assert red["before"] == pytest.approx(expected, abs=1e-3)
    assert red["after"] == pytest.approx(expected, abs=1e-2)
    with Image.open(out / "two_overlay.png") as image:
        assert image.mode == "RGB"
        assert image.size == (60, 40)


def test_nothing_found_is_no_error(pair: Pair, tmp_path: Path) -> None:
    record = explain_photo(pair, photo(tmp_path / "dark.png"), tmp_path / "o")
    assert record["found"] == []
    assert record["classes"] == {}
    files = [path.name for path in (tmp_path / "o").iterdir()]
    assert files == ["dark_overlay.png"]


def test_a_softmax_always_finds_one_class(tmp_path: Path) -> None:
    eye = Classifier(
        Colours(), CLASSES, mean=(0, 0, 0), std=(1, 1, 1), multi_label=False
    )
    pair = Pair(frozen(eye), Where(), CLASSES, SIZE)
    path = photo(
        tmp_path / "a.png",
        red=slice(0, 20),
        green=slice(20, 41),
        blue=slice(41, 60),
    )
    record = explain_photo(pair, path, tmp_path / "o")
    assert record["found"] == ["green"]
    # Logits 20 (share - 1/5): no class has a probability of 1/2.
    shares = torch.tensor([20.0, 21, 19]) / 60
    p = (20 * shares).softmax(0)[1].item()
    assert record["classes"]["green"]["before"] == pytest.approx(p, abs=0.02)
    assert p < 0.5


def test_folders_and_files(pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo(folder / "b.jpg", red=slice(0, 60))
    photo(folder / "a.png", blue=slice(0, 60))
    single = photo(tmp_path / "c.png", green=slice(0, 60))
    found = explain_photos(pair, [single, folder], tmp_path / "out")
    assert [Path(r["photo"]).name for r in found] == [
        "c.png",
        "a.png",
        "b.jpg",
    ]
    assert [r["found"] for r in found] == [["green"], ["blue"], ["red"]]


def test_pictures_never_overwrite_each_other(
    pair: Pair, tmp_path: Path
) -> None:
    one = photo(tmp_path / "cat.png", red=slice(0, 60))
    two = photo(tmp_path / "cat.jpg", red=slice(0, 60))
    with pytest.raises(DataError, match="several pictures are named cat"):
        explain_photos(pair, [one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_differ_in_case_are_one_file_on_some_disks(
    pair: Pair, tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    one = photo(folders[0] / "Cat.jpg", red=slice(0, 60))
    two = photo(folders[1] / "cat.png", red=slice(0, 60))
    with pytest.raises(DataError, match="pictures are named Cat, cat"):
        explain_photos(pair, [one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_picture_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(content, "JPEG")
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(content.getvalue()[:900])
    for path in (torn, tmp_path / "missing.jpg"):
        with pytest.raises(DataError, match=path.name):
            explain_photo(pair, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def flat(mode: str, colour: object, size: tuple[int, int] = (60, 40)) -> Any:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def rotated() -> tuple[Image.Image, dict[str, object]]:
    """Red at the left, and the camera says: turn it to the right."""
    image = flat("RGB", "black")
    image.paste("red", (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    return image, {"exif": exif, "quality": 95}


def palette() -> Image.Image:
    image = flat("P", 1)
    image.putpalette([0, 0, 255, 255, 0, 0])  # 1 is red
    return image


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((40, 60), 65535, np.uint16))


EVERY = list(CLASSES)
FRAMES = {"save_all": True, "append_images": [flat("RGB", "blue")]}
KINDS: dict[str, tuple[str, Any, dict[str, Any], list[str]]] = {
    "none of the classes": ("a.png", flat("RGB", "black"), {}, []),
    "several": ("a.png", flat("RGB", "yellow"), {}, ["red", "green"]),
    "grey-scale": ("a.png", flat("L", 200), {}, EVERY),
    "one pixel": ("a.png", flat("RGB", "red", (1, 1)), {}, ["red"]),
    "one row": ("a.png", flat("RGB", "red", (3000, 1)), {}, ["red"]),
    "huge": ("a.jpg", flat("RGB", "red", (4000, 2500)), {}, ["red"]),
    "CMYK": ("a.jpg", flat("CMYK", (0, 255, 255, 0)), {}, ["red"]),
    "rotated": ("a.jpg", *rotated(), ["red"]),
    "transparent": ("a.png", flat("RGBA", (255, 0, 0, 0)), {}, EVERY),
    "animated": ("a.gif", flat("RGB", "red"), FRAMES, ["red"]),
    "16 bits": ("a.png", sixteen_bits(), {}, EVERY),
    "palette": ("a.png", palette(), {}, ["red"]),
    "one bit": ("a.png", flat("1", 1), {}, EVERY),
    "wrong suffix": ("a.jpg", flat("RGB", "red"), {"format": "PNG"}, ["red"]),
    "no suffix": ("a", flat("RGB", "red"), {"format": "PNG"}, ["red"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture(pair: Pair, kind: str, tmp_path: Path) -> None:
    name, image, options, found = KINDS[kind]
    path = tmp_path / name
    image.save(path, **options)
    (record,) = explain_photos(pair, [path], tmp_path / "out")
    assert record["found"] == found
    files = {f"a_{c}.png" for c in found} | {"a_overlay.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == files
    width, height = image.size
    upright = (height, width) if kind == "rotated" else (width, height)
    for file in (tmp_path / "out").iterdir():
        with Image.open(file) as written:
            assert written.size == upright
    for numbers in record["classes"].values():
        assert 0 <= numbers["after"] <= 1


def test_masks_lie_on_the_upright_picture(pair: Pair, tmp_path: Path) -> None:
    image, options = rotated()
    image.save(tmp_path / "a.jpg", **options)
    record = explain_photo(pair, tmp_path / "a.jpg", tmp_path / "out")
    mask = grey(record["classes"]["red"]["mask"])
    # What was at the left is on top.
    assert mask[:25].min() > 0.9
    assert mask[35:].max() < 0.1


def torn(format: str) -> bytes:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(content, format)
    return content.getvalue()[: len(content.getvalue()) // 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jpg", b""),
        ("text.png", b"this is no picture\n"),
        ("page.jpg", b"<html><body>404</body></html>"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("cut.jpg", torn("JPEG")),
        ("cut.png", torn("PNG")),
        ("cut.gif", torn("GIF")),
        ("cut.tif", torn("TIFF")),
        ("cut.webp", torn("WEBP")),
    ],
)
def test_what_is_no_whole_picture_is_named(
    pair: Pair, name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        explain_photos(pair, [path], tmp_path / "out")
    said = str(raised.value)
    assert str(path) in said
    kind = "convert it to JPEG" if name == "phone.jpg" else "restore it or"
    assert kind in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_damaged_one_is_told_and_the_others_are_explained(
    pair: Pair, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png", red=slice(0, 60))
    (tmp_path / "b.jpg").write_bytes(b"")
    photo(tmp_path / "c.png", blue=slice(0, 60))
    first, bad, last = explain_each(tmp_path, pair)
    assert isinstance(first, Explanation)
    assert isinstance(last, Explanation)
    assert (first.classes, last.classes) == (("red",), ("blue",))
    assert isinstance(bad, DataError)
    assert "b.jpg cannot be decoded" in str(bad)


# --- kinds of images ------------------------------------------------------


def two_colours() -> np.ndarray:
    """Return 40 x 60 bytes: red at the left, blue at the right."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0], pixels[:, 30:, 2] = 255, 255
    return pixels


def kinds() -> dict[str, Any]:
    pixels = two_colours()
    tensor = torch.from_numpy(pixels).movedim(-1, 0)
    opaque = np.full((40, 60, 1), 255, np.uint8)
    return {
        "Pillow": Image.fromarray(pixels),
        "bytes": pixels,
        "floats": pixels / 255,
        "half floats": (pixels / 255).astype(np.float16),
        "mirrored twice": pixels[::-1][::-1],
        "read-only": np.asarray(Image.fromarray(pixels)),
        "other byte order": (pixels / 255).astype(">f4"),
        "with transparency": np.concatenate([pixels, opaque], -1),
        "tensor": tensor / 255,
        "tensor of bytes": tensor,
        "tensor in double": tensor.double() / 255,
    }


@pytest.mark.filterwarnings("error:The given NumPy array:UserWarning")
@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_image(pair: Pair, kind: str) -> None:
    result = explain(kinds()[kind], pair)
    assert isinstance(result, Explanation)
    assert result.classes == ("red", "blue")
    assert result.masks.shape == (2, SIZE, SIZE)
    assert result.masks[0, :, :8].min() > 0.95
    assert result.masks[0, :, 12:].max() < 0.05
    assert result.draw().size == (60, 40)


def test_batches_and_lists_give_lists(pair: Pair, tmp_path: Path) -> None:
    batch = torch.from_numpy(two_colours()).movedim(-1, 0)[None] / 255
    path = photo(tmp_path / "a.png", green=slice(0, 60))
    for images in (batch, two_colours()[None], [two_colours()]):
        several = explain(images, pair)
        assert isinstance(several, Explanations)
        assert several.classes == [("red", "blue")]
    mixed = explain([path, str(path), *batch, Image.open(path)], pair)
    assert isinstance(mixed, Explanations)
    assert [one.photo for one in mixed] == [
        *(str(path), str(path)),
        *("image_2", "image_3"),
    ]
    several = explain([batch, torch.cat([batch, batch])], pair)
    assert isinstance(several, Explanations)
    assert [one.photo for one in several] == ["image_0", "image_1", "image_2"]
    assert len(several.save(tmp_path / "out")) == 3
    assert [len(masks) for masks in mixed.masks] == [1, 1, 2, 1]
    assert len(mixed.scores) == len(mixed.draw()) == 4
    assert mixed._repr_html_().count("<figure>") == 4


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8) * 5 - 2, "the range is \\[0, 1\\]; pass them"),
        (torch.rand(3, 8, 8) * 255, "divide bytes by 255"),
        (torch.rand(8, 8, 3), r"\(3, H, W\), not \(8, 8, 3\)"),
        (np.zeros((3, 8, 8)), r"\(H, W, 3\), not \(3, 8, 8\)"),
        (torch.ones(3, 8, 8).long(), "bytes from 0 to 255"),
        (torch.full((3, 8, 8), torch.nan), "from nan to nan"),
        (7, "not int"),
        ([], "no picture given"),
    ],
)
def test_what_is_no_image_is_refused(
    pair: Pair, images: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        explain(images, pair)


# --- targets --------------------------------------------------------------

NAMES = ("tabby, tabby cat", "dog", "crane (2)", "crane (3)")


@pytest.mark.parametrize(
    ("target", "indices"),
    [
        (1, [1]),
        (np.int64(1), [1]),
        ("dog", [1]),
        ("Dog", [1]),
        ("tabby", [0]),
        (["dog", 0, "dog"], [1, 0]),
        (torch.tensor(3), [3]),
        (torch.tensor([3, 1]), [3, 1]),
        (torch.tensor([1.0, 0, 1, 0]), [0, 2]),
        (torch.tensor([1, 0, 1, 0]), [0, 2]),
        (torch.tensor([True, False, True, False]), [0, 2]),
        ([True, False, True, False], [0, 2]),
        ((True, False, True, False), [0, 2]),
        (("dog", 0), [1, 0]),
        ((), []),
        (np.array([1, 0, 1, 0], np.float16), [0, 2]),
        (torch.zeros(4), []),
        (torch.tensor([[0, 0, 0, 1], [1, 1, 0, 0]]), [3]),
    ],
)
def test_every_kind_of_target(target: Any, indices: list[int]) -> None:
    assert target_classes(target, NAMES) == indices


def test_a_row_per_photograph() -> None:
    rows = torch.tensor([[0, 0, 0, 1], [1, 1, 0, 0]])
    assert target_classes(rows, NAMES, 1) == [0, 1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cat", "no class 'cat'; known: tabby, tabby cat, dog, crane"),
        (4, "no class 4; there are 4, from 0 to 3: tabby"),
        (-1, "no class -1"),
        (1.5, "not 1.5|not iterable"),
        ([1.5], "by its name or its number, not 1.5"),
        (torch.tensor([[1, 0]]), r"\(B, 4\), not \(1, 2\)"),
        (torch.tensor([True, False]), "has 4 values"),
        (torch.ones(1, 1, 4), "not"),
    ],
)
def test_impossible_targets(target: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        target_classes(target, NAMES)


def test_of_a_thousand_names_the_nearest_are_told() -> None:
    names = [f"class {i}" for i in range(999)] + ["tabby"]
    with pytest.raises(UserError, match=r"known: tabby.* and 99. more"):
        target_classes("tabbi", names)


def test_names_given_twice_get_their_number() -> None:
    crane = Classifier.from_module(nn.Identity(), ["crane", "cat", "Crane"])
    assert crane.classes == ("crane (0)", "cat", "Crane (2)")


def test_targets_and_the_likeliest_in_an_explanation(pair: Pair) -> None:
    dark = np.zeros((40, 60, 3), np.uint8)
    dark[:, :, 1] = 30
    assert explain(dark, pair).classes == ()
    asked = explain(dark, pair, target=["blue", "red"])
    assert (asked.classes, asked.found) == (("blue", "red"), ())
    assert explain(dark, pair, top=1).classes == ("green",)
    assert len(explain(dark, pair, top=9).classes) == 3
    with pytest.raises(UserError, match="not both"):
        explain(dark, pair, target="red", top=1)
    for top in (0, -1):
        with pytest.raises(UserError, match=f"at least 1, not {top}"):
            explain(dark, pair, top=top)


# --- models ---------------------------------------------------------------


def quiet(module: nn.Module, **told: Any) -> Classifier:
    return Classifier.from_module(module, **{"classes": CLASSES, **told})


def test_a_bare_module_warns_of_what_it_is_taken_for() -> None:
    with pytest.warns(UserWarning, match="Colours") as caught:
        result = explain(two_colours(), Colours(), method="input_gradient")
    (said,) = [str(w.message) for w in caught]
    for word in ("softmax", "multi_label=True", "ImageNet", "mean=", "std="):
        assert word in said
    assert caught[0].filename == __file__
    assert result.classes in (("0",), ("2",))  # the likeliest, numbered
    assert result.method == "input_gradient"


@pytest.mark.filterwarnings("error")
def test_a_bare_module_that_is_told_of_is_taken_as_told() -> None:
    result = explain(
        two_colours(),
        Colours(),
        classes=CLASSES,
        multi_label=True,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        method="input_gradient",
    )
    assert result.classes == ("red", "blue")
    expected = torch.tensor(20 * (0.5 - 0.2)).sigmoid().item()
    assert result.scores == pytest.approx([expected] * 2, abs=1e-3)


@pytest.mark.parametrize("method", ["grad_cam", "rise", "half"])
def test_a_bare_module_keeps_its_modes(method: str) -> None:
    """Each module's own: the user may have frozen a part of it."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3)),
    )
    network[1].eval()
    network[0].requires_grad_(False)
    modes = [module.training for module in network.modules()]
    flags = [p.requires_grad for p in network.parameters()]
    state = {k: v.clone() for k, v in network.state_dict().items()}
    told = {"classes": CLASSES, "target": [0, 1], "method": method}
    short = {"n_masks": 4} if method == "rise" else {}
    with pytest.warns(UserWarning, match="is taken to have"):
        one, two = (
            explain(torch.ones(3, 8, 8), network, **told, **short)
            for _ in range(2)
        )
    assert one.scores == two.scores  # without dropout
    assert [module.training for module in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == flags
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)


def test_a_classifier_wants_nothing_told() -> None:
    with pytest.raises(UserError, match="classes: this model is a Classif"):
        explain(two_colours(), quiet(Colours()), classes=CLASSES)


class Sized(nn.Module):
    """A network for 24 x 24 pixels only, that flattens with view."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 3, 2, 1)
        self.head = nn.Linear(2 * 12 * 12, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).view(len(images), -1))


def test_a_size_is_kept_told_or_asked_for(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", red=slice(0, 60))
    with pytest.raises(
        UserError, match=r"fails on an image of 224 x 224.*si"
    ):
        explain(path, quiet(Sized()), method="input_gradient")
    for result in (
        explain(path, quiet(Sized(), size=24), method="input_gradient"),
        explain(path, quiet(Sized()), method="input_gradient", size=24),
        explain(torch.rand(3, 24, 24), quiet(Sized()), method="grad_cam"),
    ):
        assert result.masks.shape[-2:] == (24, 24)


def test_names_that_do_not_fit_are_refused() -> None:
    two = Classifier.from_module(Colours(), ("a", "b"))
    with pytest.raises(UserError, match="3 outputs, and 2 classes"):
        explain(torch.rand(3, 8, 8), two, method="input_gradient")


def test_a_softmax_over_one_output_is_refused() -> None:
    one = Classifier.from_module(
        nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    )
    with pytest.raises(UserError, match="multi_label=True"):
        explain(torch.rand(3, 2, 2), one)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("torchvision/resnet5", "classifier in torchvision.*resnet50"),
        ("timm/resnet5", "classifier in timm.*resnet50"),
        ("torchvision/fcn_resnet50", "no classifier in torchvision"),
        ("no such run", "no shipped weights named"),
        (3, "a model is a torch.nn.Module.*not int"),
    ],
)
def test_unknown_models_are_named(model: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explain(torch.rand(3, 8, 8), model)


def test_a_softmax_classifier_finds_the_likeliest(tmp_path: Path) -> None:
    """Class a has 0.43, with four more classes; as on ImageNet."""

    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = torch.tensor([1.2, 0.3, 0.1, 0, 0])
            return logits + 0 * x.mean((1, 2, 3))[:, None]

    pair = Pair(
        frozen(Classifier(Undecided(), "abcde", multi_label=False)),
        nn.Conv2d(3, 5, 3, padding=1),
        tuple("abcde"),
        32,
    )
    path = photo(tmp_path / "a.png", red=slice(0, 60))
    result = explain(path, pair)
    assert result.classes == result.found == ("a",)
    assert result.scores[0] == pytest.approx(0.427, abs=1e-3)


def test_a_folder_of_a_run_and_names(tmp_path: Path) -> None:
    classifier = build_classifier("small_cnn", CLASSES)
    config = {"kind": "classifier", "architecture": "small_cnn"}
    save_weights(
        tmp_path / "run" / "model.safetensors",
        classifier,
        {**config, "classes": list(CLASSES), "size": 32},
    )
    result = explain(two_colours(), tmp_path / "run", top=2)
    assert result.method == "grad_cam"
    assert result.masks.shape == (2, 32, 32)
    scenes = explain(two_colours(), "scenes", target="disc")
    assert (scenes.classes, scenes.method) == (("disc",), "explainer")
    rtis = explain(two_colours(), "scenes", method="rtis", target="disc")
    assert rtis.masks.shape == scenes.masks.shape
    assert not torch.equal(rtis.masks, scenes.masks)


def test_a_given_network_is_the_one_that_is_used(tmp_path: Path) -> None:
    """Also by RTIS, and where the model's own folder has none."""
    save_weights(
        tmp_path / "model.safetensors",
        build_classifier("small_cnn", CLASSES),
        {
            **{"kind": "classifier", "architecture": "small_cnn"},
            **{"classes": list(CLASSES), "size": SIZE},
        },
    )
    for method in ("explainer", "rtis"):
        masks = [
            explain(
                *(two_colours(), model),
                method=method,
                network=Where(),
                target="red",
            ).masks
            for model in (str(tmp_path), tmp_path)
        ]
        assert masks[0][0, :, :8].min() > masks[0][0, :, 12:].max()
        assert torch.equal(*masks)


# --- methods --------------------------------------------------------------


def test_without_an_explainer_the_way_to_one_is_told() -> None:
    for method in ("explainer", "rtis"):
        with pytest.raises(UserError) as raised:
            explain(torch.rand(3, 8, 8), quiet(Colours()), method=method)
        said = str(raised.value)
        for word in ("fit_explainer(", "`explainer train explainer", "rise"):
            assert word in said
        assert "ellipse" not in said


def test_unknown_and_missing_options_are_named() -> None:
    image, model = torch.rand(3, 8, 8), quiet(Colours())
    with pytest.raises(UserError, match="option of rise 'masks'; known: n_m"):
        explain(image, model, method="rise", masks=3)
    with pytest.raises(UserError, match="needs the option truth="):
        explain(image, model, method="ground_truth")
    with pytest.raises(UserError, match="no attribution method 'lime'"):
        explain(image, model, method="lime")


def test_a_method_of_ones_own() -> None:
    def left(
        classifier: nn.Module, images: Tensor, targets: Tensor, share=0.5
    ) -> Tensor:
        masks = targets[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        return masks * (torch.arange(images.shape[-1]) < 8 * share)

    image, model = torch.rand(3, 8, 8), quiet(Colours())
    result = explain(image, model, method=left, target="blue", share=0.25)
    assert (result.method, result.classes) == ("left", ("blue",))
    assert result.masks[0, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"returns masks \(1, 8, 8\)"):
        explain(image, model, method=lambda c, x, t: x[:, 0], target="blue")


@pytest.mark.parametrize("method", ["rise", "extremal_perturbation", "igos"])
@pytest.mark.parametrize("multi_label", [True, False])
def test_asked_for_alone_masks_are_those_of_the_call_shape(
    method: str, multi_label: bool
) -> None:
    """Neither softmax nor contrast may lose the classes not asked for."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 5)),
    )
    model = Classifier(network, "abcde", multi_label=multi_label).eval()
    short: dict[str, dict[str, Any]] = {
        "rise": {"n_masks": 30},
        "extremal_perturbation": {"iterations": 4},
        "igos": {"iterations": 2, "steps": 3, "l1": 0.01, "tv": 0.1},
    }
    image = torch.rand(3, 24, 24)
    every = METHODS[method](
        model, image[None], torch.ones(1, 5), **short[method]
    )
    some = explain(
        image, model, method=method, target=[3, 1], **short[method]
    )
    torch.testing.assert_close(some.masks, every[0, [3, 1]])


def test_a_thousand_classes_take_no_room() -> None:
    """Five photographs of a thousand classes: 1 GB, were all kept."""
    code = """
import resource, torch
from torch import nn
from explainer import Classifier, explain
features = nn.Conv2d(3, 8, 7, 4)
model = Classifier.from_module(nn.Sequential(
    features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    nn.Linear(8, 1000)))
images = torch.rand(5, 3, 224, 224)
explain(images[:1, :, :32, :32], model, method="rise", n_masks=2)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for method, options in (
    ("grad_cam", {}), ("rise", {"n_masks": 16, "batch_size": 8}),
):
    found = explain(images, model, method=method, top=2, **options)
print((peak() - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert int(done.stdout) < 300  # megabytes


# --- what it shows --------------------------------------------------------


def test_the_photograph_keeps_its_colours_in_the_light(pair: Pair) -> None:
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[:, :300, 0], pixels[:, 300:] = 255, 80
    result = explain(pixels, pair, target="red")
    drawn = np.asarray(result.draw()).astype(int)
    r, g, b = drawn[200, 100]  # in the mask: still red, a little tinted
    assert r > 150 > max(g, b)
    assert drawn[200, 560].tolist() == [36, 36, 36]  # 0.45 x 80: dimmed
    # The outline is near the middle, and the legend in a corner.
    assert (drawn[200, 290:310] == [0, 114, 178]).all(1).any()
    black = (drawn[-30:] != 36).any()
    assert black
    heat = np.asarray(result.draw(heatmap=True)).astype(int)
    assert heat[200, 100].sum() > heat[200, 560].sum()
    assert np.abs(drawn - heat).max() > 50


def test_one_class_at_a_time(pair: Pair) -> None:
    result = explain(two_colours(), pair)
    blue = np.asarray(result.draw("blue")).astype(int)
    assert blue[20, 55].sum() > blue[20, 5].sum()
    assert result.draw(1).tobytes() == result.draw("blue").tobytes()
    with pytest.raises(UserError, match="'green'; known: red, blue"):
        result.draw("green")


def test_a_notebook_shows_picture_classes_and_scores(pair: Pair) -> None:
    result = explain(two_colours(), pair)
    page = result._repr_html_()
    assert 'src="data:image/png;base64,' in page
    assert "<figcaption>red 100%, blue 100%</figcaption>" in page
    said = "<explainer of image_0: red 100%, blue 100%>"
    assert repr(result) == said
    assert repr(replace(result, photo="/home/me/image_0")) == said


def test_names_of_classes_that_no_file_can_have(tmp_path: Path) -> None:
    names = ("n/a", "CON: x?", "50%")
    model = Classifier(Colours(), names, (0, 0, 0), (1, 1, 1))
    result = explain(two_colours(), model, method="one", target=list(names))
    record = result.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        *("image_0_n%2Fa.png", "image_0_CON%3A x%3F.png"),
        *("image_0_50%25.png", "image_0_overlay.png"),
    }
    assert set(record["classes"]) == set(names)


def test_a_class_named_like_the_overlay_gets_an_index(tmp_path: Path) -> None:
    names = ("red", "Overlay", "RED")
    model = Classifier(Colours(), names, (0, 0, 0), (1, 1, 1))
    result = explain(two_colours(), model, method="one", target=[0, 1, 2])
    record = result.save(tmp_path)
    files = [Path(one["mask"]).name for one in record["classes"].values()]
    assert files == [
        *("image_0_red (0).png", "image_0_Overlay (1).png"),
        "image_0_RED (2).png",
    ]
    assert {p.name for p in tmp_path.iterdir()} == {
        *files,
        "image_0_overlay.png",
    }
