"""The Concept page: a project's pictures and captions, and what of them is trained."""

import gradio as gr

from app.gui.concept_layout import Layout, build_layout
from app.gui.concept_pictures import PictureHandlers
from app.gui.concept_project import ProjectHandlers
from app.gui.context import QUIET, Context, Here, going, in_turn
from app.gui.markup import in_words
from app.picture_facts import Measured

NEWEST = {**QUIET, "trigger_mode": "always_last"}  # while someone types, the last text counts


def build_concept_page(context: Context, here: Here) -> None:
    """Lay the page out and wire it; what it shows is read from the disk each time."""
    pictures = PictureHandlers(context.home, Measured(context.home))
    project, layout = ProjectHandlers(pictures), build_layout()
    wire_project(layout, project, here)
    wire_about(layout, project, here)
    wire_pictures(layout, pictures, here)
    wire_bulk(layout, pictures, here)


def wire_project(layout: Layout, project: ProjectHandlers, here: Here) -> None:
    """Choosing a project, making one, filling one, and leaving for the Train page."""
    top, form, about, adding, pictures = layout.top, layout.form, layout.about, layout.adding, layout.pictures
    fields = [top.choice, top.samples, about.kind, about.trigger, about.trigger_note, adding.box, about.link_note]
    shown = [pictures.show, pictures.search, pictures.resolution, pictures.framing]
    here.on_show("concept", project.refresh, [*fields, *shown, *layout.view], [top.choice, *layout.look])
    top.choice.input(project.choose, [here.where, top.choice], [about.drop_note, here.where], **QUIET)
    top.train.click(lambda where: going(where, page="train"), here.where, here.where, **QUIET)
    top.new.click(lambda: [gr.update(visible=True)] * 2, None, [form.box, top.samples], **QUIET)
    top.samples.act(in_words(project.samples), here.where, [form.box, here.where], **QUIET)
    form.cancel.click(project.cancel, here.where, [form.box, form.note, here.where], **QUIET)
    made = form.make.click(
        project.create,
        [here.where, form.name, form.kind, form.linked, form.files],
        [form.note, form.name, form.linked, form.box, about.drop_note, form.made, here.where],
        **QUIET,
    )
    made.then(
        in_words(project.fill),
        [here.where, form.made, form.files, *layout.look],
        [form.files, about.drop_note, *layout.view],
        **QUIET,
    )
    for upload in (adding.drop, adding.folder):
        shown = [upload, about.drop_note, *layout.view]
        upload.upload(in_words(project.add), [here.where, upload, *layout.look], shown, **QUIET)


def wire_about(layout: Layout, project: ProjectHandlers, here: Here) -> None:
    """The project's kind and trigger word."""
    about, look, view = layout.about, layout.look, layout.view
    about.kind.input(in_words(project.save_kind), [here.where, about.kind, *look], view, **QUIET)
    typed = [here.where, about.trigger, *look]
    about.trigger.input(in_words(project.save_trigger), typed, about.trigger_note, **NEWEST)
    for leaving in (about.trigger.blur, about.trigger.submit):
        leaving(in_words(project.leave_trigger), typed, [about.trigger_note, *view], **QUIET)
    suggested = [about.trigger, about.trigger_note, *view]
    about.suggest.click(in_words(project.suggest_trigger), typed, suggested, **QUIET)


def wire_pictures(layout: Layout, pictures: PictureHandlers, here: Here) -> None:
    """The cards, and which of them are shown."""
    shown, asked, view = layout.pictures, [here.where, *layout.look], layout.view
    for heard in (shown.grid, shown.pager):
        heard.act(in_words(pictures.act), asked, view, **in_turn("captions"))
    shown.undo.act(in_words(pictures.undo), asked, view, **QUIET)
    for control in (shown.show, shown.search, shown.resolution):
        control.input(in_words(pictures.drawn), asked, view, **NEWEST)
    shown.timer.tick(in_words(pictures.tick), asked, view, **QUIET)


def wire_bulk(layout: Layout, pictures: PictureHandlers, here: Here) -> None:
    """The change to many captions, told before it is done."""
    bulk, shown = layout.bulk, layout.pictures
    asked, told = [here.where, *bulk.wish, *layout.look], [bulk.instead, bulk.note]
    for leaving in (bulk.words.blur, bulk.instead.blur, bulk.words.submit):
        leaving(in_words(pictures.preview), asked, told, **QUIET)
    for control in (*bulk.wish, shown.show, shown.search):
        control.input(in_words(pictures.preview), asked, told, **NEWEST)
    bulk.apply.click(in_words(pictures.bulk), asked, [bulk.note, *layout.view], **QUIET)
