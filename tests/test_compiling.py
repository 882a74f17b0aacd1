"""Compiled blocks: losses stay, what is slower, wrong or broken is not used, and a trial leaves no trace."""

import itertools

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import compiling, config_io, memory, trial
from trainers.bench.loops import engine_step
from trainers.choices import ADAPTERS
from trainers.compiling import compile_blocks
from trainers.families.registry import find_family
from trainers.memory import regions
from trainers.step import TrainingStep
from trainers.trial import EAGER

STEPS = 6
COMPILED = "compiled"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


def settings(base, kind: str = "lora", **changes):
    adapter = {"type": kind, "rank": 4, "alpha": 2.0, **changes.pop("adapter", {})}
    where = {"device": "cpu", "precision": "fp32", "compile": "all", **changes}
    rate = {"rate": 1e-3, "accumulation": 2}
    return config_io.parse({"model": {"base": str(base)}, "adapter": adapter, "optimizer": rate, "memory": where})


def step_of(config) -> TrainingStep:
    family, plan = find_family(config.model), memory.plan(config.memory)
    return engine_step(family, family.load(config.model, plan.dtype), config, plan, STEPS)


def trained(step: TrainingStep) -> tuple[list[float], list[torch.Tensor]]:
    """The loss of every step, and the weights after the last."""
    losses = []
    for number in range(STEPS):
        step(number)
        losses.append(step.mean_loss())
    return losses, [parameter.detach().clone() for parameter in step.parameters]


class Compiler:
    """Stands for torch.compile: calls the function itself, and from call `good` on does what `then` says."""

    def __init__(self, monkeypatch, then=None, good: int = 0):
        self.calls, self.then, self.good = 0, then, good
        monkeypatch.setattr(torch, "compile", self)

    def __call__(self, function, **how):
        def compiled(*args, **kwargs):
            self.calls += 1
            result = function(*args, **kwargs)
            return self.then(result) if self.then and self.calls > self.good else result

        return compiled


def raising(result):
    raise RuntimeError("InductorError: no C++ compiler\nis there")


class RaisingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raising(grad)


def raising_backward(result):
    return (
        (RaisingBackward.apply(result[0]), *result[1:]) if isinstance(result, tuple) else RaisingBackward.apply(result)
    )


def wrong(result):
    return tuple(1.5 * part for part in result) if isinstance(result, tuple) else 1.5 * result


def no_compiler(*_, **__):
    raise RuntimeError("torch.compile is not supported here")


def clocked(monkeypatch, seconds: float, compiler: Compiler) -> None:
    """An eager pass takes 1 s on this clock, and each compiled block `seconds` more."""
    ticks = itertools.count()
    monkeypatch.setattr(trial, "perf_counter", lambda: next(ticks) + seconds * compiler.calls)
    monkeypatch.setattr(compiling, "TRIED", ("cpu",))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("lora", {}),
        *(pytest.param(kind, {}, marks=pytest.mark.slow) for kind in ADAPTERS if kind != "lora"),
        pytest.param("lora", {"checkpointing": "all"}, marks=pytest.mark.slow),
    ],
)
def test_losses_of_compiled_blocks_are_those_of_eager_ones(base, monkeypatch, kind, more):
    monkeypatch.setattr(regions, "BACKEND", "aot_eager")  # traces as for Inductor, which takes minutes more
    eager, _ = trained(step_of(settings(base, kind, compile="none", **more)))
    torch._dynamo.reset()
    config, said = settings(base, kind, **more), []
    step = step_of(config)
    used = compile_blocks(step, config, None, said.append)
    made, tried = torch._dynamo.utils.counters["stats"]["unique_graphs"], used.calls
    losses, _ = trained(step)
    assert used.calls - tried == 2 * STEPS * len(used.modules)  # 2 micro-batches in a step
    assert losses == pytest.approx(eager, rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == made  # in the trial; moving weights add none
    assert not any("_orig_mod" in key for key in step.denoiser.state_dict())
    assert [event.type for event in said] == ["phase"]


@pytest.mark.parametrize("then", [raising, raising_backward, wrong])
@pytest.mark.parametrize("good", [0, 50, 120], ids=["at once", "in the trial", "in a step"])
def test_a_broken_compiler_is_told_of_once_and_the_weights_are_those_of_an_eager_run(base, monkeypatch, then, good):
    if then is wrong and good:
        pytest.skip("a compiled result is looked at in the trial alone")
    eager = trained(step_of(settings(base, compile="none")))
    Compiler(monkeypatch, then, good)
    config, said = settings(base), []
    step = step_of(config)
    compile_blocks(step, config, None, said.append)
    found = trained(step)
    assert [event.type for event in said] == ["phase", "warned"] and said[1].hint
    assert found[0] == eager[0] and all(map(torch.equal, found[1], eager[1]))


def test_where_torch_cannot_compile_the_run_is_eager(base, monkeypatch):
    monkeypatch.setattr(torch, "compile", no_compiler)
    config, said = settings(base), []
    assert compile_blocks(step_of(config), config, None, said.append) is None
    assert "not supported" in said[1].hint


def test_a_trial_leaves_no_trace(base, monkeypatch):
    compiler = Compiler(monkeypatch)
    clocked(monkeypatch, 1.0, compiler)
    config = settings(base, compile="auto")
    step = step_of(config)
    weights = [parameter.detach().clone() for parameter in step.parameters]
    drawn = torch.get_rng_state()
    compile_blocks(step, config, None, lambda event: None)
    assert compiler.calls and torch.equal(torch.get_rng_state(), drawn)
    assert all(map(torch.equal, step.parameters, weights)) and not step.optimizer.state
    assert all(parameter.grad is None for parameter in step.parameters) and step.mean_loss() == 0


@pytest.mark.parametrize(("seconds", "chosen"), [(0.01, EAGER), (-0.001, EAGER), (-0.01, COMPILED)])
def test_only_what_is_clearly_faster_is_kept_and_it_is_remembered(base, monkeypatch, tmp_path, seconds, chosen):
    clocked(monkeypatch, seconds, Compiler(monkeypatch))
    config, said = settings(base, compile="auto"), []
    used = compile_blocks(step_of(config), config, tmp_path, said.append)
    told = said[-1]
    assert told.what == f"The denoiser runs {chosen}" and "eager 1000 ms, compiled" in told.why
    assert (used is not None) == (chosen == COMPILED)
    monkeypatch.setattr(trial.Trial, "timed", None)  # to call it would raise
    again = compile_blocks(step_of(config), config, tmp_path, said.append)
    assert (again is None) == (used is None) and said[-1] == told


def test_on_a_cpu_auto_tries_nothing(base, monkeypatch):
    monkeypatch.setattr(torch, "compile", no_compiler)
    config, said = settings(base, compile="auto"), []
    assert compile_blocks(step_of(config), config, None, said.append) is None and said == []


@pytest.mark.parametrize("change", [{"adapter": {"dropout": 0.1}}, {"quantize": "int8"}, {"stream": "all"}])
def test_where_compiled_code_would_differ_it_says_why_it_is_not_used(base, monkeypatch, change):
    monkeypatch.setattr(torch, "compile", no_compiler)
    config, said = settings(base, **change), []
    assert compile_blocks(step_of(config), config, None, said.append) is None
    assert [event.what for event in said] == ["The denoiser is not compiled"] and said[0].why


def test_only_passes_with_gradients_in_shapes_of_the_run_are_compiled(base, monkeypatch):
    compiler, config = Compiler(monkeypatch), settings(base)
    step = step_of(config)
    compile_blocks(step, config, None, lambda event: None)
    before = compiler.calls
    with torch.no_grad():
        step.micro_step(0)
    text = torch.zeros(1, 24, step.denoiser.config.cross_attention_dim)
    step.denoiser(torch.zeros(1, 4, 4, 4), torch.zeros(1, dtype=torch.long), encoder_hidden_states=text)
    assert compiler.calls == before
    step.micro_step(0)
    assert compiler.calls > before


@pytest.mark.parametrize("parts", [2, 3])
def test_passes_of_every_size_that_parts_of_a_batch_have_are_compiled(base, monkeypatch, parts):
    """5 pictures in 2 parts are 3 and 2, in 3 parts 2, 2 and 1."""
    config = config_io.merge(settings(base, parts=parts), {"data": {"batch_size": 5}})
    step, compiler = step_of(config), Compiler(monkeypatch)
    compile_blocks(step, config, None, lambda event: None)
    before = compiler.calls
    step.micro_step(0)
    of_all = compiler.calls - before
    one = settings(base)
    single, of_one = step_of(one), Compiler(monkeypatch)
    compile_blocks(single, one, None, lambda event: None)
    before = of_one.calls
    single.micro_step(0)
    assert of_all == parts * (of_one.calls - before) > 0
