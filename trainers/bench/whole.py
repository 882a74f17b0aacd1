"""`python -m trainers.bench.whole`: what `darkroom check` says of a run's time and memory, beside the run itself."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainers import config_io
from trainers.bench.start import draw_pictures
from trainers.check import check
from trainers.config import TrainConfig
from trainers.events import Event, Phase, Step
from trainers.outputs import Folders
from trainers.pace import Clock
from trainers.train import train

PICTURES, STEPS = 12, 60
SETTINGS = (  # each on every base
    (),
    ("data.batch_size=1",),
    ("data.batch_size=8", "adapter.rank=64"),
    ("adapter.text_encoder=true",),
    ("optimizer.accumulation=3", "data.batch_size=1"),
    ("loss.preservation=1", "loss.preservation_every=2"),
    ("memory.checkpointing=all",),
    ("adapter.type=loha", "preview.every=0"),
    ("memory.precision=bf16", "data.flip=true"),
)
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class Compared:
    """Seconds predicted and real: of a step (median), and of the whole run without starting Python."""

    settings: str
    step: tuple[float, float]
    whole: tuple[float, float]
    real_parts: dict[str, float]  # phase -> seconds
    parts: dict[str, float]

    def line(self) -> str:
        cells = [f"{a:9.3f}{b:9.3f}{a / b - 1:+8.0%}" for a, b in (self.step, self.whole)]
        return f"{cells[0]} |{cells[1]}  {self.settings}"


HEAD = f"{'s/step':>9}{'real':>9}{'':8} |{'s whole':>9}{'real':>9}{'':8}  settings"


def compare(config: TrainConfig, place: Path, clock: Clock, settings: str) -> Compared:
    """Check, then train in the empty folder `place`, with a cache of its own."""
    told = check(config, lambda _: None, clock=clock)
    heard: list[tuple[float, Event]] = []
    began = clock()
    train(config, Folders(place / "run", place / "cache"), lambda event: heard.append((clock(), event)))
    whole, spent = clock() - began, told["seconds"]
    real = statistics.median(_steps(heard))
    return Compared(settings, (told["seconds_per_step"], real), (spent["whole"], whole), _phases(heard), spent)


def _steps(heard: list[tuple[float, Event]]) -> Iterator[float]:
    """Seconds of a step, from each stretch in which nothing else was done."""
    for (since, before), (at, event) in zip(heard, heard[1:], strict=False):
        if isinstance(event, Step) and isinstance(before, Step):
            yield (at - since) / (event.step - before.step)


def _phases(heard: list[tuple[float, Event]]) -> dict[str, float]:
    found: dict[str, float] = {}
    current, since = "", heard[0][0]
    for at, event in heard:
        found[current] = found.get(current, 0.0) + at - since
        current, since = event.name if isinstance(event, Phase) else current, at
    return found


def configured(base: str, pictures: Path, changes: tuple[str, ...]) -> TrainConfig:
    """A short run with two previews and two checkpoints."""
    short = [f"schedule.steps={STEPS}", f"preview.every={STEPS // 2}", f"saving.every={STEPS // 2}"]
    model = config_io.parse({"model": {"base": base}})
    return config_io.override(model, [f"data.folders={[str(pictures)]}", *short, *changes])


def compare_all(
    bases: list[str], choices: tuple[tuple[str, ...], ...], clock: Clock, say: Callable[[str], None]
) -> None:
    """One line for each base with each of the settings."""
    say(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        draw_pictures(pictures, PICTURES, 96)
        for base in bases:
            for changes in choices:
                config = configured(base, pictures, changes)
                with tempfile.TemporaryDirectory() as place:
                    (Path(place) / "run").mkdir()
                    found = compare(config, Path(place), clock, f"{Path(base).name} {' '.join(changes)}")
                say(found.line())
                say(f"    {_listed(found.parts)}\n    {_listed(found.real_parts)}")


def _listed(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m trainers.bench.whole", description=__doc__)
    parser.add_argument("--base", action="append", default=[], help="`embedded`, or a model; several times for several")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="these settings alone")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall",
        help="processor: seconds that this process computes, which other programs lengthen less; for one thread",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    choices = (tuple(options.set),) if options.set else SETTINGS
    compare_all(options.base or ["embedded"], choices, CLOCKS[options.clock], _say)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
