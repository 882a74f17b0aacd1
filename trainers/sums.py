"""Checksums of a folder's files, in the form that `sha256sum -c` reads."""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"


def write(folder: Path) -> Path:
    """Write down what the files of a folder hold now; returns the file that says so."""
    lines = [f"{_sum(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.name != NAME]
    target = folder / NAME
    target.write_text("".join(lines), encoding="utf-8")
    return target


def wrong(folder: Path) -> str:
    """The first file that is missing or holds something else than was written; "" for none, or where nothing tells."""
    try:
        lines = (folder / NAME).read_text("utf-8").splitlines()
    except FileNotFoundError:  # of an earlier version
        return ""
    except (OSError, ValueError):
        return NAME
    for line in lines:
        told, _, name = line.partition("  ")
        try:
            right = Path(name).name == name and _sum(folder / name) == told
        except (OSError, ValueError):  # gone, or no name at all
            right = False
        if not right:
            return name[:100] or NAME
    return "" if lines else NAME


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
