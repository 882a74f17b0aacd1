"""Whether two runs compute on the same device, as far as they have said so."""

from app.runs import Run
from app.story import read_story
from trainers import config_io
from trainers.errors import UserError

AUTO = "auto"


def share_device(run: Run, other: Run) -> bool:
    """True also where one has not said yet what its "auto" comes to."""
    devices = {_device(run), _device(other)}
    return len(devices) == 1 or AUTO in devices


def _device(run: Run) -> str:
    """cpu, cuda or mps as the engine reported it; before that, what the settings wish."""
    if said := read_story(run.events).state.device:
        return said.partition(":")[0]
    try:
        return config_io.load(run.config).memory.device
    except UserError:
        return AUTO
