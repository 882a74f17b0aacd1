"""The window as a process of its own, with the engine or with the one that stands in for it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from app.paths import ROOT

WITH_FAKE_ENGINE = ROOT / "tests" / "app" / "with_fake_engine.py"
FAKE_ENGINE = WITH_FAKE_ENGINE.with_name("fake_engine.py")


@contextmanager
def window(home: Path, mode: str = "") -> Iterator[tuple[str, psutil.Process]]:
    """The address of the window of a home folder, and its process; killed at the end, if it was not before.

    `mode` is that of the fake engine; without, the window starts the real one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [str(WITH_FAKE_ENGINE), mode] if mode else ["-m", "app.cli"]
    command = [sys.executable, *program, "--home", str(home), "--no-browser", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        line = process.stdout.readline()
        assert str(port) in line, line
        yield f"http://127.0.0.1:{port}/", psutil.Process(process.pid)
    finally:
        for child in helpers(psutil.Process(process.pid)) if process.poll() is None else ():
            child.kill()
        process.kill()
        process.wait()
        process.stdout.close()


def helpers(app: psutil.Process) -> list[psutil.Process]:
    """Its children that train nothing."""
    found = []
    for child in app.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended, and may not have been collected yet
            if "app.worker_main" in child.cmdline():
                found.append(child)
    return found
