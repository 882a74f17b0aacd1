"""What `darkroom inspect` prints."""

from typing import Any

from app.adapter_facts import in_words
from app.cli_output import show


def adapter_facts(values: dict[str, Any], as_json: bool) -> None:
    """As text, what belongs together stands on one line; as JSON, all of it."""
    show(values if as_json else in_words(values), as_json)
