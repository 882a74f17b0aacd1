"""The Concept page: a project's pictures and captions, and what of them is trained."""

import gradio as gr
from gradio.events import Dependency

from app.gui.concept_layout import Layout, build_layout
from app.gui.concept_pictures import PictureHandlers
from app.gui.concept_project import ProjectHandlers
from app.gui.concept_script import LEFT
from app.gui.context import QUIET, Context, Here, clock, going, in_turn
from app.gui.markup import in_words
from app.picture_facts import Measured

CAPTIONS = in_turn("captions")  # of all that draws the pictures: the answer that was asked for last is the last one
NEWEST = {**CAPTIONS, "trigger_mode": "always_last"}  # while someone types, the last text counts
SIDE_BY_SIDE = {**QUIET, "trigger_mode": "multiple"}  # copying can take long, and more may be dropped meanwhile
MADE = "(made, files) => made ? [files, null] : [null, files]"  # a form that was refused keeps its files
DROPPED = "(files) => [files, null]"


def build_concept_page(context: Context, here: Here) -> None:
    """Lay the page out and wire it; what it shows is read from the disk each time."""
    pictures = PictureHandlers(context.home, Measured(context.home))
    project, layout = ProjectHandlers(pictures), build_layout()
    wire_project(layout, project, here)
    wire_form(layout, project, here)
    wire_adding(layout, project, here)
    wire_about(layout, project, here)
    wire_pictures(layout, pictures, here)
    wire_bulk(layout, pictures, here)


def wire_project(layout: Layout, project: ProjectHandlers, here: Here) -> None:
    """Choosing a project, and leaving for the Train page."""
    top, form, about, adding, pictures = layout.top, layout.form, layout.about, layout.adding, layout.pictures
    fields = [layout.project, top.choice, top.samples, about.kind, about.trigger, about.trigger_note]
    notes = [adding.box, about.link_note, about.drop_note]
    shown = [pictures.show, pictures.search, pictures.resolution, pictures.framing, *layout.view]
    asked = [layout.project, about.told, *layout.look]
    here.on_show("concept", project.refresh, [*fields, *notes, *shown], asked, **CAPTIONS)
    top.choice.select(lambda where, slug: going(where, project=slug), [here.where, top.choice], here.where, **QUIET)
    top.train.click(lambda where: going(where, page="train"), here.where, here.where, **QUIET)
    top.new.click(lambda: [gr.update(visible=True)] * 2, None, [form.box, top.samples], **QUIET)
    top.samples.act(in_words(project.samples), here.where, [form.box, here.where], **QUIET)


def wire_form(layout: Layout, project: ProjectHandlers, here: Here) -> None:
    """Making a project, and filling it with what was dropped."""
    form, handed = layout.form, layout.adding.handed
    form.cancel.click(project.cancel, here.where, [form.box, form.note, here.where], **QUIET)
    made = form.make.click(
        project.create,
        [here.where, form.name, form.kind, form.linked, form.files],
        [form.note, form.name, form.linked, form.box, layout.about.told, form.made, here.where],
        **QUIET,
    )
    moved = made.then(None, [form.made, form.files], [handed, form.files], js=MADE, **SIDE_BY_SIDE)
    filled = moved.then(in_words(project.fill), [form.made, handed], layout.about.told, **SIDE_BY_SIDE)
    wire_added(filled, layout, project, here)


def wire_adding(layout: Layout, project: ProjectHandlers, here: Here) -> None:
    """More pictures for a project."""
    adding = layout.adding
    for upload in (adding.drop, adding.folder):
        moved = upload.upload(None, upload, [adding.handed, upload], js=DROPPED, **SIDE_BY_SIDE)
        added = moved.then(in_words(project.add), [here.where, adding.handed], layout.about.told, **SIDE_BY_SIDE)
        wire_added(added, layout, project, here)


def wire_added(copied: Dependency, layout: Layout, project: ProjectHandlers, here: Here) -> None:
    """What follows on a copy: where the browser tab is by then, is asked anew."""
    asked, shown = [here.where, layout.about.told, *layout.look], [layout.about.drop_note, *layout.view]
    copied.success(in_words(project.show_added), asked, shown, **CAPTIONS)


def wire_about(layout: Layout, project: ProjectHandlers, here: Here) -> None:
    """The project's kind and trigger word."""
    about, look, view = layout.about, layout.look, layout.view
    about.kind.input(in_words(project.save_kind), [here.where, layout.project, about.kind, *look], view, **CAPTIONS)
    typed = [here.where, layout.project, about.trigger, *look]
    about.trigger.input(in_words(project.save_trigger), typed, about.trigger_note, **NEWEST)
    for leaving in (about.trigger.blur, about.trigger.submit):
        leaving(in_words(project.leave_trigger), typed, [about.trigger_note, *view], js=LEFT, **CAPTIONS)
    suggested = [about.trigger, about.trigger_note, *view]
    about.suggest.click(in_words(project.suggest_trigger), typed, suggested, **CAPTIONS)


def wire_pictures(layout: Layout, pictures: PictureHandlers, here: Here) -> None:
    """The cards, and which of them are shown."""
    shown, asked, view = layout.pictures, [here.where, layout.project, *layout.look], layout.view
    for heard in (shown.grid, shown.pager):
        heard.act(in_words(pictures.act), asked, view, **CAPTIONS)
    shown.undo.act(in_words(pictures.undo), asked, view, **CAPTIONS)
    shown.resolution.input(in_words(pictures.drawn), asked, view, **NEWEST)
    shown.timer.tick(in_words(pictures.tick), asked, view, **clock("captions"))


def wire_bulk(layout: Layout, pictures: PictureHandlers, here: Here) -> None:
    """The change to many captions, told before it is done."""
    bulk, shown = layout.bulk, layout.pictures
    asked, told = [here.where, layout.project, *bulk.wish, *layout.look], [bulk.instead, bulk.note]
    for leaving in (bulk.words.blur, bulk.instead.blur, bulk.words.submit):
        leaving(in_words(pictures.preview), asked, told, **CAPTIONS)
    for control in bulk.wish:
        control.input(in_words(pictures.preview), asked, told, **NEWEST)
    for control in (shown.show, shown.search):  # two events of one control would ask for each other without end
        control.input(in_words(pictures.looked), asked, [*told, *layout.view], **NEWEST)
    bulk.apply.click(in_words(pictures.bulk), asked, [bulk.note, *layout.view], **CAPTIONS)
