"""Frozen convolutions with weights in oneDNN's order compute what nn.Conv2d computes, and take no more than allowed."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn

from trainers import prepacked
from trainers.bench.counter import DispatchCounter
from trainers.config import MemoryConfig, TrainConfig
from trainers.memory import decide
from trainers.memory.meter import Meter
from trainers.memory.saving import PLAIN, Saving
from trainers.prepacked import (
    LEAST,
    PIXELS,
    PrepackedConv2d,
    chosen,
    extra,
    ordered_bytes,
    prepack,
    prepacked_bytes,
    room,
)


def conv(channels: int = 256, stride: int = 1, size: int = 3, **options: object) -> nn.Conv2d:
    torch.manual_seed(channels + stride)
    return nn.Conv2d(channels, channels, size, stride, size // 2, **options).requires_grad_(False)


def both(layer: nn.Conv2d, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Output and gradient of the input, of nn.Conv2d and of the layer with its weights in order."""
    ordered = nn.Sequential(copy.deepcopy(layer))
    prepack(ordered, MemoryConfig(), PLAIN)
    assert type(ordered[0]) is PrepackedConv2d
    found = []
    for module in (layer, ordered):
        leaf = x.clone().requires_grad_()
        out = module(leaf)
        out.square().sum().backward()
        found.append((out.detach(), leaf.grad))
    return found


@pytest.mark.parametrize(
    "layer",
    [conv(), conv(stride=2), conv(bias=False), conv(320, size=5)],
    ids=["3x3", "stride 2", "no bias", "5x5"],
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 16, 12), (1, 7, 5)], ids=str)
def test_output_and_gradient_are_those_of_a_plain_convolution(layer, shape):
    count, height, width = shape
    x = torch.randn(count, layer.in_channels, height, width, generator=torch.Generator().manual_seed(1))
    (out, gradient), (ours, our_gradient) = both(layer, x)
    assert (ours - out).abs().max() < 1e-5 * out.abs().max()
    assert (our_gradient - gradient).abs().max() < 1e-5 * gradient.abs().max()


def test_many_pixels_are_left_to_the_plain_convolution():
    x = torch.randn(1, 256, 33, 32)
    assert 33 * 32 > PIXELS
    (out, gradient), (ours, our_gradient) = both(conv(), x)
    assert torch.equal(out, ours) and torch.equal(gradient, our_gradient)


def test_other_weights_are_put_in_order_anew():
    model, x = nn.Sequential(conv()), torch.randn(1, 256, 4, 4)
    prepack(model, MemoryConfig(), PLAIN)
    model(x)
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[0].bias.zero_()
        expected = nn.functional.conv2d(x, model[0].weight, padding=1)
    assert (model(x) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_its_operations_are_those_of_a_plain_convolution_and_its_weights_are_counted():
    found = []
    for ours in (False, True):
        model, x = nn.Sequential(conv(), conv(stride=2)), torch.randn(2, 256, 8, 8, requires_grad=True)
        if ours:
            prepack(model, MemoryConfig(), PLAIN)
        model(x).sum().backward()
        with DispatchCounter() as counter, Meter() as meter:
            model(x).sum().backward()
        found.append((sum(counter.flops.values()), meter.flops))
        assert ordered_bytes(model) == (prepacked_bytes(model, MemoryConfig()) if ours else 0)
    assert found[0] == found[1] and found[0][0] == 2 * 2 * 256 * 256 * 9 * 2 * (64 + 16)


def test_names_and_numbers_of_the_model_stay_as_they_were():
    model = nn.Sequential(conv())
    before, said = {name: value.clone() for name, value in model.state_dict().items()}, repr(model)
    prepack(model, MemoryConfig(), PLAIN)
    model(torch.randn(1, 256, 4, 4))
    after = model.state_dict()
    assert repr(model) == said  # by which the cache knows it
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_small_trained_grouped_and_dilated_layers_are_left_alone():
    small, trained = conv(64), conv().requires_grad_(True)
    assert small.weight.numel() < LEAST
    left = nn.Sequential(small, trained, conv(512, groups=2), conv(dilation=2), conv(1024, size=1), conv().half())
    assert chosen(left, MemoryConfig(budget=100)) == []


def test_the_largest_come_first_and_only_as_many_as_fit(monkeypatch):
    model = nn.Sequential(conv(256), conv(512), conv(320))

    def chosen_within(left: int) -> list[nn.Conv2d]:
        monkeypatch.setattr(prepacked, "room", lambda denoiser, config: left)
        return chosen(model, MemoryConfig())

    assert chosen_within(10**12) == [model[1], model[2], model[0]]
    assert chosen_within(extra(model[1]) + extra(model[2])) == [model[1], model[2]]
    assert chosen_within(extra(model[1]) - 1) == []


def test_a_quarter_of_the_budget_may_be_taken_and_half_of_it_stays_beside_the_weights():
    model = nn.Sequential(conv())
    assert room(model, MemoryConfig(budget=8)) == 2 * 2**30
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert room(model, MemoryConfig(budget=5 * weights / 2**30)) == pytest.approx(0.5 * weights)
    assert room(model, MemoryConfig(budget=2 * weights / 2**30)) < 0


def test_streamed_and_compiled_runs_and_other_devices_have_none():
    model = nn.Sequential(conv())
    for config in (MemoryConfig(stream="all"), MemoryConfig(compile="all")):
        assert chosen(model, config) == [] and prepacked_bytes(model, config) == 0
    prepack(model, MemoryConfig(), Saving(streamed=("0",)))
    prepack(model.to("meta"), MemoryConfig(), PLAIN)
    assert type(model[0]) is nn.Conv2d


def test_the_memory_plan_counts_them():
    layer, config = conv(512), TrainConfig()
    parts = Components(denoiser=nn.Sequential(layer), text_encoders=())
    here, on_gpu = (decide.room(parts, config, torch.device(name), 0, 16.0) for name in ("cpu", "cuda"))
    own = sum(parameter.numel() * 4 for parameter in layer.parameters())
    assert on_gpu.weights * 2**30 == pytest.approx(own)
    assert here.weights * 2**30 == pytest.approx(own + extra(layer))


class Components(NamedTuple):
    """What the plan looks at."""

    denoiser: nn.Module
    text_encoders: tuple[nn.Module, ...]
