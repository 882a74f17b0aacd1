"""Loads Gradio without what the window never uses: it is most of the wait between the start and the page."""

import contextlib
import gc
import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """For the import of Gradio."""
    with _without_stubs(), _without_collecting(), _pandas_later():
        yield


@contextlib.contextmanager
def _without_stubs() -> Iterator[None]:
    """Gradio parses its own sources at every import, to write .pyi files for editors: half of the time it takes.

    It leaves out classes whose source has no file. Measured with Gradio 6.31: 3.9 s of processor time, 2.1 s without.
    """

    def no_file(_: object) -> str:
        raise OSError("no source wanted")

    getfile, inspect.getfile = inspect.getfile, no_file
    try:
        yield
    finally:
        inspect.getfile = getfile


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """An import makes a million objects that stay: to look for garbage among them again and again finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _pandas_later() -> Iterator[None]:
    """Let modules that import pandas have one that is loaded when they first ask it for something.

    Gradio does so for tables, which the window has none of.
    """
    if "pandas" in sys.modules:
        yield
        return
    later = ModuleType("pandas")

    def loaded(name: str) -> Any:
        if sys.modules.get("pandas") is later:
            del sys.modules["pandas"]
        return getattr(importlib.import_module("pandas"), name)

    later.__getattr__ = loaded
    sys.modules["pandas"] = later
    try:
        yield
    finally:
        if sys.modules.get("pandas") is later:
            del sys.modules["pandas"]
