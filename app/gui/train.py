"""The Train page."""

from app.gui.context import Context, Here
from app.gui.markup import empty, notice, panel


def build_train_page(context: Context, here: Here) -> None:
    shown = panel("Train", empty("Train", "This page comes next."))
    here.on_show("train", lambda where: [notice(f"Train of {where.project} {where.run}")], [shown])
