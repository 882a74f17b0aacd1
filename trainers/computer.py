"""The computer's memory, as far as this process may have it. Imports no torch."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

SYSTEM = Path("/")
WHERE = "proc/self/cgroup"
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


def total_bytes() -> int:
    """All of it, or what a container or service may use of it: beyond that Linux ends the process without a word."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())])


def available_bytes() -> int:
    """What can still be had without pushing anything out."""
    return min([psutil.virtual_memory().available, *(max(0, limit - used) for limit, used in _limits())])


def _limits() -> Iterator[tuple[int, int]]:
    """(the most that a control group may use, what it uses now) of every group that this process is in, in bytes.

    Linux' cgroups, version 2 and 1. What its files keep in memory does not count: they give way.
    """
    for folder, most, now, idle in _groups():
        with suppress(OSError, ValueError):  # no such group, or "max": no limit
            limit = int((folder / most).read_text())
            used = int((folder / now).read_text())
            held = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield limit, used - int(held.get(idle, 0))


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """(folder, names of the two numbers, name in memory.stat): the process's own groups and those around them."""
    try:
        lines = (SYSTEM / WHERE).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            names = V2, "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            names = V1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        top = SYSTEM / names[0]
        own = top / path.strip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                yield folder, *names[1:]
