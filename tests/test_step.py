"""A training step's own promises, whatever its data and settings."""

import pytest
import torch
from accelerate import Accelerator

from trainers import config_io, memory
from trainers import step as steps
from trainers.bench.loops import engine_step
from trainers.families.registry import find_family

FEW = r"mid_block\.attentions\.0\.transformer_blocks\.0\.attn1\.(to_q|to_out\.0)"


class InFp16(Accelerator):
    """Scales losses, as for a GPU that computes in fp16."""

    def __init__(self, **options):
        super().__init__(**options)
        self.scaler = torch.amp.GradScaler("cpu")


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_step_in_fp16_that_leaves_out_every_layer_changes_nothing_and_the_next_one_learns(monkeypatch, clip_norm):
    monkeypatch.setattr(steps, "Accelerator", InFp16)
    adapter = {"module_dropout": 0.5, "targets": FEW}
    config = config_io.parse(
        {"adapter": adapter, "optimizer": {"clip_norm": clip_norm, "rate": 1e-3}, "memory": {"device": "cpu"}}
    )
    family, plan = find_family(config.model), memory.plan(config.memory)
    step = engine_step(family, family.load(config.model, plan.dtype), config, plan, 10)
    changed = []
    for number in range(12):
        before = [parameter.detach().clone() for parameter in step.parameters]
        step(number)
        changed.append(any(not torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True)))
    assert set(changed) == {False, True}
