"""The command line of `darkroom bench`."""

import argparse
import json
import sys

from trainers import config_io
from trainers.bench.run import bench


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0."""
    parser = argparse.ArgumentParser(
        prog="darkroom bench", description="Seconds, dispatches, syncs and memory per training step."
    )
    parser.add_argument(
        "--base", default="embedded", help="`embedded`, a model, or `sd15`: random weights in the true shapes"
    )
    parser.add_argument("--steps", type=int, default=10, help="steps timed, of each loop in turn")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting of a run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    size = "sd15" if options.base == "sd15" else "base"
    config = config_io.parse({"model": {"family": "sd15"} if size == "sd15" else {"base": options.base}})
    config = config_io.override(config, options.set)
    result = bench(config, options.steps, size, lambda text: sys.stderr.write(text + "\n") and None)
    sys.stdout.write((json.dumps(result, indent=2) if options.json else _table(result)) + "\n")
    return 0


def _table(result: dict) -> str:
    setup = f"{result['resolution']} px, batch {result['batch_size']}, {result['precision']} on {result['device']}"
    lines = [f"{result['model']}, {setup} ({result['threads']} threads), {result['steps']} steps each", ""]
    columns = ("loop", "s/step", "fastest", "slowest", "forward", "backward", "optimizer", "syncs", "GFLOP")
    lines.append("".join(f"{column:>11}" for column in columns))
    for name, loop in result["loops"].items():
        seconds = [f"{loop[key]:.4f}" for key in ("seconds_per_step", "fastest", "slowest")]
        counts = [loop["dispatches"].get(phase, 0) for phase in ("forward", "backward", "optimizer")]
        row = [name, *seconds, *counts, loop["host_syncs"], loop["gflop"]]
        lines.append("".join(f"{cell:>11}" for cell in row))
    lines += ["", f"Darkroom's step takes {result['time_ratio']:.3f} of the bare loop's time (median of pairs)."]
    lines.append(f"Peak memory of both together {result['peak_memory_gb']} GB; weights {result['weights_gb']} GB.")
    return "\n".join(lines)
