"""The pace of a large step on a CPU: its operations at the device's rate, and its weights at that of the memory."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, reckoned
from trainers.families.registry import find_family
from trainers.memory import Plan
from trainers.memory.drawing import denoised
from trainers.memory.encoders import weight_bytes
from trainers.memory.fit import Fitted
from trainers.memory.hollow import Count
from trainers.memory.saving import PLAIN, Saving
from trainers.preview import TOGETHER
from trainers.reckoned import ORDERED, SLOWER, convolution_bytes, reckon

PLAIN_COUNT = Count(peak=0, forward=10**9, flops=2 * 10**9)
AGAIN = replace(PLAIN_COUNT, flops=3 * 10**9)  # all blocks are computed twice
RATE, READING, CONVERTING = 1e9, 1e6, 5e5


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.setattr(reckoned, "_speed", lambda device, dtype: RATE)
    monkeypatch.setattr(reckoned, "_reading", lambda device: READING)
    monkeypatch.setattr(reckoned, "_converting", lambda device, dtype: CONVERTING)
    config = config_io.parse({"model": {"base": str(tiny_pipeline_folder(tmp_path))}, "data": {"batch_size": 2}})
    family, plan = find_family(config.model), Plan(torch.device("cpu"), "fp32")
    return family, family.load(config.model, plan.dtype, deferred=True), config, plan


def test_a_step_does_its_operations_and_reads_its_weights_twice(given):
    found, (_, components, _, _) = reckon(*given, Fitted(PLAIN, PLAIN_COUNT, PLAIN_COUNT)), given
    denoiser = components.denoiser
    assert prepacked_nothing(denoiser)
    once = (weight_bytes([denoiser]) + ORDERED * convolution_bytes(denoiser)) / READING
    assert found.step == pytest.approx(SLOWER * 2 + 2 * once)
    assert found.alone == pytest.approx(SLOWER * 2 / 2 + 2 * once)  # half the pictures, all of the weights
    drawing = denoised(given[0], components, (8, 8), TOGETHER, torch.float32).flops / RATE  # of tiny pictures
    assert found.denoised == pytest.approx((SLOWER * drawing + once) / TOGETHER)  # its weights are read for all
    assert not found.tried and 0 < found.encoded < found.decoded  # a decoder has a layer more on each level
    assert next(denoiser.parameters()).is_meta  # nothing was read


def prepacked_nothing(denoiser: torch.nn.Module) -> bool:
    return all(layer.weight.numel() < 500_000 for layer in denoiser.modules() if isinstance(layer, torch.nn.Conv2d))


def test_what_is_computed_twice_reads_its_weights_once_more_and_what_is_streamed_converts_them(given):
    plain = reckon(*given, Fitted(PLAIN, PLAIN_COUNT, PLAIN_COUNT))
    again = reckon(*given, Fitted(Saving(("mid_block",)), AGAIN, PLAIN_COUNT))
    streamed = Fitted(Saving(("mid_block",), streamed=("mid_block",)), AGAIN, PLAIN_COUNT, moved=10**6)
    denoiser = given[1].denoiser
    once = (weight_bytes([denoiser]) + ORDERED * convolution_bytes(denoiser)) / READING
    assert again.step - plain.step == pytest.approx(SLOWER + once)
    assert reckon(*given, streamed).step - again.step == pytest.approx(10**6 / CONVERTING)


def test_memory_that_streaming_hands_back_is_found_anew(given, monkeypatch):
    monkeypatch.setattr(reckoned, "_finding", lambda: 1e3)
    blocks = tuple(f"block_{i}" for i in range(5))
    few, many = (
        reckon(*given, Fitted(Saving(blocks, streamed=blocks), replace(AGAIN, peak=peak), PLAIN_COUNT)).step
        for peak in (0, 500)
    )
    assert many - few == pytest.approx(0.5 * (1 + 3))  # before the pass, and before every second block on its way back


def test_weights_that_lie_ready_are_not_put_in_order(given, monkeypatch):
    _, components, _, _ = given
    ready = convolution_bytes(components.denoiser)
    monkeypatch.setattr(reckoned, "prepacked_bytes", lambda denoiser, memory: 2 * ready)
    steps = [
        reckon(*given, Fitted(replace(PLAIN, prepacked=packed), PLAIN_COUNT, PLAIN_COUNT)).step
        for packed in (True, False)
    ]
    assert steps[1] - steps[0] == pytest.approx(2 * ORDERED * ready / READING)


def test_the_rates_of_this_machine_are_measured():
    cpu = torch.device("cpu")
    rates = [
        reckoned._speed(cpu, torch.float32),
        reckoned._reading(cpu),
        reckoned._converting(cpu, torch.float32),
        reckoned._finding(),
    ]
    assert all(1e6 < rate < 1e15 for rate in rates)
