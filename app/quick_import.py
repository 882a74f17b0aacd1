"""Loads Gradio without what the window never uses: it is most of the wait between the start and the page."""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jinja2

from trainers.quick_import import without_collecting


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """For the import of Gradio."""
    with _without_stubs(), without_collecting(), _pandas_later(), _plain_docstrings():
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


@contextlib.contextmanager
def _plain_docstrings() -> Iterator[None]:
    """Gradio compiles a template for each docstring of its events, two hundred of them, to put one word in."""

    class Plain:
        def __init__(self, source: str):
            self.source = source

        def render(self, **words: str) -> str:
            return self.source

    template, jinja2.Template = jinja2.Template, Plain
    try:
        yield
    finally:
        jinja2.Template = template
