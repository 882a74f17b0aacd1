"""Choices that come from the disk: whether one is still there is asked of the disk, too, by the handler that gets it.

Gradio compares a choice with those that the session was sent last, and refuses it as an error in words of its own:
after a restart of the app that is none, and a checkpoint that a training has removed can no longer be unticked.
"""

from typing import Any

import gradio as gr

from app.gui.kept import Plain


class ChoiceFromDisk(gr.Dropdown, metaclass=Plain):
    is_template = True  # for the browser it is a Dropdown

    def preprocess(self, payload: Any) -> Any:
        return payload


class ChoicesFromDisk(gr.CheckboxGroup, metaclass=Plain):
    is_template = True

    def preprocess(self, payload: list[Any] | None) -> list[Any]:
        return payload or []
