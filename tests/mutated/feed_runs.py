"""What a run writes down and is asked for: events, checkpoints, wishes, picks, comparisons, the queue, small caches."""

import io
import json

from rich.console import Console

from app import captions_edit, cli_output, comparisons, library, picks, progress, runs, tasks, watching
from app.gui import library_views, monitor_views, plot, results_views
from app.picture_facts import Facts, Measured
from app.queue import Queue
from tests.mutated.refusals import may_refuse
from tests.mutated.scratch import STEP, Scratch
from trainers import checkpoint, config_io, events, locks, recovery, sums
from trainers.control import Control
from trainers.data.cache import Cache
from trainers.files import remembered


def event_log(scratch: Scratch, data: bytes) -> None:
    """Every reader of the events: the library, the Monitor page, both command lines; and the engine writes on."""
    scratch.run.events.write_bytes(data)
    state = events.fold(events.read(scratch.run.events))
    _watch(scratch)
    plot.loss_plot(state)
    with progress.Display(Console(file=io.StringIO(), highlight=False)) as display:
        display([event for _, event in events.read_from(scratch.run.events)[0]])
    events.EventLog(scratch.run.events)(events.Stopped(STEP))
    assert events.fold(events.read(scratch.run.events)).status == "stopped"


def queue(scratch: Scratch, data: bytes) -> None:
    (scratch.home.root / "queue.json").write_bytes(data)
    found = Queue(scratch.home)
    for run in found.waiting():
        found.move(run, 0)
    for run, _ in found.problems():
        found.dismiss(run.key)
    found.held()


def process(scratch: Scratch, data: bytes) -> None:
    """Who was started for the run, and who was inside its lock."""
    scratch.run.process.write_bytes(data)
    scratch.run.lock.write_bytes(bytes(locks.GUARD) + data)
    assert not runs.is_alive(scratch.run)
    _watch(scratch)


def pick(scratch: Scratch, data: bytes) -> None:
    (scratch.run.folder / picks.FILE).write_bytes(data)
    if found := picks.picked(scratch.run):
        found.loads_in("ComfyUI")
        found.said_of("ComfyUI")
        results_views.grid(scratch.comparison, picked=found)
    picks.pick(scratch.run, STEP, 0.5)
    assert picks.picked(scratch.run).strength == 0.5


def instead(scratch: Scratch, data: bytes) -> None:
    (scratch.run.folder / recovery.FILE).write_bytes(data)
    recovery.settings_of(config_io.load(scratch.run.config), scratch.run.folder)


def prompts(scratch: Scratch, data: bytes) -> None:
    (scratch.run.control / "prompts.json").write_bytes(data)
    for prompt in may_refuse(Control(scratch.run.control).prompts) or ():
        prompt.encode()


def sample_now(scratch: Scratch, data: bytes) -> None:
    (scratch.run.control / "sample_now").write_bytes(data)
    for wish in may_refuse(Control(scratch.run.control).take) or ():
        wish.prompt.encode()


def compared(scratch: Scratch, data: bytes) -> None:
    (scratch.comparison.folder / "comparison.json").write_bytes(data)
    for made in comparisons.list_comparisons(scratch.run):
        made.missing()
        comparisons.progress(made)
        results_views.grid(made)
        may_refuse(comparisons.write_sheet, made.folder)
    may_refuse(comparisons.last_wish, scratch.run)


def undo(scratch: Scratch, data: bytes) -> None:
    """What an edited list of changes takes back stays among the project's pictures."""
    (scratch.home.projects / "cats" / captions_edit.HISTORY).write_bytes(data)
    captions_edit.undoable(scratch.project)
    may_refuse(captions_edit.undo, scratch.project)


def task(scratch: Scratch, data: bytes) -> None:
    """A task's answer and events, whatever they hold."""
    folder = scratch.comparison.folder
    (folder / "task.json").write_bytes(data)
    (folder / "answer.json").write_bytes(data)
    (folder / "events.jsonl").write_bytes(scratch.run.events.read_bytes())
    json.dumps(tasks.status(folder).answer)


def small_cache(scratch: Scratch, data: bytes) -> None:
    """Facts that can be found out again, in the forms in which they are kept."""
    file = scratch.folder / "cache.json"
    file.write_bytes(data)
    assert isinstance(remembered(file), dict)
    measured = Measured(scratch.home, measure=lambda path: Facts())
    place = measured._place(str(scratch.pictures))
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    picture = scratch.pictures / "0.png"
    key = (str(picture), picture.stat().st_mtime_ns, picture.stat().st_size)
    measured.facts(str(scratch.pictures), [key])
    measured.wait()


def encoded_picture(scratch: Scratch, data: bytes) -> None:
    (scratch.folder / "key.safetensors").write_bytes(data)
    Cache(scratch.folder).get("key")


def checkpoint_state(scratch: Scratch, data: bytes) -> None:
    _checkpoint(scratch, "state.json", data)


def checkpoint_facts(scratch: Scratch, data: bytes) -> None:
    _checkpoint(scratch, "facts.json", data)


def checkpoint_adapter(scratch: Scratch, data: bytes) -> None:
    _checkpoint(scratch, "adapter.safetensors", data)


def checkpoint_optimizer(scratch: Scratch, data: bytes) -> None:
    _checkpoint(scratch, "optimizer.pt", data)


def checkpoint_sums(scratch: Scratch, data: bytes) -> None:
    _checkpoint(scratch, sums.NAME, data)


def _checkpoint(scratch: Scratch, name: str, data: bytes) -> None:
    """Once as a damaged disk leaves it, once with checksums that fit, and once without any."""
    folder, whole = scratch.checkpoint, (scratch.checkpoint / name).read_bytes()
    (folder / name).write_bytes(data)
    if name != sums.NAME and data != whole:
        assert sums.wrong(folder) == name
    _read(scratch)
    if name != sums.NAME:
        sums.write(folder)
        _read(scratch)
    (folder / sums.NAME).unlink()
    _read(scratch)


def _read(scratch: Scratch) -> None:
    folder = scratch.checkpoint
    may_refuse(checkpoint.load, folder)
    may_refuse(checkpoint.load_exported, folder)
    checkpoint.is_rolling(folder)
    assert checkpoint.threads_of(folder) >= 0
    may_refuse(checkpoint.newest_whole, folder.parent)
    comparisons.checkpoint_steps(scratch.run)


def _watch(scratch: Scratch) -> None:
    """All that is shown of the run."""
    found = watching.watch(scratch.run, Queue(scratch.home))
    for part in (monitor_views.head, monitor_views.actions, monitor_views.advice, monitor_views.ending):
        part(found)
    monitor_views.notes(found)
    entries = library.Shelf(scratch.home).entries()
    library_views.cards(entries, 10, (), len(entries))
    cli_output.run_details(found.status, False)
    cli_output.run_details(found.status, True)
    cli_output.run_list([found.status], Queue(scratch.home), False)
