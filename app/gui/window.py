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
const arrive = () => {
  const here = element.querySelector('nav')?.dataset;
  if (!here || !here.page) return;
  go(here.page);
  const address = new URL(window.location);
  for (const [name, value] of Object.entries({show: here.page, project: here.project, run: here.run})) {
    if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
  }
  history.replaceState(null, '', address);
};
element.addEventListener('click', (event) => {
  const tab = event.target.closest('[role=tab]');
  if (tab) { go(tab.dataset.page); trigger('act', {page: tab.dataset.page}); }
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
    return window


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
