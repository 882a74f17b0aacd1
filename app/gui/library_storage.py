"""The Library page's projects, archives and trash."""

from collections import Counter
from pathlib import Path
from typing import Any

import gradio as gr

from app import about, archive
from app.gui import storage_views as views
from app.gui.context import QUIET, in_turn
from app.gui.library_parts import Library, Shown, refusals
from app.gui.library_views import moved_to_trash
from app.gui.markup import acted, in_words, notice, panel, refusal
from app.library import Entry
from app.projects import Project, list_projects
from app.trash import list_trash, put_back, throw_project
from trainers.errors import UserError


def build_storage(page: Library) -> dict[str, gr.HTML]:
    """The panels by name, for what `stored` says."""
    home = page.context.home
    with gr.Accordion("Projects", open=False):
        projects, refused = panel("All projects"), refusals("Project not changed")
    with gr.Accordion("Archives", open=False):
        archives = panel("All archives")
        dropped = gr.File(label="Archive to restore", height=120)
        problem = refusals("Archive not restored")
    with gr.Accordion("Trash", open=False):
        trash = panel("What lies in the trash")

    def on_project(shown: Shown, event: gr.EventData) -> list[Any]:
        done = acted(event)
        try:
            project = _project(page, done["slug"])
            if done["act"] == "rename":
                about.rename_project(home, project, done["value"])
                return [shown.again(), "", ""]
            thrown = throw_project(home, project, page.context.queue.waiting())
        except (UserError, OSError) as error:
            return [shown.again(), "", refusal(error)]
        return [shown.again(), moved_to_trash(project.name, thrown.folder.name), ""]

    def restore(shown: Shown, file: Path) -> list[Any]:
        def work(report: archive.Report) -> str:
            return f"{archive.restore(home, file, report).folder.name} is in the library again."

        try:
            archive.require_restorable(home, file)  # what can be seen at once is told here; the rest when it is read
            page.chores.start(f"Restoring {file.name}", work)
        except UserError as error:
            return [gr.skip(), refusal(error)]
        return [shown.again(), ""]

    def on_dropped(shown: Shown, file: str) -> list[Any]:
        return [*restore(shown, Path(file)), None]

    def on_archive(shown: Shown, event: gr.EventData) -> list[Any]:
        name = acted(event)["file"]
        known = next((file for file in archive.list_archives(home) if file.name == name), None)
        return restore(shown, known) if known else [shown.again(), notice(f"{name} is gone.", kind="error")]

    def on_trash(shown: Shown, event: gr.EventData) -> list[Any]:
        try:
            place = put_back(home, acted(event)["folder"])
        except UserError as error:
            return [shown.again(), refusal(error)]
        return [shown.again(), notice(f"{place.name} is back in the library.", kind="good")]

    outputs = [page.shown, page.said]
    projects.act(in_words(on_project), page.shown, [*outputs, refused], **in_turn("names"))
    archives.act(in_words(on_archive), page.shown, [page.shown, problem], **QUIET)
    dropped.upload(in_words(on_dropped), [page.shown, dropped], [page.shown, problem, dropped], **QUIET)
    trash.act(in_words(on_trash), page.shown, outputs, **QUIET)
    return {"projects": projects, "archives": archives, "trash": trash}


def stored(page: Library, entries: list[Entry]) -> dict[str, str]:
    """What the panels of `build_storage` show."""
    home = page.context.home
    runs = Counter(entry.run.folder.parent.parent for entry in entries)
    kept = [
        views.Kept(project, runs[project.folder], Path(project.pictures).is_relative_to(project.folder))
        for project in list_projects(home)
    ]
    return {
        "projects": views.projects(kept),
        "archives": views.archives(archive.list_archives(home), home.archive),
        "trash": views.trash(list_trash(home), home.trash),
    }


def _project(page: Library, slug: str) -> Project:
    for project in list_projects(page.context.home):
        if project.slug == slug:
            return project
    raise UserError(f"There is no project {slug} any more.")
