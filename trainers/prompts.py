"""Prompts to look at an adapter with: those of the settings or made from trigger and kind, and without the trigger."""

import re
from collections.abc import Callable

from trainers.config import DataConfig, TrainConfig
from trainers.control import Control
from trainers.data.captions import fallback_caption, mentions, without_trigger
from trainers.errors import UserError

FAR = {  # a prompt far from the data shows whether the adapter still obeys
    "person": ["{} as a knight in armour", "{} on a beach at sunset"],
    "character": ["{} riding a bicycle", "{} in a snowy forest"],
    "object": ["{} on a wooden table", "{} under water"],
    "style": ["a cat, {}", "a lighthouse by the sea, {}"],
}
PLAIN = {"person": "a person", "character": "a character", "object": "an object", "style": "a cat"}


def preview_prompts(config: TrainConfig) -> list[str]:
    """The prompts that a run begins with."""
    return list(config.preview.prompts) or default_prompts(config.data)


def prompts_now(
    config: TrainConfig, control: Control, unreadable: Callable[[UserError], None] = lambda why: None
) -> list[str]:
    """What a person edited while the run trains, else the settings' own; `unreadable` hears why they cannot be read."""
    try:
        return control.prompts() or preview_prompts(config)
    except UserError as error:
        unreadable(error)
        return preview_prompts(config)


def default_prompts(data: DataConfig) -> list[str]:
    """The trigger alone, two prompts far from the data, and one without the trigger."""
    trigger = data.trigger or data.kind
    return [fallback_caption(data.trigger, data.kind), *(p.format(trigger) for p in FAR[data.kind]), PLAIN[data.kind]]


def plain_prompt(prompt: str, data: DataConfig) -> str:
    """The prompt with the class word in the trigger's place; "" where the trigger is not in it.

    The class word is the first of the settings, else the kind; a style, or a kind that the prompt names already, is
    not put in again.
    """
    if not data.trigger.strip() or not mentions(prompt, data.trigger):
        return ""
    without = without_trigger(prompt, data.trigger, "")
    named = data.kind == "style" or data.kind in re.findall(r"\w+", without.casefold())
    word = next(iter(data.class_words), "" if named else data.kind)
    return without_trigger(prompt, data.trigger, word) or data.kind
