"""The Monitor page: a run while it trains, and what can be done with it."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from app import drafts, jobs, watching
from app.gui import monitor_views as views
from app.gui.context import QUIET, Context, Here, Where, going
from app.gui.markup import LISTEN, acted, in_words, notice, panel
from app.gui.plot import loss_plot
from app.gui.samples_views import asked_strip, samples_grid
from app.open_folder import open_folder
from app.paths import ROOT
from app.runs import Run, by_key
from app.story import last_lines
from app.watching import Watched
from trainers.errors import UserError

ZOOM = (ROOT / "assets" / "zoom.js").read_text("utf-8")
COPY = (ROOT / "assets" / "copy.js").read_text("utf-8")
ELSEWHERE = {"compare": "results", "settings": "train"}  # action -> page
ASKED = "It is drawn after the step that is under way, and appears under Asked for."
SAVED = "Saved. They are drawn from the next preview on."


def build_monitor_page(context: Context, here: Here) -> None:
    shown: dict[str, Any] = {}  # name -> component that shows a part of the run
    with gr.Row(elem_classes=["dr-monitor-top"]):
        shown["runs"] = gr.Dropdown(label="Run", choices=[], interactive=True)
    shown["head"] = panel("Run at a glance", views.NOTHING, elem_classes=["dr-monitor-head"])
    with gr.Column(elem_classes=["dr-monitor"]):
        shown["advice"] = panel("Advice")
        shown["actions"] = panel("What you can do")
        said = panel("Answer")
        shown["ending"] = gr.HTML("", label="Adapter file", js_on_load=LISTEN + COPY, apply_default_css=False)
        shown["samples"] = gr.HTML("", label="Samples", js_on_load=ZOOM, apply_default_css=False)
        shown["asked"] = gr.HTML("", label="Asked for", js_on_load=ZOOM, apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=3, min_width=420):
                shown["plot"] = panel("Loss")
            with gr.Column(scale=2, min_width=300):
                prompt = gr.Textbox(
                    label="Sample now: prompt",
                    info="While it trains, any prompt can be drawn after the step that is under way.",
                    placeholder="Anything you want to see",
                    max_lines=3,
                )
                with gr.Row():
                    seed = gr.Number(label="Seed", value=42, precision=0, minimum=0, min_width=90)
                    strength = gr.Number(label="Strength", value=1, minimum=0, maximum=2, step=0.1, min_width=90)
                shown["sampling"] = gr.Button("Sample now", interactive=False, size="md")
                sampled = panel("Answer to sample now")
                shown["prompts"] = gr.Textbox(
                    label="Preview prompts",
                    info="One per line. They can be changed while it trains.",
                    lines=4,
                    max_lines=10,
                )
                shown["saving"] = gr.Button("Save prompts", size="md")
                prompted = panel("Answer to save prompts")
        shown["notes"] = panel("Notes")
        with gr.Accordion("Details", open=False) as details:
            shown["log"] = panel("Log")
    sent = gr.State({})  # of this tab: what each part shows, so that only what changed is sent
    reading = gr.State(False)  # whether Details is open
    timer = gr.Timer(1, active=False)
    place, parts = [here.where, sent, reading], [*shown.values(), said, sent]

    def refresh(where: Where, sent_before: dict[str, Any], log_open: bool) -> dict[Any, Any]:
        """What has changed; nothing where nothing has, or where the page is not in sight."""
        if where.page != "monitor":
            return {sent: gr.skip()}
        run = watching.choose(context.home, context.queue, where.run)
        now = _look(context, run, log_open, sent_before)
        fresh = {name: value for name, value in now.items() if sent_before.get(name) != value}
        if not fresh:
            return {sent: gr.skip()}
        updates = {shown[name]: _update(name, value) for name, value in fresh.items() if name in shown}
        if "word" in fresh:  # an answer to a button of another state
            updates[said] = ""
        return {**updates, sent: {**sent_before, **now}}

    def do(where: Where, sent_before: dict[str, Any], log_open: bool, event: gr.EventData) -> dict[Any, Any]:
        """A button of the page: goes elsewhere, or does it and shows what has become of the run."""
        asked = acted(event)
        run = by_key(context.home, asked["run"])
        if run is None:
            return {said: notice("This run is no longer there.", kind="error")}
        try:
            if asked["act"] == "settings":
                drafts.from_run(context.home, run)
            if asked["act"] in ELSEWHERE:
                project = run.key.partition("/")[0]
                return {here.where: going(where, page=ELSEWHERE[asked["act"]], project=project, run=run.key)}
            DEEDS[asked["act"]](context, run)
            answer = ""
        except UserError as error:
            answer = notice(error.message, error.hint, "error")
        updates = {**refresh(where, sent_before, log_open), said: answer}
        if not where.run and not answer:  # stay with it, and do not go on to the run that starts next
            updates[here.where] = going(where, run=run.key)
        return updates

    def sample(sent_before: dict[str, Any], wished: str, with_seed: float, at: float) -> str:
        return _answer(context, sent_before, ASKED, lambda run: jobs.sample_now(run, wished, int(with_seed), float(at)))

    def save_prompts(sent_before: dict[str, Any], lines: str) -> str:
        wished = [line.strip() for line in lines.splitlines() if line.strip()]
        return _answer(context, sent_before, SAVED, lambda run: jobs.set_prompts(run, wished))

    refresh_now = in_words(refresh)
    # In turn: two at once would each remember something else of what the page shows.
    many = {**QUIET, "concurrency_id": "monitor", "concurrency_limit": 1}
    here.on_show("monitor", refresh, parts, place[1:], **many)
    here.while_shown("monitor", timer)
    here.on_show("monitor", lambda where: ["", "", ""], [said, sampled, prompted])
    timer.tick(refresh_now, place, parts, **many)
    details.expand(lambda: True, None, reading, **QUIET).then(refresh_now, place, parts, **many)
    details.collapse(lambda: False, None, reading, **QUIET)
    shown["runs"].input(lambda where, key: going(where, run=key), [here.where, shown["runs"]], here.where, **QUIET)
    for name in ("actions", "ending"):
        shown[name].act(do, place, [here.where, *parts], **many)
    shown["sampling"].click(sample, [sent, prompt, seed, strength], sampled, **QUIET)
    shown["saving"].click(save_prompts, [sent, shown["prompts"]], prompted, **QUIET)


DEEDS: dict[str, Callable[[Context, Run], Any]] = {
    "resume": lambda context, run: context.queue.add(run),
    "unqueue": lambda context, run: context.queue.remove(run),
    "pause": lambda context, run: context.queue.pause(run),
    "stop": lambda context, run: jobs.request_stop(run),
    "end": lambda context, run: jobs.end(run),
    "next": lambda context, run: context.queue.go_on(),
    "open": lambda context, run: open_folder(watching.watch(run, context.queue).status.adapter or run.folder),
}


def _look(context: Context, run: Run | None, log_open: bool, before: dict[str, Any]) -> dict[str, Any]:
    """Part -> what it shows now; parts that cannot have changed are left out."""
    if run is None:
        return {"run": "", "seen": (), "head": views.NOTHING}
    log = {"log": views.log_view(run.log, last_lines(run.log))} if log_open else {}
    recent = watching.recent(context.home, run)
    listed = tuple(one.key for one in recent)
    if before.get("listed") != listed or before.get("run") != run.key:
        projects = watching.names_of_projects(context.home)
        labels = [(views.run_label(one, projects.get(one.key.partition("/")[0], "")), one.key) for one in recent]
        log |= {"listed": listed, "runs": (labels, run.key)}
    try:
        watched = watching.watch(run, context.queue)
    except UserError as error:
        return {"run": run.key, "seen": (), "head": notice(error.message, error.hint, "error"), **log}
    if before.get("seen") == watched.seen:
        return log
    return {"run": run.key, "seen": watched.seen, **_parts(watched), **_samples(watched, before), **log}


def _samples(watched: Watched, before: dict[str, Any]) -> dict[str, Any]:
    """Made anew only when there are others: a long run has a thousand of them."""
    samples, folder = watched.status.state.samples, watched.run.folder
    drawn = (watched.run.key, watched.pending, samples)
    if before.get("drawn") == drawn:
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


def _update(name: str, value: Any) -> Any:
    if name == "runs":
        return gr.Dropdown(choices=value[0], value=value[1])
    if name in ("sampling", "saving"):
        return gr.Button(interactive=value)
    if name == "prompts":
        return "\n".join(value[1])
    return value


def _answer(context: Context, sent: dict[str, Any], words: str, deed: Callable[[Run], Any]) -> str:
    """Do something with the run that is shown, and say so or why not."""
    run = by_key(context.home, sent.get("run", ""))
    if run is None:
        return notice("There is no run to do this with.", kind="error")
    try:
        deed(run)
    except UserError as error:
        return notice(error.message, error.hint, "error")
    return notice(words, kind="good")
