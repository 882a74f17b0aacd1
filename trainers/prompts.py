"""What previews draw: the prompts of the settings, or those made from trigger word and kind."""

from trainers.config import DataConfig, TrainConfig
from trainers.data.captions import fallback_caption

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


def default_prompts(data: DataConfig) -> list[str]:
    """The trigger alone, two prompts far from the data, and one without the trigger."""
    trigger = data.trigger or data.kind
    return [fallback_caption(data.trigger, data.kind), *(p.format(trigger) for p in FAR[data.kind]), PLAIN[data.kind]]
