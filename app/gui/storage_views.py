"""Projects, archives, the trash, and work on them, in words and HTML."""

from dataclasses import dataclass
from pathlib import Path

from app.chores import Chore
from app.gui.library_views import counted, labelled, size
from app.gui.markup import button, edit, empty, notice, text
from app.projects import Project
from app.trash import Thrown


@dataclass(frozen=True)
class Kept:
    """A project with the number of its runs and whether its pictures lie inside it."""

    project: Project
    runs: int
    own_pictures: bool


def chore(now: Chore | None) -> str:
    """How far the work on a zip is, or what came of it."""
    if now is None:
        return ""
    if now.over:
        told = notice(now.said, now.hint, "error" if now.failed else "good")
        return f'<div class="dr-beside">{told}{button("Understood", "dismiss")}</div>'
    share = 100 * now.done / now.total if now.total else 0
    done = f"{size(now.done)} of {size(now.total)} read and written" if now.total else "Looking at the files"
    return (
        f'<div class="dr-notice" role="status"><strong>{text(now.title)}</strong>'
        f'<div class="dr-meter" role="progressbar" aria-label="{text(now.title)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share:.0f}"><i style="width: {share:.1f}%"></i></div><p>{done}</p></div>'
    )


def projects(found: list[Kept]) -> str:
    if not found:
        return empty("No project yet", "A project is made on the Concept page, from a folder of pictures.")
    return f'<ul class="dr-list" aria-label="Projects">{"".join(map(_project, found))}</ul>'


def archives(found: list[Path], folder: Path) -> str:
    where = f'<p class="dr-quiet">Zips lie in <span class="dr-mono">{text(folder)}</span></p>'
    if not found:
        return empty("No archive yet", "Runs that you save as a zip are listed here, and can be restored.") + where
    rows = "".join(
        f'<li><span class="dr-grow dr-mono">{text(file.name)}</span><span>{size(file.stat().st_size)}</span>'
        f"{labelled(button('Restore', 'restore', file=file.name), f'Restore {file.name}')}</li>"
        for file in found
    )
    return f'<ul class="dr-list" aria-label="Archives">{rows}</ul>{where}'


def trash(found: list[Thrown], folder: Path) -> str:
    where = (
        f'<p class="dr-quiet">The trash is the folder <span class="dr-mono">{text(folder)}</span>. Darkroom never '
        "empties it: to free the space, delete what is in there yourself.</p>"
    )
    if not found:
        return empty("The trash is empty", "Runs and projects that you throw away lie here until you put them back.")
    total = size(sum(one.bytes for one in found))
    rows = "".join(
        f'<li><span class="dr-grow"><strong>{text(one.name)}</strong> <span class="dr-quiet">{text(one.kind)}, '
        f"{text(one.when)}</span></span><span>{size(one.bytes)}</span>"
        f"{labelled(button('Put back', 'put_back', folder=one.folder.name), f'Put {one.name} back')}</li>"
        for one in found
    )
    told = f'<p class="dr-quiet">{counted(len(found), "thing")}, {total}</p>'
    return f'{told}<ul class="dr-list" aria-label="Trash">{rows}</ul>{where}'


def _project(kept: Kept) -> str:
    project = kept.project
    place = "pictures of its own" if kept.own_pictures else f"pictures in {project.pictures}, which stay there"
    told = f"{project.kind}, {counted(kept.runs, 'run')}, {place}"
    throw = labelled(
        button("Move to trash", "trash", slug=project.slug), f"Move the project {project.name} to the trash"
    )
    return (
        f'<li><label class="dr-grow"><span class="dr-unseen">Name of the project {text(project.name)}</span>'
        f'<input class="dr-field" value="{text(project.name)}" maxlength="120" {edit("rename", slug=project.slug)}>'
        f'</label><span class="dr-quiet dr-grow">{text(told)}</span>'
        f"{throw}</li>"
    )
