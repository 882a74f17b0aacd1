"""Optimizers, schedules and the average: every name does what it says."""

import pytest
import torch

from trainers import choices
from trainers.config import OptimizerConfig, ScheduleConfig
from trainers.ema import Ema
from trainers.errors import UserError
from trainers.loss import LOSSES, WEIGHTINGS
from trainers.optimizers import OPTIMIZERS, averaged, build_optimizer, clip, described, parameter_groups, states
from trainers.schedules import SCHEDULES, build_schedule

CPU = torch.device("cpu")
CPU_OPTIMIZERS = [name for name in OPTIMIZERS if name != "adamw8bit"]
RATES = {"prodigy": 1.0, "lion": 0.01}


def weights_of(parameter: torch.nn.Parameter, part: str = "denoiser", path: str = "a.b", name: str = "down") -> list:
    return [(part, path, name, parameter)]


def optimizer_for(name: str, weight: torch.nn.Parameter, **settings: object) -> torch.optim.Optimizer:
    config = OptimizerConfig(type=name, rate=RATES.get(name, 0.05), weight_decay=0.0, **settings)
    return build_optimizer(parameter_groups(weights_of(weight), config), config, CPU)[0]


def test_the_choices_users_see_are_the_ones_that_exist():
    assert set(choices.OPTIMIZERS) == set(OPTIMIZERS)
    assert set(choices.SCHEDULES) == set(SCHEDULES)
    assert set(choices.LOSSES) == set(LOSSES)
    assert set(choices.WEIGHTINGS) == set(WEIGHTINGS)


@pytest.mark.parametrize("name", CPU_OPTIMIZERS)
def test_it_walks_down_a_bowl(name):
    weight = torch.nn.Parameter(torch.full((4, 4), 2.0))
    optimizer = optimizer_for(name, weight)
    averaged(optimizer, False)
    for _ in range(200):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    averaged(optimizer, True)
    assert (weight**2).sum() < 0.1 * 4 * 16


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(256, 256), (8, 64, 3, 3), (64, 8, 1, 1), (4, 320)], ids=str)
def test_it_keeps_as_much_beside_the_weights_as_the_memory_plan_counts(name, shape):
    weight = torch.nn.Parameter(torch.ones(shape))
    optimizer = optimizer_for(name, weight)  # of AdamW8bit, which becomes AdamW on a CPU, too
    averaged(optimizer, False)
    for _ in range(3):
        optimizer.zero_grad()
        weight.pow(2).sum().backward()
        optimizer.step()
    kept = sum(value.numel() * 4 for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor))
    counted = states(OptimizerConfig(type=name), CPU) * weight.numel() * 4
    assert kept <= 1.02 * counted and (name == "adafactor" or kept >= 0.98 * counted)


@pytest.mark.parametrize("name", CPU_OPTIMIZERS)
def test_a_saved_state_goes_on_to_the_same_weights(name, tmp_path):
    def run(optimizer, weight, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            ((weight - 1) ** 2).sum().backward()
            optimizer.step()

    straight = torch.nn.Parameter(torch.full((3, 3), 2.0))
    optimizer = optimizer_for(name, straight)
    averaged(optimizer, False)
    run(optimizer, straight, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = torch.nn.Parameter(straight.detach().clone())
    run(optimizer, straight, 3)
    other = optimizer_for(name, resumed)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(other, resumed, 3)
    assert torch.equal(straight, resumed)


def test_eight_bit_adamw_becomes_adamw_on_a_cpu_and_says_so():
    config = OptimizerConfig(type="adamw8bit")
    groups = parameter_groups(weights_of(torch.nn.Parameter(torch.zeros(2))), config)
    optimizer, adjusted = build_optimizer(groups, config, CPU)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert "AdamW8bit" in adjusted.what
    assert described(optimizer) == "torch.optim.adamw.AdamW(weight_decay=0.01)"


def test_the_text_encoder_learns_at_a_tenth_of_the_rate_unless_told():
    a, b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    weights = [*weights_of(a), *weights_of(b, "text_0")]
    assert [g["lr"] for g in parameter_groups(weights, OptimizerConfig(rate=1e-3))] == [1e-3, 1e-4]
    assert [g["lr"] for g in parameter_groups(weights, OptimizerConfig(rate=1e-3, text_rate=5e-5))] == [1e-3, 5e-5]


def test_every_text_encoder_has_its_own_rate():
    weights = [weight for i in range(3) for weight in weights_of(torch.nn.Parameter(torch.zeros(1)), f"text_{i}")]
    config = OptimizerConfig(rate=1e-3, text_rates=(1e-5, 2e-5))
    assert [group["lr"] for group in parameter_groups(weights, config)] == [1e-5, 2e-5, 1e-4]


def test_rates_by_block_and_lora_plus_multiply():
    named = [("up_blocks.1.a", "down"), ("up_blocks.1.a", "up"), ("mid_block.a", "down"), ("mid_block.a", "up")]
    weights = [("denoiser", path, name, torch.nn.Parameter(torch.zeros(1))) for path, name in named]
    config = OptimizerConfig(rate=1e-3, lora_plus=16, block_rates={"up_blocks.1": 0.5})
    groups = parameter_groups(weights, config)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    expected = [5e-4, 8e-3, 1e-3, 1.6e-2]
    assert [rates[id(parameter)] for *_, parameter in weights] == pytest.approx(expected)
    assert groups[0]["lr"] == 1e-3  # the rate that is reported is the one that was set
    with pytest.raises(UserError, match=r"optimizer\.block_rates has 'down_blocks', which fits no layer"):
        parameter_groups(weights, OptimizerConfig(block_rates={"down_blocks": 2.0}))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_warms_up_from_zero_to_its_peak(name):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = build_schedule(ScheduleConfig(type=name, warmup=0.1), optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0 and rates[5] == pytest.approx(0.5) and max(rates) == pytest.approx(1.0)
    end = {"constant": pytest.approx(1.0)}.get(name, pytest.approx(0.0, abs=0.02))
    assert rates[-1] == end


def test_the_average_is_the_closed_form_and_gives_the_weights_back():
    weight = torch.nn.Parameter(torch.zeros(2))
    ema = Ema([weight], decay=0.5)
    for step, value in enumerate((1.0, 2.0), start=20):  # past the warm-up, where the decay is 0.5
        weight.data.fill_(value)
        ema.update(step)
    with ema.swapped():
        torch.testing.assert_close(weight.detach(), torch.full((2,), 0.25 + 1.0))  # 0.5 (0.5·0 + 0.5·1) + 0.5·2
    assert weight.tolist() == [2.0, 2.0]


def test_clipping_gives_the_norm_of_all_gradients_together_and_leaves_small_ones_alone():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])  # the third has none
    clip(parameters, 10.0)
    assert parameters[0].grad.tolist() == [3.0, 0.0]
    clip(parameters, 1.0)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]), rtol=1e-5, atol=0)
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.8]), rtol=1e-5, atol=0)
    clip([], 1.0)
