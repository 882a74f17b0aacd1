"""What the Train page does with a project's draft: shows it, changes it, and makes a run of it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from app import base_models, cli_import, concepts, drafts, presets, projects
from app.estimates import Estimates
from app.gui import train_views as views
from app.gui.context import Context, Where, going
from app.gui.markup import acted, notice, refusal
from app.gui.train_layout import Layout
from app.picture_folder import read_folder
from app.presets import EMBEDDED
from app.projects import Project
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.importing import report

Answer = dict[Any, Any]  # component -> its new value


@dataclass(frozen=True)
class Drafting:
    """Handlers that say nothing else answer with the page. `slug` is of the project in sight, "" before the first."""

    context: Context
    estimates: Estimates
    layout: Layout
    looked: dict[tuple[str, ...], str] = field(default_factory=dict)  # folders -> their `contents`
    due: set[tuple[str, ...]] = field(default_factory=set)  # those to be looked at again, for the page was shown since

    def arrive(self, where: Where) -> Answer:
        self.estimates.forget_stale()
        self.due.update(list(self.looked))
        return self._page(where.project)

    def show(self, where: Where, slug: str, **parts: Any) -> Answer:
        """The page; where another project has been chosen meanwhile, that one's is on its way."""
        if slug and slug != where.project:
            return {self.layout.side.note: gr.skip()}
        return self._page(slug or where.project, **parts)

    def _page(self, slug: str, whole: bool = True, redraw: bool = True, plan: drafts.Plan | None = None) -> Answer:
        """The page; or without the lists to choose from; or without the form, whose fields are told their states."""
        chosen, layout = self._current(slug), self.layout
        if chosen is None:
            return {layout.nothing: gr.update(visible=True), layout.body: gr.update(visible=False)}
        plan = plan or drafts.plan(self.context.home, chosen)
        page = self._plan(chosen, plan, redraw)
        return page | self._lists(chosen, plan) if whole else page

    def begin(self, where: Where, event: gr.EventData) -> Where:
        """In a home without a project: to one's own pictures, or to the sample concept."""
        if acted(event)["act"] == "concept":
            return going(where, page="concept")
        return going(where, project=concepts.use_sample(self.context.home, "style").slug)

    def edit(self, where: Where, slug: str, event: gr.EventData) -> Answer:
        """Something was typed, ticked, chosen, reset or opened in one of the panels."""
        home, chosen, done, plan = self.context.home, self._required(where, slug), acted(event), None
        match done["act"]:
            case "set":
                value = done["value"]
                value = str(value).lower() if isinstance(value, bool) else str(value)
                plan = drafts.change(home, chosen, done["setting"], value)
            case "reset":
                drafts.reset(home, chosen, done["setting"])
            case "open":
                drafts.update(home, chosen, opened=bool(done["opened"]))
            case "preset":
                drafts.update(home, chosen, preset=done["preset"])
            case "remove":
                presets.remove_own(home, done["preset"])
        return self.show(
            where, slug, whole=done.get("setting") == "model.base", redraw=done["act"] == "open", plan=plan
        )

    def choose_base(self, where: Where, slug: str, value: str | None) -> Answer:
        drafts.update(self.context.home, self._required(where, slug), base=value or "")
        return self.show(where, slug, whole=False)

    def keep(self, where: Where, slug: str, name: str, about: str) -> Answer:
        """Save the settings as a preset, which is the draft's from now on."""
        home, chosen, parts = self.context.home, self._required(where, slug), self.layout.keep
        plan = drafts.plan(home, chosen)
        try:
            if plan.config is None:
                raise UserError("These settings cannot be trained yet.", "Mend what is listed at the top first.")
            saved = presets.save_own(home, name, about, plan.config)
        except UserError as error:
            return {parts.note: notice(error.message, error.hint, "error")}
        drafts.save(chosen, drafts.Draft(plan.draft.base, saved.name, {}, plan.draft.opened))
        drafts.carry_over(home, chosen, plan.config)
        told = notice(f"Saved as “{saved.title}”.", "It stands among the presets of every project.", "good")
        page = self.show(where, slug, whole=False, redraw=False)
        return page | {parts.note: told, parts.title: "", parts.sentence: ""}

    def take_over(self, where: Where, slug: str, paths: list[str]) -> Answer:
        """Fill the draft with another trainer's settings."""
        home, chosen, told = self.context.home, self._required(where, slug), self.layout.imports.report
        try:
            found = cli_import.read(home, paths, None, None)
            if "data.folders" in found.missing or "data.folders" not in found.settings:  # epochs count pictures
                found = cli_import.read(home, paths, Path(chosen.pictures), None)
            found = drafts.for_base(home, chosen, found)
            drafts.from_import(home, chosen, found)
        except UserError as error:
            return {told: notice(error.message, error.hint, "error")}
        taken = sum(line.status in report.TAKEN for line in found.lines)
        return self.show(where, slug) | {
            told: views.imported(found.sources, taken, len(found.lines), report.as_text(found))
        }

    def add_folder(self, where: Where, slug: str, path: str) -> Answer:
        parts = self.layout.bases
        try:
            count = base_models.add_folder(self.context.home, path)
        except UserError as error:
            return {parts.note: notice(error.message, error.hint, "error")}
        told = notice(f"{count} base model{'s' if count > 1 else ''} found there.", "They are in the list now.", "good")
        return self.show(where, slug) | {parts.note: told, parts.folder: ""}

    def train(self, where: Where, slug: str) -> list[Any]:
        """Make a run, put it into the queue, and go to it.

        The button can be pressed again when the page is shown again: a double click makes one run. Where the browser
        tab is says nothing of that, for it is told later than the page is turned.

        Returns for: where, what is said beside the button, the button.
        """
        try:
            run = drafts.make_run(self.context.home, self._required(where, slug))
            self.context.queue.add(run)
        except (UserError, OSError) as error:
            return [gr.skip(), refusal(error), gr.skip()]
        return [going(where, page="monitor", run=run.key), "", gr.update(interactive=False)]

    def tick(self, where: Where, slug: str, key: str) -> Answer:
        """Look whether the estimate has come, and first at the files that it is of.

        If none will come, for another browser tab asked about other settings, ask.
        """
        awaited = slug != where.project or (key and self.estimates.awaits(key))
        chosen = None if awaited else self._current(slug)
        if chosen is None:
            return {self.layout.side.estimate: gr.skip()}
        plan = drafts.plan(self.context.home, chosen)
        if not key and plan.config is not None:
            folders = plan.config.data.folders
            self.looked[folders] = contents(folders)
            self.due.discard(folders)
        return self._estimated(chosen, plan)

    def _plan(self, chosen: Project, plan: drafts.Plan, redraw: bool) -> Answer:
        layout, context, right = self.layout, self.context, plan.config is not None
        settings, side = layout.settings, layout.side
        busy = context.queue.running() or context.queue.waiting()
        return {
            layout.problems: gr.update(value=views.problem_list(plan), visible=not right),
            layout.choice.base_note: views.base_line(plan),
            settings.cards: views.preset_cards(presets.all_presets(context.home), plan.preset.name),
            settings.form: views.form(plan) if redraw or views.must_open(plan) else gr.skip(),
            settings.states: views.states(plan),
            side.train: gr.update(value="Add to the queue" if busy else "Train", interactive=right),
            side.note: "",
            **self._estimated(chosen, plan),
        }

    def _lists(self, chosen: Project, plan: drafts.Plan) -> Answer:
        home, layout = self.context.home, self.layout
        names = [(one.name, one.slug) for one in projects.list_projects(home)]
        bases = [(one.label, str(one.path)) for one in base_models.find_bases(home)]
        return {
            layout.nothing: gr.update(visible=False),
            layout.body: gr.update(visible=True),
            layout.choice.project: gr.update(choices=names, value=chosen.slug),
            layout.project: chosen.slug,
            layout.choice.base: gr.update(choices=[("Built-in small base", EMBEDDED), *bases], value=plan.draft.base),
        }

    def _estimated(self, chosen: Project, plan: drafts.Plan) -> Answer:
        """The estimate, or that it follows; then the clock runs."""
        side, layout = self.layout.side, self.layout
        if plan.config is None:
            told = {side.numbers: views.numbers(plan), side.estimate: views.NO_ESTIMATE}
            return told | {layout.tick: gr.Timer(active=False), layout.asked: ""}
        folders, running = plan.config.data.folders, self.context.queue.running()
        look = folders not in self.looked or folders in self.due  # with the next tick: it would hold up the page
        key = fingerprint(plan.config, self.looked.get(folders, ""), running.key if running else "")
        found = self.estimates.answer(key) if look else self.estimates.ask(chosen.slug, key, plan.config)
        return {
            side.numbers: views.numbers(plan, found),
            side.estimate: views.estimate(found),
            layout.tick: gr.Timer(active=look or found is None),
            layout.asked: "" if look else key,
        }

    def _current(self, slug: str) -> Project | None:
        """The project, else the one that was worked on last; None where there is none."""
        known = concepts.newest_first(projects.list_projects(self.context.home))
        return next((project for project in known if project.slug == slug), next(iter(known), None))

    def _required(self, where: Where, slug: str) -> Project:
        """The project in sight, or the one on its way where none is yet."""
        wanted = slug or where.project
        chosen = self._current(wanted)
        if chosen is None or (wanted and chosen.slug != wanted):
            raise UserError("The project is gone.", "Choose another on the Concept page.")
        return chosen


def contents(folders: tuple[str, ...]) -> str:
    """The same for the same pictures and captions, as long as the program runs."""
    found = [read_folder(folder) for folder in folders]
    return str(hash(tuple((frozenset(one.pictures.items()), frozenset(one.captions.items())) for one in found)))


def fingerprint(config: TrainConfig, files: str, running: str) -> str:
    """The same for the same settings, files and run beside."""
    return hashlib.sha256(f"{files}\n{running}\n{config!r}".encode("utf-8", "replace")).hexdigest()
