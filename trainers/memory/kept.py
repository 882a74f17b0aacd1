"""How a run saves memory on a CPU, kept in its folder: a resumed run saves so again, and ends in the same last bits.

There convolutions with weights that lie ready sum in another order, and turn the layout in which the layers after them
sum. On GPUs every way of saving gives the same bits, and each sitting saves as little as it must.
"""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import nn

from trainers.config import TrainConfig
from trainers.data.cache import content_key
from trainers.files import remember, remembered
from trainers.memory.saving import Saving
from trainers.memory.units import blocks, units

FILE = "plan.json"  # in the run's folder
FORM = TypeAdapter(Saving)


def kept_saving(run: Path, config: TrainConfig, denoiser: nn.Module) -> Saving | None:
    """How an earlier sitting saved with the same settings; None where there was none."""
    try:
        saving = FORM.validate_python(remembered(run / FILE).get(_key(config)))
    except ValidationError:  # none, or damaged
        return None
    recomputed, whole = set(saving.recomputed), set(blocks(denoiser))
    known = recomputed <= {path for path, _ in units(denoiser)} and set(saving.streamed) <= recomputed & whole
    return saving if known else None


def keep_saving(run: Path, config: TrainConfig, saving: Saving) -> None:
    """For the next sitting."""
    remember(run / FILE, remembered(run / FILE) | {_key(config): FORM.dump_python(saving, mode="json")})


def _key(config: TrainConfig) -> str:
    """Settings that take the place of others, to use less memory, are to be planned for anew."""
    chosen = {"memory": config.memory, "data": config.data, "adapter": config.adapter, "optimizer": config.optimizer}
    return content_key(kind="plan", **{name: one.model_dump(mode="json") for name, one in chosen.items()})
