"""What each part of the Monitor page shows of a run, and what has changed of it."""

from typing import Any

import gradio as gr

from app import watching
from app.gui import monitor_views as views
from app.gui.context import Context
from app.gui.kept import mark
from app.gui.markup import notice
from app.gui.plot import loss_plot
from app.gui.samples_views import asked_strip, samples_grid
from app.runs import Run
from app.story import last_lines
from app.watching import Watched
from trainers.errors import UserError


def look(context: Context, run: Run | None, log_open: bool, before: dict[str, str]) -> dict[str, Any]:
    """Part -> what it shows now; parts that cannot have changed are left out. `before`: the marks of what was sent."""
    if run is None:
        return {"run": "", "seen": (), "head": views.NOTHING}
    log = {"log": views.log_view(run.log, last_lines(run.log))} if log_open else {}
    recent = watching.recent(context.home, run)
    listed = tuple(one.key for one in recent)
    if before.get("listed") != mark(listed) or before["run"] != run.key:
        projects = watching.names_of_projects(context.home)
        labels = [(views.run_label(one, projects.get(one.key.partition("/")[0], "")), one.key) for one in recent]
        log |= {"listed": listed, "runs": (labels, run.key)}
    try:
        watched = watching.watch(run, context.queue)
    except UserError as error:
        return {"run": run.key, "seen": (), "head": notice(error.message, error.hint, "error"), **log}
    if before.get("seen") == mark(watched.seen):
        return log
    return {"run": run.key, "seen": watched.seen, **_parts(watched), **_samples(watched, before), **log}


def _samples(watched: Watched, before: dict[str, str]) -> dict[str, Any]:
    """Made anew only when there are others: a long run has a thousand of them."""
    samples, folder = watched.status.state.samples, watched.run.folder
    drawn = (watched.run.key, watched.pending, samples)
    if before.get("drawn") == mark(drawn):
        return {}
    asked = [sample for sample in samples if sample.asked]
    return {
        "drawn": drawn,
        "samples": samples_grid([sample for sample in samples if not sample.asked], folder),
        "asked": asked_strip(asked, watched.pending, folder),
    }


def _parts(watched: Watched) -> dict[str, Any]:
    state = watched.status.state
    return {
        "word": watched.word,
        "head": views.head(watched),
        "actions": views.actions(watched),
        "advice": views.advice(watched),
        "ending": views.ending(watched),
        "plot": views.loss(loss_plot(state)),
        "notes": views.notes(watched),
        "sampling": watched.word == "running",
        "saving": watched.word != "finished",
        "prompts": (watched.run.key, watched.prompts),
    }


def update(name: str, value: Any) -> Any:
    """What a component is told so that it shows the value of its part."""
    if name == "runs":
        return gr.update(choices=value[0], value=value[1])
    if name in ("sampling", "saving"):
        return gr.Button(interactive=value)
    if name == "prompts":
        return "\n".join(value[1])
    return value
