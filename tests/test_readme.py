"""What the README shows is there and runs as it stands."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import explainer
from explainer import explanation
from explainer.classifiers import Classifier

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work where there is a photograph of a cat."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()).save("cat.jpg")
    return tmp_path


def run(example, **names):
    exec(compile(example, "README.md", "exec"), names)
    return names


def test_it_opens_with_a_photograph_explained(folder):
    example = blocks("python")[0]

    names = run(example)

    assert TEXT.index("```") == TEXT.index(example) - len("```python\n")
    assert len([line for line in example.splitlines() if line]) <= 5
    assert names["found"].classes == ("cat",)
    sizes = [Image.open(file).size for file in sorted(folder.glob("*.png"))]
    assert sizes == [(451, 300)] * 2


def test_any_other_classifier_is_explained(folder, monkeypatch):
    untrained = partial(
        Classifier.from_torchvision, initial_weights="random"
    )  # nothing is downloaded
    monkeypatch.setitem(explanation.LIBRARIES, "torchvision", untrained)
    mine = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(3, 2),
    )

    with pytest.warns(UserWarning, match="Sequential is taken to have"):
        names = run(
            blocks("python")[1],
            explainer=explainer,
            photos=["cat.jpg"],
            my_module=mine,
            names=["tabby", "other"],
            folder=folder / "explained",
        )

    (found,) = names["found"]
    assert found.classes == ("tabby",)
    assert found.masks.shape == (1, 224, 224)
    assert (folder / "explained" / "cat_tabby.png").is_file()


def test_a_batch_is_explained_in_five_lines(folder):
    example = blocks("python")[2]

    run(example)

    assert len([line for line in example.splitlines() if line]) <= 5
    assert Image.open(folder / "explained.png").width > 300


def test_pictures_are_there_and_described():
    pictures = re.findall(r"!\[([^\]]*)\]\((book/[^)]+)\)", TEXT)

    assert pictures
    for description, path in pictures:
        assert len(description) > 20
        assert Image.open(ROOT / path).width > 300


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", "".join(blocks("sh")), re.M)

    assert targets == ["book", "test"]
    assert all(re.search(rf"^{t}:", makefile, re.M) for t in targets)


def test_files_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)

    assert {"LICENSE", "CITATION.cff", "CONTRIBUTING.md"} <= set(links)
    assert [link for link in links if not (ROOT / link).exists()] == []
