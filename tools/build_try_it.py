"""Write the files of the page *Try it* that are not in the repository.

Run from anywhere, before the book is built: ``python tools/build_try_it.py``.
ONNX Runtime for browsers comes from npm (MIT licence; its hash stands below);
the shipped pairs become ONNX files; two free photographs and some scenes with
their true masks are written.
"""

import sys
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

from explainer.checkpoints import load
from explainer.data import Scenes
from explainer.data.download import Archive, fetch
from explainer.errors import UserError
from explainer.export import to_onnx
from explainer.figures import COLOURS
from explainer.files import cache_folder, write_json
from explainer.masks import mean_colour
from explainer.presets import PRESETS
from explainer.teaching.playground import TERMS

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "book" / "_static" / "try_it" / "built"

RUNTIME = Archive(
    "onnxruntime-web-1.30.0.tgz",
    "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
    tuple(
        f"https://{host}/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
        for host in ("registry.npmjs.org", "registry.yarnpkg.com")
    ),
)
PARTS = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")

PHOTOGRAPHS = {
    "astronaut.webp": ("the astronaut", skimage.data.astronaut),
    "cat.webp": ("the cat Chelsea", skimage.data.chelsea),
}
N_SCENES = 24


def write_program(folder: Path, archive: Archive) -> int:
    """Unpack ONNX Runtime; return its size in bytes."""
    package = fetch(archive, cache_folder() / "onnxruntime-web")
    with tarfile.open(package) as file:
        for part in PARTS:
            member = file.extractfile(f"package/dist/{part}")
            assert member is not None, part
            (folder / part).write_bytes(member.read())
    return sum((folder / part).stat().st_size for part in PARTS)


def write_pair(folder: Path, name: str) -> dict[str, Any]:
    """Write a pair's ONNX file; return its description for the page."""
    pair = load(name)
    content = to_onnx(pair)
    (folder / f"{name}.onnx").write_bytes(content)
    return {
        "bytes": len(content),
        "classes": pair.classes,
        "size": pair.size,
        "fill": mean_colour(pair.classifier).flatten().tolist(),
        "weights": asdict(PRESETS[name].weights),
    }


def write_scenes(folder: Path, n: int = N_SCENES) -> dict[str, Any]:
    """Draw the first test scenes, each beside its true mask.

    The true mask is 0 for the background and c + 1 for class c.
    """
    scenes = Scenes("test")
    rows = []
    for i in range(n):
        sample = scenes[i]
        assert sample.mask is not None
        image = (sample.image.permute(1, 2, 0) * 255).round().byte()
        truth = sample.mask.byte()[..., None].expand_as(image)
        rows.append(np.concatenate([image.numpy(), truth.numpy()], 1))
    Image.fromarray(np.concatenate(rows)).save(folder / "scenes.png")
    return {"file": "scenes.png", "count": n}


def main(folder: Path = BUILT, runtime: Archive = RUNTIME) -> None:
    """Write all files; ``try_it.json`` last, as a sign of completion."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "try_it.json").unlink(missing_ok=True)
    for name, (_, photograph) in PHOTOGRAPHS.items():
        Image.fromarray(photograph()).save(folder / name, quality=90)
    told = {
        "pairs": {
            name: write_pair(folder, name) for name in ("scenes", "animals")
        },
        "scenes": write_scenes(folder),
        "photographs": [
            {"file": name, "title": title}
            for name, (title, _) in PHOTOGRAPHS.items()
        ],
        "colours": COLOURS,
        "terms": TERMS,
        "program": write_program(folder, runtime),
    }
    write_json(folder / "try_it.json", told)
    print(folder)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"The page Try it will have no networks: {error}")
