"""Checksums of a folder's files, in the form that `sha256sum -c` reads."""

import errno
import hashlib
from pathlib import Path

NAME = "SHA256SUMS"
IN_THE_WAY = (  # another program, the account's rights, the network: of the file itself it says nothing
    errno.EACCES,
    errno.EPERM,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
)


def write(folder: Path) -> Path:
    """Write down what the files of a folder hold now; returns the file that says so."""
    lines = [f"{_sum(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.name != NAME]
    target = folder / NAME
    target.write_text("".join(lines), encoding="utf-8")
    return target


def wrong(folder: Path) -> str:
    """The first file that is missing or holds something else than was written; "" for none, or where nothing tells.

    OSError where one cannot be looked at now.
    """
    try:
        lines = (folder / NAME).read_text("utf-8").splitlines()
    except FileNotFoundError:  # of an earlier version
        return ""
    except (OSError, ValueError) as error:
        if is_in_the_way(error):
            raise
        return NAME
    for line in lines:
        told, _, name = line.partition("  ")
        try:
            right = Path(name).name == name and _sum(folder / name) == told
        except (OSError, ValueError) as error:  # gone, or no name at all
            if is_in_the_way(error):
                raise
            right = False
        if not right:
            return name[:100] or NAME
    return "" if lines else NAME


def is_in_the_way(error: Exception) -> bool:
    """Whether a file could not be read for a reason that is not its own, and may be read another time."""
    return isinstance(error, OSError) and error.errno in IN_THE_WAY


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
