"""The command line: one module per command, collected here."""

import io
import sys

import typer

from explainer.cli import train
from explainer.cli.ablate import ablate_command
from explainer.cli.class_scores import class_scores_command
from explainer.cli.evaluate import evaluate_command
from explainer.cli.explain import (
    explain_command,
    methods_command,
    models_command,
)
from explainer.cli.export import export_command
from explainer.cli.reproduce import reproduce_command
from explainer.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=(
        "Learn to explain a classifier, explain pictures with it, and "
        "measure explanations."
    ),
)
app.add_typer(train.app, name="train")
app.command("evaluate")(evaluate_command)
app.command("class-scores")(class_scores_command)
app.command("explain")(explain_command)
app.command("methods")(methods_command)
app.command("models")(models_command)
app.command("export")(export_command)
app.command("ablate")(ablate_command)
app.command("reproduce")(reproduce_command)


def main() -> None:
    """Run the command line; print expected errors as one sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The terminal's encoding may lack characters of a file's name.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        typer.echo(
            f"error: cannot read or write{where}: {error.strerror or error}",
            err=True,
        )
        sys.exit(1)
