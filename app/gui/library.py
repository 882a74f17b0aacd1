"""The Library page."""

from app.gui.context import Context, Here
from app.gui.markup import empty, notice, panel


def build_library_page(context: Context, here: Here) -> None:
    shown = panel("Library", empty("Library", "This page comes next."))
    here.on_show("library", lambda where: [notice(f"Library of {where.project} {where.run}")], [shown])
