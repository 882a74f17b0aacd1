"""What stands where on the Train page: its controls and regions, before anything is done with them."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.gui import train_views as views
from app.gui.choices import ChoiceFromDisk
from app.gui.kept import kept
from app.gui.markup import LISTEN, panel
from app.gui.train_scripts import CARDS, FORM, STATES


@dataclass(frozen=True)
class Choice:
    """What is trained on what."""

    project: gr.Dropdown
    base: gr.Dropdown
    base_note: gr.HTML


@dataclass(frozen=True)
class Settings:
    """Presets, fields, and what stands in the fields."""

    cards: gr.HTML
    form: gr.HTML
    states: gr.HTML


@dataclass(frozen=True)
class Keep:
    """The settings as a preset of one's own."""

    title: gr.Textbox
    sentence: gr.Textbox
    button: gr.Button
    note: gr.HTML


@dataclass(frozen=True)
class Import:
    """Another trainer's settings."""

    files: gr.UploadButton
    report: gr.HTML


@dataclass(frozen=True)
class Bases:
    """A further folder with base models."""

    folder: gr.Textbox
    add: gr.Button
    note: gr.HTML


@dataclass(frozen=True)
class Side:
    """What the run comes to, and the one button."""

    numbers: gr.HTML
    estimate: gr.HTML
    train: gr.Button
    note: gr.HTML  # why no run could be made


@dataclass(frozen=True)
class Layout:
    nothing: gr.HTML  # in place of `body` while there is no project
    body: gr.Column
    problems: gr.HTML
    choice: Choice
    settings: Settings
    keep: Keep
    imports: Import
    bases: Bases
    side: Side
    tick: gr.Timer  # while an estimate is awaited
    asked: gr.HTML  # keeps which settings the estimate is for
    project: gr.HTML  # keeps the slug of the project in sight: another one may have been chosen already

    @property
    def shown(self) -> list[Any]:
        """All that train_handlers.Drafting.show writes to."""
        choice, settings, side = self.choice, self.settings, self.side
        return [
            *(self.nothing, self.body, self.problems),
            *(choice.project, choice.base, choice.base_note),
            *(settings.cards, settings.form, settings.states),
            *(side.numbers, side.train, side.note, side.estimate),
            *(self.tick, self.asked, self.project),
        ]


def build_layout() -> Layout:
    """The choices and settings on the left, what they come to on the right."""
    nothing = panel("No project", views.NO_PROJECT, visible=False)
    with gr.Column(visible=False) as body:
        problems = panel("Problems", visible=False)
        with gr.Row(elem_classes=["dr-train"]):
            with gr.Column(scale=7, min_width=380):
                choice, settings = build_choice(), build_settings()
                keep, imports, bases = build_keep(), build_import(), build_bases()
            with gr.Column(scale=3, min_width=240, elem_classes=["dr-side"]):
                side = build_side()
    tick, asked, project = gr.Timer(1, active=False), kept(""), kept("")
    return Layout(nothing, body, problems, choice, settings, keep, imports, bases, side, tick, asked, project)


def build_choice() -> Choice:
    with gr.Row():
        project = ChoiceFromDisk([], label="Project", min_width=160, scale=2)
        base = gr.Dropdown(
            [],
            label="Base model (choose one, or type a path or hub id)",
            allow_custom_value=True,
            min_width=220,
            scale=3,
        )
    return Choice(project, base, panel("About the base model", elem_classes=["dr-base"]))


def build_settings() -> Settings:
    cards = gr.HTML(label="Presets", js_on_load=LISTEN + CARDS, apply_default_css=False)
    form = gr.HTML(label="Settings", js_on_load=LISTEN + FORM, apply_default_css=False)
    states = gr.HTML(label="States of the settings", js_on_load=STATES, elem_classes=["dr-states"])
    return Settings(cards, form, states)


def build_keep() -> Keep:
    with gr.Accordion("Save these settings as a preset", open=False):
        with gr.Row():
            title = gr.Textbox(label="Preset name", max_lines=1, min_width=160, scale=2)
            sentence = gr.Textbox(label="What it is for, in a sentence", max_lines=1, min_width=200, scale=3)
        button, note = gr.Button("Save preset", size="sm"), panel("Preset saved")
    return Keep(title, sentence, button, note)


def build_import() -> Import:
    title = "Import settings of kohya_ss, sd-scripts or OneTrainer"
    with gr.Accordion(title, open=False, elem_classes=["dr-import"]):
        files = gr.UploadButton("Choose their files", file_count="multiple", size="sm")
        report = panel("Import report")
    return Import(files, report)


def build_bases() -> Bases:
    with gr.Accordion("Look for base models in another folder", open=False):
        folder = gr.Textbox(label="Folder with base models", max_lines=1)
        add, note = gr.Button("Add the folder", size="sm"), panel("Folder added")
    return Bases(folder, add, note)


def build_side() -> Side:
    numbers, estimate = panel("The run in numbers"), panel("Estimate")
    train, note = gr.Button("Train", variant="primary", size="lg"), panel("Run not made")
    return Side(numbers, estimate, train, note)
