"""The command line of `darkroom bench`."""

import argparse
import json
import sys

from trainers.bench import models
from trainers.bench.run import bench
from trainers.bench.start import start
from trainers.bench.table import table


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0."""
    options = _parser().parse_args(arguments)
    config = models.settings(options.base, options.set)

    def progress(text: str) -> None:
        sys.stderr.write(text + "\n")

    how = (options.device == "meta", options.steps, options.alone, options.bare)
    result = bench(options.base, config, *how, progress)
    if options.start:
        result["start"] = start(options.base, config, options.start, progress)
    sys.stdout.write((json.dumps(result, indent=2) if options.json else table(result)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="darkroom bench", description="Seconds, dispatches, syncs, operations and memory of a training step."
    )
    sizes = ", ".join(models.SIZES)
    parser.add_argument("--base", default="embedded", help=f"`embedded`, a model, or random weights: {sizes}")
    parser.add_argument("--steps", type=int, default=10, help="steps timed, of each loop in turn")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting of a run")
    parser.add_argument(
        "--device", choices=("real", "meta"), default="real",
        help="meta: count all that can be counted, of any base, without its weights and without such a device",
    )  # fmt: skip
    parser.add_argument(
        "--alone", action="store_true", help="without the bare peft loop, which needs a second denoiser"
    )
    parser.add_argument(
        "--bare", choices=("auto", "fp32", "bf16", "fp16"), default="auto",
        help="what the bare peft loop computes in; auto: the same as Darkroom",
    )  # fmt: skip
    parser.add_argument(
        "--start", type=int, default=0, metavar="PICTURES",
        help="also run the engine on so many random pictures, from its start to its first step and preview, and on to "
        "step 20; with an empty cache, and again with a full one",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
