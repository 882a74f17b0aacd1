"""The peak that is predicted without weights against the peak that the GPU's allocator reports, at full sizes."""

import pytest
import torch
from torch import nn

from trainers import config_io, devices, memory
from trainers.bench import models
from trainers.bench.loops import engine_step
from trainers.config import TrainConfig
from trainers.families.base import Components, Family
from trainers.graphs import Recorded, unfit
from trainers.memory.decide import GB, needed
from trainers.trial import settle_exact

pytestmark = pytest.mark.gpu
COMBINATIONS = [  # base, pixels, batch, adapter, memory
    ("sd15", 512, 1, {}, {}),
    ("sd15", 512, 4, {"rank": 64}, {"precision": "fp16"}),
    ("sd15", 512, 1, {"type": "locon"}, {"checkpointing": "all"}),
    ("sd15", 512, 2, {"type": "loha"}, {}),
    ("sd15", 512, 2, {"type": "lokr"}, {"checkpointing": "all"}),
    ("sd15", 512, 1, {"type": "dora"}, {"precision": "fp32"}),
    ("sd15", 512, 1, {"text_encoder": True}, {}),
    ("sd15", 768, 2, {}, {"checkpointing": "auto", "budget": 6.0}),
    ("sd15", 512, 1, {}, {"checkpointing": "auto", "budget": 3.0}),
    ("sd15", 512, 1, {}, {"checkpointing": "auto", "stream": "auto", "budget": 2.0}),
    ("sd21", 768, 1, {}, {}),
    ("sdxl", 1024, 1, {}, {}),
    ("sdxl", 1024, 1, {}, {"checkpointing": "all"}),
    ("sdxl", 1024, 1, {}, {"checkpointing": "auto", "budget": 8.5}),
    ("sdxl", 1024, 1, {}, {"checkpointing": "auto", "stream": "auto", "budget": 6.0}),
    ("sdxl", 1024, 1, {}, {"checkpointing": "auto", "stream": "auto", "budget": 4.5}),
    ("sdxl", 1024, 1, {}, {"checkpointing": "all", "quantize": "int8"}),
    ("sdxl", 1024, 1, {}, {"checkpointing": "all", "quantize": "nf4"}),
    ("sd35-medium", 1024, 1, {}, {"checkpointing": "auto", "budget": 8.0}),
    ("sd35-medium", 1024, 1, {}, {"checkpointing": "auto", "stream": "auto", "budget": 5.0}),
]


def built(base: str, config: TrainConfig, dtype: torch.dtype) -> tuple[Family, Components]:
    """With the weights that torch draws on the GPU, which is sooner."""
    with models.without_numbers(True):
        family, components, _ = models.build(base, config, dtype)
    with torch.device("cuda"):
        components = models.hollow(components)
    for module in (components.denoiser, components.vae, *components.text_encoders):
        nn.Module.to(module, "cpu", torch.float32 if module is components.vae else dtype)
    devices.give_back()
    return family, components


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: " ".join(map(str, c)))
def test_predicted_peak_is_within_8_percent_of_the_allocators(combination, record_property):
    base, pixels, batch, adapter, saving = combination
    changes = {
        "adapter": {"rank": 16, **adapter},
        "data": {"resolution": pixels, "batch_size": batch},
        "memory": {"device": "cuda", "precision": "bf16", "checkpointing": "none", **saving},
    }
    config = config_io.merge(models.settings(base, []), changes)
    plan = memory.plan(config.memory)
    family, components = built(base, config, plan.dtype)
    left, fitted = needed(family, components, config, plan, plan.device, 70.0)
    step = engine_step(family, components, config, plan, 3)
    settle_exact(step, plan.exact)
    devices.give_back()
    devices.forget_peak(plan.device)
    for number in range(3):
        step(number)
    loss = step.mean_loss()
    measured = memory.peak_gb(plan.device) - (step.feed.latents.held + step.feed.text.held()) / GB
    predicted = left.peak(fitted)
    numbers = (
        f"predicted {predicted:.3f} GB, allocated {measured:.3f}, reserved {torch.cuda.max_memory_reserved() / GB:.3f}"
    )
    if not unfit(step, config):
        graphs = Recorded(step)
        graphs.put()
        devices.forget_peak(plan.device)
        step(3), step(4)
        numbers += f"; as graphs reserved {torch.cuda.max_memory_reserved() / GB:.3f}"
    record_property("peaks", f"{base} {pixels} px, batch {batch}, {adapter}, {saving}: {numbers}")
    assert loss < 10
    assert predicted == pytest.approx(measured, rel=0.08)
    assert not config.memory.budget or measured <= config.memory.budget
