"""The Train page: project, base model, preset, settings, what it will take, and the one button."""

import hashlib
from typing import Any

import gradio as gr

from app import base_models, cli_import, concepts, drafts, presets, projects
from app.estimates import Estimates
from app.gui import train_views as views
from app.gui.context import QUIET, Context, Here, Where, going
from app.gui.markup import LISTEN, acted, in_words, notice, panel
from app.gui.train_scripts import CARDS, FORM, STATES
from app.presets import EMBEDDED
from app.projects import Project
from trainers.errors import UserError
from trainers.importing import report

ORDERED = {**QUIET, "trigger_mode": "multiple", "concurrency_id": "draft", "concurrency_limit": 1}  # none is lost


def build_train_page(context: Context, here: Here) -> None:
    home, estimates = context.home, Estimates(context.worker)
    nothing = panel("No project", views.NO_PROJECT, visible=False)
    with gr.Column(visible=False) as body:
        problems = panel("Problems", visible=False)
        with gr.Row(elem_classes=["dr-train"]):
            with gr.Column(scale=7, min_width=380):
                with gr.Row():
                    project = gr.Dropdown([], label="Project", min_width=160, scale=2)
                    base = gr.Dropdown(
                        [],
                        label="Base model (choose one, or type a path or hub id)",
                        allow_custom_value=True,
                        min_width=220,
                        scale=3,
                    )
                base_note = panel("About the base model", elem_classes=["dr-base"])
                cards = gr.HTML(label="Presets", js_on_load=LISTEN + CARDS, apply_default_css=False)
                form = gr.HTML(label="Settings", js_on_load=LISTEN + FORM, apply_default_css=False)
                states = gr.HTML(label="States of the settings", js_on_load=STATES, elem_classes=["dr-states"])
                with gr.Accordion("Save these settings as a preset", open=False):
                    with gr.Row():
                        title = gr.Textbox(label="Preset name", max_lines=1, min_width=160, scale=2)
                        sentence = gr.Textbox(
                            label="What it is for, in a sentence", max_lines=1, min_width=200, scale=3
                        )
                    keep = gr.Button("Save preset", size="sm")
                    kept = panel("Preset saved")
                with gr.Accordion(
                    "Import settings of kohya_ss, sd-scripts or OneTrainer", open=False, elem_classes=["dr-import"]
                ):
                    files = gr.UploadButton("Choose their files", file_count="multiple", size="sm")
                    imported = panel("Import report")
                with gr.Accordion("Look for base models in another folder", open=False):
                    folder = gr.Textbox(label="Folder with base models", max_lines=1)
                    add = gr.Button("Add the folder", size="sm")
                    added = panel("Folder added")
            with gr.Column(scale=3, min_width=240, elem_classes=["dr-side"]):
                numbers = panel("The run in numbers")
                estimate = panel("Estimate")
                train = gr.Button("Train", variant="primary", size="lg")
    tick = gr.Timer(1, active=False)  # while an estimate is awaited
    asked = gr.State("")  # which settings the estimate is for
    shown = [
        nothing,
        body,
        problems,
        project,
        base,
        base_note,
        cards,
        form,
        states,
        numbers,
        train,
        estimate,
        tick,
        asked,
    ]

    def show(where: Where, whole: bool = True, redraw: bool = True, plan: drafts.Plan | None = None) -> dict[Any, Any]:
        """The page; or without the lists to choose from; or without the form, whose fields are told their states."""
        chosen = current(context, where)
        if chosen is None:
            return {nothing: gr.update(visible=True), body: gr.update(visible=False)}
        plan = plan or drafts.plan(home, chosen)
        busy = context.queue.running() or context.queue.waiting()
        label = "Add to the queue" if busy else "Train"
        page = {
            problems: gr.update(value=views.problem_list(plan), visible=plan.config is None),
            base_note: views.base_line(plan),
            cards: views.preset_cards(presets.all_presets(home), plan.preset.name),
            form: views.form(plan) if redraw or views.must_open(plan) else gr.skip(),
            states: views.states(plan),
            numbers: views.numbers(plan),
            train: gr.update(value=label, interactive=plan.config is not None),
            estimate: estimate_of(chosen, plan),
            tick: gr.Timer(active=plan.config is not None and estimates.answer(fingerprint(plan)) is None),
            asked: fingerprint(plan),
        }
        if not whole:
            return page
        names = [(one.name, one.slug) for one in projects.list_projects(home)]
        bases = [("Built-in small base", EMBEDDED)] + [
            (one.label, str(one.path)) for one in base_models.find_bases(home)
        ]
        return page | {
            nothing: gr.update(visible=False),
            body: gr.update(visible=True),
            project: gr.update(choices=names, value=chosen.slug),
            base: gr.update(choices=bases, value=plan.draft.base),
        }

    def begin(where: Where, event: gr.EventData) -> Where:
        if acted(event)["act"] == "concept":
            return going(where, page="concept")
        return going(where, project=concepts.use_sample(home, "style").slug)

    def on_form(where: Where, event: gr.EventData) -> dict[Any, Any]:
        """Something was typed, ticked, chosen, reset or opened in one of the panels."""
        chosen, done, plan = required(context, where), acted(event), None
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
        return show(where, whole=done.get("setting") == "model.base", redraw=done["act"] == "open", plan=plan)

    def on_base(where: Where, value: str | None) -> dict[Any, Any]:
        drafts.update(home, required(context, where), base=value or "")
        return show(where, whole=False)

    def on_keep(where: Where, name: str, about: str) -> dict[Any, Any]:
        chosen = required(context, where)
        plan = drafts.plan(home, chosen)
        try:
            if plan.config is None:
                raise UserError("These settings cannot be trained yet.", "Mend what is listed at the top first.")
            saved = presets.save_own(home, name, about, plan.config)
        except UserError as error:
            return {kept: notice(error.message, error.hint, "error")}
        drafts.save(chosen, drafts.Draft(plan.draft.base, saved.name, {}, plan.draft.opened))
        drafts.carry_over(home, chosen, plan.config)
        told = notice(f"Saved as “{saved.title}”.", "It stands among the presets of every project.", "good")
        return show(where, whole=False, redraw=False) | {kept: told, title: "", sentence: ""}

    def on_import(where: Where, paths: list[str]) -> dict[Any, Any]:
        chosen = required(context, where)
        try:
            found = cli_import.read(home, paths, None, None)
            drafts.from_import(home, chosen, found)
        except UserError as error:
            return {imported: notice(error.message, error.hint, "error")}
        taken = sum(line.status in report.TAKEN for line in found.lines)
        told = views.imported(found.sources, taken, len(found.lines), report.as_text(found))
        return show(where) | {imported: told}

    def on_folder(where: Where, path: str) -> dict[Any, Any]:
        try:
            count = base_models.add_folder(home, path)
        except UserError as error:
            return {added: notice(error.message, error.hint, "error")}
        told = notice(f"{count} base model{'s' if count > 1 else ''} found there.", "They are in the list now.", "good")
        return show(where) | {added: told, folder: ""}

    def on_train(where: Where) -> Where:
        if where.page != "train":  # the second click of a double click: the first has gone to the run
            return gr.skip()
        run = drafts.make_run(home, required(context, where))
        context.queue.add(run)
        return going(where, page="monitor", run=f"{run.folder.parent.parent.name}/{run.folder.name}")

    def estimate_of(chosen: Project, plan: drafts.Plan) -> str:
        if plan.config is None:
            return views.NO_ESTIMATE
        return views.estimate(estimates.ask(chosen.slug, fingerprint(plan), plan.config))

    def on_tick(key: str) -> dict[Any, Any]:
        found = estimates.answer(key)
        return {estimate: views.estimate(found), tick: gr.Timer(active=False)} if found else {estimate: gr.skip()}

    def on_show(where: Where) -> dict[Any, Any]:
        estimates.forget_failures()
        return show(where)

    here.on_show("train", on_show, shown)
    nothing.act(in_words(begin), here.where, here.where, **QUIET)
    project.input(lambda where, slug: going(where, project=slug), [here.where, project], here.where, **QUIET)
    for part in (form, cards, numbers):
        part.act(in_words(on_form), here.where, shown, **ORDERED)
    base.input(in_words(on_base), [here.where, base], shown, **ORDERED)
    keep.click(in_words(on_keep), [here.where, title, sentence], [*shown, kept, title, sentence], **ORDERED)
    files.upload(in_words(on_import), [here.where, files], [*shown, imported], **ORDERED)
    add.click(in_words(on_folder), [here.where, folder], [*shown, added, folder], **ORDERED)
    train.click(in_words(on_train), here.where, here.where, **ORDERED)
    tick.tick(on_tick, asked, [estimate, tick], **QUIET)


def current(context: Context, where: Where) -> Project | None:
    """The project of the address, else the one that was worked on last; None where there is none."""
    known = concepts.newest_first(projects.list_projects(context.home))
    return next((project for project in known if project.slug == where.project), next(iter(known), None))


def required(context: Context, where: Where) -> Project:
    chosen = current(context, where)
    if chosen is None:
        raise UserError("The project is gone.", "Choose another on the Concept page.")
    return chosen


def fingerprint(plan: drafts.Plan) -> str:
    """The same for the same settings and pictures; empty while there are problems."""
    if plan.config is None:
        return ""
    return hashlib.sha256(f"{plan.pictures}\n{plan.config!r}".encode("utf-8", "replace")).hexdigest()
