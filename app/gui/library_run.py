"""The Library page's view of one run, with what can be done with it, and of two runs compared."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from app import about, archive, drafts
from app.about import read_about
from app.compare import against_preset, changes, outcome
from app.gui import run_views as views
from app.gui.context import QUIET, Where, clock, in_turn
from app.gui.kept import kept, mark
from app.gui.library_inspect import Asked, build_run_inspector, file_of
from app.gui.library_parts import PLACES, Library, Shown, go_to, refusals
from app.gui.library_rerun import build_rerun, emptied
from app.gui.library_views import moved_to_trash
from app.gui.markup import acted, button, in_words, panel, refusal
from app.library import run_of
from app.presets import all_presets
from app.runs import by_key
from app.trash import require_idle, throw_run
from trainers import config_io
from trainers.errors import UserError

TO_TOP = """
let before = '';  // which run was shown; one that only goes on leaves the page where it is
watch('value', () => {
  const run = element.querySelector('[data-run]')?.dataset.run;
  if (run && run !== before && window.scrollY > 300) window.scrollTo(0, 0);
  before = run;
});
"""
BACK = button("All runs", "back", "quiet")


@dataclass(frozen=True)
class Live:
    """What moves on the page of one run while it trains. What a person may be typing in is no part of it."""

    title: gr.HTML
    details: gr.HTML
    sent: gr.HTML  # keeps a Sent


class Sent(NamedTuple):
    """Which run is shown, and the marks of its panels: only what changed is sent, the rest keeps its focus."""

    run: str = ""
    title: str = ""
    named: str = ""
    details: str = ""
    advised: str = ""


def build_one_and_two(page: Library) -> tuple[gr.Column, gr.Column, Live]:
    """Shown while one run is chosen, and while two are compared."""
    sent, asked = kept(Sent()), kept(Asked())
    with gr.Column(visible=False) as one:
        back, title = panel("Way back", BACK), gr.HTML(label="Run", js_on_load=TO_TOP, apply_default_css=False)
        named, not_named = panel("Name and note"), refusals("Name or note not saved")
        details = panel("Details")
        build_run_inspector(page.context, page.shelf, asked)
        form = build_rerun(page)
        advised = panel("Against the preset")
    with gr.Column(visible=False) as two:
        back_too, compared = (
            panel("Way back from the comparison", BACK),
            gr.HTML(label="Comparison", js_on_load=TO_TOP, apply_default_css=False),
        )

    def draw(shown: Shown, before: Sent) -> list[Any]:
        """What a person is about to change of a run stays as it is while that run is shown."""
        if not shown.run:
            two = _two(page, shown.compared) if shown.compared else gr.skip()
            return [*[gr.skip()] * 5, two, *[gr.skip()] * (2 + len(form))]
        html = _one(page, shown.run)
        now = Sent(shown.run, *map(mark, html))
        same = now.run == before.run
        known = before[1:] if same else [None] * len(html)
        panels = [value if new != old else gr.skip() for value, new, old in zip(html, now[1:], known, strict=True)]
        fresh = [gr.skip()] * (1 + len(form)) if same else [Asked(), *emptied()]
        return [*panels, "", gr.skip(), *fresh, now]

    def on_named(shown: Shown, event: gr.EventData) -> list[Any]:
        done = acted(event)
        try:
            run = run_of(page.context.home, done["key"])
            about.rename_run(run, done["value"]) if done["act"] == "rename" else about.annotate(run, done["value"])
        except (UserError, OSError) as error:
            return [gr.skip(), refusal(error)]
        return [views.title(page.shelf.entry(run)), ""]

    def on_details(where: Where, shown: Shown, event: gr.EventData) -> list[Any]:
        """Returns for: where, shown, said, asked."""
        done = acted(event)
        try:
            if done["act"] == "train":
                drafts.from_run(page.context.home, run_of(page.context.home, done["key"]))
            if done["act"] in PLACES:
                return [go_to(where, done), gr.skip(), gr.skip(), gr.skip()]
            if done["act"] == "inspect":
                file = file_of(page.context, page.shelf, done["key"], done["file"])
                return [gr.skip(), gr.skip(), gr.skip(), Asked(done["key"], file.name, time.time())]
            return [gr.skip(), *_put_away(page, done), gr.skip()]
        except UserError as error:
            return [gr.skip(), gr.skip(), refusal(error), gr.skip()]

    drawn = [title, named, details, advised, not_named, compared, asked, *form, sent]
    page.shown.change(in_words(draw), [page.shown, sent], drawn, **in_turn("run"))
    for way in (back, back_too):
        way.act(lambda: [Shown().again(), ""], None, [page.shown, page.said], **QUIET)
    named.act(in_words(on_named), page.shown, [title, not_named], **in_turn("names"))
    outputs = [page.here.where, page.shown, page.said, asked]
    details.act(in_words(on_details), [page.here.where, page.shown], outputs, **QUIET)
    return one, two, Live(title, details, sent)


def follow(page: Library, live: Live, timer: gr.Timer) -> None:
    """Bring title and details of an open run up to date at each tick."""

    def refresh(where: Where, shown: Shown, sent: Sent) -> list[Any]:
        drawn = where.page == "library" and shown.run and shown.run == sent.run  # else it is on its way
        run = by_key(page.context.home, shown.run) if drawn else None
        if run is None:
            return [gr.skip()] * 3
        entry = page.shelf.entry(run)
        title, details = views.title(entry), views.details(entry)
        now = sent._replace(title=mark(title), details=mark(details))
        new_title = title if now.title != sent.title else gr.skip()
        return [new_title, details if now.details != sent.details else gr.skip(), now if now != sent else gr.skip()]

    parts = [live.title, live.details, live.sent]
    timer.tick(in_words(refresh), [page.here.where, page.shown, live.sent], parts, **clock("run"))


def _one(page: Library, key: str) -> list[str]:
    """Title, name and note, details, and how the settings differ from the preset."""
    run = run_of(page.context.home, key)
    entry = page.shelf.entry(run)
    try:
        preset, known = read_about(run).preset, all_presets(page.context.home)
        told = views.against_preset(*against_preset(config_io.load(run.config), preset, known))
    except UserError as error:
        told = refusal(error)
    return [views.title(entry), views.about(entry), views.details(entry), told]


def _two(page: Library, keys: tuple[str, ...]) -> str:
    left, right = (page.shelf.entry(run_of(page.context.home, key)) for key in keys)
    try:
        found = changes(config_io.load(left.run.config), config_io.load(right.run.config))
    except UserError as error:
        return refusal(error)
    return views.comparison((left, right), found, (outcome(left.run), outcome(right.run)))


def _put_away(page: Library, done: dict[str, Any]) -> tuple[Any, Any]:
    """Zip, archive or trash the run: what is shown then, and what is said."""
    home, queue = page.context.home, page.context.queue
    run = run_of(home, done["key"])
    name = page.shelf.entry(run).name
    require_idle(run, queue.waiting())
    if done["act"] == "trash":
        thrown = throw_run(home, run, queue.waiting())
        return Shown().again(), moved_to_trash(name, thrown.folder.name)
    if done["act"] == "zip":
        page.chores.start(
            f"Saving {name} as a zip",
            lambda report: f"{name} is saved as {archive.save_zip(home, run, queue.waiting(), report)}.",
        )
        return gr.skip(), ""

    def work(report: archive.Report) -> str:
        zip_file, _ = archive.archive(home, run, queue.waiting, report)
        return f"{name} is archived as {zip_file}, checked, and its folder moved to the trash."

    page.chores.start(f"Archiving {name}", work)
    return Shown().again(), ""
