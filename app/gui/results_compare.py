"""The Results page's comparisons: what to compare, how far the drawing is, and the checkpoint that is picked."""

from typing import Any

import gradio as gr

from app import comparisons, picks, runs, watching
from app.drift import find_drift
from app.gui import results_views as views
from app.gui.context import Context, Where
from app.gui.markup import notice, refusal
from app.gui.monitor_views import run_label
from app.gui.results_file import Suggested, result
from app.gui.results_parts import HIDDEN, Changes, comparison_of, run_at, said, visible
from app.paths import Home
from app.runs import Run
from app.sharing import share_device
from app.story import read_story
from trainers.comparison import Comparison
from trainers.errors import UserError


def show(
    home: Home, where: Where, at: str, known: tuple[int, ...], shown: str | None, number: int, suggested: Suggested
) -> Changes:
    """Everything on the page; what a person typed or chose there stays, but where another run is shown."""
    run = comparisons.shown_run(home, where.run)
    if run is None:
        return {
            "at": "",
            "story": said(views.no_run()),
            "body": visible(False),
            "run": visible(False),
        }
    place, steps = run.key, tuple(comparisons.checkpoint_steps(run))
    head = {"at": place, "known": steps, "run": gr.update(choices=_runs(home, run), value=place, elem_classes=[])}
    if not steps:
        return {**head, "story": said(views.no_checkpoints(run.folder.name)), "body": visible(False)}
    head |= {"story": said(""), "body": visible(True), **result(home, run, suggested)}
    if place == at and known:
        made = comparison_of(run, shown)
        look = _live(run, made, number) if made else _first(run, _newest(run))
        return {**head, "steps": _choices(steps), **_comparisons(run, made), **look}
    made = _newest(run)
    head["choices"] = gr.update(open=made is None)
    return {**head, **_fields(run, steps), **_comparisons(run), **_first(run, made)}


def count(home: Home, at: str, *fields: Any) -> Changes:
    run = runs.by_key(home, at)
    if run is None:
        return {}
    try:
        return {"count": views.how_many(comparisons.count(run, comparisons.read_wish(run, *fields)))}
    except UserError as error:
        return {"count": notice(error.message, error.hint, "warning")}


def compare(home: Home, at: str, *fields: Any) -> Changes:
    run = run_at(home, at)
    try:
        made = comparisons.create(run, comparisons.read_wish(run, *fields))
        comparisons.start(run, made, home)
    except (UserError, OSError) as error:
        return {"count": refusal(error)}
    return {"count": "", "choices": gr.update(open=False), **_comparisons(run, made), **_first(run, made)}


def stop(home: Home, at: str, shown: str, number: int) -> Changes:
    run = run_at(home, at)
    made = comparison_of(run, shown)
    comparisons.stop(made)
    return _live(run, made, number)


def look(home: Home, at: str, shown: str) -> Changes:
    run = run_at(home, at)
    return _first(run, comparison_of(run, shown))


def act(home: Home, values: dict[str, Any], at: str, shown: str, number: int, suggested: Suggested) -> Changes:
    """A prompt's tab, or a checkpoint picked."""
    run = run_at(home, at)
    if values["act"] == "pick":
        try:
            picks.pick(run, int(values["step"]), float(values["strength"]))
        except (UserError, OSError) as error:
            return {"picked": refusal(error)}
        return {**_live(run, comparison_of(run, shown), number), **result(home, run, suggested)}
    number = int(values["number"])
    return {"number": number, **_live(run, comparison_of(run, shown), number)}


def tick(
    context: Context,
    where: Where,
    at: str,
    known: tuple[int, ...],
    shown: str,
    number: int,
    suggested: Suggested,
    mark: str,
    told: str,
) -> Changes:
    """What has changed on disk since the last look; nothing else is sent, so that nobody loses the focus."""
    run = runs.by_key(context.home, at) if where.page == "results" else None
    if run is None:
        return {}
    steps = tuple(comparisons.checkpoint_steps(run))
    if steps and not known:
        return show(context.home, where, at, known, shown, number, suggested)
    changed: Changes = {"known": steps, "steps": _choices(steps)} if steps != known else {}
    sharing = _sharing(context, run)
    if sharing != told:
        changed |= {"sharing": said(sharing), "told": sharing}
    live = _live(run, comparison_of(run, shown), number) if steps else {}
    if live and live["mark"] == mark:
        live.pop("grid")
        live = live if "running" in mark else {}
    return {**changed, **live}


def _first(run: Run, made: Comparison | None) -> Changes:
    """A comparison as it is shown at first."""
    number = views.first_prompt(made) if made else 0
    return {"number": number, **_live(run, made, number)}


def _live(run: Run, made: Comparison | None, number: int) -> Changes:
    """What moves while pictures are drawn; `mark` is another where the grid is."""
    if made is None:
        still = {"progress": "", "compare": gr.update(interactive=True), "stop": visible(False)}
        return {**still, "grid": views.nothing_compared(), "mark": ""}
    state, picked = comparisons.progress(made), picks.picked(run)
    running = state.word == "running"
    chosen = f"{picked.step} {picked.strength}" if picked else ""
    remark = _remark(run, made) if state.word == "done" else ""
    return {
        "progress": said(views.progress(state)),
        "grid": views.grid(made, number, picked, running, remark),
        "compare": gr.update(interactive=not running),
        "stop": visible(running),
        "mark": f"{made.folder.name} {state.drawn} {state.word} {number} {chosen} {remark}",
    }


def _remark(run: Run, made: Comparison) -> str:
    """What the validation losses of the run say of its checkpoints."""
    drift = find_drift(read_story(run.events).state.validation, comparisons.checkpoint_steps(run))
    return views.drift(drift, made.steps) if drift else ""


def _sharing(context: Context, run: Run) -> str:
    """What a comparison now means for the run that trains on the same device."""
    training = context.queue.running()
    if training is None or not share_device(run, training):
        return ""
    return views.sharing(watching.run_name(training))


def _fields(run: Run, steps: tuple[int, ...]) -> Changes:
    wish = comparisons.last_wish(run)
    return {
        "steps": gr.update(**_choices(steps), value=list(wish.steps)),
        "prompts": "\n".join(wish.prompts),
        "strengths": ", ".join(f"{strength:g}" for strength in wish.strengths),
        "seeds": ", ".join(map(str, wish.seeds)),
        "count": views.how_many(comparisons.count(run, wish)),
    }


def _choices(steps: tuple[int, ...]) -> Changes:
    return gr.update(choices=[(f"Step {step:,}", step) for step in steps])


def _comparisons(run: Run, made: Comparison | None = None) -> Changes:
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


def _newest(run: Run) -> Comparison | None:
    return next(iter(comparisons.list_comparisons(run)), None)
