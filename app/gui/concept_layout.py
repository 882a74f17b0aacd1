"""What stands where on the Concept page: its controls and regions, before anything is done with them."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.framing import OWN, Framing
from app.gui import concept_views as views
from app.gui.choices import ChoiceFromDisk
from app.gui.concept_script import SCRIPT
from app.gui.kept import kept
from app.gui.markup import panel


@dataclass(frozen=True)
class Top:
    """Which project; and the samples, in a home without projects of one's own."""

    choice: gr.Dropdown
    new: gr.Button
    train: gr.Button
    samples: gr.HTML


@dataclass(frozen=True)
class Form:
    """What a new project is made of."""

    box: gr.Column
    name: gr.Textbox
    kind: gr.Radio
    files: gr.File
    linked: gr.Textbox
    note: gr.HTML
    make: gr.Button
    cancel: gr.Button
    made: gr.HTML  # keeps the slug of the project that was made last


@dataclass(frozen=True)
class About:
    """What is known of the project, and can be changed."""

    summary: gr.HTML
    kind: gr.Radio
    trigger: gr.Textbox
    suggest: gr.Button
    trigger_note: gr.HTML
    link_note: gr.HTML
    drop_note: gr.HTML
    told: gr.HTML  # keeps what drop_note says, and of which project


@dataclass(frozen=True)
class Adding:
    """More pictures for the project."""

    box: gr.Accordion
    drop: gr.File
    folder: gr.UploadButton
    handed: gr.File  # what was dropped last, on its way into its project: where it was dropped, there is room for more


@dataclass(frozen=True)
class Bulk:
    """A change to many captions."""

    way: gr.Dropdown
    words: gr.Textbox
    instead: gr.Textbox
    apply: gr.Button
    note: gr.HTML

    @property
    def wish(self) -> list[Any]:
        return [self.way, self.words, self.instead]


@dataclass(frozen=True)
class Pictures:
    """The pictures, and which of them are shown."""

    show: gr.Radio
    search: gr.Textbox
    resolution: gr.Dropdown
    undo: gr.HTML
    grid: gr.HTML
    pager: gr.HTML
    page: gr.HTML  # keeps its number, counted from 0
    framing: gr.HTML  # keeps the Framing of the project's own run
    timer: gr.Timer  # ticks while pictures are being measured


@dataclass(frozen=True)
class Layout:
    top: Top
    form: Form
    about: About
    adding: Adding
    bulk: Bulk
    pictures: Pictures
    project: gr.HTML  # keeps the slug of the project in sight: another one may have been chosen already

    @property
    def look(self) -> list[Any]:
        """What a concept_pictures.Look is made of, in its order."""
        shown = self.pictures
        return [shown.show, shown.search, shown.resolution, shown.page, shown.framing]

    @property
    def view(self) -> list[Any]:
        """What concept_pictures.draw draws, in its order."""
        shown = self.pictures
        return [self.about.summary, shown.undo, shown.grid, shown.pager, shown.page, shown.timer]


def build_layout() -> Layout:
    """From top to bottom."""
    top, form, about = build_top(), build_form(), build_about()
    with gr.Row(equal_height=False):
        adding, bulk = build_adding(), build_bulk()
    layout = Layout(top, form, about, adding, bulk, build_pictures(), kept(""))
    gr.HTML("", js_on_load=SCRIPT, visible=True, apply_default_css=False)
    return layout


def build_top() -> Top:
    with gr.Row(equal_height=True, elem_classes=["dr-concept-top"]):
        choice = ChoiceFromDisk([], label="Project", scale=4, min_width=240, filterable=True)
        new = gr.Button("New project", scale=1, min_width=150)
        train = gr.Button("Continue to Train", variant="primary", scale=1, min_width=200)
    return Top(choice, new, train, panel("Samples"))


def build_form() -> Form:
    with gr.Column(visible=False, elem_classes=["dr-new"]) as box:
        with gr.Row():
            name = gr.Textbox(label="Name of the new project", placeholder="Anna, my cat, ink drawings ...", scale=2)
            kind = gr.Radio(views.KINDS, value="object", label="What do the pictures show?", scale=3)
        with gr.Row():
            files = gr.File(
                label="Pictures, captions, zip files or folders",
                file_count="multiple",
                height=170,
                scale=2,
                elem_classes=["dr-drop"],
            )
            linked = gr.Textbox(
                label="Or link a folder instead of copying",
                info="It is only read. Captions that you edit are saved beside the pictures.",
                placeholder="/home/me/pictures/cat",
                scale=3,
            )
        note = panel("Problems of the new project")
        with gr.Row():
            make = gr.Button("Create project", variant="primary", scale=0, min_width=170)
            cancel = gr.Button("Cancel", scale=0, min_width=110)
    return Form(box, name, kind, files, linked, note, make, cancel, kept(""))


def build_about() -> About:
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            summary = panel("Summary of the pictures")
        kind = gr.Radio(views.KINDS, label="Kind", scale=4, min_width=340)
        with gr.Column(scale=3, min_width=280):
            with gr.Row(equal_height=True, elem_classes=["dr-trigger"]):
                trigger = gr.Textbox(label="Trigger word", placeholder="a rare word", scale=3, min_width=120)
                suggest = gr.Button("Suggest", scale=1, min_width=90)
            trigger_note = panel("Remarks on the trigger word")
    link_note, drop_note = panel("Linked folder"), panel("What was added")
    return About(summary, kind, trigger, suggest, trigger_note, link_note, drop_note, kept(views.Told()))


def build_adding() -> Adding:
    with gr.Accordion("Add pictures", open=False) as box:
        drop = gr.File(
            label="Drop pictures, captions, zip files or folders",
            file_count="multiple",
            height=150,
            elem_classes=["dr-drop"],
        )
        folder = gr.UploadButton("Choose a folder", file_count="directory", size="sm")
    handed = gr.File(file_count="multiple", interactive=False, visible="hidden", show_label=False)
    return Adding(box, drop, folder, handed)


def build_bulk() -> Bulk:
    with gr.Accordion("Edit many captions", open=False):
        with gr.Row(equal_height=True, elem_classes=["dr-bulk"]):
            way = gr.Dropdown(views.BULK, value="front", label="Change", scale=2, min_width=160)
            words = gr.Textbox(label="Tag or text", scale=3, min_width=150)
            instead = gr.Textbox(label="Replace it by", scale=3, min_width=150, visible=False)
            apply = gr.Button("Apply", scale=1, min_width=80)
        note = panel("Preview of the change")
    return Bulk(way, words, instead, apply, note)


def build_pictures() -> Pictures:
    with gr.Row(equal_height=True, elem_classes=["dr-tools"]):
        show = gr.Radio(views.SHOWN, value="all", label="Show", scale=3, min_width=250)
        search = gr.Textbox(label="Search captions and names", scale=3, min_width=180)
        resolution = ChoiceFromDisk(
            views.crop_choices(Framing()), value=OWN, label="Show crops for", scale=3, min_width=340, filterable=False
        )
    undo, grid, pager = panel("Last change of captions"), panel("Pictures"), panel("Pages of pictures")
    page, framing = kept(0), kept(Framing())
    return Pictures(show, search, resolution, undo, grid, pager, page, framing, gr.Timer(1, active=False))
