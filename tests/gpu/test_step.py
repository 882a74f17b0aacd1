"""A training step on a GPU: it never waits for the device, and what saves memory leaves the gradients alone."""

import pytest
import torch

from trainers import config_io, devices, memory
from trainers.bench.loops import engine_step
from trainers.choices import ADAPTERS
from trainers.families.registry import find_family
from trainers.graphs import Graph, Recorded, record_passes
from trainers.memory.packing import FORMS
from trainers.step import TrainingStep
from trainers.trial import Trial, difference, once, settle_exact

pytestmark = pytest.mark.gpu
EVERYTHING = {
    "adapter": {"dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1},
    "data": {"flip": True, "caption_dropout": 0.3},
    "noise": {"offset": 0.05},
    "loss": {"preservation": 1.0, "preservation_every": 2},
    "optimizer": {"accumulation": 2, "ema": True},
}
SAVING = {
    "checkpointing": {"checkpointing": "all"},
    "offload": {"checkpointing": "all", "offload": True},
    "streaming": {"checkpointing": "all", "stream": "all"},
    "streaming and offload": {"checkpointing": "all", "stream": "all", "offload": True},
}


@pytest.fixture(autouse=True)
def syncs_are_allowed_again():
    yield
    torch.cuda.set_sync_debug_mode("default")


def step_of(**changes: dict) -> TrainingStep:
    """On the built-in base, two pictures at once, in fp32."""
    settings = {"data": {"batch_size": 2}, "memory": {"device": "cuda", "precision": "fp32", "exact": "all"}}
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values}
    config = config_io.parse(settings)
    family, plan = find_family(config.model), memory.plan(config.memory)
    step = engine_step(family, family.load(config.model, plan.dtype), config, plan, 10)
    settle_exact(step, plan.exact)
    assert step.exact
    return step


@pytest.mark.parametrize(
    ("kind", "text", "precision"),
    [("lora", False, "fp32"), *((kind, text, "bf16") for kind in ADAPTERS for text in (False, True))],
)
def test_no_step_waits_for_the_device(kind, text, precision):
    adapter = {**EVERYTHING["adapter"], "type": kind, "text_encoder": text}
    step = step_of(**{**EVERYTHING, "adapter": adapter, "memory": {"precision": precision}})
    step(0)  # kernels are loaded, and the optimizer makes its states
    torch.cuda.set_sync_debug_mode("error")
    step(1)
    step(2)
    torch.cuda.set_sync_debug_mode("default")
    assert 0 < step.mean_loss() < 10


@pytest.mark.parametrize("how", SAVING)
def test_what_saves_memory_leaves_loss_and_gradients_alone(how, monkeypatch):
    def of(saving: dict) -> tuple:
        step = step_of(memory=saving)
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # it rounds to 10 bits
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
        return once(step, 0)

    expected, found = of({}), of(SAVING[how])
    assert torch.equal(found[0], expected[0])
    assert difference(found[1], expected[1]) < 1e-5


@pytest.mark.parametrize("how", SAVING)
def test_what_saves_memory_saves_memory(how):
    plain, saving = peak({"checkpointing": "none"}), peak(SAVING[how])
    assert saving < plain


@pytest.mark.parametrize(
    ("kind", "text", "saving", "precision"),
    [
        ("lora", False, "all", "fp32"),
        ("lora", True, "none", "bf16"),
        ("lora", True, "none", "fp16"),
        *((kind, text, "none", "fp32") for kind in ADAPTERS for text in (False, True)),
    ],
)
def test_a_step_as_cuda_graphs_is_the_same_to_the_bit(kind, text, saving, precision):
    usual, recorded = (
        step_of(
            adapter={"type": kind, "text_encoder": text},
            loss={"preservation": 1.0, "preservation_every": 4},
            optimizer={"accumulation": 2, "ema": True},
            memory={"checkpointing": saving, "precision": precision},
        )
        for _ in range(2)
    )
    graphs = Recorded(recorded)
    graphs.put()
    for number in range(6):
        if number == 4:
            graphs.rest()
        if number == 5:
            torch.cuda.set_sync_debug_mode("error")
        usual(number), recorded(number)
    torch.cuda.set_sync_debug_mode("default")
    assert len(graphs.graphs) == 2  # one for the pictures, one for what is to be preserved
    assert usual.mean_loss() == recorded.mean_loss()
    assert all(map(torch.equal, usual.parameters, recorded.parameters))
    assert all(map(torch.equal, usual.ema.values, recorded.ema.values))


def test_graphs_give_their_memory_back():
    step = step_of(data={"batch_size": 4, "resolution": 128})
    step(0)
    devices.give_back()
    before = torch.cuda.memory_reserved()
    graphs = Recorded(step)
    graphs.put()
    step(1)
    kept = torch.cuda.memory_reserved()
    graphs.rest()
    assert torch.cuda.memory_reserved() < before + (kept - before) / 2


def test_a_run_takes_graphs_where_they_are_faster_and_goes_on_without_when_one_fails(monkeypatch):
    step, said = step_of(data={"batch_size": 1}), []
    monkeypatch.setattr(Trial, "_seconds", lambda _, way: 0.1 if way else 1.0)  # how fast they are depends on the card
    recorded = record_passes(step, config_io.parse({"data": {"batch_size": 1}}), said.append)
    assert step.recorded is recorded and said[0].what == "A step runs as a CUDA graph"
    step(0)
    monkeypatch.setattr(Graph, "replay", raising)
    step(1)
    assert step.recorded is None and said[1].message == "A CUDA graph failed; training goes on without."
    assert 0 < step.mean_loss() < 10


def raising(*_: object) -> None:
    raise RuntimeError("CUDA error: out of luck")


def peak(saving: dict) -> int:
    """Most bytes at once of a few steps."""
    step = step_of(memory=saving, data={"batch_size": 4, "resolution": 128})
    step(0)
    torch.cuda.reset_peak_memory_stats()
    step(1)
    step(2)
    return torch.cuda.max_memory_allocated()


@pytest.mark.parametrize("form", FORMS)
def test_a_quantised_base_gives_nearly_the_same_gradients(form):
    expected, found = (once(step_of(memory={"quantize": one}), 0) for one in ("none", form))
    assert difference([found[0]], [expected[0]]) < 0.05


def test_fp16_is_scaled_and_learns():
    step = step_of(memory={"precision": "fp16"}, optimizer={"rate": 1e-3})
    before = [p.detach().clone() for p in step.parameters]
    for number in range(4):
        step(number)
    assert step.mean_loss() < 10
    assert any(not torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True))
    assert all(p.isfinite().all() for p in step.parameters)
