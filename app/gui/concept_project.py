"""What the Concept page does with projects: makes them, fills them, and keeps their kind and trigger word."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import concepts, dropped, projects, trigger_words
from app.framing import Framing, framing_of
from app.gui import concept_views as views
from app.gui.concept_pictures import Look, PictureHandlers, arrive, must_find, nothing_new
from app.gui.concept_views import Told
from app.gui.context import Where, going
from app.gui.markup import acted, notice
from app.paths import Home
from app.projects import Project
from trainers.errors import UserError


@dataclass(frozen=True)
class ProjectHandlers:
    """`slug` is that of the project in sight. `looked` are the values of a Look.

    Handlers that take them answer with the regions of `draw` at the end.
    """

    pictures: PictureHandlers

    @property
    def home(self) -> Home:
        return self.pictures.home

    def refresh(self, where: Where, before: str, told: Told, *looked: Any) -> list[Any]:
        """The whole page for the project of the address, or for the newest one; `before`: slug of the one in sight."""
        project, others = arrive(self.home, where)
        only_samples = all(one.name in views.SAMPLE_NAMES for one in others)
        own = framing_of(self.home, project)
        fresh = Look(*looked)._replace(own=own) if before == project.slug else Look(own=own)
        return [
            project.slug,
            gr.update(choices=[(one.name, one.slug) for one in others], value=project.slug),
            gr.update(value=views.start_cards(project.name), visible=only_samples),
            project.kind,
            project.trigger,
            trigger_remark(project.trigger, fresh.framing),
            gr.update(visible=project.owns_pictures),
            views.linked_note(project),
            told.note if told.project == project.slug else "",
            fresh.show,
            fresh.search,
            gr.update(choices=views.crop_choices(fresh.own), value=fresh.resolution),
            fresh.own,
            *self.pictures.draw(project, fresh),
        ]

    def samples(self, where: Where, event: gr.EventData) -> list[Any]:
        """Returns for: the form of a new project, where."""
        done = acted(event)
        if done["act"] == "new":
            return [gr.update(visible=True), gr.skip()]
        return [gr.skip(), going(where, project=concepts.use_sample(self.home, done["sample"]).slug)]

    def create(self, where: Where, name: str, kind: str, linked: str, files: list[str] | None) -> list[Any]:
        """Goes to the new project; `fill` copies what was dropped, which can take long.

        Returns for: the form's note, name, folder and box, what is told of files, the project to fill, where.
        """
        try:
            if files and linked.strip():
                raise UserError("Pictures were dropped, and a folder is named.", "Take back the one or the other.")
            project = concepts.make(self.home, name, kind, linked)
        except UserError as error:
            return [notice(error.message, error.hint, "error"), *[gr.skip()] * 4, "", gr.skip()]
        told = Told(project.slug, views.copying(len(files)) if files else "")
        return ["", "", "", gr.update(visible=False), told, project.slug, going(where, project=project.slug)]

    def fill(self, made: str, files: list[str] | None) -> Any:
        """Copy what was dropped with the form of a new project. Returns what is told of it, for `show_added`."""
        project = projects.find(self.home, made)
        return Told(made, take(project, files)) if project and files else gr.skip()

    def add(self, where: Where, files: list[str] | None) -> Told:
        """Copy what was dropped. Returns what is told of it, for `show_added`."""
        return Told(where.project, take(must_find(self.home, where, where.project), files))

    def show_added(self, where: Where, told: Told, *looked: Any) -> list[Any]:
        """What was added, unless a person has gone on to another project while it was copied.

        Returns for: what was added.
        """
        if where.project != told.project:
            return [gr.skip(), *nothing_new()]
        return [told.note, *self.pictures.drawn(where, told.project, *looked)]

    def cancel(self, where: Where) -> list[Any]:
        """Returns for: the form's box and note, where."""
        return [gr.update(visible=False), "", going(where)]

    def save_kind(self, where: Where, slug: str, kind: str, *looked: Any) -> list[Any]:
        projects.update(must_find(self.home, where, slug), kind=kind)
        return self.pictures.drawn(where, slug, *looked)

    def save_trigger(self, where: Where, slug: str, word: str, *looked: Any) -> str:
        """Returns what is said of the word."""
        project, word = must_find(self.home, where, slug), " ".join(word.split())
        if word != project.trigger:
            projects.update(project, trigger=word)
        return trigger_remark(word, Look(*looked).framing)

    def leave_trigger(self, where: Where, slug: str, word: str | None, *looked: Any) -> list[Any]:
        """`word`: None where the field was left as it was entered."""
        told = gr.skip() if word is None else self.save_trigger(where, slug, word, *looked)
        return [told, *self.pictures.drawn(where, slug, *looked)]

    def suggest_trigger(self, where: Where, slug: str, word: str, *looked: Any) -> list[Any]:
        project = must_find(self.home, where, slug)
        found = trigger_words.suggest(project.name, word)
        projects.update(project, trigger=found)
        told = trigger_remark(found, Look(*looked).framing)
        return [found, told, *self.pictures.drawn(where, slug, *looked)]


def take(project: Project, files: list[str] | None) -> str:
    """Copy what was dropped, and say what became of it; "" where nothing was."""
    try:
        return views.added(dropped.add(project, files)) if files else ""
    except UserError as error:
        return notice(error.message, error.hint, "error")


def trigger_remark(word: str, framing: Framing) -> str:
    """What is to be said about a trigger word, at its field."""
    complaint = trigger_words.complaint(word, framing.embedded)
    return notice(complaint, kind="warning") if complaint else ""
