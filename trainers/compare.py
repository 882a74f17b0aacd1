"""The pictures of a comparison: the base is loaded once, and the checkpoints' adapters take turns on it."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from trainers import checkpoint, config_io, memory, preview
from trainers.adapters.adapter import Adapter, modules_of_state
from trainers.adapters.hosting import attach_updates, replace_updates
from trainers.adapters.tokens import NewTokens, attach_tokens, tokens_of_state
from trainers.comparison import BASE, Cell, load
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.events import Event, Phase, Sample
from trainers.families.base import Components
from trainers.families.registry import find_family
from trainers.files import encoded, write_whole


def compare(run: Path, folder: Path, emit: Callable[[Event], None]) -> int:
    """Draw the cells of the comparison in `folder` that have no picture yet, and say how many that were.

    Each picture is what `darkroom sample` draws with the adapter file of that checkpoint, but for the file's rounding.
    Ended at any time, it goes on with the next missing one.

    Raises:
        UserError: the base or a checkpoint cannot be read.
    """
    comparison = load(folder)
    missing, total = comparison.missing(), len(comparison.cells)
    config = config_io.load(run / "config.toml")
    drawn = total - len(missing)
    if missing:
        emit(Phase("Loading the base model"))
        draw = Drawing(config, run)
        emit(Phase("Drawing", drawn, total))
        for step, cells in groupby(missing, lambda cell: cell.step):  # the base's come first
            if step != BASE:
                draw.wear(step)
            for cell in cells:
                write_whole(folder / cell.file, draw(cell))
                drawn += 1
                emit(Sample(cell.step, cell.prompt, cell.file))
                emit(Phase("Drawing", drawn, total))
    return len(missing)


class Drawing:
    """A base on its device, with nothing on it until the first checkpoint is wanted."""

    def __init__(self, config: TrainConfig, run: Path):
        self.config, self.run = config, run
        self.plan = memory.plan(config.memory)
        self.family = find_family(config.model)
        self.components: Components = self.family.load(config.model, self.plan.dtype)
        for module in (self.components.denoiser, self.components.vae, *self.components.text_encoders):
            module.to(self.plan.device)
        self.resolution = config.data.resolution or self.components.resolution
        self.adapter: Adapter | None = None
        self.tokens: NewTokens | None = None

    def __call__(self, cell: Cell) -> bytes:
        """The picture as a PNG file's bytes."""
        if self.adapter:
            self.adapter.set_strength(cell.strength)
        settings = self.config.preview.model_copy(update={"seed": cell.seed})
        where = (self.config.model.clip_skip, self.plan.device, self.resolution)
        return encoded(preview.sample(self.family, self.components, [cell.prompt], settings, *where)[0])

    def wear(self, step: int) -> None:
        """Put the adapter of a checkpoint on the base, in place of the one before."""
        folder = self.run / "checkpoints" / f"step_{step:06d}"
        if not folder.is_dir():
            raise UserError(f"The checkpoint of step {step} is no longer there.", "Compare those that are.")
        state = checkpoint.load_exported(folder)[0]
        modules, vectors = modules_of_state(state, self.config.adapter), tokens_of_state(state)
        if self.adapter:
            replace_updates(self.adapter, self.components, modules)
        else:
            if vectors:
                self.tokens = attach_tokens(self.components, self.config.data.trigger.strip(), vectors)
            self.adapter = attach_updates(self.components, modules)
            self.adapter.eval()
        for part, rows in vectors.items():
            self.tokens.embeddings[part].rows.data.copy_(rows)
