"""The Concept page."""

from app.gui.context import Context, Here
from app.gui.markup import empty, notice, panel


def build_concept_page(context: Context, here: Here) -> None:
    shown = panel("Concept", empty("Concept", "This page comes next."))
    here.on_show("concept", lambda where: [notice(f"Concept of {where.project} {where.run}")], [shown])
