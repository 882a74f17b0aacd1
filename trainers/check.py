"""What a run would do, found out without starting it: pictures, crops, buckets, steps, memory, time."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainers import devices, memory, preview, threads
from trainers.adapters.tokens import require_word
from trainers.cached import NOTHING, find_cached
from trainers.checkpoint import looked_at, step_of
from trainers.config import TrainConfig
from trainers.data.batches import Batches, split_validation
from trainers.data.buckets import plan as plan_crops
from trainers.data.buckets import report as crop_report
from trainers.data.examples import scan
from trainers.duration import Duration, captions_of, duration, work
from trainers.errors import UserError
from trainers.estimate import Estimate, estimate
from trainers.export.hashes import hashing_seconds
from trainers.families.positions import keep_middle
from trainers.families.registry import find_family
from trainers.finish import HASHES
from trainers.memory.cards import Card, find_card
from trainers.memory.kept import kept_saving
from trainers.outputs import Folders
from trainers.pace import Clock
from trainers.prompts import prompts_now
from trainers.recovery import settings_of
from trainers.schedules import too_far, total_steps
from trainers.stores import cut_captions


def check(
    config: TrainConfig,
    report: Callable[[str], None],
    card: str = "",
    cache: Path | None = None,
    clock: Clock = time.perf_counter,
    run: Path | None = None,
) -> dict[str, Any]:
    """Every problem of the data in one go, and what training would look like; UserError when it could not start.

    Args:
        card: the name of a graphics card that is not here, to judge the run by its data sheet.
        cache: where the run would look for what was encoded before; None: it starts with nothing.
        clock: what tells the seconds.
        run: the folder of a run, which may have done some of its steps; what is left is told then, and it goes on with
            what took the place of its own settings.
    """
    try:
        return _check(config, report, card, cache, clock, run)
    finally:
        devices.give_back()  # the process may live on, and the run needs the card


def _check(
    config: TrainConfig, report: Callable[[str], None], card: str, cache: Path | None, clock: Clock, run: Path | None
) -> dict[str, Any]:
    began = clock()
    config, went = settings_of(config, run) if run else (config, None)
    newest, damaged, _ = looked_at(Folders(run, run).checkpoints) if run else (None, [], [])
    done = step_of(newest) if newest else 0
    there = find_card(card) if card else None
    report("Reading the pictures ...")
    found = scan(config.data)
    require_word(config, [example.caption for example in found.examples])
    report("Reading the base model ...")
    plan = _plan_on(there, config) if there else memory.plan(config.memory)
    family = find_family(config.model)
    components = family.load(config.model, plan.dtype, deferred=True)
    resolution = config.data.resolution or components.resolution
    crops = plan_crops(found.examples, config.data, resolution, *components.bounds)
    config, smaller = preview.bounded(config, components)
    keep_middle(components, preview.longest(config.preview, resolution, crops))
    training, held_out = split_validation(found.examples, config.data.validation_share, config.seed)
    repeats = [found.examples[i].repeats for i in training]
    batches = Batches([crops[i] for i in training], repeats, config.data.batch_size, config.seed)
    steps = total_steps(config)
    if done > steps:
        raise UserError(*too_far(done, steps))
    before = kept_saving(run, config, components.denoiser) if done and plan.device.type == "cpu" and not there else None
    report("Trying a step ...")
    if plan.device.type == "cpu" and not there:
        torch.set_num_threads(threads.choose())
    read = clock() - began
    counted = batches.counted(config, resolution, crops)
    drawn = not done or _is_drawn(config, Folders(run, run), done, steps)
    side = counted.data.resolution or resolution
    todo = work(config, found.examples, crops, batches, len(held_out), side, done, drawn)
    captions = captions_of(config, found.examples)
    known = find_cached(config, found.examples, crops, captions, components, resolution, cache) if cache else NOTHING
    encoded, cached = (todo.encoded, todo.captions), (known.pictures, known.captions)
    share = todo.pictures / counted.data.batch_size
    need = estimate(family, components, counted, plan, there, clock, encoded, cached, share, before)
    hashed = hashing_seconds(components.path, cache and cache / HASHES, clock) if need.pace else 0.0
    spent = need.pace and duration(todo, need.pace, counted, read, known, need.late, hashed)
    problems = [*damaged, *map(str, found.problems), *map(str, cut_captions(found.examples, family, components))]
    if remark := batches.unfilled(config):
        problems.append(" ".join(remark))
    remarks = [*components.remarks, *((one.what, one.why) for one in (went, smaller) if one)]
    return {
        "base": components.name,
        "device": f"{there.name if there else plan.device}, {plan.precision}",
        "pictures": {
            "usable": len(found.examples),
            "trained": len(training),
            "held_out": len(held_out),
            "encoded_before": known.pictures // (1 + config.data.flip),
        },
        "remarks": [f"{sentence}. {why}" for sentence, why in remarks],
        "problems": problems,
        "buckets": dict(Counter(f"{crop.bucket.width}x{crop.bucket.height}" for crop in crops).most_common()),
        "crops": [crop_report(example, crop) for example, crop in zip(found.examples, crops, strict=True)],
        "steps": steps,
        "steps_done": done,
        "views_per_picture": round(
            steps * config.optimizer.accumulation / batches.per_epoch * sum(repeats) / len(training), 1
        ),
        "fits": need.fits,
        "verdict": _verdict(need, todo.steps, done, spent),
        "saving": need.saved,
        "memory_gb": _memory(need),
        "seconds_per_step": spent and round(spent.steps / max(1, todo.steps), 4),
        "seconds": spent and {"whole": round(spent.whole, 1)} | {p: round(s, 1) for p, s in vars(spent).items()},
    }


def _is_drawn(config: TrainConfig, run: Folders, done: int, steps: int) -> bool:
    """Whether no previews of the last step that is done are lacking."""
    if not preview.is_due(config.preview, done, steps):
        return True
    return preview.is_drawn(run.samples, done, len(prompts_now(config, run.control)))


def _memory(need: Estimate) -> dict[str, float]:
    parts = {
        "peak": need.peak_gb,
        "free": need.free_gb,
        "base": need.weights_gb,
        "encoded_pictures_and_captions": need.encoded_gb,
        "adapter_and_optimizer": need.adapter_gb,
        "activations": need.activations_gb,
        "encoding_before": need.encoding_gb,
        "previews": need.previews_gb,
    }
    return {name: round(gb, 2) for name, gb in parts.items()}


def _plan_on(card: Card, config: TrainConfig) -> memory.Plan:
    """The precision of a card that is not here; nothing will run."""
    precision = config.memory.precision if config.memory.precision != "auto" else card.precision
    return memory.Plan(torch.device("cpu"), precision)


def _verdict(need: Estimate, steps: int, done: int, spent: Duration | None) -> str:
    """Sentences on memory and on time; so many steps are left."""
    advice = need.instead or "Lower data.resolution or adapter.rank, or choose a smaller base."
    if not need.steps_fit:
        most = need.peak_gb + need.more_gb
        there = f"memory.budget allows {need.free_gb:.2f} GB"
        if need.free_gb == need.there_gb:
            there = f"{need.free_gb:.2f} GB are free"
        return f"It does not fit: up to {most:.2f} GB of memory are needed, and {there}. {advice}"
    if not need.encoding_fits:
        most = need.encoding_gb + need.more_gb
        there = f"{need.there_gb:.2f} GB are free"
        what = f"to encode the {need.encoding} before the first step"
        return f"It does not fit: up to {most:.2f} GB of memory are needed {what}, and {there}. {advice}"
    if not need.previews_fit:
        most = need.previews_gb + need.more_gb
        there = f"{need.there_gb:.2f} GB are free"
        return f"It does not fit: up to {most:.2f} GB of memory are needed to draw previews, and {there}. {advice}"
    more = f"; encoding the {need.encoding} before takes {need.encoding_gb:.1f} GB"
    more = more if round(need.encoding_gb, 1) > round(need.peak_gb, 1) else ""
    beyond = need.previews_gb > need.free_gb
    if beyond or round(need.previews_gb, 1) > round(need.peak_gb, 1):
        more += f"; drawing previews takes {need.previews_gb:.1f} GB"
        more += ", more than memory.budget allows" * beyond
    fits = f"It fits: about {need.peak_gb:.1f} of {need.free_gb:.1f} GB{more}."
    if not steps:
        return f"{fits} All of its steps are done."
    what = f"What is left after step {done:,}" if done else "The run"
    begun = f"{what}: " if done else ""
    if need.span:
        least, most = (_spent(seconds * steps) for seconds in need.span)
        span = least if least == most else f"{least} to {most}"
        return (
            f"{fits} {begun}{_counted(steps)} {span}. Nothing of this was measured: memory is counted, and the "
            "time follows from the operations and the card's data sheet."
        )
    how = "tried just now" if need.pace.tried else "roughly: from the number of operations"
    parts = [f"{_counted(steps)} {_spent(spent.steps)}"]
    parts += [f"class pictures {_spent(spent.class_pictures)}"] if spent.class_pictures else []
    parts += [f"previews {_spent(spent.previews)}"] if spent.previews else []
    rest = spent.preparing + spent.rest
    parts += [f"the rest {_spent(rest)}"] if rest > spent.whole / 50 else []
    return f"{fits} {what} takes about {_spent(spent.whole)}: {', '.join(parts)} ({how})."


def _counted(steps: int) -> str:
    return "1 step takes" if steps == 1 else f"{steps} steps take"


def _spent(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds > 1.5 * size:
            return f"{seconds / size:.0f} {unit}" if unit == "minutes" else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds" if seconds > 1.5 else "a second"
