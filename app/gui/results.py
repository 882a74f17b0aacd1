"""The Results page: checkpoints against each other, the best one picked, made an adapter file and sent on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app import comparisons, picks, runs, send_to, watching
from app.gui import results_views as views
from app.gui.context import QUIET, Context, Here, Where, going
from app.gui.markup import LISTEN, acted, in_words, notice, panel
from app.gui.monitor_views import run_label
from app.open_folder import open_folder
from app.paths import ROOT, Home
from app.runs import Run
from trainers import config_io
from trainers.comparison import Comparison
from trainers.errors import UserError

HIDDEN = ["dr-hidden"]
CLIENT = "".join((ROOT / "assets" / name).read_text("utf-8") for name in ("enlarge.js", "copy.js"))


def build_results_page(context: Context, here: Here) -> None:
    home = context.home
    at, known, number, mark = gr.State(""), gr.State(()), gr.State(0), gr.State("")
    chosen = gr.Dropdown([], label="Run to look at", interactive=True)
    story = panel("About the run's results", elem_classes=HIDDEN)
    with gr.Column(elem_classes=HIDDEN) as body:
        with gr.Accordion("What to compare", open=True) as choices, gr.Row():
            with gr.Column(min_width=260):
                steps = gr.CheckboxGroup([], label="Checkpoints to compare")
                with gr.Row():
                    strengths = gr.Textbox(label="Strengths to compare", info="Apart by commas", min_width=120)
                    seeds = gr.Textbox(label="Seeds to compare", info="Same seed, same noise", min_width=120)
            with gr.Column(min_width=260):
                prompts = gr.Textbox(label="Prompts to compare", info="One per line", lines=4, max_lines=8)
                count = panel("Size of the comparison")
                compare = gr.Button("Compare", variant="primary")
        progress = panel("Progress of the comparison", elem_classes=HIDDEN)
        stop = gr.Button("Stop comparing", elem_classes=HIDDEN)
        shown = gr.Dropdown([], label="Comparison to look at", interactive=True, elem_classes=HIDDEN)
        grid = gr.HTML(label="Comparison", js_on_load=LISTEN + CLIENT, apply_default_css=False)
        picked = panel("Picked checkpoint")
        with gr.Row(elem_classes=HIDDEN) as export_row:
            name = gr.Textbox(label="Name of the adapter file", min_width=200)
            form = gr.Dropdown([(said, form) for form, said in views.LAYOUTS.items()], label="Layout", min_width=200)
            export = gr.Button("Save adapter file", variant="primary", min_width=160, elem_classes=["dr-low"])
        saved = gr.HTML(label="Adapter file", js_on_load=LISTEN + CLIENT, apply_default_css=False, elem_classes=HIDDEN)
        sending = panel("Send to an image program", elem_classes=HIDDEN)
    timer = gr.Timer(1, active=False)
    here.while_shown("results", timer)

    parts = {
        **{"at": at, "known": known, "number": number, "mark": mark, "run": chosen, "story": story},
        **{
            "body": body,
            "choices": choices,
            "steps": steps,
            "prompts": prompts,
            "strengths": strengths,
            "seeds": seeds,
            "count": count,
        },
        **{"compare": compare, "stop": stop, "progress": progress, "shown": shown, "grid": grid, "picked": picked},
        **{"export_row": export_row, "name": name, "form": form, "saved": saved, "sending": sending},
    }
    fields = [steps, prompts, strengths, seeds]
    filled = partial(_filled, parts)
    options = {"outputs": list(parts.values()), **QUIET}
    here.on_show("results", filled(partial(_show, home)), options["outputs"], [at, known])
    chosen.input(_go, [here.where, chosen], here.where, **QUIET)
    typed = [field.change for field in fields]
    gr.on(typed, filled(partial(_count, home)), [at, *fields], trigger_mode="multiple", **options)
    compare.click(filled(partial(_compare, home)), [at, *fields], **options)
    stop.click(filled(partial(_stop, home)), [at, shown, number], **options)
    shown.input(filled(partial(_look, home)), [at, shown], **options)
    grid.act(_heard(parts, partial(_act, home)), [at, shown, number], **options)
    busy = export.click(lambda: _said(notice("Writing and verifying the adapter file ...")), None, saved, **QUIET)
    busy.then(filled(partial(_export, context)), [at, name, form], **options)
    saved.act(in_words(lambda at: _open(home, at)), at, None, **QUIET)
    sending.act(_heard(parts, partial(_send, context)), [at], **options)
    timer.tick(filled(partial(_tick, home)), [here.where, at, known, shown, number, mark], **options)


def _filled(parts: dict[str, Any], handler: Callable[..., dict[str, Any]]) -> Callable[..., list[Any]]:
    """A handler that says which parts of the page it changes, by name; the others stay as they are."""

    def call(*inputs: Any) -> list[Any]:
        changed = handler(*inputs)
        return [changed.get(name, gr.skip()) for name in parts]

    return in_words(call)


def _heard(parts: dict[str, Any], handler: Callable[..., dict[str, Any]]) -> Callable[..., list[Any]]:
    """The same for a handler of a panel's actions."""

    def call(event: gr.EventData, *inputs: Any) -> list[Any]:
        return _filled(parts, handler)(acted(event), *inputs)

    return call


def _go(where: Where, place: str) -> Where:
    return going(where, run=place, project=place.partition("/")[0])


def _show(home: Home, where: Where, at: str, known: tuple[int, ...]) -> dict[str, Any]:
    """Everything on the page; the fields only where another run, or another state of it, is shown."""
    run = comparisons.shown_run(home, where.run)
    if run is None:
        return {
            "at": "",
            "story": _said(views.no_run()),
            "body": _visible(False),
            "run": _visible(False),
        }
    place, steps = run.key, tuple(comparisons.checkpoint_steps(run))
    head = {"at": place, "known": steps, "run": gr.update(choices=_runs(home, run), value=place, elem_classes=[])}
    if not steps:
        return {**head, "story": _said(views.no_checkpoints(run.folder.name)), "body": _visible(False)}
    fields = _fields(run, steps) if (place, steps) != (at, known) else {}
    made = _newest(run)
    head |= {"story": _said(""), "body": _visible(True), "choices": gr.update(open=made is None)}
    return {**head, **fields, **_comparisons(run), **_first(run, made), **_result(home, run)}


def _count(home: Home, at: str, *fields: Any) -> dict[str, Any]:
    run = runs.by_key(home, at)
    if run is None:
        return {}
    try:
        return {"count": views.how_many(comparisons.count(run, comparisons.read_wish(run, *fields)))}
    except UserError as error:
        return {"count": notice(error.message, error.hint, "warning")}


def _compare(home: Home, at: str, *fields: Any) -> dict[str, Any]:
    run = _run(home, at)
    try:
        made = comparisons.create(run, comparisons.read_wish(run, *fields))
        comparisons.start(run, made, home)
    except UserError as error:
        return {"count": notice(error.message, error.hint, "error")}
    return {"count": "", "choices": gr.update(open=False), **_comparisons(run, made), **_first(run, made)}


def _stop(home: Home, at: str, shown: str, number: int) -> dict[str, Any]:
    run = _run(home, at)
    made = _comparison(run, shown)
    comparisons.stop(made)
    return _live(run, made, number)


def _look(home: Home, at: str, shown: str) -> dict[str, Any]:
    run = _run(home, at)
    return _first(run, _comparison(run, shown))


def _act(home: Home, values: dict[str, Any], at: str, shown: str, number: int) -> dict[str, Any]:
    """A prompt's tab, or a checkpoint picked."""
    run = _run(home, at)
    if values["act"] == "pick":
        picks.pick(run, int(values["step"]), float(values["strength"]))
        return {**_live(run, _comparison(run, shown), number), **_result(home, run)}
    number = int(values["number"])
    return {"number": number, **_live(run, _comparison(run, shown), number)}


def _export(context: Context, at: str, name: str, form: str) -> dict[str, Any]:
    run = _run(context.home, at)
    found = picks.picked(run)
    try:
        if found is None:
            raise UserError("No checkpoint is picked yet.", "Press Pick beside one first.")
        picks.export(run, found, name, form, context.worker.ask)
    except UserError as error:
        return {"saved": _said(notice(error.message, error.hint, "error"))}
    return _result(context.home, run)


def _open(home: Home, at: str) -> None:
    found = picks.picked(_run(home, at))
    if not found:
        raise UserError("There is no adapter file yet.", "Pick a checkpoint and export it first.")
    open_folder(Path(found.adapter))


def _send(context: Context, values: dict[str, Any], at: str) -> dict[str, Any]:
    """Send to a program, ask for its folder, or remember the one that was named and send there."""
    run = _run(context.home, at)
    program, found = values["program"], picks.picked(run)
    folders = send_to.lora_folders(context.home)
    if found is None:
        return {}
    show = partial(views.sending, found)
    if values["act"] == "ask" or program not in send_to.PROGRAMS:
        return {"sending": _said(show(folders, program))}
    try:
        if values["act"] == "folder":
            folders |= {program: send_to.choose_folder(context.home, program, values["value"])}
        file = picks.for_program(run, found, program, context.worker.ask)
        files = send_to.send(file.files, program, folders[program], values.get("called", ""))
    except send_to.NameTaken as error:
        said = notice(error.message, error.hint, "warning")
        return {"sending": _said(show(folders, program, said, error.free))}
    except UserError as error:
        return {"sending": _said(show(folders, program, notice(error.message, error.hint, "error")))}
    return {"sending": _said(show(folders, "", views.sent(program, files, file)))}


def _tick(
    home: Home, where: Where, at: str, known: tuple[int, ...], shown: str, number: int, mark: str
) -> dict[str, Any]:
    """What has changed on disk since the last look; nothing else is sent, so that nobody loses the focus."""
    run = runs.by_key(home, at) if where.page == "results" else None
    if run is None:
        return {}
    steps = tuple(comparisons.checkpoint_steps(run))
    if steps and not known:
        return _show(home, where, at, known)
    changed: dict[str, Any] = {"known": steps, "steps": _choices(steps)} if steps != known else {}
    live = _live(run, _comparison(run, shown), number) if steps else {}
    if live and live["mark"] == mark:
        live.pop("grid")
        live = live if "running" in mark else {}
    return {**changed, **live}


def _first(run: Run, made: Comparison | None) -> dict[str, Any]:
    """A comparison as it is shown at first."""
    number = views.first_prompt(made) if made else 0
    return {"number": number, **_live(run, made, number)}


def _live(run: Run, made: Comparison | None, number: int) -> dict[str, Any]:
    """What moves while pictures are drawn; `mark` is another where the grid is."""
    if made is None:
        grid = views.nothing_compared()
        return {
            "progress": "",
            "grid": grid,
            "compare": gr.update(interactive=True),
            "stop": _visible(False),
            "mark": "",
        }
    state, picked = comparisons.progress(made), picks.picked(run)
    running = state.word == "running"
    chosen = f"{picked.step} {picked.strength}" if picked else ""
    return {
        "progress": _said(views.progress(state)),
        "grid": views.grid(made, number, picked, running),
        "compare": gr.update(interactive=not running),
        "stop": _visible(running),
        "mark": f"{made.folder.name} {state.drawn} {state.word} {number} {chosen}",
    }


def _result(home: Home, run: Run) -> dict[str, Any]:
    """The pick and what became of it."""
    found = picks.picked(run)
    config = config_io.load(run.config)
    changes = {"picked": views.picked_line(found), "export_row": _visible(found is not None)}
    if found:
        changes |= {"name": found.name, "form": found.form}
    sending = views.sending(found, send_to.lora_folders(home)) if found and found.made else ""
    return {**changes, "saved": _said(views.saved(found, config.data.trigger)), "sending": _said(sending)}


def _fields(run: Run, steps: tuple[int, ...]) -> dict[str, Any]:
    wish = comparisons.last_wish(run)
    return {
        "steps": gr.update(**_choices(steps), value=list(wish.steps)),
        "prompts": "\n".join(wish.prompts),
        "strengths": ", ".join(f"{strength:g}" for strength in wish.strengths),
        "seeds": ", ".join(map(str, wish.seeds)),
        "count": views.how_many(comparisons.count(run, wish)),
    }


def _choices(steps: tuple[int, ...]) -> dict[str, Any]:
    return gr.update(choices=[(f"Step {step:,}", step) for step in steps])


def _comparisons(run: Run, made: Comparison | None = None) -> dict[str, Any]:
    """The list of those that the run has."""
    found = comparisons.list_comparisons(run)
    chosen = made or (found[0] if found else None)
    choices = [(views.title(one), one.folder.name) for one in found]
    value = chosen.folder.name if chosen else None
    return {"shown": gr.update(choices=choices, value=value, elem_classes=[] if len(found) > 1 else HIDDEN)}


def _runs(home: Home, shown: Run) -> list[tuple[str, str]]:
    names = watching.names_of_projects(home)
    listed = watching.recent(home, shown)
    return [(run_label(run, names.get(run.key.partition("/")[0], "")), run.key) for run in listed]


def _run(home: Home, at: str) -> Run:
    run = runs.by_key(home, at)
    if run is None:
        raise UserError("The run is no longer there.", "Choose another one.")
    return run


def _newest(run: Run) -> Comparison | None:
    return next(iter(comparisons.list_comparisons(run)), None)


def _comparison(run: Run, name: str | None) -> Comparison | None:
    return next((one for one in comparisons.list_comparisons(run) if one.folder.name == name), None)


def _said(html: str) -> dict[str, Any]:
    """A region that takes no room where it says nothing; it stays there, and goes on listening."""
    return gr.update(value=html, elem_classes=[] if html else HIDDEN)


def _visible(wanted: bool) -> dict[str, Any]:
    """Hidden by our own style: what is not in the browser misses updates, and a parent that shows itself shows all."""
    return gr.update(elem_classes=[] if wanted else HIDDEN)
