"""The Concept page: a project's pictures and captions, and what of them is trained."""

from typing import Any, NamedTuple

import gradio as gr

from app import captions_edit, concepts, picture_list, projects, trigger_words
from app.captions_edit import Edit
from app.gui import concept_views as views
from app.gui.concept_script import SCRIPT
from app.gui.concept_views import trigger_remark
from app.gui.context import QUIET, Context, Here, Where, going
from app.gui.markup import acted, in_words, notice, panel
from app.paths import Home
from app.picture_facts import Measured
from app.picture_list import EMBEDDED_RESOLUTION
from app.projects import Project
from trainers.errors import UserError


class Look(NamedTuple):
    """What of a project's pictures a browser tab shows."""

    show: str = "all"
    search: str = ""
    resolution: int = EMBEDDED_RESOLUTION
    number: int = 0  # of the page, counted from 0


def build_concept_page(context: Context, here: Here) -> None:
    """Lay the page out and wire it; what it shows is read from the disk each time."""
    home, measured = context.home, Measured(context.home)
    page = gr.State(Look().number)
    with gr.Row(equal_height=True, elem_classes=["dr-concept-top"]):
        choice = gr.Dropdown([], label="Project", scale=4, min_width=240, filterable=True)
        new = gr.Button("New project", scale=1, min_width=150)
        train = gr.Button("Continue to Train", variant="primary", scale=1, min_width=200)
    start = panel("Samples")
    with gr.Column(visible=False, elem_classes=["dr-new"]) as form:
        with gr.Row():
            name = gr.Textbox(label="Name of the new project", placeholder="Anna, my cat, ink drawings ...", scale=2)
            new_kind = gr.Radio(views.KINDS, value="object", label="What do the pictures show?", scale=3)
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
        new_note = panel("Problems of the new project")
        with gr.Row():
            make = gr.Button("Create project", variant="primary", scale=0, min_width=170)
            cancel = gr.Button("Cancel", scale=0, min_width=110)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            summary = panel("Summary of the pictures")
        kind = gr.Radio(views.KINDS, label="Kind", scale=4, min_width=340)
        with gr.Column(scale=3, min_width=280):
            with gr.Row(equal_height=True, elem_classes=["dr-trigger"]):
                trigger = gr.Textbox(label="Trigger word", placeholder="a rare word", scale=3, min_width=120)
                suggest = gr.Button("Suggest", scale=1, min_width=90)
            trigger_note = panel("Remarks on the trigger word")
    link_note = panel("Linked folder")
    drop_note = panel("What was added")
    with gr.Row(equal_height=False):
        with gr.Accordion("Add pictures", open=False) as more:
            drop = gr.File(
                label="Drop pictures, captions, zip files or folders",
                file_count="multiple",
                height=150,
                elem_classes=["dr-drop"],
            )
            folder = gr.UploadButton("Choose a folder", file_count="directory", size="sm")
        with gr.Accordion("Edit many captions", open=False):
            with gr.Row(equal_height=True, elem_classes=["dr-bulk"]):
                way = gr.Dropdown(views.BULK, value="front", label="Change", scale=2, min_width=160)
                words = gr.Textbox(label="Tag or text", scale=3, min_width=150)
                instead = gr.Textbox(label="Replace it by", scale=3, min_width=150, visible=False)
                apply = gr.Button("Apply", scale=1, min_width=80)
            bulk_note = panel("Preview of the change")
    with gr.Row(equal_height=True, elem_classes=["dr-tools"]):
        show = gr.Radio(views.SHOWN, value="all", label="Show", scale=3, min_width=250)
        search = gr.Textbox(label="Search captions and names", scale=3, min_width=180)
        resolution = gr.Dropdown(views.CROPS, value=EMBEDDED_RESOLUTION, label="Show crops for", scale=2, min_width=150)
    undo = panel("Last change of captions")
    grid = panel("Pictures")
    pager = panel("Pages of pictures")
    gr.HTML("", js_on_load=SCRIPT, visible=True, apply_default_css=False)
    timer = gr.Timer(1, active=False)

    look = [show, search, resolution, page]
    view = [summary, undo, grid, pager, page, timer]
    bulk = [way, words, instead]

    def drawn(where: Where, *looked: Any) -> list[Any]:
        project = projects.find(home, where.project)
        return draw(project, Look(*looked), measured) if project else [gr.skip() for _ in view]

    def refresh(where: Where) -> list[Any]:
        project, others = arrive(home, where)
        only_samples = all(one.name in views.SAMPLE_NAMES for one in others)
        fresh = Look(resolution=picture_list.resolution_for(home, project))
        return [
            where if where.project == project.slug else going(where, project=project.slug),
            gr.update(choices=[(one.name, one.slug) for one in others], value=project.slug),
            gr.update(value=views.start_cards(project.name), visible=only_samples),
            project.kind,
            project.trigger,
            trigger_remark(project.trigger, fresh.resolution),
            gr.update(visible=project.owns_pictures),
            views.linked_note(project),
            fresh.show,
            fresh.search,
            fresh.resolution,
            *draw(project, fresh, measured),
        ]

    def add(where: Where, dropped: list[str] | None) -> tuple[Any, str, Where]:
        return None, take(must_find(home, where), dropped), going(where)

    def create(where: Where, name: str, kind: str, linked: str, dropped: list[str] | None) -> list[Any]:
        try:
            if dropped and linked.strip():
                raise UserError("Pictures were dropped, and a folder is named.", "Take back the one or the other.")
            project = concepts.make(home, name, kind, linked)
        except UserError as error:
            return [notice(error.message, error.hint, "error"), *[gr.skip()] * 6]
        told = take(project, dropped)
        return ["", "", "", None, gr.update(visible=False), told, going(where, project=project.slug)]

    def do(where: Where, show: str, search: str, resolution: int, number: int, event: gr.EventData) -> list[Any]:
        done, project = acted(event), must_find(home, where)
        if done["act"] == "turn":
            number = int(done["number"])
        else:
            change(project, done)
        return drawn(where, show, search, resolution, number)

    def do_undo(where: Where, *looked: Any) -> list[Any]:
        told = captions_edit.undo(must_find(home, where))
        first, undoing, *rest = drawn(where, *looked)
        return [first, undoing + views.undone(told), *rest]

    def start_do(where: Where, event: gr.EventData) -> list[Any]:
        done = acted(event)
        if done["act"] == "new":
            return [gr.update(visible=True), gr.skip()]
        return [gr.skip(), going(where, project=concepts.use_sample(home, done["sample"]).slug)]

    def save_kind(where: Where, kind: str, *looked: Any) -> list[Any]:
        projects.update(must_find(home, where), kind=kind)
        return drawn(where, *looked)

    def save_trigger(where: Where, word: str, resolution: int) -> str:
        project, word = must_find(home, where), " ".join(word.split())
        if word != project.trigger:
            projects.update(project, trigger=word)
        return trigger_remark(word, resolution)

    def leave_trigger(where: Where, word: str, *looked: Any) -> list[Any]:
        return [save_trigger(where, word, Look(*looked).resolution), *drawn(where, *looked)]

    def suggest_trigger(where: Where, word: str, *looked: Any) -> list[Any]:
        project = must_find(home, where)
        found = trigger_words.suggest(project.name, word)
        projects.update(project, trigger=found)
        return [found, trigger_remark(found, Look(*looked).resolution), *drawn(where, *looked)]

    def preview(where: Where, show: str, search: str, way: str, words: str, instead: str) -> list[Any]:
        seen = picture_list.overview(must_find(home, where), measured, EMBEDDED_RESOLUTION)
        among = picture_list.chosen(seen.pictures, show, search)
        changed = captions_edit.changes(picture_list.captions_by_path(among), Edit(way, words, instead))
        told = views.bulk_count(len(changed), len(among)) if words.strip() else ""
        return [gr.update(visible=way == "replace"), told]

    def do_bulk(where: Where, way: str, words: str, instead: str, *looked: Any) -> list[Any]:
        project, asked = must_find(home, where), Look(*looked)
        if not words.strip():
            return [notice("Say which tag or text.", kind="error"), *[gr.skip()] * len(view)]
        among = picture_list.chosen(
            picture_list.overview(project, measured, asked.resolution).pictures, asked.show, asked.search
        )
        edit = Edit(way, words, instead)
        changed = captions_edit.changes(picture_list.captions_by_path(among), edit)
        count = captions_edit.write(project, changed, views.bulk_words(edit)) if changed else 0
        return [views.bulk_done(count), *drawn(where, *looked)]

    def tick(where: Where, *looked: Any) -> list[Any]:
        return drawn(where, *looked) if where.page == "concept" else [gr.skip() for _ in view]

    here.on_show(
        "concept",
        refresh,
        [here.where, choice, start, kind, trigger, trigger_note, more, link_note, *look[:3], *view],
    )
    choice.input(
        lambda where, slug: ["", going(where, project=slug)], [here.where, choice], [drop_note, here.where], **QUIET
    )
    train.click(lambda where: going(where, page="train"), here.where, here.where, **QUIET)
    new.click(lambda: [gr.update(visible=True)] * 2, None, [form, start], **QUIET)
    cancel.click(
        lambda where: [gr.update(visible=False), "", going(where)], here.where, [form, new_note, here.where], **QUIET
    )
    start.act(in_words(start_do), here.where, [form, here.where], **QUIET)
    make.click(
        create,
        [here.where, name, new_kind, linked, files],
        [new_note, name, linked, files, form, drop_note, here.where],
        **QUIET,
    )
    for upload in (drop, folder):
        upload.upload(in_words(add), [here.where, upload], [upload, drop_note, here.where], **QUIET)
    for heard in (grid, pager):
        heard.act(in_words(do), [here.where, *look], view, **QUIET)
    undo.act(in_words(do_undo), [here.where, *look], view, **QUIET)
    kind.input(in_words(save_kind), [here.where, kind, *look], view, **QUIET)
    trigger.input(
        in_words(save_trigger), [here.where, trigger, resolution], trigger_note, trigger_mode="always_last", **QUIET
    )
    for leaving in (trigger.blur, trigger.submit):
        leaving(in_words(leave_trigger), [here.where, trigger, *look], [trigger_note, *view], **QUIET)
    for leaving in (words.blur, instead.blur, words.submit):
        leaving(in_words(preview), [here.where, show, search, *bulk], [instead, bulk_note], **QUIET)
    suggest.click(in_words(suggest_trigger), [here.where, trigger, *look], [trigger, trigger_note, *view], **QUIET)
    for control in (show, search, resolution):
        control.input(in_words(drawn), [here.where, *look], view, trigger_mode="always_last", **QUIET)
    for control in (*bulk, show, search):
        control.input(
            in_words(preview),
            [here.where, show, search, *bulk],
            [instead, bulk_note],
            trigger_mode="always_last",
            **QUIET,
        )
    apply.click(in_words(do_bulk), [here.where, *bulk, *look], [bulk_note, *view], **QUIET)
    timer.tick(in_words(tick), [here.where, *look], view, **QUIET)


def arrive(home: Home, where: Where) -> tuple[Project, list[Project]]:
    """The project to show, and all of them, the newest first. In an empty home that is a sample, made now."""
    known = concepts.newest_first(projects.list_projects(home)) or [concepts.use_sample(home, "style")]
    return next((one for one in known if one.slug == where.project), known[0]), known


def must_find(home: Home, where: Where) -> Project:
    """The project of a browser tab. UserError when it is gone."""
    project = projects.find(home, where.project)
    if project is None:
        raise UserError("This project is not there any more.", "Choose another one.")
    return project


def take(project: Project, dropped: list[str] | None) -> str:
    """Copy what was dropped, and say what became of it; "" where nothing was."""
    try:
        return views.added(concepts.add(project, dropped)) if dropped else ""
    except UserError as error:
        return notice(error.message, error.hint, "error")


def change(project: Project, done: dict[str, Any]) -> None:
    """Do what was asked for on a picture's card."""
    name = str(done["picture"])
    if done["act"] in ("leave", "use"):
        left_out = {*project.left_out} - {name} if done["act"] == "use" else {*project.left_out, name}
        projects.update(project, left_out=tuple(sorted(left_out)))
        return
    path = picture_list.path_of(project, name)
    if done["act"] == "caption":
        captions_edit.write(project, {path: str(done["value"])}, f"the caption of {path.name}")
    if done["act"] == "trigger":
        old = picture_list.caption_of(path)
        captions_edit.write(project, {path: Edit("front", project.trigger)(old)}, f"trigger word added to {path.name}")


def draw(project: Project, look: Look, measured: Measured) -> list[Any]:
    """The regions that show the pictures; the clock runs while some of them are not measured yet."""
    try:
        seen = picture_list.overview(project, measured, look.resolution)
    except UserError as error:
        return [notice(error.message, error.hint, "error"), "", "", "", 0, gr.Timer(active=False)]
    chosen = picture_list.chosen(seen.pictures, look.show, look.search)
    shown, number, pages = picture_list.page_of(chosen, look.number)
    measured.hurry(picture.path for picture in shown if picture.facts is None)
    return [
        views.summary(seen),
        views.undo_button(captions_edit.undoable(project)),
        views.grid(shown, seen, project),
        views.pager(number, pages, len(chosen)),
        number,
        gr.Timer(active=seen.measured < len(seen.pictures)),
    ]
