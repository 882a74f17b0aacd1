"""The Monitor page: a run while it trains, and what can be done with it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gradio as gr

from app import drafts, jobs, watching
from app.gui import monitor_views as views
from app.gui.choices import ChoiceFromDisk
from app.gui.context import QUIET, Context, Here, Where, clock, going, in_turn
from app.gui.kept import kept, mark
from app.gui.markup import LISTEN, acted, in_words, notice, panel, refusal, script
from app.gui.monitor_parts import look, update
from app.open_folder import open_folder
from app.runs import Run, by_key
from trainers.errors import UserError

ELSEWHERE = {"compare": "results", "settings": "train"}  # action -> page
ASKED = "It is drawn after the step that is under way, and appears under Asked for."
SAVED = "Saved. They are drawn from the next preview on."


class Asking(NamedTuple):
    """The fields that ask a run for pictures, and where each is answered."""

    prompt: gr.Textbox
    seed: gr.Number
    strength: gr.Number
    sampled: gr.HTML
    prompted: gr.HTML


def build_monitor_page(context: Context, here: Here) -> None:
    shown: dict[str, Any] = {}  # name -> component that shows a part of the run
    with gr.Row(elem_classes=["dr-monitor-top"]):
        shown["runs"] = ChoiceFromDisk(label="Run", choices=[], interactive=True)
    shown["head"] = panel("Run at a glance", views.NOTHING, elem_classes=["dr-monitor-head"])
    with gr.Column(elem_classes=["dr-monitor"]):
        shown["advice"] = panel("Advice")
        shown["actions"] = panel("What you can do")
        said = panel("Answer")
        _build_pictures(shown)
        with gr.Row():
            with gr.Column(scale=3, min_width=420):
                shown["plot"] = panel("Loss")
            with gr.Column(scale=2, min_width=300):
                asking = _build_asking(shown)
        shown["notes"] = panel("Notes")
        with gr.Accordion("Details", open=False) as details:
            shown["log"] = panel("Log")
    sent = kept({"run": ""})  # the mark of what each part shows, so that only what changed is sent; and whose it is
    reading = kept(False)  # whether Details is open
    timer = gr.Timer(1, active=False)
    place, parts = [here.where, sent, reading], [*shown.values(), said, sent]

    def refresh(where: Where, sent_before: dict[str, str], log_open: bool) -> dict[Any, Any]:
        fresh, marks = _fresh(context, where, sent_before, log_open)
        if not fresh:
            return {sent: gr.skip()}
        updates = {shown[name]: update(name, value) for name, value in fresh.items() if name in shown}
        if "word" in fresh:  # an answer to a button of another state
            updates[said] = ""
        return {**updates, sent: {**sent_before, **marks}}

    def do(where: Where, sent_before: dict[str, str], log_open: bool, event: gr.EventData) -> dict[Any, Any]:
        """A button of the page: goes elsewhere, or does it and shows what has become of the run."""
        answer, to = _done(context, where, acted(event))
        moved = {here.where: to} if to else {}
        if to and to.page != "monitor":
            return moved
        return {**refresh(where, sent_before, log_open), said: answer, **moved}

    sampled, prompted = asking.sampled, asking.prompted
    refresh_now = in_words(refresh)
    ordered = in_turn("monitor")
    here.on_show("monitor", refresh, parts, place[1:], **ordered)
    here.while_shown("monitor", timer)
    here.on_show("monitor", lambda where: ["", "", ""], [said, sampled, prompted])
    timer.tick(refresh_now, place, parts, **clock("monitor"))
    details.expand(lambda: True, None, reading, **QUIET).then(refresh_now, place, parts, **ordered)
    details.collapse(lambda: False, None, reading, **QUIET)
    shown["runs"].select(lambda where, key: going(where, run=key), [here.where, shown["runs"]], here.where, **QUIET)
    for name in ("actions", "ending"):
        shown[name].act(do, place, [here.where, *parts], **ordered)
    fields = [sent, asking.prompt, asking.seed, asking.strength]
    shown["sampling"].click(partial(_sample, context), fields, sampled, **QUIET)
    shown["saving"].click(partial(_save_prompts, context), [sent, shown["prompts"]], prompted, **QUIET)


def _build_pictures(shown: dict[str, Any]) -> None:
    """The adapter file at the end, the samples, and those that were asked for."""
    plain = {"apply_default_css": False}
    shown["ending"] = gr.HTML("", label="Adapter file", js_on_load=LISTEN + script("copy.js"), **plain)
    shown["samples"] = gr.HTML("", label="Samples", js_on_load=script("enlarge.js", "follow.js"), **plain)
    shown["asked"] = gr.HTML("", label="Asked for", js_on_load=script("enlarge.js"), **plain)


def _build_asking(shown: dict[str, Any]) -> Asking:
    """Sample now, and the prompts of the previews to come."""
    prompt = gr.Textbox(
        label="Sample now: prompt",
        info="While it trains, any prompt can be drawn after the step that is under way.",
        placeholder="Anything you want to see",
        max_lines=3,
    )
    with gr.Row():
        seed = gr.Number(label="Seed", value=42, precision=0, min_width=90)
        strength = gr.Number(label="Strength", value=1, step=0.1, min_width=90)
    shown["sampling"] = gr.Button("Sample now", interactive=False, size="md")
    sampled = panel("Answer to sample now")
    about = "One per line. They can be changed while it trains."
    shown["prompts"] = gr.Textbox(label="Preview prompts", info=about, lines=4, max_lines=10)
    shown["saving"] = gr.Button("Save prompts", size="md")
    return Asking(prompt, seed, strength, sampled, panel("Answer to save prompts"))


DEEDS: dict[str, Callable[[Context, Run], Any]] = {
    "resume": lambda context, run: context.queue.add(run),
    "unqueue": lambda context, run: context.queue.remove(run),
    "pause": lambda context, run: context.queue.pause(run),
    "stop": lambda context, run: jobs.request_stop(run),
    "lighter": lambda context, run: jobs.use_less_memory(run),
    "end": lambda context, run: jobs.end(run),
    "next": lambda context, run: context.queue.go_on(),
    "open": lambda context, run: open_folder(watching.watch(run, context.queue).status.adapter or run.folder),
}


def _fresh(
    context: Context, where: Where, before: dict[str, str], log_open: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """What has changed, by part, and its marks; nothing where the page is not in sight."""
    if where.page != "monitor":
        return {}, {}
    run = watching.choose(context.home, context.queue, where.run)
    now = look(context, run, log_open, before)
    marks = {name: mark(value) for name, value in now.items()} | {"run": now.get("run", before["run"])}
    return {name: value for name, value in now.items() if before.get(name) != marks[name]}, marks


def _done(context: Context, where: Where, asked: dict[str, Any]) -> tuple[str, Where | None]:
    """Do what a button says: the answer, where there is something to say, and where the tab goes then."""
    run = by_key(context.home, asked["run"])
    if run is None:
        return notice("This run is no longer there.", kind="error"), None
    try:
        if asked["act"] == "settings":
            drafts.from_run(context.home, run)
        if asked["act"] in ELSEWHERE:
            page, project = ELSEWHERE[asked["act"]], run.key.partition("/")[0]
            return "", going(where, page=page, project=project, run=run.key)
        DEEDS[asked["act"]](context, run)
    except UserError as error:
        return notice(error.message, error.hint, "error"), None
    # The tab stays with it, and does not go on to the run that starts next.
    return "", None if where.run else going(where, page="monitor", run=run.key)


def _sample(context: Context, sent: dict[str, str], wished: str, seed: float | None, at: float | None) -> str:
    if seed is None or at is None:
        return notice("Type a seed and a strength.", kind="error")
    return _answer(context, sent, ASKED, lambda run: jobs.sample_now(run, wished, int(seed), float(at)))


def _save_prompts(context: Context, sent: dict[str, str], lines: str) -> str:
    wished = [line.strip() for line in lines.splitlines() if line.strip()]
    return _answer(context, sent, SAVED, lambda run: jobs.set_prompts(run, wished))


def _answer(context: Context, sent: dict[str, str], words: str, deed: Callable[[Run], Any]) -> str:
    """Do something with the run that is shown, and say so or why not."""
    run = by_key(context.home, sent["run"])
    if run is None:
        return notice("There is no run to do this with.", kind="error")
    try:
        deed(run)
    except (UserError, OSError) as error:
        return refusal(error)
    return notice(words, kind="good")
