"""How a run comes back to its last good state: from damaged checkpoints, overflowing numbers, failing steps."""

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.test_train import run
from trainers import checkpoint, config_io, encoding, events, outputs, recovery, threads
from trainers import train as recipe
from trainers.checkpoint_writer import CheckpointWriter
from trainers.config import TrainConfig
from trainers.errors import Overflowed, UserError
from trainers.ranks import Ranks
from trainers.step import TrainingStep
from trainers.stores import TextStore

BF16 = {"precision": "bf16"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "output" / "tiny.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def begun_at(seen: list[events.Event]) -> list[int]:
    return [event.step for event in seen if isinstance(event, events.Started)]


def all_of(kind: type[events.Event], seen: list[events.Event]) -> list[events.Event]:
    return [event for event in seen if isinstance(event, kind)]


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_and_nothing_else(tmp_path, base, pictures):
    straight, hurt = tmp_path / "straight", tmp_path / "hurt"
    run(straight, base, pictures, 6, saving={"every": 2})
    run(hurt, base, pictures, 6, stop_at=2)  # it stops after step 3
    newest = hurt / "checkpoints" / "step_000003" / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    (hurt / "control" / "stop").unlink()
    seen = run(hurt, base, pictures, 6)
    assert begun_at(seen) == [2]
    (told,) = all_of(events.Warned, seen)
    assert told.message == "The checkpoint step_000003 is damaged (optimizer.pt)."
    assert told.hint == "It is put aside: the run goes on from step 2."
    assert_same_weights(straight, hurt)


def spoil(monkeypatch, what: str, at: int) -> None:
    """One number of step `at` becomes NaN, where the step computes in 16 bits."""
    real, update = TrainingStep.gradients, TrainingStep.update

    def gradients(self, step):
        spoiled = step == at and self.dtype == torch.bfloat16
        if spoiled and what == "batch":
            latents = self.feed.batch

            def batch(number, generator):
                found = latents(number, generator)
                found.latents[0, 0, 0, 0] = float("nan")
                return found

            monkeypatch.setattr(self.feed, "batch", batch)
        real(self, step)
        if spoiled and what == "loss":
            self.total = self.total * float("nan")
        if spoiled and what == "gradient":
            next(p for p in self.parameters if p.grad is not None).grad.view(-1)[0] = float("nan")

    def updated(self, step):
        update(self, step)
        if step == at and self.dtype == torch.bfloat16 and what == "weight":
            self.parameters[0].data.view(-1)[0] = float("nan")

    monkeypatch.setattr(TrainingStep, "gradients", gradients)
    monkeypatch.setattr(TrainingStep, "update", updated)


@pytest.mark.parametrize(
    ("what", "back_to", "told"),
    [
        ("batch", 4, "The loss became nan near step 5"),
        ("loss", 4, "The loss became nan near step 5"),
        ("gradient", 4, "The gradient's norm became nan near step 5"),
        ("weight", 3, "The loss became nan near step 6"),  # the step itself was taken: the state after it is no good
    ],
)
def test_the_first_number_that_is_none_leads_back_and_on_in_fp32(
    tmp_path, base, pictures, monkeypatch, what, back_to, told
):
    spoil(monkeypatch, what, at=4)
    seen = run(tmp_path, base, pictures, 7, memory=BF16, saving={"every": 3})
    assert begun_at(seen) == [0, back_to]
    went = next(
        one for one in all_of(events.Adjusted, seen) if "in fp32 with plain attention, instead of bf16" in one.what
    )
    assert went.why.startswith(told)
    assert isinstance(seen[-1], events.Finished) and seen[-1].step == 7
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())
    for folder in checkpoint.list_checkpoints(tmp_path / "checkpoints"):
        assert all(tensor.isfinite().all() for tensor in checkpoint.load(folder).adapter.values())


def test_a_run_that_went_on_in_fp32_resumes_in_fp32(tmp_path, base, pictures, monkeypatch):
    with monkeypatch.context() as spoiling:
        spoil(spoiling, "loss", at=1)
        run(tmp_path, base, pictures, 6, stop_at=3, memory=BF16)
    (tmp_path / "control" / "stop").unlink()
    spoil(monkeypatch, "loss", at=5)  # of bf16 only
    seen = run(tmp_path, base, pictures, 6, memory=BF16)
    assert begun_at(seen) == [4] and isinstance(seen[-1], events.Finished)
    assert json.loads((tmp_path / recovery.FILE).read_text("utf-8")) == {
        "memory.precision": ["bf16", "fp32"],
        "memory.attention": ["sdpa", "math"],
    }
    (told,) = [one for one in all_of(events.Adjusted, seen) if "memory.precision=fp32" in one.what]
    assert told.why == "That is how it went on before; its own settings come back when they are changed."


def test_what_failed_holds_no_memory_when_the_run_goes_on(tmp_path, base, pictures, monkeypatch):
    steps, alive, real, encode = [], [], TrainingStep.gradients, recipe.encode_together

    def gradients(self, step):
        if not steps:
            steps.append(weakref.ref(self))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        real(self, step)

    def encoding(*given):
        alive.append(bool(steps and steps[0]()))
        return encode(*given)

    monkeypatch.setattr(TrainingStep, "gradients", gradients)
    monkeypatch.setattr(recipe, "encode_together", encoding)
    assert isinstance(run(tmp_path, base, pictures, 2)[-1], events.Finished)
    assert alive == [False, False]


@pytest.mark.parametrize("memory", [{**BF16, "retry": False}, {"precision": "fp32"}], ids=["unwished", "fp32"])
def test_where_there_is_no_safer_way_the_run_ends_in_a_sentence_with_its_state_saved(
    tmp_path, base, pictures, monkeypatch, memory
):
    monkeypatch.setattr(
        TrainingStep, "_refuse_overflow", lambda self, step, norm: overflow(step) if step == 2 else None
    )
    with pytest.raises(Overflowed, match="near step 3"):
        run(tmp_path, base, pictures, 5, memory=memory)
    assert checkpoint.newest_step(tmp_path / "checkpoints") == 2
    assert not (tmp_path / recovery.FILE).exists()


def overflow(step: int) -> None:
    raise Overflowed("The loss became inf", step + 1)


def test_a_step_that_fails_leaves_the_state_before_it_and_the_run_goes_on_to_the_same_weights(
    tmp_path, base, pictures, monkeypatch
):
    run(tmp_path / "straight", base, pictures, 6)
    real = TrainingStep.gradients

    def failing(self, step):
        real(self, step)
        if step == 3:
            raise RuntimeError("CUDA error: unspecified launch failure")

    with monkeypatch.context() as broken:
        broken.setattr(TrainingStep, "gradients", failing)
        with pytest.raises(RuntimeError, match="launch failure"):
            run(tmp_path / "failed", base, pictures, 6)
    assert begun_at(run(tmp_path / "failed", base, pictures, 6)) == [3]
    assert_same_weights(tmp_path / "straight", tmp_path / "failed")


def test_a_step_that_fails_while_it_changes_the_weights_leaves_the_checkpoint_before(
    tmp_path, base, pictures, monkeypatch
):
    run(tmp_path / "straight", base, pictures, 6)

    def failing(self, step):
        if step == 3:
            self.whole = False
            self.parameters[0].data.add_(1.0)
            raise RuntimeError("half of it is done")
        real(self, step)

    real = TrainingStep.update
    with monkeypatch.context() as broken:
        broken.setattr(TrainingStep, "update", failing)
        with pytest.raises(RuntimeError, match="half of it"):
            run(tmp_path / "failed", base, pictures, 6, saving={"every": 2})
    assert begun_at(run(tmp_path / "failed", base, pictures, 6)) == [2]
    assert_same_weights(tmp_path / "straight", tmp_path / "failed")


def test_checkpoints_by_the_clock_leave_the_training_alone_and_one_of_them_stays(tmp_path, base, pictures):
    run(tmp_path / "straight", base, pictures, 5, saving={"minutes": 0})
    seen = run(tmp_path / "often", base, pictures, 5, saving={"minutes": 1e-9, "every": 2, "keep": 3})
    assert [event.step for event in all_of(events.Checkpoint, seen)] == [1, 2, 3, 4, 5]
    kept = checkpoint.list_checkpoints(tmp_path / "often" / "checkpoints")
    assert [checkpoint.step_of(folder) for folder in kept] == [2, 4, 5]
    assert_same_weights(tmp_path / "straight", tmp_path / "often")


def test_a_run_that_goes_on_in_another_precision_says_so(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 5, stop_at=2)
    (tmp_path / "control" / "stop").unlink()
    seen = run(tmp_path, base, pictures, 5, memory=BF16)
    (told,) = all_of(events.Adjusted, seen)
    assert told.what == "The run computes on cpu in bf16 from here; before, on cpu in fp32"
    assert "close to those of an uninterrupted run and not equal" in told.why


def test_a_run_that_goes_on_with_other_threads_says_so(tmp_path, base, pictures, monkeypatch):
    monkeypatch.setattr(threads, "choose", lambda earlier=0: 1)
    run(tmp_path, base, pictures, 5, stop_at=2)
    (tmp_path / "control" / "stop").unlink()
    monkeypatch.setattr(threads, "choose", lambda earlier=0: 2)
    (told,) = all_of(events.Adjusted, run(tmp_path, base, pictures, 5))
    assert told.what == "The run computes on cpu in fp32 with 2 threads from here; before, on cpu in fp32 with 1 thread"


def once(monkeypatch, owner: object, name: str, error: Exception, calls: int = 1) -> None:
    """The call number `calls` of a function fails; the others do what they did."""
    real, count = getattr(owner, name), iter(range(1, 1000))

    def failing(*given, **named):
        if next(count) == calls:
            raise error
        return real(*given, **named)

    monkeypatch.setattr(owner, name, failing)


OUT = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 2 KB, max allowed: 9.07 GB)."),
]


@pytest.mark.parametrize("error", OUT, ids=["python", "device", "torch", "library", "driver", "mac"])
def test_where_the_memory_runs_out_fewer_pictures_are_computed_at_once(tmp_path, base, pictures, monkeypatch, error):
    once(monkeypatch, TrainingStep, "gradients", error, calls=4)
    seen = run(tmp_path, base, pictures, 6)
    assert begun_at(seen) == [0, 3]
    (told,) = all_of(events.Adjusted, seen)
    assert told.why == "The memory ran out."
    assert told.what.endswith("with each batch computed in 2 parts, the same steps otherwise")
    assert isinstance(seen[-1], events.Finished) and seen[-1].step == 6
    went, _ = recovery.settings_of(config_io.parse({"data": {"batch_size": 2}}), tmp_path)
    assert went.memory.parts == 2 and went.at_once == 1
    own = config_io.parse({"memory": {"parts": 3}})  # as a person changed it since
    assert recovery.settings_of(own, tmp_path) == (own, None)


def test_where_the_memory_ran_out_within_an_epoch_the_weights_are_those_of_a_run_that_had_enough(
    tmp_path, base, pictures, monkeypatch
):
    straight, short = tmp_path / "straight", tmp_path / "short"
    changes = {"data": {"batch_size": 3}, "adapter": {"dropout": 0.0}}  # 7 pictures: 3, 3, 1
    run(straight, base, pictures, 6, **changes)
    once(monkeypatch, TrainingStep, "gradients", MemoryError(), calls=2)
    assert begun_at(run(short, base, pictures, 6, **changes)) == [0, 1]
    first, second = weights(straight), weights(short)
    apart = sum((first[name] - second[name]).double().square().sum() for name in first).sqrt()
    assert apart < 1e-5 * sum(one.double().square().sum() for one in first.values()).sqrt()


ENCODING = {"pictures": (encoding, "encode_pictures", 1), "captions": (TextStore, "encode_all", 1)}
PHASES = ENCODING | {
    "adapter": (recipe, "decide", 1),
    "step": (recipe, "build_step", 1),
    "checkpoint": (CheckpointWriter, "start", 2),
    "file": (outputs, "write_adapter", 1),
}


@pytest.mark.parametrize("phase", PHASES)
def test_memory_that_runs_out_in_any_phase_costs_no_finished_step(tmp_path, base, pictures, monkeypatch, phase):
    owner, name, calls = PHASES[phase]
    once(monkeypatch, owner, name, MemoryError(), calls)
    seen = run(tmp_path, base, pictures, 5, saving={"every": 2})
    saved = [event.step for event in all_of(events.Checkpoint, seen)]
    otherwise = phase not in ENCODING  # which no setting of a step makes smaller
    assert isinstance(seen[-1], events.Finished) and len(all_of(events.Adjusted, seen)) == otherwise
    assert begun_at(seen)[-1] == {"checkpoint": 2, "file": 5}.get(phase, 0) and saved == sorted(set(saved))
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


@pytest.mark.parametrize("phase", ENCODING)
def test_what_cannot_be_encoded_is_not_tried_with_other_settings_of_a_step(
    tmp_path, base, pictures, monkeypatch, phase
):
    owner, name, _ = ENCODING[phase]
    calls = []

    def crowded(*given, **named):
        calls.append(given)
        raise MemoryError

    monkeypatch.setattr(owner, name, crowded)
    with pytest.raises(UserError, match=f"The memory ran out twice while the {phase} were encoded"):
        run(tmp_path, base, pictures, 5)
    assert len(calls) == 2 and not (tmp_path / recovery.FILE).exists()


def test_each_way_costs_more_time_than_the_one_before_and_the_last_failure_is_told(tmp_path):
    own, told = config_io.parse({"data": {"batch_size": 9}}), []
    while found := recovery.another_way(own, MemoryError(), tmp_path):
        told.append(found.what.partition(", ")[2])
        config, _ = recovery.settings_of(own, tmp_path)
    assert told == [
        "with each batch computed in 2 parts, the same steps otherwise",
        "with each batch computed in 4 parts, the same steps otherwise",
        "with each batch computed in 9 parts, the same steps otherwise",
        "with activations computed again in the backward pass (checkpointing)",
        "with the frozen weights streamed block by block",
    ]
    assert config.views_per_step == 9 and config.memory.stream == "all"
    assert recovery.settings_of(own, tmp_path) == (own, None)  # next time there may be more memory


def test_a_base_that_is_rounded_on_a_cpu_is_not_streamed(tmp_path):
    own = config_io.parse({"memory": {"quantize": "int8", "checkpointing": "all", "device": "cpu"}})
    assert recovery.another_way(own, MemoryError(), tmp_path) is None


def test_a_gradient_that_is_none_is_noticed_where_nothing_is_clipped(tmp_path, base, pictures, monkeypatch):
    spoil(monkeypatch, "gradient", at=4)
    seen = run(tmp_path, base, pictures, 6, memory=BF16, optimizer={"clip_norm": 0})
    assert begun_at(seen) == [0, 4] and isinstance(seen[-1], events.Finished)


def test_where_nobody_looks_at_each_step_the_steps_since_the_last_checkpoint_are_made_again(
    tmp_path, base, pictures, monkeypatch
):
    """As on a graphics card, which does not wait for anybody to look."""
    monkeypatch.setattr(TrainingStep, "careful", property(lambda step: False, lambda step, wish: None))
    spoil(monkeypatch, "gradient", at=4)
    seen = run(tmp_path, base, pictures, 8, memory=BF16, saving={"every": 3})
    assert begun_at(seen) == [0, 3] and isinstance(seen[-1], events.Finished)
    assert [event.step for event in all_of(events.Checkpoint, seen)] == [3, 6, 8]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_memory_that_runs_out_while_a_checkpoint_is_read_does_not_make_it_a_damaged_one(
    tmp_path, base, pictures, monkeypatch
):
    run(tmp_path / "straight", base, pictures, 5, data={"batch_size": 1})
    run(tmp_path / "resumed", base, pictures, 5, stop_at=2, data={"batch_size": 1})
    (tmp_path / "resumed" / "control" / "stop").unlink()
    once(monkeypatch, checkpoint, "load_file", MemoryError())
    seen = run(tmp_path / "resumed", base, pictures, 5, data={"batch_size": 1})
    assert begun_at(seen) == [3] and not all_of(events.Warned, seen)
    assert_same_weights(tmp_path / "straight", tmp_path / "resumed")


def wish_at(folder: Path, step: int):
    """A person asks for less memory when that step's checkpoint is there."""

    def heard(event: events.Event) -> None:
        if isinstance(event, events.Checkpoint) and event.step == step:
            (folder / "control").mkdir(exist_ok=True)
            (folder / "control" / "less_memory").touch()

    return heard


def test_a_rate_that_was_changed_meanwhile_is_said_not_to_count(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 6, stop_at=2, optimizer={"rate": 1e-3})
    (tmp_path / "control" / "stop").unlink()
    seen = run(tmp_path, base, pictures, 6, optimizer={"rate": 5e-4})
    (told,) = all_of(events.Adjusted, seen)
    assert told.what == "The run keeps the learning rate that it began with: 0.001, 0.0001"  # the text encoder's own
    assert all(step.rate <= 1e-3 for step in all_of(events.Step, seen)) and isinstance(seen[-1], events.Finished)


def test_a_person_can_let_a_run_go_on_with_less_memory_and_no_step_is_lost(tmp_path, base, pictures):
    never = {"retry": False}  # what a person asks for is done all the same
    seen = run(tmp_path, base, pictures, 7, heard=wish_at(tmp_path, 2), saving={"every": 2}, memory=never)
    assert begun_at(seen) == [0, 3] and isinstance(seen[-1], events.Finished)
    (told,) = all_of(events.Adjusted, seen)
    assert "with each batch computed in 2 parts" in told.what
    assert told.why == "A person wants it to use less memory."
    assert not (tmp_path / "control" / "less_memory").exists()


def test_a_run_that_uses_as_little_memory_as_it_can_goes_on_as_it_is(tmp_path, base, pictures, monkeypatch):
    monkeypatch.setattr(recovery, "_smaller", lambda config, device, devices: None)
    seen = run(tmp_path, base, pictures, 5, heard=wish_at(tmp_path, 2), saving={"every": 2})
    assert begun_at(seen) == [0] and isinstance(seen[-1], events.Finished)
    assert [told.message for told in all_of(events.Warned, seen)] == ["This run uses as little memory as it can."]


@pytest.mark.parametrize(
    ("devices", "at_once", "times", "parts"),
    [
        (4, 8, 1, [2]),  # each looks at some pictures of a batch
        (4, 8, 4, [2, 4, 8]),  # each looks at batches of its own
        (2, 3, 1, [2]),
        (4, 4, 1, []),
    ],
)
def test_parts_are_of_what_each_of_several_devices_computes(tmp_path, devices, at_once, times, parts):
    own, told = config_io.parse({"data": {"batch_size": at_once}, "optimizer": {"accumulation": times}}), []
    while "checkpointing" not in recovery.another_way(own, MemoryError(), tmp_path, devices).what:
        told.append(recovery.settings_of(own, tmp_path)[0].memory.parts)
    assert told == parts
    Ranks(0, devices).require_work(recovery.settings_of(own, tmp_path)[0])


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{", '{"memory.precision": "fp99"}', '{"model.base": "/etc/passwd"}', '{"memory.parts": 0}'],
)
def test_a_damaged_note_of_another_way_is_not_heeded(tmp_path, content):
    (tmp_path / recovery.FILE).write_text(content, "utf-8")
    assert recovery.settings_of(TrainConfig(), tmp_path) == (TrainConfig(), None)


def test_what_is_neither_memory_nor_numbers_is_not_tried_again(tmp_path):
    assert recovery.another_way(TrainConfig(), RuntimeError("CUDA error"), tmp_path) is None
