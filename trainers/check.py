"""What a run would do, found out without starting it: pictures, crops, buckets, steps."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from trainers import memory
from trainers.config import TrainConfig
from trainers.data.batches import split_validation
from trainers.data.buckets import plan as plan_crops
from trainers.data.buckets import report as crop_report
from trainers.data.examples import scan
from trainers.families.registry import find_family


def check(config: TrainConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Every problem of the data in one go, and what training would look like; UserError when it could not start."""
    report("Reading the pictures ...")
    found = scan(config.data)
    report("Reading the base model ...")
    plan = memory.plan(config.memory)
    components = find_family(config.model).load(config.model, plan.dtype)
    resolution = config.data.resolution or components.resolution
    crops = plan_crops(found.examples, config.data, resolution, components.latent.factor * components.multiple)
    training, held_out = split_validation(found.examples, config.data.validation_share, config.seed)
    per_step = config.data.batch_size * config.optimizer.accumulation
    steps = config.schedule.steps or math.ceil(config.schedule.views / per_step)
    buckets = Counter(f"{crop.bucket.width}x{crop.bucket.height}" for crop in crops)
    return {
        "base": components.name,
        "device": f"{plan.device}, {plan.precision}",
        "pictures": {"usable": len(found.examples), "trained": len(training), "held_out": len(held_out)},
        "problems": [str(problem) for problem in found.problems],
        "buckets": dict(buckets.most_common()),
        "crops": [crop_report(example, crop) for example, crop in zip(found.examples, crops, strict=True)],
        "steps": steps,
        "views_per_picture": round(steps * per_step / len(training), 1),
    }
