"""HTML that our own code writes: escaped texts, buttons that say what they do, and the component that hears them."""

import functools
import html
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app.paths import ROOT
from trainers.errors import UserError, disk_error

# One listener for the whole panel: what is clicked or edited names its action and brings its values along.
LISTEN = """
const tell = (target, more) => {
  const {act, edit, values} = target.dataset;
  trigger('act', {act: act || edit, ...JSON.parse(values || '{}'), ...more});
};
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-act]');
  if (target && element.contains(target)) tell(target, {});
});
element.addEventListener('change', (event) => {
  const target = event.target.closest('[data-edit]');
  if (target) tell(target, {value: target.type === 'checkbox' ? target.checked : target.value});
});
"""


def script(*names: str) -> str:
    """Scripts of assets/ for one panel."""
    return "".join((ROOT / "assets" / name).read_text("utf-8") for name in names)


def text(value: object) -> str:
    """A text as HTML that shows it, whatever it holds."""
    return html.escape(str(value), quote=True)


def act(name: str, /, **values: Any) -> str:
    """Attributes of an element whose click is an action: `<button {act("remove", name=name)}>`."""
    return f'data-act="{text(name)}" data-values="{text(json.dumps(values))}"'


def edit(name: str, /, **values: Any) -> str:
    """Attributes of a form control whose change is an action, with `value` among the values that the handler gets."""
    return f'data-edit="{text(name)}" data-values="{text(json.dumps(values))}"'


def button(label: str, name: str, kind: str = "", /, **values: Any) -> str:
    """A button; `kind` is "", "primary" or "quiet"."""
    return f'<button type="button" class="dr-button {kind}" {act(name, **values)}>{text(label)}</button>'


def picture_address(path: object, side: int = 0) -> str:
    """The address of a picture of the project folders; `side` asks for a thumbnail within so many pixels square."""
    return "/darkroom/picture?" + urlencode({"path": str(path), **({"side": side} if side else {})})


def enlarged(path: object, group: str, label: str, prompt: str, base: bool = False) -> str:
    """Attributes of a button whose click enlarges a picture, for enlarge.js: beside it can stand those of its group.

    `base`: it is the one that the others of its group stand beside at first.
    """
    words = f'data-group="{text(group)}" data-label="{text(label)}" data-prompt="{text(prompt)}"'
    return f'data-zoom="{text(picture_address(path))}" {words}{" data-base" * base}'


def empty(title: str, sentence: str) -> str:
    """What stands where nothing is yet, and says what will."""
    return f'<div class="dr-empty"><strong>{text(title)}</strong><p>{text(sentence)}</p></div>'


def notice(message: str, hint: str = "", kind: str = "info") -> str:
    """A sentence and what to do; `kind` is info, good, warning or error."""
    role = "alert" if kind == "error" else "status"
    tail = f"<p>{text(hint)}</p>" if hint else ""
    return f'<div class="dr-notice {kind}" role="{role}"><strong>{text(message)}</strong>{tail}</div>'


def panel(label: str, value: str = "", **options: Any) -> gr.HTML:
    """A region of our own HTML; `panel.act(handler, ...)` hears its actions, which `acted(event)` tells apart."""
    return gr.HTML(value, label=label, js_on_load=LISTEN, apply_default_css=False, **options)


def acted(event: gr.EventData) -> dict[str, Any]:
    """What was done in a panel: {"act": name, ...values}."""
    return dict(event._data or {})


def in_words(handler: Callable) -> Callable:
    """A handler whose UserError, or what the disk refuses, becomes a message in the window; its traceback nowhere."""

    @functools.wraps(handler)
    def wrapped(*arguments: Any, **values: Any) -> Any:
        try:
            return handler(*arguments, **values)
        except (UserError, OSError) as error:
            raise _message(told(error)) from error

    return wrapped


def told(error: UserError | OSError) -> UserError:
    """What a person is told of an error."""
    if isinstance(error, UserError):
        return error
    if found := disk_error(error):
        return UserError(found.message, "Make room, and do it again.")
    return UserError(f"{error.filename or 'A file'}: {error.strerror or error}.")


def refusal(error: UserError | OSError) -> str:
    """The same as a notice beside the field or button that it is about."""
    said = told(error)
    return notice(said.message, said.hint, "error")


def _message(error: UserError) -> gr.Error:
    """Gradio would show a file's name as HTML, were it not escaped."""
    return gr.Error(text(str(error)), print_exception=False)
