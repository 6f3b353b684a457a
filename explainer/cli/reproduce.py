"""``explainer reproduce``: an experiment from data to results, by steps."""

from pathlib import Path
from typing import Annotated

import typer

from explainer.cli.options import (
    Device,
    Limit,
    Precision,
    Root,
    Steps,
    Workers,
    changed_preset,
    check_limit,
    device_named,
)
from explainer.errors import UserError
from explainer.evaluation.methods import BUDGETS
from explainer.reproduction import (
    Experiment,
    chosen_steps,
    preset_of,
    remember,
    reproduce,
    ship,
    steps_of,
    take_shipped,
)

SHIP = "ship"
"""The name of the last step, which runs only if it is asked for."""


def reproduce_command(
    experiment: Annotated[
        str,
        typer.Argument(
            help="scenes, shortcut, animals, voc2007 or coco2014."
        ),
    ],
    classifier: Annotated[
        str | None,
        typer.Option(
            "--classifier", help="vgg16 or resnet50, for the paper's data."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The folder; by default runs/reproduce-EXPERIMENT."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help=(
                "A step to run; may be given several times. With 'ship' what "
                "was made is copied into a checkout, of the other steps "
                "named or of all."
            ),
        ),
    ] = None,
    listed: Annotated[
        bool,
        typer.Option("--list", help="Name the steps and say which are done."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Name the steps that would run."),
    ] = False,
    from_shipped: Annotated[
        bool,
        typer.Option(
            "--from-shipped",
            help=(
                "Run the steps of --only on the networks and results that "
                "come with the package, without training these."
            ),
        ),
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="End after so many minutes; the same command then resumes.",
            min=0,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            help=(
                "Threads on the CPU. Another number rounds otherwise, so a "
                "training ends in other weights."
            ),
            min=1,
        ),
    ] = 1,
    checkout: Annotated[
        Path,
        typer.Option(help="Where 'ship' copies to: a checkout."),
    ] = Path(),
    root: Root = None,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            help="As in explainer train classifier: 'random', or a file."
        ),
    ] = None,
    steps: Steps = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help=(
                "How long RISE, EP and iGOS++ may take: "
                f"{', '.join(BUDGETS)}; by default the experiment's own."
            )
        ),
    ] = None,
    precision: Precision = None,
    workers: Workers = None,
    limit: Limit = None,
    device: Device = None,
) -> None:
    """Run an experiment from nothing to every file that the book reads.

    Interrupted, the same command resumes.
    """
    name = preset_of(experiment, classifier)
    check_limit(limit)
    if budget is not None:
        BUDGETS.check(budget)
    this = Experiment(
        name,
        changed_preset(
            name, steps=steps, precision=precision, workers=workers
        ),
        out or Path("runs") / f"reproduce-{name}",
        root,
        limit,
        device_named(device),
        initial_weights,
        budget,
    )
    named = [step for step in only or [] if step != SHIP]
    every = steps_of(this)
    plan = chosen_steps(every, named)
    if from_shipped and not named:
        raise UserError(
            "--from-shipped needs the steps to run: name them with --only "
            "(--list tells their names)"
        )
    shipping = SHIP in (only or [])
    if listed or dry_run:
        shown = every if listed and not named else plan
        for step in shown:
            left = "by name" if step.by_name else "to do"
            state = "done" if step.done else left
            if listed or not step.done:
                typer.echo(f"{step.name:<42}{state:<8}{step.does}")
        return
    remember(
        this.out / "experiment.json",
        {
            "experiment": name,
            "limit": limit,
            "steps": steps,
            "initial_weights": initial_weights,
            "precision": precision,
            "budget": budget,
        },
    )
    if from_shipped:
        take_shipped(this, [step for step in every if step not in plan])
    if shipping and not named:
        done = True  # ship reports what is missing
    else:
        done = reproduce(
            plan, minutes=minutes, threads=threads, say=typer.echo
        )
    if shipping and done:
        for path in ship(this, plan, checkout):
            typer.echo(f"wrote {path}")
    elif done:
        typer.echo(f"All of it is in {this.out}.")
