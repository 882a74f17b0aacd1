"""Which files of the user's folders are pictures, and what their folder's name says about them.

A folder named `10_sks dog`, as in kohya's layout, means: each picture 10 times per epoch, and "sks dog" as the caption
of those that have none. Settings may call a folder so without renaming it.
"""

import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainers.config_problems import FOLDER_NAME
from trainers.data import captions
from trainers.data.decoding import ENDINGS, OTHER_PICTURES
from trainers.data.types import Problem, printable
from trainers.errors import UserError

SYSTEM_FOLDERS = frozenset(("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"))
SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"))
KOHYA = re.compile(r"(\d{1,3})_(.*)", re.DOTALL)  # four digits are a year: 2024_holiday
NO_PERMISSION = "Allow your account to read it, or move it out of the folder."


@dataclass(frozen=True)
class Found:
    """A file that should be a picture; repeats and words where its folder is one of kohya's."""

    path: Path
    repeats: int | None = None
    words: str = ""


def list_pictures(
    folders: tuple[str, ...], called: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()
) -> tuple[list[Found], list[Problem]]:
    """Every picture file in the folders and below, sorted, each once. UserError naming all missing folders.

    Args:
        called: what each folder is called in kohya's layout, in their order; empty texts keep the folder's own name.
        leave_out: files that are passed over, each by its place inside its folder or its whole path.
    """
    pictures: list[Found] = []
    problems: list[Problem] = []
    seen: set[str] = set()  # real paths of folders, so that links and nested folders add nothing twice
    passed_over = {_comparable(place): place for place in leave_out}
    absent = dict(passed_over)
    for root, own in zip(_roots(folders), called or ("",) * len(folders), strict=True):
        for folder, names in _walk(root, seen, problems):
            kohya = _kohya(folder, root, own)
            found = []
            for name in names:
                path = folder / name
                ending = path.suffix.lower()
                named = passed_over and passed_over.keys() & {_comparable(path), _comparable(path.relative_to(root))}
                if named:
                    absent = {key: place for key, place in absent.items() if key not in named}
                elif ending in OTHER_PICTURES:
                    hint = "Save it as PNG or JPEG, or move it out of the folder."
                    problems.append(Problem(path, f"{ending[1:].upper()} files cannot be trained on.", hint))
                elif ending in ENDINGS and _usable(path, problems):
                    found.append(path)
            pictures += [Found(path, *kohya) for path in found]
            problems += _name_problems(folder, names)
            if kohya and kohya[0] > 1 and found and not own:
                message = f"named as in kohya's layout, so each of its pictures counts {kohya[0]} times"
                words = f' and "{printable(kohya[1])}" is the caption of those without one.' if kohya[1] else "."
                problems.append(
                    Problem(folder, message + words, "Rename the folder if you do not mean that.", fatal=False)
                )
    for place in absent.values():  # misspelt, and so trained on after all
        message = "it is to be left out, but there is no such file in the picture folders."
        hint = "Mend data.leave_out: places inside a picture folder, such as `beach/07.png`."
        problems.append(Problem(Path(place), message, hint, fatal=False))
    return pictures, problems


def _comparable(place: str | Path) -> str:
    """The same text for the same file: one kind of slash, and one of the two ways to write é (macOS has the other)."""
    text = place.as_posix() if isinstance(place, Path) else Path(os.path.expanduser(place)).as_posix()
    return unicodedata.normalize("NFC", os.path.normcase(text))


def is_whole_disk(folder: str | Path) -> bool:
    """Whether it is "/", which takes minutes to look through; a drive of Windows may well be a stick of pictures."""
    return os.path.abspath(folder) == "/"


def _roots(folders: tuple[str, ...]) -> list[Path]:
    roots = [Path(os.path.abspath(os.path.expanduser(folder))) for folder in folders]
    if not roots:
        raise UserError("No picture folder is set.", "Set data.folders to the folder that holds your pictures.")
    missing = [printable(str(root)) for root in roots if not os.path.exists(root)]
    files = [printable(str(root)) for root in roots if os.path.isfile(root)]
    complaints = [f"{root} is the whole disk, not a folder of pictures." for root in roots if is_whole_disk(root)]
    if missing:
        complaints.append(f"There is no folder {_and(missing)}.")
    if files:
        complaints.append(f"{_and(files)} {'is a file' if len(files) == 1 else 'are files'}, not a folder.")
    if complaints:
        raise UserError(" ".join(complaints), "Check the spelling of data.folders, and whether the drive is connected.")
    return roots


def _walk(root: Path, seen: set[str], problems: list[Problem]) -> Iterator[tuple[Path, list[str]]]:
    """(folder, sorted file names) of root and everything below that is neither hidden nor the system's."""

    def complain(error: OSError) -> None:
        where = Path(error.filename)
        problems.append(Problem(where, f"this folder cannot be opened: {_why(error)}.", NO_PERMISSION))

    for folder, subfolders, names in os.walk(root, onerror=complain, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s.lower() not in SYSTEM_FOLDERS)
        yield Path(folder), sorted(n for n in names if not n.startswith(".") and n.lower() not in SYSTEM_FILES)


def _usable(path: Path, problems: list[Problem]) -> bool:
    """Whether it is an ordinary file; reading a pipe would wait for ever."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return True
        problem = "this is not an ordinary file."
    except OSError as error:
        lost = path.is_symlink() and isinstance(error, FileNotFoundError)
        problem = "the file it links to is not there." if lost else f"it cannot be opened: {_why(error)}."
    problems.append(Problem(path, problem, "Move it out of the folder."))
    return False


def _kohya(folder: Path, root: Path, called: str) -> tuple[int, str] | tuple[()]:
    """(repeats, words) from the name of `folder` or the nearest folder above it, up to and including `root`.

    `called` stands for the name of `root`, unless it is empty.
    """
    for place in (folder, *folder.parents):
        match = FOLDER_NAME.fullmatch(called) if called and place == root else KOHYA.fullmatch(place.name)
        if match and int(match[1]) > 0:
            return int(match[1]), " ".join(match[2].split())
        if place == root:
            break
    return ()


def _name_problems(folder: Path, names: list[str]) -> list[Problem]:
    """Captions without a picture, and pictures that share one caption file."""
    pictures: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if Path(name).suffix.lower() in ENDINGS | OTHER_PICTURES:
            pictures[Path(name).stem].append(name)
    problems = []
    for name in names:
        if Path(name).suffix in captions.ENDINGS and Path(name).stem not in pictures:
            hint = "Give it the name of its picture, or move it out of the folder."
            problems.append(
                Problem(folder / name, "there is no picture of that name for this caption.", hint, fatal=False)
            )
    for sharing in pictures.values():
        if len(sharing) > 1:
            others = _and([printable(name) for name in sharing[1:]])
            message = f"has the same name as {others}, so they share one caption file."
            hint = "Rename one of them, and its caption file, if their captions should differ."
            problems.append(Problem(folder / sharing[0], message, hint, fatal=False))
    return problems


def _why(error: OSError) -> str:
    return "you have no permission to read it" if isinstance(error, PermissionError) else error.strerror or str(error)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
