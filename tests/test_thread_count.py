"""The number of threads is the one whose passes are soonest over, found without a trace, the same for every run."""

import itertools

import pytest
import torch

from tests.nine_pictures import nine_pictures
from tests.test_train import run
from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory, thread_count, threads
from trainers import train as recipe
from trainers.bench.loops import engine_step
from trainers.families.registry import find_family
from trainers.step import TrainingStep


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    """Torch has four at the start, and no one has asked for another number."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def made(base, **changes) -> tuple[TrainingStep, object]:
    settings = {"model": {"base": str(base)}, "adapter": {"rank": 4}, "memory": {"device": "cpu", "precision": "fp32"}}
    config = config_io.parse(settings | changes)
    family, plan = find_family(config.model), memory.plan(config.memory)
    return engine_step(family, family.load(config.model, plan.dtype), config, plan, 3), config


def clocked(monkeypatch, seconds: dict[int, float]) -> list[int]:
    """A pass with so many threads takes so many seconds on this clock; the threads of every timed pass so far."""
    now, passes, real = [0.0], [], thread_count.once

    def timed(step, number):
        passes.append(torch.get_num_threads())
        found = real(step, number)
        now[0] += seconds[passes[-1]]
        return found

    monkeypatch.setattr(thread_count, "once", timed)
    monkeypatch.setattr(thread_count, "perf_counter", lambda: now[0])
    return passes


@pytest.mark.parametrize(
    ("seconds", "chosen", "tried"),
    [
        ({4: 0.4, 2: 0.2, 1: 0.1}, 1, [4, 2, 1]),
        ({4: 0.4, 2: 0.2, 1: 0.3}, 2, [4, 2, 1]),
        ({4: 0.4, 2: 0.5}, 4, [4, 2]),
        ({4: 0.4, 2: 0.39}, 4, [4, 2]),  # noise
        ({4: 2.0}, 4, [4]),  # a pass this long is not held up by waking threads
    ],
)
def test_threads_are_halved_as_long_as_that_is_clearly_faster(base, monkeypatch, seconds, chosen, tried):
    step, config = made(base)
    passes = clocked(monkeypatch, seconds)
    thread_count.settle(step, config)
    assert torch.get_num_threads() == chosen
    assert list(dict.fromkeys(passes)) == tried


def test_a_long_pass_is_tried_once(base, monkeypatch):
    step, config = made(base)
    passes = clocked(monkeypatch, {4: 60.0})
    thread_count.settle(step, config)
    assert passes == [4]


@pytest.mark.parametrize(("tick", "whole"), [(1.0, False), (0.08, True)], ids=["forward", "backward"])
def test_a_pass_that_will_be_long_is_not_done_to_its_end(base, monkeypatch, tick, whole):
    """It is known to be long when the forward pass is, or has taken half as much."""
    step, config = made(base)
    ticks, began, ended = itertools.count(), [], []
    monkeypatch.setattr(thread_count, "perf_counter", lambda: tick * next(ticks))
    for path in thread_count.blocks(step.denoiser):
        step.denoiser.get_submodule(path).register_forward_hook(lambda *_: began.append(1))
    monkeypatch.setattr(step.accelerator, "backward", ended.append)
    thread_count.settle(step, config)
    blocks = len(thread_count.blocks(step.denoiser))
    assert not whole or 2 * tick * blocks < thread_count.LONG < 2 * tick * (blocks + 1)
    assert torch.get_num_threads() == 4 and (len(began) == blocks) == whole and not ended
    modules = [step.denoiser.get_submodule(path) for path in thread_count.blocks(step.denoiser)]
    assert not any(module._forward_pre_hooks for module in modules)
    assert all(parameter.grad is None for parameter in step.parameters)


def test_the_users_wish_stays(base, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    step, config = made(base)
    passes = clocked(monkeypatch, {})
    thread_count.settle(step, config)
    assert torch.get_num_threads() == 4 and not passes


def test_what_was_found_holds_for_the_same_settings(base, monkeypatch, tmp_path):
    step, config = made(base)
    clocked(monkeypatch, {4: 0.4, 2: 0.2, 1: 0.3})
    thread_count.settle(step, config, tmp_path)
    torch.set_num_threads(4)
    passes = clocked(monkeypatch, {4: 0.1, 2: 0.2})
    thread_count.settle(step, config, tmp_path)
    assert torch.get_num_threads() == 2 and not passes
    torch.set_num_threads(4)
    thread_count.settle(*made(base, data={"batch_size": 2}), tmp_path)
    assert torch.get_num_threads() == 4 and passes  # other batches are another matter


def test_trying_leaves_no_trace(base, monkeypatch):
    def weights(tried: bool) -> list[torch.Tensor]:
        step, config = made(base, adapter={"rank": 4, "dropout": 0.3})
        torch.manual_seed(5)
        if tried:
            clocked(monkeypatch, {4: 0.4, 2: 0.2, 1: 0.1})
            thread_count.settle(step, config)
        drawn = torch.rand(3)
        torch.set_num_threads(1)
        for number in range(3):
            step(number)
        return [drawn, *(parameter.detach().clone() for parameter in step.parameters)]

    assert all(map(torch.equal, weights(True), weights(False)))


def test_every_sitting_encodes_with_all_threads_and_trains_with_those_that_were_settled(tmp_path, base, monkeypatch):
    counts: dict[str, list[int]] = {"encoding": [], "training": []}

    def noting(name: str, real):
        def call(*arguments):
            counts[name].append(torch.get_num_threads())
            return real(*arguments)

        return call

    monkeypatch.setattr(threads, "choose", lambda earlier=0: earlier or 4)
    monkeypatch.setattr(thread_count, "settle", lambda *_: torch.set_num_threads(2))
    monkeypatch.setattr(recipe, "encode_together", noting("encoding", recipe.encode_together))
    monkeypatch.setattr(TrainingStep, "gradients", noting("training", TrainingStep.gradients))
    (tmp_path / "pictures").mkdir()
    pictures = nine_pictures(tmp_path / "pictures")
    run(tmp_path, base, pictures, 4, stop_at=2)
    (tmp_path / "control" / "stop").unlink()
    run(tmp_path, base, pictures, 4)
    assert counts["encoding"] == [4, 4] and set(counts["training"]) == {2} and len(counts["training"]) == 4
