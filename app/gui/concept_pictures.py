"""What the Concept page does with a project's pictures: shows them, and changes their captions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from app import captions_edit, concepts, picture_list, projects
from app.captions_edit import Edit
from app.framing import OWN, Framing
from app.gui import concept_views as views
from app.gui.concept_views import Unsaved
from app.gui.context import Where
from app.gui.markup import acted, notice, refusal, told
from app.paths import Home
from app.picture_facts import Measured
from app.picture_list import Overview, Picture
from app.projects import Project
from trainers.errors import UserError


class Look(NamedTuple):
    """What of a project's pictures a browser tab shows."""

    show: str = "all"
    search: str = ""
    resolution: int = OWN
    number: int = 0  # of the page, counted from 0
    own: Framing = Framing()  # of the project's own run

    @property
    def framing(self) -> Framing:
        return self.own.at(self.resolution)


@dataclass(frozen=True)
class PictureHandlers:
    """Answer with the regions of `draw`, first of all what each says itself.

    `slug` is that of the project in sight, "" before the first; `looked` are the values of a Look.

    `unsaved`: captions that were typed and could not be written, by picture. They are the window's, not a tab's: a
    reload and a second tab show them too.
    """

    home: Home
    measured: Measured
    unsaved: dict[Path, Unsaved] = field(default_factory=dict)

    def drawn(self, where: Where, slug: str, *looked: Any) -> list[Any]:
        """The pictures; where another project has been chosen meanwhile, that one's are on their way."""
        project = projects.find(self.home, where.project) if slug in ("", where.project) else None
        return self.draw(project, Look(*looked)) if project else nothing_new()

    def draw(self, project: Project, look: Look) -> list[Any]:
        return draw(project, look, self.measured, self.unsaved)

    def tick(self, where: Where, slug: str, *looked: Any) -> list[Any]:
        """Shows what has been measured meanwhile. Off the page the clock stops, until the page is shown again."""
        if where.page == "concept":
            return self.drawn(where, slug, *looked)
        return [*nothing_new()[:-1], gr.Timer(active=False)]

    def act(
        self,
        where: Where,
        slug: str,
        show: str,
        search: str,
        crops: int,
        number: int,
        own: Framing,
        event: gr.EventData,
    ) -> list[Any]:
        """A page was turned, or something was done on a picture's card."""
        done, project = acted(event), must_find(self.home, where, slug)
        if done["act"] == "turn":
            number = int(done["number"])
        else:
            self._change(project, done)
        return self.drawn(where, slug, show, search, crops, number, own)

    def undo(
        self,
        where: Where,
        slug: str,
        show: str,
        search: str,
        crops: int,
        number: int,
        own: Framing,
        event: gr.EventData,
    ) -> list[Any]:
        """Take back the change that the button named."""
        change = str(acted(event).get("change", ""))
        try:
            said = views.undone(captions_edit.undo(must_find(self.home, where, slug), change))
        except (UserError, OSError) as error:
            said = refusal(error)
        first, undoing, *rest = self.drawn(where, slug, show, search, crops, number, own)
        return [first, undoing + said, *rest]

    def preview(self, where: Where, slug: str, way: str, words: str, instead: str, *looked: Any) -> list[Any]:
        """Returns for: the field of the other words, what is said of the change to many captions."""
        words = words or ""  # as long as the field has not been shown, Gradio sends nothing
        among = self._chosen(must_find(self.home, where, slug), Look(*looked))
        changed = captions_edit.changes(picture_list.captions_by_path(among), Edit(way, words, instead or ""))
        said = views.bulk_count(len(changed), len(among)) if words.strip() else ""
        return [gr.update(visible=way == "replace"), said]

    def looked(self, where: Where, slug: str, way: str, words: str, instead: str, *looked: Any) -> list[Any]:
        """Other pictures are to be shown: those, and what is said then of the change to many captions."""
        return [*self.preview(where, slug, way, words, instead, *looked), *self.drawn(where, slug, *looked)]

    def bulk(self, where: Where, slug: str, way: str, words: str, instead: str, *looked: Any) -> list[Any]:
        """Change the captions of all pictures that are shown, on this page and on others."""
        project = must_find(self.home, where, slug)
        if not words.strip():
            return [notice("Say which tag or text.", kind="error"), *nothing_new()]
        edit = Edit(way, words, instead)
        captions = picture_list.captions_by_path(self._chosen(project, Look(*looked)))
        changed = captions_edit.changes(captions, edit)
        try:
            said = views.bulk_done(captions_edit.write(project, changed, views.bulk_words(edit)) if changed else 0)
        except (UserError, OSError) as error:
            said = refusal(error)
        return [said, *self.drawn(where, slug, *looked)]

    def _change(self, project: Project, done: dict[str, Any]) -> None:
        """Do what was asked for on a picture's card."""
        if done.get("project") != project.slug:
            raise UserError("Another project is shown by now.", "Choose the project of that picture, and do it again.")
        name = str(done["picture"])
        if done["act"] == "use":
            projects.update(project, left_out=tuple(sorted({*project.left_out} - {name})))
            return
        path = picture_list.path_of(project, name)

        def typed() -> str:
            return self.unsaved[path].caption if path in self.unsaved else picture_list.caption_of(path)

        match done["act"]:
            case "leave":
                projects.update(project, left_out=tuple(sorted({*project.left_out, name})))
            case "caption":
                self._write(project, path, str(done["value"]), f"the caption of {path.name}")
            case "trigger":
                self._write(
                    project, path, Edit("front", project.trigger)(typed()), f"trigger word added to {path.name}"
                )
            case "again":
                self._write(project, path, typed(), f"the caption of {path.name}")
            case "give_up":
                self.unsaved.pop(path, None)

    def _write(self, project: Project, path: Path, caption: str, what: str) -> None:
        """Write a picture's caption; what cannot be written stays in its field, with the reason."""
        try:
            captions_edit.write(project, {path: caption}, what)
        except (UserError, OSError) as error:
            self.unsaved[path] = Unsaved(caption, told(error))
        else:
            self.unsaved.pop(path, None)

    def _chosen(self, project: Project, look: Look) -> list[Picture]:
        seen = picture_list.overview(project, self.measured, look.framing)
        return picture_list.chosen(seen.pictures, look.show, look.search)


def draw(project: Project, look: Look, measured: Measured, unsaved: Mapping[Path, Unsaved]) -> list[Any]:
    """The regions of Layout.view, which show the pictures; the clock runs while some of them are not measured yet."""
    try:
        seen = picture_list.overview(project, measured, look.framing)
    except UserError as error:
        return [notice(error.message, error.hint, "error"), "", "", "", 0, gr.Timer(active=False)]
    chosen = picture_list.chosen(seen.pictures, look.show, look.search)
    shown, number, pages = picture_list.page_of(chosen, look.number)
    measured.hurry(picture.path for picture in shown if picture.facts is None)
    return [
        views.summary(seen),
        views.undo_button(*captions_edit.undoable(project)),
        views.grid(shown, seen, project, unsaved),
        views.pager(number, pages, len(chosen)),
        number,
        gr.Timer(active=lacks_facts(seen)),
    ]


def nothing_new() -> list[Any]:
    """For the regions of Layout.view: they stay as they are."""
    return [gr.skip()] * 6


def lacks_facts(seen: Overview) -> bool:
    return seen.measured < len(seen.pictures)


def arrive(home: Home, where: Where) -> tuple[Project, list[Project]]:
    """The project to show, and all of them, the newest first. In an empty home that is a sample, made now."""
    known = concepts.newest_first(projects.list_projects(home)) or [concepts.use_sample(home, "style")]
    return next((one for one in known if one.slug == where.project), known[0]), known


def must_find(home: Home, where: Where, slug: str) -> Project:
    """The project in sight, or the one on its way where none is yet. UserError when it is gone."""
    if not (slug or where.project):
        raise UserError("This page was not ready yet, and nothing was done.", "Do it again.")
    project = projects.find(home, slug or where.project)
    if project is None:
        raise UserError("This project is not there any more.", "Choose another one.")
    return project
