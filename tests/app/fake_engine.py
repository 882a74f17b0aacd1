"""Stands in for the engine: `python fake_engine.py MODE RUN_DIR` writes the events and files of a short training.

Modes: finish, fail, die (no last word), wait (until control/stop or control/pause asks for the end).
"""

import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from trainers.config_io import load  # noqa: E402 - the path above makes it importable
from trainers.events import (  # noqa: E402
    Checkpoint,
    EventLog,
    Failed,
    Finished,
    Phase,
    Started,
    Step,
    Stopped,
)


def main(mode: str, run: Path) -> int:
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
    stopped = False
    while mode == "wait" and not stopped:
        stopped = any((run / "control" / word).exists() for word in ("stop", "pause"))
        time.sleep(0.01)
    last = first + 1 if stopped else steps
    (run / "checkpoints" / f"step_{last:06d}").mkdir(parents=True, exist_ok=True)
    emit(Checkpoint(last, f"checkpoints/step_{last:06d}"))
    (run / "output").mkdir(exist_ok=True)
    adapter = run / "output" / f"{config.saving.name}.safetensors"
    adapter.write_bytes(b"adapter")
    adapter.with_suffix(".json").write_text("{}", "utf-8")
    paused = not (run / "control" / "stop").exists()
    emit(Stopped(last, paused) if stopped else Finished(last, f"output/{adapter.name}", 2.0))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
