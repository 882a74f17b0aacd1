"""The command line from outside, as a process, or inside the test's own, and what a person may see when it refuses."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.cli import main
from app.paths import ROOT

LIMIT = 120  # seconds; a command that hangs fails its test


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def sentences(self) -> list[str]:
        """Lines on standard error that are no progress, such as "Reading the pictures ..."."""
        return [line for line in self.err.splitlines() if line and not line.endswith(" ...")]


def command(*arguments: object, **environment: str) -> Said:
    """`darkroom ARGUMENTS` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", **environment},
    )
    return Said(done.returncode, done.stdout, done.stderr)


def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The same in this process: quicker, because torch is loaded once."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return call


def assert_refused(said: Said, *words: str, lines: int = 1) -> None:
    """Exit code 1, nothing on standard output, and so many lines of plain words that hold all of `words`."""
    assert said.code == 1, said
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len(said.sentences()) == lines, said.err
    for word in words:
        assert word in said.err, said.err
    assert said.err.rstrip().endswith((".", "?", "...", ")", "`"))


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
