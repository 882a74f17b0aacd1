"""From the start of the engine to its first step and preview, and its pace after that: real runs on random pictures."""

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
from trainers.events import MAKING
from trainers.families.registry import find_family

CACHE = "cache"
STEPS = 20  # of a sitting: the engine reports after 10 and 20, so that the last report is of steps 11 to 20


@dataclass(frozen=True)
class Sitting:
    seconds_to_first_step: float  # from the start of the process to the end of step 1, without the preview
    preview_seconds: float  # of the pictures before the first step; 0 without them
    seconds_per_step: float  # mean of the last ten, without what encodes a picture between them
    peak_memory_gb: float  # until the end of the last step
    phases: dict[str, float]  # seconds of each until the first step, "" before the first


def start(base: str, config: TrainConfig, pictures: int, progress: Callable[[str], None]) -> dict:
    """Two sittings on `pictures` random ones: `cold` without a cache or previews, `warm` with both.

    Each is a run of one step, which the engine reports since it is the last, and then goes on to `STEPS`.

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
                _encode(_settings(config, place, 1, every), place / CACHE)
            progress(f"Running the engine on {pictures} pictures ({name})")
            run = place / name
            run.mkdir()
            began = awake()
            first = trained(run, _settings(config, place, 1, every))
            progress(f"Going on to step {STEPS} ({name})")
            found[name] = asdict(sitting(began, first, trained(run, _settings(config, place, STEPS, 0))))
    return {"pictures": pictures, **found}


def _settings(config: TrainConfig, place: Path, steps: int, every: int) -> TrainConfig:
    return config_io.override(
        config,
        [
            f"data.folders={[str(place / 'pictures')]}",
            f"schedule.steps={steps}",
            f"preview.every={every}",
            "saving.name=bench",
            "saving.every=0",  # the engine reports before it saves
            "saving.minutes=0",
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


def trained(run: Path, config: TrainConfig) -> list[tuple[float, events.Event]]:
    """What the engine tells while it trains the run to its last step, from where it is."""
    config_io.save(config, run / "config.toml")
    log = run / "events.jsonl"
    before = log.stat().st_size if log.exists() else 0
    environment = {**os.environ, "DARKROOM_CACHE": str(run.parent / CACHE)}
    subprocess.run([sys.executable, "-m", "trainers", str(run)], env=environment, check=False)
    heard, _ = events.read_from(log, before)
    for _, event in heard:
        if isinstance(event, events.Failed):
            raise UserError(event.message, event.hint)
    if not any(isinstance(event, events.Step) for _, event in heard):
        raise UserError("The engine ended without a step.", "Run `darkroom train` with these settings to see why.")
    return heard


def sitting(began: float, first: list[tuple[float, events.Event]], later: list[tuple[float, events.Event]]) -> Sitting:
    """`first`: told until the end of the first step; `later`: on the way to the last."""
    phases, current, since = {"": 0.0}, "", began
    for at, event in first:
        if isinstance(event, (events.Phase, events.Step)):
            phases[current] = phases.get(current, 0.0) + at - since
            current, since = getattr(event, "name", ""), at
        if isinstance(event, events.Step):
            break
    steps = [event for _, event in first + later if isinstance(event, events.Step)]
    peak, preview = max(step.memory_gb for step in steps), phases.get(MAKING, 0.0)
    rounded = {phase: round(seconds, 2) for phase, seconds in phases.items()}
    numbers = round(since - began - preview, 2), round(preview, 2), round(steps[-1].seconds, 4), round(peak, 2)
    return Sitting(*numbers, rounded)
