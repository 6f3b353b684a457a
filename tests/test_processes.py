"""Several processes train as one does with all of their images."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from pathlib import Path
import torch
from accelerate import PartialState
from explainer.classifiers import SmallEncoder, small_cnn
from explainer.data import Scenes
from explainer.model import EncoderDecoder
from explainer.training import TrainingConfig, fit_explainer

torch.manual_seed(0)
train, val = Scenes("train", 24, size=32), Scenes("val", 6, size=32)
class Still(SmallEncoder):  # whose batch norm sees no batch
    def train(self, mode=True):
        return super().train(False)

encoder = Still(8).requires_grad_(False)
network = EncoderDecoder(encoder, encoder.channels, 8, width=8)
fit_explainer(
    network,
    small_cnn(train.classes),
    train,
    val,
    TrainingConfig(steps=5, batch_size=8, learning_rate=1e-2, eval_every=1),
    folder=sys.argv[1],
    config={},
    device="cpu",
    progress=False,
)
processes = PartialState().num_processes
(Path(sys.argv[1]) / "processes").write_text(str(processes))
"""


def trained(
    folder: Path, *launcher: str, **variables: str
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Run the script; return the run's validations and weights."""
    script = folder / "train.py"
    folder.mkdir()
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    weights = load_file(folder / "run" / "model.safetensors")
    return [json.loads(line) for line in lines], weights


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Return the run of one process."""
    return trained(tmp_path_factory.mktemp("alone") / "one")


def test_two_processes_are_one_with_the_doubled_batch(
    alone: tuple[list[dict[str, float]], dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    # With --cpu Accelerate starts one process (or mpirun); the launcher for
    # several GPUs starts two, and device="cpu" has them meet over gloo.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # torch 2.2 finds none for port 0
    launcher = (
        *("-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", str(port)),
    )
    both, weights = trained(tmp_path / "two", *launcher)
    history, _ = alone
    assert (tmp_path / "two" / "run" / "processes").read_text() == "2"
    assert len(both) == len(history) == 5
    for one, two in zip(history, both, strict=True):
        for name in one.keys() - {"seconds"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6)
    assert history[0]["train_total"] != history[-1]["train_total"]
    for name, tensor in alone[1].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-4)


def test_compiled_the_run_and_its_files_are_the_same(
    alone: tuple[list[dict[str, float]], dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    # The backend that compiles nothing: what is tested is the way through.
    compiled = {"ACCELERATE_DYNAMO_BACKEND": "EAGER"}
    history, weights = trained(tmp_path / "compiled", **compiled)
    assert weights.keys() == alone[1].keys()
    for one, two in zip(alone[0], history, strict=True):
        for name in one.keys() - {"seconds"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6)
