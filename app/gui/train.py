"""The Train page: project, base model, preset, settings, what it will take, and the one button."""

from app.estimates import Estimates
from app.gui.context import QUIET, Context, Here, clock, going, in_turn
from app.gui.markup import in_words
from app.gui.train_handlers import Drafting
from app.gui.train_layout import build_layout

ORDERED = in_turn("draft")


def build_train_page(context: Context, here: Here) -> None:
    """Lay the page out and wire it; what it shows is read from the disk each time."""
    layout = build_layout()
    drafting = Drafting(context, Estimates(context.worker), layout)
    choice, settings, keep, bases = layout.choice, layout.settings, layout.keep, layout.bases
    shown, sight = layout.shown, [here.where, layout.project]
    here.on_show("train", drafting.arrive, shown, **ORDERED)
    layout.nothing.act(in_words(drafting.begin), here.where, here.where, **QUIET)
    choice.project.select(
        lambda where, slug: going(where, project=slug), [here.where, choice.project], here.where, **QUIET
    )
    for part in (settings.form, settings.cards, layout.side.numbers):
        part.act(in_words(drafting.edit), sight, shown, **ORDERED)
    choice.base.input(in_words(drafting.choose_base), [*sight, choice.base], shown, **ORDERED)
    keep.button.click(
        in_words(drafting.keep),
        [*sight, keep.title, keep.sentence],
        [*shown, keep.note, keep.title, keep.sentence],
        **ORDERED,
    )
    files, report = layout.imports.files, layout.imports.report
    files.upload(in_words(drafting.take_over), [*sight, files], [*shown, report], **ORDERED)
    bases.add.click(
        in_words(drafting.add_folder), [*sight, bases.folder], [*shown, bases.note, bases.folder], **ORDERED
    )
    side, once = layout.side, {**ORDERED, "trigger_mode": "once"}
    side.train.click(in_words(drafting.train), sight, [here.where, side.note, side.train], **once)
    estimated = [side.numbers, side.estimate, layout.tick, layout.asked]
    layout.tick.tick(in_words(drafting.tick), [*sight, layout.asked], estimated, **clock("draft"))
