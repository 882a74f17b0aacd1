"""What one browser tab remembers. It lies in the tab itself: a server that was started anew need not know of it.

It comes with each event and goes back with the answer, together with what the answer shows, so that it fits what is in
sight. Events of one tab run side by side all the same: a late answer shows what was asked for earlier.
"""

import zlib
from abc import ABCMeta
from typing import Any

import gradio as gr


class Plain(type(gr.HTML)):
    """Makes components as Gradio does, without the stub file that it would write beside this one."""

    def __new__(cls, name: str, bases: tuple[type, ...], content: dict[str, Any]) -> type:
        return ABCMeta.__new__(cls, name, bases, content)


class Kept(gr.HTML, metaclass=Plain):
    """Shows nothing. Gradio makes another of the same class and options in the course of a session."""

    def preprocess(self, payload: Any) -> Any:
        first = self.props["first"]
        return first if payload is None else _as_kind_of(first, payload)

    def postprocess(self, value: Any) -> Any:
        return value


def kept(first: Any, script: str | None = None) -> Kept:
    """A value of JSON's kinds, tuples and NamedTuples among them, that handlers take and give like any other.

    Its `change` is heard only while the browser has it: it must not be built inside what is not `visible`. There
    `script` runs once, with the value as `props.value`.
    """
    return Kept(None, html_template="", js_on_load=script, visible="hidden", apply_default_css=False, first=first)


def mark(value: object) -> str:
    """The same for the same value, in this process and the next: stands for what has been sent already."""
    content = repr(value).encode("utf-8", "surrogatepass")
    return f"{zlib.crc32(content):08x}{len(content):x}"


def _as_kind_of(first: Any, value: Any) -> Any:
    """JSON knows lists only."""
    value = _as_tuples(value) if isinstance(first, tuple) else value
    return type(first)(*value) if hasattr(first, "_fields") else value


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
