"""What Gradio keeps of a browser tab's components stays as large as it is.

An answer that says anything of a component (that it stays as it is, too) makes Gradio build another one for that tab,
in place of the one before. It has a number of its own, under which Gradio 6 keeps it once more as soon as it is an
input: 9 KB with every tick of an open Monitor page.
"""

from typing import Any

from gradio.blocks import Block
from gradio.state_holder import SessionState

_put = SessionState.__setitem__


def _put_by_number(tab: SessionState, number: int, part: Any) -> None:
    _put(tab, number, part)
    if isinstance(part, Block):
        part._id = number


def keep_numbers() -> None:
    """A component that takes another's place takes its number, too."""
    SessionState.__setitem__ = _put_by_number
