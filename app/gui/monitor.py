"""The Monitor page."""

from app.gui.context import Context, Here
from app.gui.markup import empty, notice, panel


def build_monitor_page(context: Context, here: Here) -> None:
    shown = panel("Monitor", empty("Monitor", "This page comes next."))
    here.on_show("monitor", lambda where: [notice(f"Monitor of {where.project} {where.run}")], [shown])
