"""Average the weights of runs that were trained on from one another.

    python tools/average_runs.py RUN... --out FOLDER [--size N]

Networks that share the first part of their training lie in one valley of the
loss, and the mean of their weights is often better than each of them
(Izmailov et al., 2018, *Averaging weights leads to wider optima*; Wortsman et
al., 2022, *Model soups*). FOLDER looks like a run: its configuration is that
of the last RUN, and its card names all of them. Whether the average is better
is for ``tools/compare_runs.py`` to say, on the validation split.

With ``--size`` the average is meant for photographs of N x N pixels, others
than it was trained on: it magnifies them such that its encoder sees as many
pixels as before, and finer ones. A single RUN will do for that.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from explainer.checkpoints import load_explainer, read_weights, save_weights
from explainer.errors import UserError
from explainer.files import read_json, sha256, write_json


def average(runs: Sequence[Path], out: Path, size: int | None = None) -> Path:
    """Write the average of runs as a run; return its folder.

    ``size`` is that of the images that the average is for, in pixels; by
    default that of the last run's. Raises
    :class:`~explainer.errors.UserError` where their networks are of different
    kinds, or where a size is given and the network magnifies nothing.
    """
    states, configs = zip(
        *(read_weights(run / "model.safetensors") for run in runs),
        strict=True,
    )
    last = states[-1]
    shapes = {name: tensor.shape for name, tensor in last.items()}
    for run, state in zip(runs, states, strict=True):
        if {name: tensor.shape for name, tensor in state.items()} != shapes:
            raise UserError(f"{run} and {runs[-1]} hold different networks")
    network = load_explainer(runs[-1])
    network.load_state_dict(
        {
            name: sum(state[name] for state in states) / len(states)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in last.items()
        }
    )
    changed: dict[str, Any] = {}
    if size is not None:
        options = configs[-1]["options"]
        if "scale" not in options:
            raise UserError(f"{runs[-1]} magnifies no images")
        scale = round(options["scale"] * configs[-1]["size"] / size, 4)
        changed = {"size": size, "options": {**options, "scale": scale}}
    out.mkdir(parents=True, exist_ok=True)
    weights = out / "model.safetensors"
    save_weights(weights, network, {**configs[-1], **changed})
    changed["averaged"] = [run.name for run in runs]
    config = read_json(runs[-1] / "config.json")
    card = read_json(runs[-1] / "card.json") | {"sha256": sha256(weights)}
    write_json(out / "config.json", {**config, **changed})
    write_json(out / "card.json", {**card, **changed})
    steps = (runs[-1] / "metrics.jsonl").read_text().splitlines()
    (out / "metrics.jsonl").write_text(
        json.dumps({"step": json.loads(steps[-1])["step"]}) + "\n"
    )
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int)
    asked = parser.parse_args()
    print(average(asked.runs, asked.out, asked.size))
