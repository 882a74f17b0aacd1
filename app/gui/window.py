"""The window: its pages, the bar that leads to them, and the address that says where a browser tab is."""

import json
from typing import Any

import gradio as gr

from app import projects
from app.gui import concept, library, monitor, results, train
from app.gui.concept_pictures import arrive
from app.gui.context import QUIET, Context, Here, Where, in_turn
from app.gui.kept import kept
from app.gui.markup import acted, text
from trainers.errors import UserError

PAGES = {  # name in the address -> title, builder
    "concept": ("Concept", concept.build_concept_page),
    "train": ("Train", train.build_train_page),
    "monitor": ("Monitor", monitor.build_monitor_page),
    "results": ("Results", results.build_results_page),
    "library": ("Library", library.build_library_page),
}
OPENED = 1.0  # the time of a place that the address names: whatever was done on the page itself came later
SHOW = {name: f"show_{name}" for name in PAGES}  # what the bar asks for when a page has come into sight
FORWARD = f"""
// An answer may come late: a place that was asked for earlier than the one that is known is not gone back to.
let known = props.value;
const askedAt = (place) => place ? place[{Where._fields.index("asked")}] : 0;
watch('value', () => {{
  if (askedAt(props.value) < askedAt(known)) props.value = known; else known = props.value;
}});
"""
BAR = (
    f"const SHOW = {json.dumps(SHOW)};"
    + """
// The browser turns pages by itself, at once. The server is told where it is and asked for what the page shows.
let shown = '', asked = 0, arrived = false;
const go = (page) => {
  shown = document.body.dataset.page = page;
  for (const tab of element.querySelectorAll('[role=tab]')) {
    tab.setAttribute('aria-selected', tab.dataset.page === page);
    tab.tabIndex = tab.dataset.page === page ? 0 : -1;
    const panel = document.getElementById('page-' + tab.dataset.page);
    if (panel) { panel.setAttribute('role', 'tabpanel'); panel.setAttribute('aria-label', tab.innerText); }
  }
};
const ask = () => {
  trigger('turn', {page: shown});
  trigger(SHOW[shown]);
};
const arrive = () => {
  const here = element.querySelector('nav')?.dataset;
  if (!here) return;
  if (!here.asked) {  // the server has not said anything yet
    const wanted = new URL(window.location).searchParams.get('show');
    return go(wanted in SHOW ? wanted : Object.keys(SHOW)[0]);
  }
  if (Number(here.asked) < asked) return go(shown);  // a late answer
  const moved = Number(here.asked) > asked;
  asked = Number(here.asked);
  go(moved && arrived ? here.page : shown);
  arrived = true;
  const address = new URL(window.location);
  for (const [name, value] of Object.entries({show: shown, project: here.project, run: here.run})) {
    if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
  }
  history.replaceState(null, '', address);
  if (moved || here.page !== shown) ask();  // or it is the late answer to an earlier click on a tab
};
element.addEventListener('click', (event) => {
  const tab = event.target.closest('[role=tab]');
  if (!tab) return;
  go(tab.dataset.page);
  if (arrived) ask();  // else that follows the server's first answer
});
element.addEventListener('keydown', (event) => {
  const tabs = [...element.querySelectorAll('[role=tab]')];
  const next = tabs.indexOf(event.target) + {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (tabs[next]) { tabs[next].focus(); tabs[next].click(); }
});
watch('value', arrive);
arrive();
"""
)


def build_window(context: Context) -> gr.Blocks:
    """All pages; nothing happens at import, and several windows can be built."""
    with gr.Blocks(title="LoRA Darkroom", analytics_enabled=False, delete_cache=(86400, 86400)) as window:
        here = Here(kept(Where(), FORWARD))
        bar = gr.HTML(_bar(Where()), js_on_load=BAR, apply_default_css=False)
        for name, (_, build) in PAGES.items():
            with gr.Column(elem_id=f"page-{name}", elem_classes=["dr-page"]):
                build(context, here)
        timers = [timer for _, timer in here.timers]

        def arrived(request: gr.Request) -> tuple[Where, str]:
            where = _settled(context, _asked(request))
            return where, _bar(where)

        def turned(where: Where, event: gr.EventData) -> list[Any]:
            where = _settled(context, where._replace(page=acted(event)["page"]))
            return [where, _bar(where), *(gr.Timer(active=where.page == page) for page, _ in here.timers)]

        bar.turn(turned, here.where, [here.where, bar, *timers], **in_turn("turn"))
        for page, refresh, inputs, outputs, options in here.shows:
            getattr(bar, SHOW[page])(refresh, inputs, outputs, **options)
        here.where.change(_bar, here.where, bar, **QUIET)
        window.load(arrived, None, [here.where, bar], **QUIET)
    _answer_at_once(window)
    return window


def _answer_at_once(window: gr.Blocks) -> None:
    """Take every event out of Gradio's queue, and show no progress on any component.

    The queue takes one event every 50 ms, and on a busy machine an event that is asked for while its stream of answers
    is being closed is never answered. By default the browser copies the data of every component that ever had a
    progress mark, at every event (1.2 s of a click with these pages, 0.1 without).
    """
    for fn in window.fns.values():
        fn.show_progress_on, fn.queue = [], False


def _bar(where: Where) -> str:
    tabs = "".join(
        f'<button type="button" role="tab" data-page="{name}" aria-controls="page-{name}" '
        f'aria-selected="{str(name == where.page).lower()}">{title}</button>'
        for name, (title, _) in PAGES.items()
    )
    place = {"page": where.page, "project": where.project, "run": where.run, "asked": where.asked or ""}
    data = " ".join(f'data-{name}="{text(value)}"' for name, value in place.items())
    return f'<nav class="dr-bar" {data}><h1>LoRA Darkroom</h1><div role="tablist" aria-label="Pages">{tabs}</div></nav>'


def _asked(request: gr.Request) -> Where:
    """The place that the address names."""
    asked = request.query_params
    page = asked.get("show", "")  # "page" is a word of Gradio's own
    return Where(page if page in PAGES else "concept", asked.get("project", ""), asked.get("run", ""), OPENED)


def _settled(context: Context, where: Where) -> Where:
    """With the project that a page shows where the place names none, or one that is gone."""
    try:
        if where.page == "concept" or (where.page == "train" and projects.list_projects(context.home)):
            return where._replace(project=arrive(context.home, where)[0].slug)
    except (UserError, OSError):  # the page itself says what is wrong
        pass
    return where
