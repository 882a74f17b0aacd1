"""Stands in for the engine: `python fake_engine.py MODE RUN_DIR` writes the events and files of a short training.

Modes: finish, fail, die (no last word), wait (until control/stop or control/pause asks for the end), live (ten steps,
previews, a held-out loss and a checkpoint for each control/go; draws what control/sample_now asks for), short (all
that live writes, at once).
"""

import json
import os
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from trainers import locks  # noqa: E402 - the path above makes it importable
from trainers.config import TrainConfig  # noqa: E402
from trainers.config_io import load  # noqa: E402
from trainers.control import Control  # noqa: E402
from trainers.events import (  # noqa: E402
    Checkpoint,
    EventLog,
    Failed,
    Finished,
    Phase,
    Sample,
    Started,
    Step,
    Stopped,
    Validation,
)
from trainers.prompts import preview_prompts  # noqa: E402


def main(mode: str, run: Path) -> int:
    with locks.alone(run / "lock") as alone:
        return train(mode, run) if alone else 1


def train(mode: str, run: Path) -> int:
    if "DARKROOM_SWEPT" not in os.environ:
        for word in ("stop", "pause"):
            (run / "control" / word).unlink(missing_ok=True)
    config = load(run / "config.toml")
    emit = EventLog(run / "events.jsonl")
    (run / "environment.json").write_text(json.dumps(dict(os.environ)), "utf-8")
    emit(Phase("Reading the pictures"))
    if mode == "fail":
        emit(Failed("The model is a text file.", "Choose a .safetensors file."))
        return 1
    first = max((int(path.name[5:]) for path in (run / "checkpoints").glob("step_*")), default=0)
    steps = config.schedule.steps or 10
    emit(Started(steps, first, "cpu", 3, config.saving.name))
    emit(Step(first + 1, steps, 0.5, 1e-4, 1.0, 0.1))
    if mode == "die":
        sys.stderr.write("the last words\n")
        return 7
    last, stopped = steps, False
    if mode in ("live", "short"):
        last, stopped = live(run, config, emit, first, steps, mode == "short")
    while mode == "wait" and not stopped:
        last, stopped = first + 1, asked_to_end(run)
        time.sleep(0.01)
    (run / "checkpoints" / f"step_{last:06d}").mkdir(parents=True, exist_ok=True)
    emit(Checkpoint(last, f"checkpoints/step_{last:06d}"))
    (run / "output").mkdir(exist_ok=True)
    adapter = run / "output" / f"{config.saving.name}.safetensors"
    adapter.write_bytes(b"adapter")
    adapter.with_suffix(".json").write_text("{}", "utf-8")
    paused = not (run / "control" / "stop").exists()
    emit(Stopped(last, paused) if stopped else Finished(last, f"output/{adapter.name}", 2.0))
    return 0


def asked_to_end(run: Path) -> bool:
    return any((run / "control" / word).exists() for word in ("stop", "pause"))


def live(run: Path, config: TrainConfig, emit: EventLog, step: int, steps: int, at_once: bool) -> tuple[int, bool]:
    """Goes on only as the test says, or at once; gives back the last step, and whether it was asked to end."""
    control, go = Control(run / "control"), run / "control" / "go"

    def draw(prompt: str, name: str, *how: object) -> None:
        path = run / "samples" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (step % 256, 90, 160)).save(path)
        emit(Sample(step, prompt, f"samples/{name}.png", *how))

    def preview() -> None:
        for i, prompt in enumerate(control.prompts() or preview_prompts(config)):
            draw(prompt, f"step_{step:06d}_{i}", 42 + i)

    if not step:
        preview()
    emit(Phase("Training"))
    while step < steps and not asked_to_end(run):
        if at_once or go.exists():
            go.unlink(missing_ok=True)
            step += 10
            emit(Step(step, steps, 1 / (step + 10), 1e-4, 1.3, 0.5))
            (run / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
            emit(Checkpoint(step, f"checkpoints/step_{step:06d}"))
            emit(Validation(step, 0.1, 0.1))
            preview()
        for wish in control.take() or ():
            emit(Phase("Drawing a picture that was asked for"))
            draw(wish.prompt, f"asked_{emit.seq:06d}", wish.seed, wish.strength, True)
            emit(Phase("Training"))
        time.sleep(0 if at_once else 0.01)
    return step, step < steps


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
