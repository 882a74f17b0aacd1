"""A step's passes as CUDA graphs, with a stand-in for the card: what is recorded runs again operator by operator."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, devices, graphs, memory, trial
from trainers.bench.loops import engine_step
from trainers.families.registry import find_family
from trainers.graphs import NAME, Recorded, record_passes
from trainers.memory.decide import GB
from trainers.memory.regions import Regions
from trainers.pace import pace
from trainers.step import TrainingStep


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


def settings(base, **changes):
    return config_io.parse(
        {
            "model": {"base": str(base)},
            "adapter": {"rank": 4, "text_encoder": True, **changes.pop("adapter", {})},
            "loss": {"preservation": 1.0, "preservation_every": 4},
            "optimizer": {"accumulation": 2, "ema": True},
            "memory": {"device": "cpu", "precision": "fp32", **changes},
        }
    )


def step_of(config) -> TrainingStep:
    family, plan = find_family(config.model), memory.plan(config.memory)
    return engine_step(family, family.load(config.model, plan.dtype), config, plan, 10)


class Card:
    """Stands for torch.cuda. As there, nothing is computed while a graph is recorded."""

    def __init__(self, monkeypatch):
        self.graphs, self.passes = [], []
        usual = TrainingStep.both_passes

        def both_passes(step, *inputs):
            loss = usual(step, *inputs)
            self.passes.append((step, inputs, loss))
            return loss

        monkeypatch.setattr(TrainingStep, "both_passes", both_passes)
        stream = SimpleNamespace(wait_stream=lambda _: None)
        for name, value in {
            "Stream": lambda _: stream,
            "current_stream": lambda _: stream,
            "stream": lambda _: nullcontext(),
            "CUDAGraph": lambda: FakeGraph(self),
            "graph": self.record,
            "graph_pool_handle": object,
            "memory_allocated": lambda _: GB,
            "memory_reserved": lambda _: GB * (1 + len(self.graphs)),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(graphs.devices, "kind_of", lambda _: "cuda")

    @contextmanager
    def record(self, graph, pool, stream, capture_error_mode):
        grads = [p.grad for p in self.passes[-1][0].parameters if p.grad is not None]
        before = [grad.clone() for grad in grads]
        yield
        torch._foreach_copy_(grads, before)
        step, inputs, loss = self.passes[-1]
        graph.step, graph.inputs, graph.loss = step, inputs, loss.fill_(float("nan"))
        self.graphs.append(graph)


class FakeGraph:
    def __init__(self, card: Card):
        self.card, self.replayed = card, 0

    def replay(self) -> None:
        self.replayed += 1
        self.loss.copy_(self.step.both_passes(*self.inputs))


@pytest.fixture
def card(monkeypatch) -> Card:
    return Card(monkeypatch)


def test_recorded_steps_end_in_the_very_weights(base, card):
    usual, recorded = step_of(settings(base)), step_of(settings(base))
    way = Recorded(recorded)
    way.put()
    for number in range(6):
        usual(number), recorded(number)
        if number == 3:
            way.rest()
            assert not way.graphs and not way.gradients
    assert usual.mean_loss() == recorded.mean_loss()
    assert all(map(torch.equal, usual.parameters, recorded.parameters))
    assert all(map(torch.equal, usual.ema.values, recorded.ema.values))
    # Two kinds of passes, each recorded again after the rest: 8 + 4 micro-steps, the last of each 4 with two passes.
    assert [graph.replayed for graph in card.graphs] == [8, 2, 4, 1]


@pytest.mark.parametrize(("batch", "parts", "kinds"), [(4, 2, 1), (3, 2, 2), (2, 3, 1)])
def test_recorded_parts_of_batches_add_up_as_usual_ones_do(base, card, batch, parts, kinds):
    config = config_io.merge(settings(base, parts=parts), {"data": {"batch_size": batch}, "loss": {"preservation": 0}})
    usual, recorded = step_of(config), step_of(config)
    Recorded(recorded).put()
    for number in range(3):
        usual(number), recorded(number)
    assert usual.mean_loss() == recorded.mean_loss()
    assert all(map(torch.equal, usual.parameters, recorded.parameters))
    assert len(card.graphs) == kinds


def test_a_pass_that_was_not_recorded_and_one_that_was_add_up(base, card):
    usual, mixed = step_of(settings(base)), step_of(settings(base))
    way = Recorded(mixed)
    usual.gradients(0)
    mixed.micro_step(0)
    way.put()
    mixed.micro_step(1)
    way.remove()
    pairs = list(zip(usual.parameters, mixed.parameters, strict=True))
    assert all(
        (a.grad is None) == (b.grad is None) and (a.grad is None or torch.equal(a.grad, b.grad)) for a, b in pairs
    )


def test_where_graphs_are_faster_they_are_used_and_given_up_when_one_fails(base, card, monkeypatch):
    monkeypatch.setattr(trial.Trial, "_seconds", lambda _, way: 0.1 if way else 1.0)
    config, said = settings(base), []
    step = step_of(config)
    recorded = record_passes(step, config, said.append)
    assert step.recorded is recorded and said[0].what == f"A step runs {NAME}"
    step(0)
    eager = step_of(config)
    eager(0), eager(1)
    monkeypatch.setattr(FakeGraph, "replay", raising)
    step(1)
    assert step.recorded is None and step.mend is None
    assert (
        said[1].message == "A CUDA graph failed; training goes on without."
        and said[1].hint == "CUDA error: out of luck"
    )
    assert all(map(torch.equal, step.parameters, eager.parameters))


@pytest.mark.parametrize(("every", "used"), [(5, False), (1000, True)])
def test_graphs_that_take_longer_to_record_than_they_save_before_the_next_preview_are_not_used(
    base, card, monkeypatch, every, used
):
    monkeypatch.setattr(trial.Trial, "_seconds", lambda _, way: 0.8 if way else 1.0)
    clock = iter(range(0, 100_000, 40))
    monkeypatch.setattr(graphs, "perf_counter", lambda: next(clock))  # 40 s for each
    config = config_io.merge(settings(base), {"preview": {"every": every}})
    assert (record_passes(step_of(config), config, lambda event: None) is not None) == used


def raising(*_: object) -> None:
    raise RuntimeError("CUDA error: out of luck\nfor good")


def test_graphs_that_give_other_numbers_are_not_used(base, card, monkeypatch):
    monkeypatch.setattr(trial.Trial, "_seconds", lambda _, way: 0.1 if way else 1.0)
    monkeypatch.setattr(FakeGraph, "replay", lambda graph: graph.loss.fill_(1.0))
    config, said = settings(base), []
    step = step_of(config)
    assert record_passes(step, config, said.append) is None and step.recorded is None and said == []


@pytest.mark.parametrize(("budget", "enough"), [(1.5, False), (2.5, False), (3.5, True)])
def test_graphs_and_a_usual_pass_beside_them_keep_to_the_budget(base, card, monkeypatch, budget, enough):
    """1 GB lies on the card, and a graph keeps another; the run has passes of two kinds."""
    monkeypatch.setattr(trial.Trial, "_seconds", lambda _, way: 0.1 if way else 1.0)
    config = settings(base, budget=budget, checkpointing="none")
    assert (record_passes(step_of(config), config, lambda event: None) is not None) == enough


def test_compiled_blocks_that_are_graphs_already_stay_so(base, card):
    config = settings(base)
    step = step_of(config)
    regions = Regions(step.denoiser, [], "reduce-overhead")
    assert record_passes(step, config, lambda event: None, regions) is None and card.graphs == []


@pytest.mark.parametrize("mends", [1, 2, 3])
def test_a_step_is_done_again_as_often_as_there_is_another_way(base, monkeypatch, mends):
    step, asked = step_of(settings(base)), []
    usual, failures = step.gradients, iter(range(2))

    def failing(number):
        if next(failures, None) is not None:
            raise RuntimeError("a compiler")
        usual(number)

    monkeypatch.setattr(step, "gradients", failing)
    step.mend = lambda error: len(asked) < mends and not asked.append(error)
    if mends == 1:
        with pytest.raises(RuntimeError, match="a compiler"):
            step(0)
    else:
        step(0)
        assert 0 < step.mean_loss() < 10
    assert len(asked) == min(mends, 2)


def test_a_step_that_is_recorded_anew_takes_longer_in_the_estimate(base, card, monkeypatch):
    """The clock goes on where a graph is recorded, and nowhere else."""
    monkeypatch.setattr(trial.Trial, "_seconds", lambda _, way: 0.1 if way else 1.0)
    config = settings(base)
    family, plan = find_family(config.model), memory.plan(config.memory)
    found = pace(family, family.load(config.model, plan.dtype), config, plan, lambda: 10.0 * len(card.graphs))
    assert (found.step, found.anew) == (0, 10)


@pytest.mark.parametrize("change", [{"adapter": {"dropout": 0.1}}, {"stream": "all"}, {"graphs": "none"}])
def test_what_cannot_be_played_back_is_not_recorded(base, card, change):
    config = settings(base, **change)
    assert record_passes(step_of(config), config, lambda event: None) is None and card.graphs == []


def test_without_such_a_card_nothing_is_tried(base):
    config = settings(base)
    step = step_of(config)
    assert devices.kind_of(step.feed.text.device) == "cpu"
    assert record_passes(step, config, lambda event: None) is None and step.recorded is None


def test_fp16_is_not_scaled_in_a_trial_and_is_again_afterwards(base):
    step = step_of(settings(base))
    scaler = step.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plain = trial.once(step, 0)
    assert step.accelerator.scaler is scaler
    step.micro_step(0)
    for parameter, grad in zip(step.parameters, plain[1], strict=True):
        assert (grad is None) == (parameter.grad is None)
        assert grad is None or torch.allclose(parameter.grad / 1024, grad, rtol=1e-4, atol=1e-9)
