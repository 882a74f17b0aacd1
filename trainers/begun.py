"""What a run trains on and how, in short, so that a resumed one can say what is different since its checkpoint."""

from collections.abc import Iterable, Mapping

from trainers.config import TrainConfig
from trainers.data.cache import content_key
from trainers.data.types import Example
from trainers.errors import UserError
from trainers.events import Adjusted

# Section -> its settings that do not count: where things lie, and what is told elsewhere or belongs to the beginning.
SECTIONS: dict[str, set[str]] = {
    "adapter": {"init_from"},
    "data": {"folders"},
    "noise": set(),
    "loss": set(),
    "optimizer": {"type", "rate", "text_rate", "text_rates", "token_rate"},
}
PICTURES, OPTIMIZER = "the pictures or their captions", "optimizer.type"


def begun(config: TrainConfig, examples: Iterable[Example]) -> dict[str, str]:
    """Name -> a short text that is another one where something of it changes."""
    found = {
        f"[{name}]": _short(getattr(config, name).model_dump(mode="json", exclude=SECTIONS[name])) for name in SECTIONS
    }
    pictures = sorted((one.content_hash, one.caption, one.repeats) for one in examples)
    return {PICTURES: _short(pictures), **found, OPTIMIZER: config.optimizer.type}


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> Adjusted | None:
    """What is to be said where a run goes on with something else; of an earlier version's checkpoint nothing is known.

    Raises:
        UserError: with another optimizer, whose state the checkpoint does not have.
    """
    if (old := before.get(OPTIMIZER)) and old != now[OPTIMIZER]:
        message = f"The run was begun with optimizer.type = {old}, and its settings name {now[OPTIMIZER]}."
        raise UserError(message, f"Set it to {old} in the run's config.toml, or start a new run.")
    names = [name for name, short in now.items() if before.get(name, short) != short]
    if not names:
        return None
    what = f"Changed since its last checkpoint: {', '.join(names)}"
    return Adjusted(what, "The run goes on from there with what it finds now, not to the weights of either alone.")


def _short(content: object) -> str:
    return content_key(content=content)[:16]
