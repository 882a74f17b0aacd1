"""The Library page's view of one run, with what can be done with it, and of two runs compared."""

import time
from typing import Any

import gradio as gr

from app import about, archive, rerun
from app.compare import against_preset, changes, outcome
from app.gui import run_views as views
from app.gui.context import QUIET, Where, going
from app.gui.library_inspect import build_inspector
from app.gui.library_parts import PLACES, Library, Shown, go_to, notice_of
from app.gui.library_views import moved_to_trash
from app.gui.markup import acted, button, in_words, notice, panel
from app.library import run_of
from app.trash import require_idle, throw_run
from trainers import config_io
from trainers.config_problems import SETTINGS
from trainers.errors import UserError

BACK = button("All runs", "back", "quiet")


def build_run(page: Library) -> gr.Column:
    """Shown while one run is chosen."""
    with gr.Column(visible=False) as column:
        back, title, named, details = panel("Way back", BACK), panel("Run"), panel("Name and note"), panel("Details")
        asked = build_inspector(page.context, upload=False)
        _build_rerun(page)
        advised = panel("Against the preset")

    def draw(shown: Shown) -> list[Any]:
        if not shown.run:
            return [gr.skip(), gr.skip(), gr.skip(), gr.skip(), ("", 0.0)]
        run = run_of(page.context.home, shown.run)
        entry = page.shelf.entry(run)
        try:
            told = views.against_preset(*against_preset(config_io.load(run.config)))
        except UserError as error:
            told = notice_of(error)
        return [views.title(entry), views.about(entry), views.details(entry), told, gr.skip()]

    def on_named(shown: Shown, event: gr.EventData) -> list[Any]:
        done = acted(event)
        try:
            run = run_of(page.context.home, done["key"])
            about.rename_run(run, done["value"]) if done["act"] == "rename" else about.annotate(run, done["value"])
        except UserError as error:
            return [gr.skip(), notice_of(error)]
        return [views.title(page.shelf.entry(run)), ""]

    def on_details(where: Where, shown: Shown, event: gr.EventData) -> list[Any]:
        """Returns for: where, shown, said, asked."""
        done = acted(event)
        try:
            if done["act"] in PLACES:
                return [go_to(where, done), gr.skip(), gr.skip(), gr.skip()]
            if done["act"] == "inspect":
                entry = page.shelf.entry(run_of(page.context.home, done["key"]))
                file = next(file for file, _ in entry.files if file.name == done["file"])
                return [gr.skip(), gr.skip(), gr.skip(), (str(file), time.time())]
            return [gr.skip(), *_put_away(page, done), gr.skip()]
        except UserError as error:
            return [gr.skip(), gr.skip(), notice_of(error), gr.skip()]

    page.shown.change(in_words(draw), page.shown, [title, named, details, advised, asked], **QUIET)
    back.act(lambda shown: [Shown().again(), ""], page.shown, [page.shown, page.said], **QUIET)
    named.act(in_words(on_named), page.shown, [title, page.said], **QUIET)
    outputs = [page.here.where, page.shown, page.said, asked]
    details.act(in_words(on_details), [page.here.where, page.shown], outputs, **QUIET)
    return column


def build_comparison(page: Library) -> gr.Column:
    """Shown while two runs are compared."""
    with gr.Column(visible=False) as column:
        back, compared = panel("Way back from the comparison", BACK), panel("Comparison")

    def draw(shown: Shown) -> Any:
        if not shown.compared:
            return gr.skip()
        runs = [run_of(page.context.home, key) for key in shown.compared]
        left, right = (page.shelf.entry(run) for run in runs)
        try:
            found = changes(*(config_io.load(run.config) for run in runs))
        except UserError as error:
            return notice_of(error)
        return views.comparison((left, right), found, (outcome(left.run), outcome(right.run)))

    page.shown.change(in_words(draw), page.shown, compared, **QUIET)
    back.act(lambda: Shown().again(), None, page.shown, **QUIET)
    return column


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


def _build_rerun(page: Library) -> None:
    """A form that makes the run's training anew with one setting changed."""
    gr.HTML('<h3 class="dr-title">Run it again with one change</h3>')
    with gr.Row():
        choices = [(f"{field.title} ({name})", name) for name, field in SETTINGS.items()]
        setting = gr.Dropdown(choices, value=None, label="Setting to change", filterable=True, min_width=240)
        value = gr.Textbox(label="Its new value", min_width=160)
    said = panel("Change of the next run")
    with gr.Row():
        train = gr.Button("Train with this change", variant="primary", interactive=False, scale=0, min_width=220)

    def on_setting(shown: Shown, name: str | None) -> list[Any]:
        if not name:
            return ["", "", gr.update(interactive=False)]
        now = config_io.get(config_io.load(run_of(page.context.home, shown.run).config), name)
        told = f"{SETTINGS[name].description} This run: {views.value_words(name, now)}."
        return [rerun.as_text(now), notice(SETTINGS[name].title or name, told), gr.update(interactive=False)]

    def on_value(shown: Shown, name: str | None, value: str) -> list[Any]:
        try:
            _, change = rerun.with_change(run_of(page.context.home, shown.run), name or "", value)
        except UserError as error:
            return [notice_of(error), gr.update(interactive=False)]
        return [views.change_shown(change), gr.update(interactive=True)]

    def on_train(where: Where, shown: Shown, name: str | None, value: str) -> list[Any]:
        try:
            run = run_of(page.context.home, shown.run)
            _, change = rerun.with_change(run, name or "", value)
            made = rerun.rerun(page.context.home, run, name or "", value, views.change_words(change))
            page.context.queue.add(made)
        except UserError as error:
            return [gr.skip(), notice_of(error)]
        return [going(where, page="monitor", project=made.key.partition("/")[0], run=made.key), ""]

    setting.input(in_words(on_setting), [page.shown, setting], [value, said, train], **QUIET)
    value.input(in_words(on_value), [page.shown, setting, value], [said, train], trigger_mode="always_last", **QUIET)
    train.click(in_words(on_train), [page.here.where, page.shown, setting, value], [page.here.where, said], **QUIET)
    page.shown.change(
        lambda: [None, "", "", gr.update(interactive=False)], None, [setting, value, said, train], **QUIET
    )
