"""What the Concept page says and draws: cards of pictures with their crop, counts, warnings, samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from app.captions_edit import Edit
from app.concepts import SAMPLES
from app.demo import CONCEPTS_BY_NAME
from app.dropped import Added
from app.framing import OWN, Framing
from app.gui.markup import act, button, edit, empty, notice, picture_address, text
from app.picture_facts import Facts
from app.picture_list import Overview, Picture, Remark
from app.projects import Project
from trainers.data.types import Crop, Problem
from trainers.errors import UserError

REMEDIES = {"leave": "Leave out", "trigger": "Add it"}
LISTED = 4  # sentences in one notice
COVERS = 4  # pictures on a sample's card
BULK = (  # what is chosen -> way of captions_edit.Edit
    ("Add a tag in front", "front"),
    ("Add a tag at the end", "back"),
    ("Remove a tag", "remove"),
    ("Find and replace", "replace"),
    ("Put words before", "prefix"),
)
KINDS = (("Person", "person"), ("Style", "style"), ("Object", "object"), ("Character", "character"))
CROPS = (("64 px (built-in base)", 64), ("512 px", 512), ("768 px", 768), ("1024 px", 1024))
SAMPLE_NAMES = frozenset(title for title, _ in SAMPLES.values())
SHOWN = (("All", "all"), ("With warnings", "warnings"), ("Left out", "left out"))


class Unsaved(NamedTuple):
    """A caption that could not be written, and why."""

    caption: str
    reason: UserError


class Told(NamedTuple):
    """What is said of the files that were dropped, and the slug of the project that they are for."""

    project: str = ""
    note: str = ""


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 picture, 2,000 pictures."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def summary(seen: Overview) -> str:
    """How many pictures there are, are left out and want attention; and how far the measuring is."""
    parts = [counted(len(seen.pictures), "picture")]
    parts += [f"{seen.left_out:,} left out"] if seen.left_out else []
    looked = seen.measured == len(seen.pictures)
    if seen.warnings:
        parts.append(counted(seen.warnings, "warning") + ("" if looked else " so far"))
    elif looked:
        parts.append("no warnings")
    line = f'<p class="dr-title">{text(", ".join(parts))}</p>'
    if not looked:
        line += f'<p class="dr-quiet">Looking at the pictures: {seen.measured:,} of {len(seen.pictures):,}.</p>'
    return line + framed(seen) + problems(seen.problems)


def framed(seen: Overview) -> str:
    """What the run's settings do to all pictures beside cutting them as usual; or why they cannot."""
    if seen.refused:
        return notice("No crop can be shown:", seen.refused, "warning")
    told = ["All are cut to squares."] * (not seen.framing.bucketing)
    told += ["Small ones are not enlarged."] * (seen.framing.bucketing and seen.framing.no_upscale)
    told += ["Half of the views are mirrored."] * seen.framing.flip
    return f'<p class="dr-quiet">{" ".join(told)}</p>' if told else ""


def crop_choices(own: Framing) -> list[tuple[str, int]]:
    """What crops can be shown for: the project's own run first."""
    return [(f"This project's base ({own.base}, {own.resolution} px)", OWN), *CROPS]


def problems(found: Sequence[Problem]) -> str:
    """What is wrong with a folder or its other files, as one notice."""
    if not found:
        return ""
    lines = [f"{problem.name}: {problem.message} {problem.hint}".strip() for problem in found[:LISTED]]
    more = len(found) - len(lines)
    return notice("Beside the pictures:", " ".join(lines) + (f" And {more:,} more." if more else ""), "warning")


def grid(
    pictures: Sequence[Picture], seen: Overview, project: Project, unsaved: Mapping[Path, Unsaved] | None = None
) -> str:
    """The cards of one page, or what will appear there. `unsaved`: captions that could not be written, by picture."""
    if not seen.pictures and project.owns_pictures:
        return empty("No pictures yet", "Drop them above: each will appear here with its caption and its crop.")
    if not seen.pictures:
        return empty("No pictures yet", f"There is no picture in {project.pictures}. Put some into that folder.")
    if not pictures:
        return empty("No picture fits", "Choose All above, or empty the search, to see the others.")
    cards = "".join(card(picture, project.slug, (unsaved or {}).get(picture.path)) for picture in pictures)
    return f'<div class="dr-grid dr-pictures">{cards}</div>'


def card(picture: Picture, slug: str, unsaved: Unsaved | None = None) -> str:
    """One picture: what of it is trained, what is known of it, and its caption; one that is not saved, and why.

    `slug` is the project's, and part of each action: a click on a card may come when another project is shown already.

    Gradio compares old and new element by element, so that a card which someone types into can be drawn anew: its
    elements stay in their places, and `value` says what the caption field holds.
    """
    name, caption = text(picture.shown), text(unsaved.caption if unsaved else picture.caption or "")
    hint = text(f"None: {picture.used} is used" if not picture.caption else "")
    return (
        f'<article class="dr-card dr-picture{" dr-left-out" * picture.left_out}" aria-label="{name}">'
        f'<div class="dr-stage">{_drawing(picture, name)}</div>'
        f'<div class="dr-named"><p class="dr-name" title="{name}">{name}</p><span>{_leave(picture, slug)}</span></div>'
        f'<div class="dr-known">{known(picture, slug)}</div>'
        f'<textarea class="dr-field dr-caption" rows="3" aria-label="Caption of {name}" placeholder="{hint}" '
        f'spellcheck="false" value="{caption}" aria-invalid="{str(bool(unsaved)).lower()}" '
        f"{edit('caption', project=slug, picture=picture.name)}>\n{caption}</textarea>"
        f'<div class="dr-unsaved">{_not_saved(picture, slug, unsaved)}</div></article>'
    )


def crop_box(picture: Picture) -> str:
    """The part of the picture that is trained, as a frame over it; all else is dimmed."""
    if picture.crop is None:
        return ""
    left, top, width, height = crop_shares(picture.crop)
    place = f"left:{left:.2%};top:{top:.2%};width:{width:.2%};height:{height:.2%}"
    return f'<span class="dr-crop" style="{place}" title="This part is trained"></span>'


def crop_shares(crop: Crop) -> tuple[float, float, float, float]:
    """(left, top, width, height) of the crop as shares of the whole picture."""
    wide, high = crop.scaled
    return crop.left / wide, crop.top / high, crop.bucket.width / wide, crop.bucket.height / high


def facts_line(facts: Facts | None, crop: Crop | None) -> str:
    """Size, bucket and what is cut away, in words."""
    if facts is None:
        return "Looking at it ..."
    size = f"{facts.size[0]:,} x {facts.size[1]:,}" if facts.size[0] else "Cannot be read"
    if crop is None:
        return size
    lost = round(crop.lost * 100)
    cut = f"{lost} %" if lost else "nothing"
    return f"{size}, trained at {crop.bucket.width} x {crop.bucket.height}, {cut} cut away"


def known(picture: Picture, slug: str) -> str:
    """What is known of a picture, and its warnings with what can be done."""
    line = f'<p class="dr-quiet dr-picture-facts">{text(facts_line(picture.facts, picture.crop))}</p>'
    if picture.left_out:
        return f'{line}<span class="dr-tag">Left out</span>'
    rows = "".join(_warning(picture, slug, remark) for remark in picture.warnings)
    return line + (f'<ul class="dr-warnings">{rows}</ul>' if rows else "")


def pager(number: int, pages: int, count: int) -> str:
    """Which page is shown and how to turn it; nothing where there is one."""
    if pages < 2:
        return ""
    back = _turn("Previous page", number - 1, number == 0)
    on = _turn("Next page", number + 1, number == pages - 1)
    place = f"Page {number + 1} of {pages}, {counted(count, 'picture')}"
    return f'<div class="dr-row dr-pager">{back}<span>{place}</span>{on}</div>'


def undo_button(what: str, change: str) -> str:
    """Takes back the last change of captions, which it names; `change` tells it from all others."""
    if not what:
        return '<button type="button" class="dr-button" disabled>Nothing to undo</button>'
    return (
        f'<button type="button" class="dr-button" title="{text(what)}" {act("undo", change=change)}>Undo</button> '
        + (f'<span class="dr-quiet">Last change: {text(what)}</span>')
    )


def undone(told: str) -> str:
    """What taking back has done."""
    return f' <span class="dr-quiet" role="status">{text(told)}</span>'


def bulk_count(changed: int, among: int) -> str:
    """What a change would do, before it is done."""
    if not changed:
        return f'<p class="dr-quiet">Changes no caption of the {counted(among, "picture")} shown.</p>'
    return f"<p>Changes {counted(changed, 'caption')} of the {counted(among, 'picture')} shown.</p>"


def bulk_words(change: Edit) -> str:
    """A change to many captions, as it is named where it can be undone."""
    return {
        "front": f'"{change.words}" added in front',
        "back": f'"{change.words}" added at the end',
        "remove": f'"{change.words}" removed',
        "replace": f'"{change.words}" replaced by "{change.instead}"',
        "prefix": f'"{change.words}" put before',
    }[change.way]


def bulk_done(count: int) -> str:
    """What a change to many captions did."""
    return notice(f"{counted(count, 'caption')} changed.", "Undo takes it back." if count else "", "good")


def copying(count: int) -> str:
    return notice(f"Copying {counted(count, 'file')} ...")


def added(what: Added) -> str:
    """What became of the files that were dropped."""
    parts = [counted(what.pictures, "picture") + " added"]
    parts += [counted(what.captions, "caption")] if what.captions else []
    parts += [f"{counted(what.known, 'picture')} known already"] if what.known else []
    more = len(what.skipped) - LISTED
    rest = " ".join(what.skipped[:LISTED]) + (f" And {more:,} more." if more > 0 else "")
    kind = "warning" if what.skipped else "good"
    return notice(", ".join(parts) + ".", rest, kind if what.pictures or what.known else "error")


def start_cards(current: str) -> str:
    """The bundled samples, to try everything without pictures of one's own."""
    cards = "".join(_sample(name, title == current) for name, (title, _) in SAMPLES.items())
    own = (
        '<article class="dr-card dr-sample"><h3>Your own pictures</h3><p>15 to 40 sharp, varied pictures of a person, '
        f"an object or a character; 30 or more of a style.</p>{button('New project', 'new')}</article>"
    )
    return f'<div class="dr-grid dr-concepts">{cards}{own}</div>'


def linked_note(project: Project) -> str:
    """Where the pictures lie, and that they are safe there."""
    if project.owns_pictures:
        return ""
    return notice(
        f"The pictures are linked from {project.pictures}.",
        "They are only read. What you put into that folder appears here; captions you edit are saved beside them.",
    )


def _sample(name: str, chosen: bool) -> str:
    title, sentence = SAMPLES[name]
    files = sorted(CONCEPTS_BY_NAME[name].folder.glob("*.png"))[:COVERS]
    images = "".join(f'<img src="{text(picture_address(file, 160))}" alt="" loading="lazy">' for file in files)
    use = (
        '<span class="dr-tag">Shown below</span>' if chosen else button("Use the sample concept", "sample", sample=name)
    )
    return (
        f'<article class="dr-card dr-sample{" chosen" if chosen else ""}"><h3>{text(title)}</h3>'
        f'<div class="dr-covers">{images}</div><p>{text(sentence)}</p>{use}</article>'
    )


def _not_saved(picture: Picture, slug: str, unsaved: Unsaved | None) -> str:
    if unsaved is None:
        return ""
    said = notice(unsaved.reason.message, f"{unsaved.reason.hint} Your text stays here meanwhile.", "error")
    return f"{said}{_does(picture, slug, 'Save again', 'again')} {_does(picture, slug, 'Take back', 'give_up')}"


def _warning(picture: Picture, slug: str, remark: Remark) -> str:
    remedy = f" {_does(picture, slug, REMEDIES[remark.remedy], remark.remedy)}" if remark.remedy else ""
    return f'<li class="{remark.kind}">{text(remark.sentence)}{remedy}</li>'


def _leave(picture: Picture, slug: str) -> str:
    """The button that leaves the picture out, or uses it again; none where a warning has it already."""
    if any(remark.remedy == "leave" for remark in picture.warnings):
        return ""
    return _does(picture, slug, *(("Use again", "use") if picture.left_out else ("Leave out", "leave")))


def _does(picture: Picture, slug: str, does: str, action: str) -> str:
    """A button on the picture's card, told apart from those of the others for people who do not see it."""
    label = text(f"{does}: {picture.shown}")
    return (
        f'<button type="button" class="dr-button quiet" aria-label="{label}" '
        f"{act(action, project=slug, picture=picture.name)}>{does}</button>"
    )


def _turn(label: str, number: int, off: bool) -> str:
    return f'<button type="button" class="dr-button" {act("turn", number=number)}{" disabled" * off}>{label}</button>'


def _drawing(picture: Picture, name: str) -> str:
    if picture.facts and picture.facts.reason:
        return '<span class="dr-quiet">No picture</span>'
    image = f'<img src="{text(_address(picture))}" alt="{name}" loading="lazy" decoding="async">'
    return f'<div class="dr-frame">{image}{crop_box(picture)}</div>'


def _address(picture: Picture) -> str:
    try:
        return picture_address(picture.path, 320)
    except UnicodeEncodeError:  # a name on Linux whose bytes are no text
        return ""
