"""The window: its pages, the bar that leads to them, and the address that says where a browser tab is."""

import gradio as gr

from app.gui import concept, library, monitor, results, train
from app.gui.context import QUIET, Context, Here, Where, going
from app.gui.markup import acted, text

PAGES = {  # name in the address -> title, builder
    "concept": ("Concept", concept.build_concept_page),
    "train": ("Train", train.build_train_page),
    "monitor": ("Monitor", monitor.build_monitor_page),
    "results": ("Results", results.build_results_page),
    "library": ("Library", library.build_library_page),
}
BAR = """
const go = (page) => {  // at once; the server hears of it and brings the page up to date
  document.body.dataset.page = page;
  for (const tab of element.querySelectorAll('[role=tab]')) {
    tab.setAttribute('aria-selected', tab.dataset.page === page);
    tab.tabIndex = tab.dataset.page === page ? 0 : -1;
    const panel = document.getElementById('page-' + tab.dataset.page);
    if (panel) { panel.setAttribute('role', 'tabpanel'); panel.setAttribute('aria-label', tab.innerText); }
  }
};
let arrived = false, wished = '';  // whoever is quicker than the server's first answer is heard after it
const turn = (page) => {
  go(page);
  if (arrived) trigger('act', {page}); else wished = page;
};
const arrive = () => {
  const here = element.querySelector('nav')?.dataset;
  if (!here) return;
  if (!here.page) {  // before the server has said anything
    const asked = new URL(window.location).searchParams.get('show');
    const known = [...element.querySelectorAll('[role=tab]')].map((tab) => tab.dataset.page);
    return go(known.includes(asked) ? asked : known[0]);
  }
  const first = !arrived;
  arrived = true;
  if (first && wished) return turn(wished);
  go(here.page);
  const address = new URL(window.location);
  for (const [name, value] of Object.entries({show: here.page, project: here.project, run: here.run})) {
    if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
  }
  history.replaceState(null, '', address);
};
element.addEventListener('click', (event) => {
  const tab = event.target.closest('[role=tab]');
  if (tab) turn(tab.dataset.page);
});
element.addEventListener('keydown', (event) => {
  const tabs = [...element.querySelectorAll('[role=tab]')];
  const next = tabs.indexOf(event.target) + {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (tabs[next]) { tabs[next].focus(); tabs[next].click(); }
});
watch('value', arrive);
arrive();
"""


def build_window(context: Context) -> gr.Blocks:
    """All pages; nothing happens at import, and several windows can be built."""
    with gr.Blocks(title="LoRA Darkroom", analytics_enabled=False, delete_cache=(86400, 86400)) as window:
        here = Here(gr.State(Where()))
        bar = gr.HTML(_bar(Where(page="")), js_on_load=BAR, apply_default_css=False)
        for name, (_, build) in PAGES.items():
            with gr.Column(elem_id=f"page-{name}", elem_classes=["dr-page"]):
                build(context, here)
        bar.act(_turn_to, here.where, here.where, **QUIET)
        here.where.change(_bar, here.where, bar, **QUIET)
        window.load(_arrive, None, here.where, **QUIET)
    _answer_at_once(window)
    return window


def _answer_at_once(window: gr.Blocks) -> None:
    """Take out of Gradio's queue whatever need not wait there: it takes one event every 50 ms.

    What changes a State that others listen to must stay: the browser is told of that only through the queue. So must
    what may not be done side by side. And show no progress on any component: by default the browser copies the data
    of every component that ever had a progress mark, at every event (1.2 s of a click with these pages, 0.1 without).
    """
    heard = {target for fn in window.fns.values() for target, event in fn.targets if event == "change"}
    states = {number for number, block in window.blocks.items() if isinstance(block, gr.State) and number in heard}
    for fn in window.fns.values():
        fn.show_progress_on = []
        in_turn = isinstance(fn.concurrency_id, str) and not fn.concurrency_id.isdigit()
        if fn.fn and not in_turn and not states & {block._id for block in fn.outputs}:
            fn.queue = False


def _bar(where: Where) -> str:
    tabs = "".join(
        f'<button type="button" role="tab" data-page="{name}" aria-controls="page-{name}" '
        f'aria-selected="{str(name == where.page).lower()}">{title}</button>'
        for name, (title, _) in PAGES.items()
    )
    place = f'data-page="{text(where.page)}" data-project="{text(where.project)}" data-run="{text(where.run)}"'
    return (
        f'<nav class="dr-bar" {place}><h1>LoRA Darkroom</h1><div role="tablist" aria-label="Pages">{tabs}</div></nav>'
    )


def _turn_to(where: Where, event: gr.EventData) -> Where:
    return going(where, page=acted(event)["page"])


def _arrive(request: gr.Request) -> Where:
    """Where the address says that this browser tab is."""
    asked = request.query_params
    page = asked.get("show", "")  # "page" is a word of Gradio's own
    found = Where(page if page in PAGES else "concept", asked.get("project", ""), asked.get("run", ""))
    return going(found)
