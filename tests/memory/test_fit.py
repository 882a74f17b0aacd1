"""Which units are computed again for a budget: the cheapest that keep to it, counted without weights."""

from dataclasses import replace

import pytest
import torch

from tests.memory.tiny_step import folder_of
from trainers import config_io, memory, preview
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.tokens import start_tokens
from trainers.errors import UserError
from trainers.families.registry import find_family
from trainers.memory.cards import find_card
from trainers.memory.decide import GB, beside, decide, kept, needed, resident, told
from trainers.memory.fit import fit, ladder
from trainers.memory.hollow import HollowStep, Traced, emptied
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.stream import block_bytes
from trainers.memory.units import blocks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_ladder_takes_what_frees_most_per_operation_first_and_a_block_after_its_parts():
    traced = {
        "a": Traced(kept=100, flops=100),
        "a.ff": Traced(kept=60, flops=20),  # 3 a piece
        "a.attn1": Traced(kept=10, flops=50),  # 0.2, and the rest of the block 0.5: never alone
        "b": Traced(kept=40, flops=20),  # 2 a piece
        "frozen": Traced(kept=0, flops=10),
    }
    rungs = ladder(traced, ("a", "b", "frozen"))
    assert [rung.recomputed for rung in rungs] == [(), ("a.ff",), ("a.ff", "b"), ("b", "a")]
    assert [(rung.freed, rung.flops) for rung in rungs] == [(0, 0), (60, 20), (100, 40), (140, 120)]


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    folder = folder_of("sd15", tmp_path_factory.mktemp("sd15"))
    config = config_io.parse({"model": {"base": str(folder)}, "data": {"resolution": 128, "batch_size": 2}})
    family = find_family(config.model)
    components = family.load(config.model, torch.float32)
    return HollowStep(family, emptied(components, torch.float32), config, torch.float32)


def test_a_step_is_counted_for_a_base_that_has_new_tokens_already(tmp_path):
    base = {"model": {"base": str(folder_of("sd15", tmp_path))}, "data": {"trigger": "zor", "kind": "object"}}
    config = config_io.parse({**base, "adapter": {"new_tokens": 2}})
    family = find_family(config.model)
    components = family.load(config.model, torch.float32)
    start_tokens(components, family.spec, config)
    assert HollowStep(family, emptied(components, torch.float32), config, torch.float32).count(PLAIN).peak > 0


def test_pictures_that_make_no_whole_patches_are_counted_and_drawn_a_little_smaller(tmp_path):
    base = {"model": {"base": str(folder_of("sd3", tmp_path))}, "data": {"resolution": 18}}
    config = config_io.parse({**base, "preview": {"sampling_steps": 2}})
    family = find_family(config.model)
    components = family.load(config.model, torch.float32)
    assert components.latent.factor * components.denoiser.config.patch_size == 4
    assert HollowStep(family, emptied(components, torch.float32), config, torch.float32).count(PLAIN).peak > 0
    (drawn,) = preview.sample(family, components, ["a cat"], config.preview, 1, CPU, 18)
    assert drawn.size == (16, 16)


@pytest.fixture(scope="module")
def ends(step):
    """The step with nothing and with everything computed again."""
    return step.count(Saving()), step.count(Saving(blocks(step.denoiser)))


def test_a_budget_is_kept_with_fewer_operations_than_computing_everything_again(step, ends):
    plain, every = ends
    room = every.peak + 0.6 * (plain.peak - every.peak)
    fitted = fit(step, room, CPU)
    assert fitted.count.peak <= room and 0 < fitted.count.over(plain) < 0.7 * every.over(plain)


def test_nothing_is_given_up_where_there_is_room_and_host_memory_comes_last(step, ends):
    plain, every = ends
    assert fit(step, plain.peak, CUDA).saving == Saving()
    assert fit(step, 2 * plain.peak, CUDA).saving == PLAIN
    least = fit(step, every.peak - 1, CUDA)
    assert least.saving.offload and least.count.peak < every.peak and least.count.flops == every.flops
    assert not fit(step, 0, CPU).saving.offload


@pytest.fixture
def ready(monkeypatch):
    """GB that weights would take which lie ready: more than all activations of these steps."""
    monkeypatch.setattr("trainers.memory.decide.prepacked_bytes", lambda denoiser, config: 2**28)
    return 0.25


def planned(step, free: float, monkeypatch, before: Saving | None = None):
    """What `decide` says where there is so much beside what stays, in bytes, without weights that lie ready."""
    taken = resident(step.components, step.config) + kept(step.config, step.adapter_bytes, CPU)
    monkeypatch.setattr("trainers.memory.decide.free_gb", lambda device: beside(CPU) + (taken + free) / GB)
    parts = emptied(step.components, torch.float32)
    return decide(step.family, parts, step.config, memory.Plan(CPU, "fp32"), before=before)[:2]


def test_weights_that_lie_ready_are_given_up_first(step, ready, monkeypatch):
    plain = step.count(PLAIN).peak
    saving, told = planned(step, 1.1 * plain, monkeypatch)
    assert ready * GB > plain and saving == replace(PLAIN, prepacked=False)
    assert told.what.startswith("Convolutions keep their weights in one order") and "at 0% more" in told.why
    assert f"in place of {beside(CPU) + ready + (plain + resident(step.components, step.config)) / GB:.1f}" in told.why


def test_they_take_nothing_of_a_plan_without_them(step, ready, ends, monkeypatch):
    plain, every = (end.peak for end in ends)
    with_them, without = (planned(step, (plain + every) / 2 + more, monkeypatch)[0] for more in (ready * GB, 0))
    assert without.recomputed and not without.prepacked and not without.streamed
    assert with_them == replace(PLAIN, prepacked=False)


def test_a_run_goes_on_saving_as_it_began_while_that_fits(step, ends, monkeypatch):
    plain, every = (end.peak for end in ends)
    before = Saving(blocks(step.denoiser))
    assert planned(step, 1e9, monkeypatch)[0] == PLAIN
    assert planned(step, 1e9, monkeypatch, before)[0] == before
    tight = (plain + every) / 2
    assert planned(step, tight, monkeypatch, before)[0] == before != planned(step, tight, monkeypatch)[0]
    assert planned(step, tight, monkeypatch, PLAIN)[0] == planned(step, tight, monkeypatch)[0]


def test_plain_mathematics_is_planned_with_all_that_it_holds(step):
    plan = memory.Plan(CPU, "fp32")
    plain, math = (config_io.merge(step.config, {"memory": {"attention": name}}) for name in ("sdpa", "math"))
    taken = [needed(step.family, step.components, config, plan, CPU, 100.0) for config in (plain, math)]
    held, more = (left.peak(fitted) for left, fitted in taken)
    assert more > 1.02 * held
    found = []
    for config in (plain, math):
        tight = config_io.merge(config, {"memory": {"budget": (held + more) / 2}})
        found.append(decide(step.family, emptied(step.components, torch.float32), tight, plan)[0])
    assert found[0] == PLAIN and found[1] != PLAIN
    forced = config_io.merge(math, {"memory": {"checkpointing": "none"}})
    saving, _, free = decide(step.family, emptied(step.components, torch.float32), forced, plan)
    assert saving == PLAIN and free.between - free.within == taken[1][1].count.peak


def test_the_plan_is_told_with_its_numbers(step, ends):
    plan = memory.Plan(torch.device("cpu"), "fp32")
    taken = resident(step.components, step.config) + kept(step.config, step.adapter_bytes, CPU)
    budget = beside(plan.device) + (taken + sum(end.peak for end in ends) / 2) / GB
    config = config_io.merge(step.config, {"memory": {"budget": budget}})
    saving, told, _ = decide(step.family, emptied(step.components, torch.float32), config, plan)
    assert saving.recomputed and not saving.offload
    assert f"{len(saving.recomputed)} parts of the denoiser are computed twice" in told.what
    assert f"budget of {budget:.1f} GB" in told.why and "% more operations" in told.why


@pytest.mark.parametrize(("setting", "value"), [("stream", "all"), ("checkpointing", "all")])
def test_what_is_saved_without_need_is_told_by_the_setting_that_asks_for_it(step, setting, value):
    config = config_io.merge(step.config, {"memory": {setting: value}})
    plan, parts = memory.Plan(CPU, "fp32"), emptied(step.components, torch.float32)
    left, fitted = needed(step.family, parts, config, plan, CPU, 100.0)
    words = told(fitted, left, config.memory, CPU).why
    assert f", as memory.{setting} asks (auto would go without), at " in words and "budget" not in words
    tight = replace(left, budget=left.peak(fitted) + 1e-6)
    assert f", for a budget of {tight.budget:.1f} GB, at " in told(fitted, tight, config.memory, CPU).why
    usual = config_io.merge(step.config, {}).memory  # in the sitting before there was less
    assert ", as before, at " in told(fitted, left, usual, CPU).why


def test_checkpointing_can_be_forced_and_reads_what_it_was(step):
    plan = memory.Plan(torch.device("cpu"), "fp32")
    for value, paths in ((True, blocks(step.denoiser)), ("all", blocks(step.denoiser)), (False, ()), ("none", ())):
        config = config_io.merge(step.config, {"memory": {"checkpointing": value, "budget": 0.001, "stream": "none"}})
        assert decide(step.family, step.components, config, plan)[:2] == (Saving(paths) if paths else PLAIN, None)
    assert config_io.override(step.config, ["memory.checkpointing=true"]).memory.checkpointing == "all"
    assert config_io.override(step.config, ["memory.budget=auto"]).memory.budget is None
    with pytest.raises(UserError, match="none, auto, all"):
        config_io.override(step.config, ["memory.checkpointing=some"])


@pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=pytest.mark.slow)], ids=str)
def test_weights_wait_last_and_of_as_few_blocks_as_will_do(step, ends, device):
    sizes = block_bytes(step.denoiser)
    smallest = ends[1].peak if device == CPU else fit(step, 0, CUDA).count.peak
    assert not fit(step, smallest, device, stream=True).saving.streamed
    one = fit(step, smallest - 1, device, stream=True)
    assert 0 < len(one.saving.streamed) < len(sizes) and one.saving.recomputed == blocks(step.denoiser)
    assert one.taken <= smallest - 1 and one.moved == 2 * sum(sizes[path] for path in one.saving.streamed)
    every = fit(step, -sum(sizes.values()), device, stream=True)
    assert every.saving.streamed == blocks(step.denoiser)
    largest = sorted(sizes.values())[-1 if device == CPU else -2 :]
    least = sum(sizes.values()) - sum(largest)
    assert every.freed == least if device == CPU else least <= every.freed < sum(sizes.values())


@pytest.mark.parametrize("kind", ADAPTERS)
def test_module_dropout_is_counted_as_a_step_that_leaves_no_layer_out(step, kind):
    counts = []
    for share in (0.0, 0.3, 0.3):
        config = config_io.merge(step.config, {"adapter": {"type": kind, "module_dropout": share}})
        one = HollowStep(step.family, emptied(step.components, torch.float32), config, torch.float32)
        counts.append((one.count(PLAIN), one.count(Saving(blocks(one.denoiser)))))
    without, some, again = counts
    assert some == again
    assert some[0].peak >= without[0].peak and some[1].peak < some[0].peak and some[1].flops > some[0].flops


def test_the_plan_says_what_streaming_costs(step):
    plan = memory.Plan(CPU, "fp32")
    config = config_io.merge(step.config, {"memory": {"budget": 0.001}})
    saving, told, _ = decide(step.family, emptied(step.components, torch.float32), config, plan)
    assert saving.streamed == blocks(step.denoiser)
    assert f"the weights of {len(saving.streamed)} wait in the base's file" in told.what
    assert "GB of weights read in each pass" in told.why


def test_cards_are_found_by_the_names_people_use():
    assert find_card("nvidia geforce rtx 3060").memory_gb == 12
    assert find_card("RTX3060 12gb").precision == "bf16"
    with pytest.raises(UserError, match="several") as raised:
        find_card("RTX 4060 Ti")
    assert "8GB or RTX 4060 Ti 16GB" in raised.value.hint
    with pytest.raises(UserError, match="No card called Radeon"):
        find_card("Radeon")


def test_a_card_that_is_not_here_gives_a_span_of_seconds():
    card = find_card("RTX 3060 12GB")
    least, most = card.seconds(20e12)
    assert card.free_gb < 12 and 1 < least < most < 10


def test_weights_that_come_from_host_memory_take_time():
    card = find_card("RTX 3060 12GB")
    (least, most), (plain_least, plain_most) = card.seconds(20e12, 48e9), card.seconds(20e12)
    assert most == pytest.approx(plain_most + 8)  # one after the other, on a slow bus
    assert least == plain_least  # beside the computing, on a fast one
    assert card.seconds(20e12, 250e9)[0] == pytest.approx(10)
