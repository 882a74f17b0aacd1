"""The Results page: checkpoints against each other, the best one picked, made an adapter file and sent on."""

from functools import partial
from typing import Any

import gradio as gr

from app.gui import results_compare as comparing
from app.gui import results_file as file
from app.gui.choices import ChoiceFromDisk, ChoicesFromDisk
from app.gui.context import QUIET, Context, Here, Where, clock, going, in_turn
from app.gui.kept import kept
from app.gui.markup import LISTEN, in_words, notice, panel, script
from app.gui.results_file_views import LAYOUTS
from app.gui.results_parts import HIDDEN, filled_in, heard, said


def build_results_page(context: Context, here: Here) -> None:
    home = context.home
    parts: dict[str, Any] = {name: kept(first) for name, first in REMEMBERED.items()}
    parts["run"] = ChoiceFromDisk([], label="Run to look at", interactive=True)
    parts["story"] = panel("About the run's results", elem_classes=HIDDEN)
    with gr.Column(elem_classes=HIDDEN) as parts["body"]:
        _build_choices(parts)
        _build_comparison(parts)
        _build_file(parts)
    timer = gr.Timer(1, active=False)
    here.while_shown("results", timer)

    seen = [parts[name] for name in ("at", "known", "shown", "number", "suggested")]
    filled = partial(filled_in, parts)
    everything = list(parts.values())
    here.on_show("results", filled(partial(comparing.show, home)), everything, seen, **ORDERED)
    parts["run"].select(_go, [here.where, parts["run"]], here.where, **QUIET)
    looked = [here.where, *seen, parts["mark"], parts["told"]]
    timer.tick(filled(partial(comparing.tick, context)), looked, everything, **clock("results"))
    _wire_comparison(context, parts)
    _wire_file(context, parts)


ORDERED = in_turn("results")
REMEMBERED = {  # of this tab -> what it begins with
    "at": "",  # key of the run that is shown
    "known": (),  # its checkpoints
    "number": 0,  # of the prompt that is shown
    "mark": "",  # another one where the grid is another
    "told": "",  # what is said of a training beside it
    "suggested": file.Suggested(),
}


def _build_choices(parts: dict[str, Any]) -> None:
    """What to compare, and what that takes."""
    with gr.Accordion("What to compare", open=True) as parts["choices"], gr.Row():
        with gr.Column(min_width=260):
            parts["steps"] = ChoicesFromDisk([], label="Checkpoints to compare")
            with gr.Row():
                parts["strengths"] = gr.Textbox(label="Strengths to compare", info="Apart by commas", min_width=120)
                parts["seeds"] = gr.Textbox(label="Seeds to compare", info="Same seed, same noise", min_width=120)
        with gr.Column(min_width=260):
            parts["prompts"] = gr.Textbox(label="Prompts to compare", info="One per line", lines=4, max_lines=8)
            parts["count"] = panel("Size of the comparison")
            parts["sharing"] = panel("A training beside it", elem_classes=HIDDEN)
            parts["compare"] = gr.Button("Compare", variant="primary")


def _build_comparison(parts: dict[str, Any]) -> None:
    """The drawing, the grid, and the pick."""
    parts["progress"] = panel("Progress of the comparison", elem_classes=HIDDEN)
    parts["stop"] = gr.Button("Stop comparing", elem_classes=HIDDEN)
    parts["shown"] = ChoiceFromDisk([], label="Comparison to look at", interactive=True, elem_classes=HIDDEN)
    parts["grid"] = gr.HTML(label="Comparison", js_on_load=LISTEN + script("enlarge.js"), apply_default_css=False)
    parts["picked"] = panel("Picked checkpoint")


def _build_file(parts: dict[str, Any]) -> None:
    """The adapter file of the pick, and where it is sent."""
    with gr.Row(elem_classes=HIDDEN) as parts["export_row"]:
        parts["name"] = gr.Textbox(label="Name of the adapter file", min_width=200)
        parts["form"] = gr.Dropdown([(told, form) for form, told in LAYOUTS.items()], label="Layout", min_width=200)
        parts["export"] = gr.Button("Save adapter file", variant="primary", min_width=160, elem_classes=["dr-low"])
    heard_there = {"js_on_load": LISTEN + script("copy.js"), "apply_default_css": False, "elem_classes": HIDDEN}
    parts["saved"] = gr.HTML(label="Adapter file", **heard_there)
    parts["sending"] = panel("Send to an image program", elem_classes=HIDDEN)


def _wire_comparison(context: Context, parts: dict[str, Any]) -> None:
    home, at = context.home, parts["at"]
    fields = [parts[name] for name in ("steps", "prompts", "strengths", "seeds")]
    looked_at = [at, parts["shown"], parts["number"]]
    options = {"outputs": list(parts.values()), **ORDERED}
    typed, handler = [field.change for field in fields], filled_in(parts, partial(comparing.count, home))
    gr.on(typed, handler, [at, *fields], **{**options, "trigger_mode": "always_last"})
    parts["compare"].click(filled_in(parts, partial(comparing.compare, home)), [at, *fields], **options)
    parts["stop"].click(filled_in(parts, partial(comparing.stop, home)), looked_at, **options)
    parts["shown"].input(filled_in(parts, partial(comparing.look, home)), [at, parts["shown"]], **options)
    parts["grid"].act(heard(parts, partial(comparing.act, home)), [*looked_at, parts["suggested"]], **options)


def _wire_file(context: Context, parts: dict[str, Any]) -> None:
    at, saved = parts["at"], parts["saved"]
    options = {"outputs": list(parts.values()), **ORDERED}
    busy = parts["export"].click(lambda: said(notice(WRITING)), None, saved, **QUIET)
    answered = kept(file.Exported())
    exported = busy.then(in_words(partial(file.export, context)), [at, parts["name"], parts["form"]], answered, **QUIET)
    shown = [at, parts["name"], parts["suggested"], answered]
    exported.then(filled_in(parts, partial(file.show_exported, context.home)), shown, **options)
    saved.act(in_words(partial(file.open_file, context.home)), at, None, **QUIET)
    parts["sending"].act(heard(parts, partial(file.send, context)), [at], **options)


WRITING = "Writing and verifying the adapter file ..."


def _go(where: Where, place: str) -> Where:
    return going(where, run=place, project=place.partition("/")[0])
