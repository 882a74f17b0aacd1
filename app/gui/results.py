"""The Results page."""

from app.gui.context import Context, Here
from app.gui.markup import empty, notice, panel


def build_results_page(context: Context, here: Here) -> None:
    shown = panel("Results", empty("Results", "This page comes next."))
    here.on_show("results", lambda where: [notice(f"Results of {where.project} {where.run}")], [shown])
