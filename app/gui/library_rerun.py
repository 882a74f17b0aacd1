"""The Library page's form that trains a run once more with one setting changed."""

from typing import Any

import gradio as gr

from app import rerun
from app.gui import run_views as views
from app.gui.context import QUIET, Where, going
from app.gui.library_parts import Library, Shown
from app.gui.markup import in_words, notice, panel, refusal
from app.library import run_of
from app.setting_text import to_text
from trainers import config_io
from trainers.config_problems import SETTINGS
from trainers.errors import UserError


def emptied() -> list[Any]:
    return [None, "", "", gr.update(interactive=False)]


def build_rerun(page: Library) -> list[gr.Component]:
    """The form's parts, which `emptied` empties when another run is shown."""
    gr.HTML('<h3 class="dr-title">Run it again with one change</h3>')
    with gr.Row():
        choices = [(f"{field.title} ({name})", name) for name, field in SETTINGS.items()]
        setting = gr.Dropdown(choices, value=None, label="Setting to change", filterable=True, min_width=240)
        value = gr.Textbox(label="Its new value", min_width=160, max_lines=8)
    said = panel("Change of the next run")
    with gr.Row():
        train = gr.Button("Train with this change", variant="primary", interactive=False, scale=0, min_width=280)

    def on_setting(shown: Shown, name: str | None) -> list[Any]:
        if not name:
            return emptied()[1:]
        now = config_io.get(config_io.load(run_of(page.context.home, shown.run).config), name)
        return [to_text(name, now), _help(name, now), gr.update(interactive=False)]

    def on_value(shown: Shown, name: str | None, value: str) -> list[Any]:
        if not name:
            return emptied()[2:]
        try:
            run = run_of(page.context.home, shown.run)
            now = config_io.get(config_io.load(run.config), name)
            if value == to_text(name, now):
                return [_help(name, now), gr.update(interactive=False)]
            _, change = rerun.with_change(run, name, value)
        except UserError as error:
            return [refusal(error), gr.update(interactive=False)]
        return [views.change_shown(change), gr.update(interactive=True)]

    def on_train(where: Where, shown: Shown, name: str | None, value: str) -> list[Any]:
        if where.page == "monitor":  # the second click of a double click: the first has gone to the run
            return [gr.skip(), gr.skip()]
        try:
            run = run_of(page.context.home, shown.run)
            _, change = rerun.with_change(run, name or "", value)
            made = rerun.rerun(page.context.home, run, name or "", value, views.change_words(change))
            page.context.queue.add(made)
        except (UserError, OSError) as error:
            return [gr.skip(), refusal(error)]
        return [going(where, page="monitor", project=made.key.partition("/")[0], run=made.key), ""]

    # `select` is a choice; a dropdown's `input` comes also when it is left, and would undo what was typed since.
    setting.select(in_words(on_setting), [page.shown, setting], [value, said, train], **QUIET)
    value.change(in_words(on_value), [page.shown, setting, value], [said, train], trigger_mode="always_last", **QUIET)
    train.click(in_words(on_train), [page.here.where, page.shown, setting, value], [page.here.where, said], **QUIET)
    return [setting, value, said, train]


def _help(name: str, now: Any) -> str:
    told = f"{SETTINGS[name].description} This run: {views.value_words(name, now)}."
    return notice(SETTINGS[name].title or name, told)
