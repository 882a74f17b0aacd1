"""Picture folders in kohya's layout: `parent/10_sks dog/`, repeats and caption in the name."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.config_problems import FOLDER_NAME
from trainers.data.captions import mentions, read_caption
from trainers.data.folders import Found, list_pictures
from trainers.errors import UserError
from trainers.importing.theirs import resolve
from trainers.importing.values import Noted, plain


def in_parent(text: str, place: Path) -> dict[str, Any]:
    """data.folders, data.folder_names and data.trigger for a folder of `N_name` folders; a plain one is taken as it is.

    kohya looks into nothing but `N_name` folders, so the others are left out, and named.
    """
    folder = Path(resolve(text, place))
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if os.path.isdir(folder) else []
    named = [path for path in inside if FOLDER_NAME.fullmatch(path.name)]
    if not named:
        return {"data.folders": [str(folder) if os.path.exists(folder) else text]}
    others = [path.name for path in inside if path not in named and not path.name.startswith(".")]
    folders: Any = [str(path) for path in named]
    if others:
        left = f"Left out: {', '.join(others)}."
        folders = Noted(folders, f"{left} kohya's folder names begin with a number of repeats, such as 10_cat.")
    names = [path.name for path in named]
    return {"data.folders": folders, "data.folder_names": names, **trigger(plain(folders), names)}


def trigger(folders: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """data.trigger: what all folders are called ("sks dog"), where a picture of them is seen with it; else nothing.

    It changes no caption: a picture without one has its folder's words, and every folder has some.
    """
    try:
        pictures, _ = list_pictures(tuple(folders), tuple(names))
    except UserError:
        return {}
    words = {picture.words for picture in pictures}
    return {"data.trigger": words.pop()} if len(words) == 1 and any(map(_tells_its_words, pictures)) else {}


def _tells_its_words(picture: Found) -> bool:
    """Whether the picture is trained with the words of its folder."""
    try:
        caption = read_caption(picture.path)
    except OSError:
        caption = None
    return bool(picture.words) and (not caption or mentions(caption, picture.words))


def views_per_epoch(settings: Mapping[str, Any]) -> int | None:
    """Repeats x pictures of the folders; None where one of them is not on this machine."""
    folders = plain(settings.get("data.folders", []))
    try:
        found, _ = list_pictures(tuple(folders), tuple(settings.get("data.folder_names", ())))
    except UserError:
        return None
    return sum(picture.repeats or 1 for picture in found) or None
