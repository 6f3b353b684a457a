"""``explainer export``: a classifier with its Explainer as one file."""

from pathlib import Path
from typing import Annotated

import typer

from explainer.checkpoints import load
from explainer.cli.options import ClassifierAt, ExplainerAt
from explainer.export import to_onnx
from explainer.files import write_atomically


def export_command(
    pair: Annotated[
        str,
        typer.Argument(help="A preset's name, as `explain --preset` takes."),
    ],
    onnx: Annotated[
        Path, typer.Option("--onnx", help="The file to write, in ONNX.")
    ],
    classifier: ClassifierAt = None,
    explainer: ExplainerAt = None,
) -> None:
    """Write a classifier and its Explainer as one file for other programs."""
    content = to_onnx(load(pair, classifier=classifier, explainer=explainer))
    write_atomically(onnx, content)
    typer.echo(f"{onnx} ({len(content) / 1e6:.1f} MB)")
