"""The Library page: the queue, all runs, one of them, two against each other, and what was put away."""

from typing import Any

import gradio as gr

from app.chores import Chores
from app.gui import library_views as views
from app.gui import queue_views, storage_views
from app.gui.choices import ChoiceFromDisk
from app.gui.context import QUIET, Context, Here, Where, clock, in_turn
from app.gui.kept import kept, mark
from app.gui.library_inspect import build_inspector
from app.gui.library_parts import MAYBE, Library, Shown, go_to, wish
from app.gui.library_run import build_one_and_two, follow
from app.gui.library_storage import build_storage, stored
from app.gui.markup import acted, in_words, notice, panel, refusal
from app.library import ORDERS, Shelf, find, run_of
from app.runs import Run, status
from app.trash import put_back
from trainers.errors import UserError

EVERY_SECONDS = 2
ABOVE = [*MAYBE, "dr-above"]  # stays in sight, however far down the page what it is about was done


def build_library_page(context: Context, here: Here) -> None:
    states = kept(Shown()), panel("Library messages", elem_classes=ABOVE)
    page = Library(context, here, Shelf(context.home), Chores(), *states)
    sent = kept({})  # the mark of each panel's HTML: what has not changed is not sent again, and keeps its focus
    chore = panel("Work on archives", elem_classes=ABOVE)
    with gr.Column() as everything:
        gr.HTML('<h2 class="dr-title">Queue</h2>')
        running, waiting = panel("Run in training"), panel("Waiting runs", elem_classes=MAYBE)
        gr.HTML('<h2 class="dr-title">Runs</h2>')
        with gr.Row(elem_classes=["dr-filters"]):
            search = gr.Textbox(label="Search runs", placeholder="Name, trigger, base ...", scale=3, min_width=220)
            every = [(views.EVERY, "")]
            word = ChoiceFromDisk(every, value="", label="Status of runs", min_width=150)
            kind = ChoiceFromDisk(every, value="", label="Kind of runs", min_width=150)
            family = ChoiceFromDisk(every, value="", label="Model family", min_width=150)
            order = gr.Dropdown(list(ORDERS), value=ORDERS[0], label="Order", min_width=150)
        chosen, cards = panel("Chosen runs", elem_classes=MAYBE), panel("Runs")
        with gr.Accordion("Inspect an adapter file", open=False):
            build_inspector(context)
        storage = build_storage(page)
    one, two, live = build_one_and_two(page)

    filters = [search, word, kind, family, order]
    panels = {"running": running, "waiting": waiting, "chore": chore, "chosen": chosen, "cards": cards} | storage

    def refresh(shown: Shown, sent: dict[str, Any], *wished: str) -> list[Any]:
        asked = mark((shown, wished))
        if sent.get("asked") != asked:  # a late answer to something else may have come in between
            sent = {}
        html = _queue(page) | {"chore": storage_views.chore(page.chores.now())}
        choices = [gr.skip() for _ in lists]
        if shown.everything:
            entries = page.shelf.entries()
            names = {entry.key: entry.name for entry in entries}
            html["chosen"] = views.chosen_bar([names[key] for key in shown.chosen if key in names])
            found = find(entries, wish(*wished))
            html["cards"] = views.cards(found, shown.count, shown.chosen, len(entries))
            html |= stored(page, entries)
            choices = [gr.update(choices=known) for known in views.filters(entries)]
        new = {name: mark(value) for name, value in html.items()}
        choices_now = mark(choices)
        if sent.get("choices") == choices_now:
            choices = [gr.skip() for _ in lists]
        visible = [shown.everything, bool(shown.run), bool(shown.compared)]
        turned = sent.get("visible") != visible
        changed = [html[name] if name in html and new[name] != sent.get(name) else gr.skip() for name in panels]
        known = sent | new | {"asked": asked, "choices": choices_now, "visible": visible}
        return [known, *changed, *choices, *(gr.update(visible=v) if turned else gr.skip() for v in visible)]

    lists, columns = [word, kind, family], [everything, one, two]
    inputs = [page.shown, sent, *filters]
    outputs = [sent, *panels.values(), *lists, *columns]
    gr.on(
        [page.shown.change, search.input, word.input, kind.input, family.input, order.input],
        in_words(refresh),
        inputs,
        outputs,
        **{**in_turn("runs"), "trigger_mode": "always_last"},
    )
    timer = gr.Timer(EVERY_SECONDS, active=False)
    here.while_shown("library", timer)
    timer.tick(in_words(refresh), inputs, outputs, **clock("runs"))
    follow(page, live, timer)
    here.on_show("library", lambda where, shown: shown.again(), [page.shown], [page.shown])

    cards.act(in_words(_on_card), [here.where, page.shown], [here.where, page.shown, page.said], **QUIET)
    chosen.act(in_words(_on_chosen), page.shown, [page.shown, page.said], **QUIET)
    _wire_queue(page, [running, waiting])
    _wire_messages(page, chore)


def _queue(page: Library) -> dict[str, str]:
    queue = page.context.queue
    now, waiting = queue.running(), queue.waiting()
    problems = queue.problems()
    running = (_named(page, now), status(now)) if now else None
    told = [(_named(page, run), said) for run, said in problems]
    return {
        "running": queue_views.running(running, len(waiting), queue.held()),
        "waiting": queue_views.waiting_runs([_named(page, run) for run in waiting], told),
    }


def _named(page: Library, run: Run) -> queue_views.Waiting:
    entry = page.shelf.entry(run)
    return queue_views.Waiting(run, entry.name, entry.project)


def _on_card(where: Where, shown: Shown, event: gr.EventData) -> list[Any]:
    done = acted(event)
    match done["act"]:
        case "details":
            return [gr.skip(), Shown(run=done["key"]).again(), ""]
        case "choose":
            return [gr.skip(), shown.choose(done["key"]), gr.skip()]
        case "more":
            return [gr.skip(), shown._replace(count=shown.count + views.PAGE), gr.skip()]
    return [go_to(where, done), gr.skip(), gr.skip()]


def _on_chosen(shown: Shown, event: gr.EventData) -> list[Any]:
    if acted(event)["act"] == "compare":
        return [Shown(compared=shown.chosen).again(), ""]
    return [shown._replace(chosen=()), gr.skip()]


def _wire_queue(page: Library, panels: list[gr.HTML]) -> None:
    home, queue = page.context.home, page.context.queue

    def on_queue(where: Where, shown: Shown, event: gr.EventData) -> list[Any]:
        done = acted(event)
        if done["act"] == "open":
            return [go_to(where, done), gr.skip(), gr.skip()]
        try:
            if done["act"] == "go_on":
                queue.go_on()
                return [gr.skip(), shown.again(), ""]
            if done["act"] == "dismiss":  # its run may be gone
                queue.dismiss(done["key"])
                return [gr.skip(), shown.again(), ""]
            run = run_of(home, done["key"])
            match done["act"]:
                case "move":
                    queue.move(run, done["place"])
                case "remove":
                    queue.remove(run)
        except UserError as error:  # it has begun meanwhile
            return [gr.skip(), shown.again(), refusal(error)]
        return [gr.skip(), shown.again(), ""]

    for part in panels:
        part.act(in_words(on_queue), [page.here.where, page.shown], [page.here.where, page.shown, page.said], **QUIET)


def _wire_messages(page: Library, chore: gr.HTML) -> None:
    def on_said(shown: Shown, event: gr.EventData) -> list[Any]:
        try:
            place = put_back(page.context.home, acted(event)["folder"])
        except UserError as error:
            return [gr.skip(), refusal(error)]
        return [shown.again(), notice(f"{place.name} is back in the library.", kind="good")]

    def on_chore(shown: Shown, event: gr.EventData) -> Shown:
        page.chores.dismiss()
        return shown.again()

    page.said.act(in_words(on_said), page.shown, [page.shown, page.said], **QUIET)
    chore.act(in_words(on_chore), page.shown, page.shown, **QUIET)
