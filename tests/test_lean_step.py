"""Twenty steps of Darkroom's step give the losses of peft's own layers, for every adapter type."""

from functools import partial

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory, step
from trainers.adapters import registry
from trainers.bench.loops import engine_step
from trainers.families.registry import find_family

STEPS = 20
LEFT_OUT = {  # what peft's layers of that type leave out at random in the same way
    "lora": {"dropout": 0.1},
    "locon": {"dropout": 0.1},
    "dora": {"dropout": 0.1},
    "loha": {"rank_dropout": 0.2, "module_dropout": 0.1},
    "lokr": {"rank_dropout": 0.2, "module_dropout": 0.1},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


def losses(base, kind: str, left_out: dict, accumulation: int) -> list[float]:
    adapter = {"type": kind, "rank": 4, "alpha": 2.0, "text_encoder": True, **left_out}
    config = config_io.parse(
        {
            "model": {"base": str(base)},
            "adapter": adapter,
            "data": {"batch_size": 2},
            "optimizer": {"accumulation": accumulation, "rate": 1e-3},
            "memory": {"device": "cpu", "precision": "fp32"},
        }
    )
    family, plan = find_family(config.model), memory.plan(config.memory)
    training = engine_step(family, family.load(config.model, plan.dtype), config, plan, STEPS)
    found = []
    for number in range(STEPS):
        training(number)
        found.append(training.mean_loss())
    return found


@pytest.mark.parametrize(
    ("kind", "dropout", "accumulation"),
    [("lora", False, 1), *((kind, True, 2) for kind in registry.ADAPTERS)],  # with dropout, each layer is alone
)
def test_losses_are_those_of_plain_peft(kind, dropout, accumulation, base, monkeypatch):
    left_out = LEFT_OUT[kind] if dropout else {}
    ours = losses(base, kind, left_out, accumulation)
    monkeypatch.setitem(registry.ADAPTERS, kind, partial(registry.ADAPTERS[kind], fast=False))
    monkeypatch.setattr(step, "frugal", lambda denoiser: None)
    plain = losses(base, kind, left_out, accumulation)
    assert ours == pytest.approx(plain, rel=1e-6)
    assert len(set(ours)) == STEPS and torch.tensor(ours).isfinite().all()
