"""The queue on the command line: what is trained, what waits for it, and in which order. A window may be open."""

import json
import threading
from typing import Annotated

import typer

from app import alive, jobs, runs
from app import cli_output as output
from app.cli_options import HELP, Json, RunName
from app.paths import find_home
from app.queue import PAUSE, Queue
from app.runs import Run
from trainers.errors import UserError

HELD = "The queue is held, because a run was paused. `darkroom queue go-on` starts the next one."
LISTS = "`darkroom queue` lists what does."


def register(app: typer.Typer) -> None:
    queue = typer.Typer(
        help="Show the queue and change it: one run is trained at a time. An open window starts the next one.",
        context_settings=HELP,
    )
    queue.callback(invoke_without_command=True)(show)
    queue.command("list")(list_)
    for command in (add, remove, move, work):
        queue.command()(command)
    queue.command("go-on")(go_on)
    app.add_typer(queue, name="queue")


def show(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_(context, as_json)


def list_(context: typer.Context, as_json: Json = False) -> None:
    """Say what is trained, what waits, the next one first, and what could not start."""
    queue = Queue(find_home(context.obj))
    now, waiting, problems = queue.running(), queue.waiting(), queue.problems()
    if as_json:
        found = {
            "running": str(now.folder) if now else None,
            "waiting": [str(run.folder) for run in waiting],
            "held": queue.held(),
            "problems": [{"run": str(run.folder), "problem": problem} for run, problem in problems],
        }
        output.say(json.dumps(found, ensure_ascii=False, indent=2))
        return
    lines = [f"In training: {now.folder.name}"] if now else []
    lines += [f"{place}. {run.folder.name}" for place, run in enumerate(waiting, start=1)]
    lines = lines or ["Nothing is trained, and nothing waits. `darkroom queue add RUN` changes that."]
    lines += [f"{run.folder.name} left the queue: {problem}" for run, problem in problems]
    output.say("\n".join(lines + [HELD] * queue.held()))


def add(context: typer.Context, run: RunName) -> None:
    """Train a run now, or when those before it have ended; one that was begun goes on."""
    home = find_home(context.obj)
    chosen, queue = runs.find(home, run), Queue(home)
    queue.add(chosen)
    if chosen in queue.waiting():
        output.say(f"{chosen.folder.name} waits, {_place(queue, chosen)}.")
        output.note("It begins when its turn comes, while a window is open or `darkroom queue work` runs.")
    else:
        output.say(f"{chosen.folder.name} is in training. See `darkroom status {chosen.folder.name}`.")


def remove(context: typer.Context, run: RunName) -> None:
    """Take a waiting run out of the queue; the run stays as it is."""
    queue, chosen = _waiting(context, run)
    queue.remove(chosen)
    output.say(f"{chosen.folder.name} waits no longer.")


def move(
    context: typer.Context,
    run: RunName,
    place: Annotated[int, typer.Argument(min=1, help="1 is the next one to be trained.")],
) -> None:
    """Put a waiting run at another place of the queue; beyond the end means the end."""
    queue, chosen = _waiting(context, run)
    queue.move(chosen, place - 1)
    output.say(f"{chosen.folder.name} is {_place(queue, chosen)}.")


def go_on(context: typer.Context) -> None:
    """Start the next run, where a paused one holds the queue or nothing else would start it."""
    queue = Queue(find_home(context.obj))
    if not queue.waiting():
        raise UserError("Nothing waits in the queue.", "`darkroom queue add RUN` puts a run into it.")
    queue.go_on()
    now = queue.running()
    output.say(f"{now.folder.name} is in training." if now else "The queue goes on.")


def work(context: typer.Context) -> None:
    """Train what waits, one run after the other, until none is left: for a machine without a window.

    Exits with 1 where one could not start, or ended failed or interrupted. Ctrl-C ends this alone; the run in training
    goes on.
    """
    queue = Queue(find_home(context.obj))
    told, seen = dict(queue.problems()), None
    watched: dict[Run, None] = {}  # in the order in which they are trained
    while True:
        first = queue.waiting()  # one may fail before it is seen to run
        queue.tick()
        now = queue.running()
        watched |= dict.fromkeys([*filter(None, [now]), *first])
        if now is None and (queue.held() or not queue.waiting()):
            break
        if now not in (None, seen):
            output.note(f"{now.folder.name} is in training ...")
        seen = now or seen
        threading.Event().wait(PAUSE)
    failed = [
        f"{run.folder.name} could not start: {problem}" for run, problem in queue.problems() if told.get(run) != problem
    ]
    failed += filter(None, map(_bad_end, watched))
    for sentence in failed:
        output.complain(sentence)
    output.say(HELD if queue.held() else "Nothing waits any more.")
    if failed:
        raise typer.Exit(1)


def _bad_end(run: Run) -> str:
    """What became of a run, where it was begun since it waited, and ended failed or interrupted; else ""."""
    now, name = runs.status(run), run.folder.name
    if not alive.record(run.folder):
        return ""
    if now.word == "failed":
        return f"{name} failed: {now.state.message} {now.state.hint}".strip()
    if now.word != "interrupted":
        return ""
    sudden = f"{jobs.sudden_end(run)} Its last words are in {run.log}."
    how = "It was ended at once." if run.ended_file.exists() else sudden
    return f"{name} was interrupted: {how} `darkroom resume {name}` goes on from the last checkpoint."


def _waiting(context: typer.Context, text: str) -> tuple[Queue, Run]:
    """The queue, and a run that waits in it. UserError where the run does not."""
    home = find_home(context.obj)
    queue, chosen = Queue(home), runs.find(home, text)
    name = chosen.folder.name
    if runs.is_alive(chosen):
        raise UserError(f"{name} is in training, so it does not wait.", f"`darkroom stop {name}` saves and stops it.")
    if chosen not in queue.waiting():
        raise UserError(f"{name} does not wait in the queue.", LISTS)
    return queue, chosen


def _place(queue: Queue, run: Run) -> str:
    """In words; a run whose turn came at this moment has none."""
    waiting = queue.waiting()
    return f"number {waiting.index(run) + 1} of {len(waiting)}" if run in waiting else "in training"
