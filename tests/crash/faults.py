"""A disk that refuses one write of a process: every way in which a run writes is counted, and the n-th one fails."""

import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from trainers import checkpoint


class Faults:
    """`number`: which write fails, counted from 1, and with which errno; `count`: how many there were so far."""

    def __init__(self, folder: Path, number: int = 0, code: int = errno.ENOSPC):
        self.folder, self.number, self.code, self.count = os.path.realpath(folder), number, code, 0

    def _fails(self, place: object) -> bool:
        if isinstance(place, str | os.PathLike) and not os.path.realpath(place).startswith(self.folder):
            return False
        self.count += 1
        return self.count == self.number

    def _error(self, place: object = None) -> OSError:
        return OSError(self.code, os.strerror(self.code), *([str(place)] if place else []))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, writes below the folder are counted."""
        replaced = [
            (builtins, "open", self._open),
            (io, "open", self._open),
            (os, "replace", self._plain),
            (os, "mkdir", self._plain),
            (os, "fsync", self._plain),
            (torch, "save", self._torch_save),
            (checkpoint, "save_file", self._save_file),
        ]
        real = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
        try:
            for owner, name, wrap in replaced:
                setattr(owner, name, wrap(getattr(owner, name)))
            yield
        finally:
            for owner, name, function in real:
                setattr(owner, name, function)

    def _open(self, function):
        def call(file, mode="r", *rest, **named):
            if not set(mode) & set("wax+"):
                return function(file, mode, *rest, **named)
            if not isinstance(file, int) and self._fails(file):
                raise self._error(file)
            opened = function(file, mode, *rest, **named)
            return _Refusing(opened, self) if not isinstance(file, int) else opened

        return call

    def _plain(self, function):
        def call(place, *rest, **named):
            if self._fails(place):
                raise self._error(place)
            return function(place, *rest, **named)

        return call

    def _torch_save(self, function):
        def call(content, place, *rest, **named):
            if self._fails(place):
                raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
            return function(content, place, *rest, **named)

        return call

    def _save_file(self, function):
        def call(tensors, place, *rest, **named):
            if self._fails(place):
                raise SafetensorError(f"I/O error: {os.strerror(self.code)} (os error {self.code})")
            return function(tensors, place, *rest, **named)

        return call


class _Refusing:
    """An open file whose writes count too."""

    def __init__(self, file, faults: Faults):
        self._file, self._faults = file, faults

    def write(self, content):
        if self._faults._fails(self._file.name):
            self._file.write(content[: len(content) // 2])  # a full disk takes what fits
            raise self._faults._error()
        return self._file.write(content)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *given):
        return self._file.__exit__(*given)

    def __iter__(self):
        return iter(self._file)
