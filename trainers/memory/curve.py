"""`python -m trainers.memory.curve`: peak memory against operations, from nothing computed again to everything."""

import argparse
import json
import sys
from dataclasses import dataclass, replace

import torch

from trainers import config_io
from trainers.config import TrainConfig
from trainers.families.base import Family
from trainers.families.positions import keep_middle
from trainers.families.registry import FAMILIES
from trainers.memory import device
from trainers.memory.fit import ladder
from trainers.memory.hollow import Count, HollowStep, hollow
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.spans import most
from trainers.memory.stream import block_bytes
from trainers.memory.units import blocks

GB = 2**30


@dataclass(frozen=True)
class Point:
    """GB are 2^30 bytes: weights of the denoiser, adapter, gradients, AdamW's states, activations."""

    how: str
    peak_gb: float
    activations_gb: float
    tflop: float
    more: float  # operations over those of a step that computes nothing again, as a share


def curve(family: Family, config: TrainConfig, points: int = 8, variant: str = "") -> list[Point]:
    """At least `points` points: torch's own way, ours, steps between, all blocks, all with their inputs offloaded.

    The last two once more with the weights of all blocks streamed: there are those of the block that runs and of the
    next one, as on a GPU, and count as activations.

    Everything is counted on the meta device, in bf16 unless the settings say otherwise.
    """
    precision = "bf16" if config.memory.precision == "auto" else config.memory.precision
    dtype = device.DTYPES[precision]
    components = hollow(family, dtype, variant)
    keep_middle(components, config.data.resolution or components.resolution)
    step = HollowStep(family, components, config, dtype)
    resident = denoiser_bytes(step) + 3 * step.adapter_bytes  # masters and two states; gradients are in the count
    sizes = block_bytes(step.denoiser)
    usual = step.count(PLAIN)
    plain = step.count(Saving())
    rungs = ladder(step.trace(), blocks(step.denoiser))
    counts = [("as torch does it", usual), ("frozen layers keep less", plain)]
    for i in range(1, points - 1):
        wanted = i / (points - 1) * rungs[-1].freed
        rung = next(rung for rung in rungs if rung.freed >= wanted)
        counts.append((f"{len(rung.recomputed)} units computed again", step.count(Saving(rung.recomputed))))
    every = rungs[-1].recomputed
    counts.append(("all blocks", step.count(Saving(every))))
    counts.append(("all blocks, inputs in host memory", step.count(Saving(every, offload=True))))
    points = [_point(how, count, resident, usual) for how, count in counts]
    resident -= sum(sizes.values())
    for how, count in counts[-2:]:
        streamed = replace(count, peak=most(count.spans, sizes, torch.device("cuda")))
        points.append(_point(f"{how}, weights streamed", streamed, resident, usual))
    return points


def denoiser_bytes(step: HollowStep) -> int:
    """Of the frozen weights, and of tables that no layer trains."""
    frozen = [p for p in step.denoiser.parameters() if not p.requires_grad] + list(step.denoiser.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in frozen)


def _point(how: str, count: Count, resident: int, usual: Count) -> Point:
    tflop, more = round(count.flops / 1e12, 3), round(count.over(usual), 4)
    return Point(how, round((resident + count.peak) / GB, 3), round(count.peak / GB, 3), tflop, more)


def main(arguments: list[str]) -> int:
    """Print the curve as a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m trainers.memory.curve", description=__doc__)
    parser.add_argument("--base", default="sdxl", choices=sorted(FAMILIES))
    parser.add_argument("--variant", default="", help="of Stable Diffusion 2 and 3, such as sd3.5-large")
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting of a run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    config = config_io.override(config_io.parse({"adapter": {"targets": "attention"}}), options.set)
    found = curve(FAMILIES[options.base], config, options.points, options.variant)
    if options.json:
        sys.stdout.write(json.dumps([vars(point) for point in found], indent=2) + "\n")
        return 0
    lines = [f"{'peak GB':>8}{'activations':>13}{'TFLOP':>9}{'more':>8}  how"]
    lines += [f"{p.peak_gb:8.2f}{p.activations_gb:13.2f}{p.tflop:9.2f}{p.more:8.1%}  {p.how}" for p in found]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
