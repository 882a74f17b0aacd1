"""The Results page's pick: made an adapter file, its folder opened, sent to an image program."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from app import picks, send_to
from app.gui import results_file_views as views
from app.gui.context import Context
from app.gui.markup import notice, refusal
from app.gui.results_parts import Changes, run_at, said, visible
from app.open_folder import open_folder
from app.paths import Home
from app.runs import Run
from trainers import config_io
from trainers.errors import UserError


class Suggested(NamedTuple):
    """What the fields of the adapter file last began with; a person may have typed something else since."""

    at: str = ""  # key of the run
    name: str = ""
    form: str = ""


class Exported(NamedTuple):
    """The run whose adapter file was asked for, under what name, and why it was refused; "" where it was not."""

    at: str = ""
    name: str = ""
    refused: str = ""


def export(context: Context, at: str, name: str, form: str) -> Exported:
    """Can take long: what it shows is for `show_exported`, which knows what the page shows then."""
    run = run_at(context.home, at)
    found = picks.picked(run)
    try:
        if found is None:
            raise UserError("No checkpoint is picked yet.", "Press Pick beside one first.")
        picks.export(run, found, name, form, context.worker.ask)
    except (UserError, OSError) as error:
        return Exported(at, name, refusal(error))
    return Exported(at, name)


def show_exported(home: Home, at: str, name: str, suggested: Suggested, answered: Exported) -> Changes:
    """What became of it, where the run is still the one that is shown."""
    if answered.at != at:
        return {}
    if answered.refused:
        return {"saved": said(answered.refused)}
    changes = result(home, run_at(home, at), suggested)
    if name != answered.name:  # typed meanwhile
        changes.pop("name", None)
    return changes


def open_file(home: Home, at: str) -> None:
    found = picks.picked(run_at(home, at))
    if not found:
        raise UserError("There is no adapter file yet.", "Pick a checkpoint and export it first.")
    open_folder(Path(found.adapter))


def send(context: Context, values: dict[str, Any], at: str) -> Changes:
    """Send to a program, ask for its folder, or remember the one that was named and send there."""
    run = run_at(context.home, at)
    program, found = values["program"], picks.picked(run)
    folders = send_to.lora_folders(context.home)
    if found is None:
        return {}
    show = partial(views.sending, found)
    unknown = values["act"] == "send" and program not in folders  # any more: a drive is gone
    if values["act"] == "ask" or program not in send_to.PROGRAMS or unknown:
        return {"sending": said(show(folders, program))}
    try:
        if values["act"] == "folder":
            folders |= {program: send_to.choose_folder(context.home, program, values["value"])}
        file = picks.for_program(run, found, program, context.worker.ask)
        files = send_to.send(file.files, program, folders[program], values.get("called", ""))
    except send_to.NameTaken as error:
        taken = notice(error.message, error.hint, "warning")
        return {"sending": said(show(folders, program, taken, error.free))}
    except (UserError, OSError) as error:
        return {"sending": said(show(folders, program, refusal(error), typed=values.get("value", "")))}
    return {"sending": said(show(folders, "", views.sent(program, files, file)))}


def result(home: Home, run: Run, suggested: Suggested) -> Changes:
    """The pick and what became of it; the fields of its file only where something else is to be suggested."""
    found = picks.picked(run)
    config = config_io.load(run.config)
    changes = {"picked": views.picked_line(found), "export_row": visible(found is not None)}
    fresh = Suggested(run.key, found.name, found.form) if found else suggested
    if fresh != suggested:
        changes |= {"name": fresh.name, "form": fresh.form, "suggested": fresh}
    sending = views.sending(found, send_to.lora_folders(home)) if found and found.made else ""
    return {**changes, "saved": said(views.saved(found, config.data.trigger)), "sending": said(sending)}
