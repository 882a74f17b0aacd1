"""Compares a run's checkpoints on the command line."""

from typing import Annotated

import typer

from app import cli_output as output
from app import comparisons, engine, runs
from app.cli_options import RunName
from app.paths import find_home
from trainers.errors import UserError
from trainers.events import Event, Phase


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    context: typer.Context,
    run: RunName,
    checkpoint: Annotated[
        list[int] | None, typer.Option(help="Step of a checkpoint; may be given again. Up to five by default.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to draw; may be given again. The run's previews by default.")
    ] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="How much of the adapter; may be given again. 0.6 and 1 by default.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Same seed, same noise; may be given again. The previews' by default.")
    ] = None,
) -> None:
    """Draw the checkpoints of a run side by side, with the base model and without the trigger word."""
    chosen = runs.find(find_home(context.obj), run)
    known = comparisons.checkpoint_steps(chosen)
    if not known:
        raise UserError(f"{chosen.folder.name} has no checkpoint yet.", "Train it; stopping a run saves one.")
    if lost := set(checkpoint or ()) - set(known):
        listed = ", ".join(map(str, known))
        raise UserError(f"{chosen.folder.name} has no checkpoint of step {min(lost)}.", f"Its checkpoints: {listed}.")
    usual = comparisons.default_wish(chosen)
    wish = comparisons.read_wish(
        chosen,
        checkpoint or usual.steps,
        "\n".join(prompt or usual.prompts),
        " ".join(map(str, strength or usual.strengths)),
        " ".join(map(str, seed or usual.seeds)),
    )
    made = comparisons.create(chosen, wish)
    comparisons.require_idle(made)
    output.note(f"{len(made.cells)} pictures, {len(made.missing())} of them to be drawn.")
    output.say(engine.compare(chosen.folder, made.folder, _note))


def _note(event: Event) -> None:
    if isinstance(event, Phase):
        output.note(f"{event.name} {event.done} of {event.total}" if event.total else f"{event.name} ...")
