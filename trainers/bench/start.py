"""From the start of the engine to its first step and its first preview: real runs on random pictures, cold and warm."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainers import config_io, events, memory
from trainers.bench.models import SIZES
from trainers.clock import awake
from trainers.config import TrainConfig
from trainers.data.buckets import plan as plan_crops
from trainers.data.cache import Cache
from trainers.data.examples import scan
from trainers.encoding import encode_pictures
from trainers.errors import UserError
from trainers.families.registry import find_family

CACHE = "cache"
PREVIEW = "Making preview pictures"  # the phase's name in train.py


@dataclass(frozen=True)
class Sitting:
    seconds_to_first_step: float  # from the start of the process to the end of step 1, without the preview
    preview_seconds: float  # of the pictures before the first step; 0 without them
    peak_memory_gb: float
    phases: dict[str, float]  # seconds of each, "" before the first


def start(base: str, config: TrainConfig, pictures: int, progress: Callable[[str], None]) -> dict:
    """Two runs of one step on `pictures` random ones: `cold` without a cache or previews, `warm` with both.

    Raises:
        UserError: the base is not on disk.
    """
    if base in SIZES:
        raise UserError(f"{base} stands for random weights, and a run reads its base from disk.", "Name a base model.")
    with tempfile.TemporaryDirectory() as folder:
        place, found = Path(folder), {}
        draw_pictures(place / "pictures", pictures, config.data.resolution or 512)
        for name, every in (("cold", 0), ("warm", 1)):
            if name == "warm" and memory.plan(config.memory).device.type == "cpu":
                progress(f"Encoding {pictures} pictures")
                _encode(_settings(config, place, every), place / CACHE)
            progress(f"Running the engine on {pictures} pictures ({name})")
            found[name] = asdict(_sitting(place, name, _settings(config, place, every)))
    return {"pictures": pictures, **found}


def _settings(config: TrainConfig, place: Path, every: int) -> TrainConfig:
    return config_io.override(
        config,
        [
            f"data.folders={[str(place / 'pictures')]}",
            "schedule.steps=1",
            f"preview.every={every}",
            "saving.name=bench",
        ],
    )


def draw_pictures(folder: Path, count: int, side: int) -> None:
    """Pictures of noise, as hard to decode as photographs are, with captions."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=92)
        (folder / f"{i:04d}.txt").write_text(f"a picture of thing {i}", encoding="utf-8")


def _encode(config: TrainConfig, cache: Path) -> None:
    """All pictures, of which a run on a CPU leaves most until they are shown."""
    plan, family = memory.plan(config.memory), find_family(config.model)
    components, examples = family.load(config.model, plan.dtype, deferred=True), scan(config.data).examples
    crops = plan_crops(examples, config.data, config.data.resolution or components.resolution, *components.bounds)
    how = (family, components, config.data.flip, Cache(cache), plan.device)
    encode_pictures(examples, crops, *how, lambda *_: None)


def _sitting(place: Path, name: str, config: TrainConfig) -> Sitting:
    run = place / name
    run.mkdir()
    config_io.save(config, run / "config.toml")
    began = awake()
    environment = {**os.environ, "DARKROOM_CACHE": str(place / CACHE)}
    command = [sys.executable, "-m", "trainers", str(run)]
    subprocess.run(command, env=environment, check=False)
    heard, _ = events.read_from(run / "events.jsonl")
    for _, event in heard:
        if isinstance(event, events.Failed):
            raise UserError(event.message, event.hint)
    phases, current, since = {"": 0.0}, "", began
    for at, event in heard:
        if isinstance(event, (events.Phase, events.Step)):
            phases[current] = phases.get(current, 0.0) + at - since
            current, since = getattr(event, "name", "after the first step"), at
        if isinstance(event, events.Step):
            preview = phases.get(PREVIEW, 0.0)
            rounded = {phase: round(seconds, 2) for phase, seconds in phases.items()}
            return Sitting(round(at - began - preview, 2), round(preview, 2), round(event.memory_gb, 2), rounded)
    raise UserError("The engine ended without a step.", "Run `darkroom train` with these settings to see why.")
