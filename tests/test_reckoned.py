"""The pace of a large step on a CPU: its operations at the device's rate, and its weights at that of the memory."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, reckoned
from trainers.families.registry import find_family
from trainers.memory import Plan
from trainers.memory.drawing import denoised
from trainers.memory.encoders import weight_bytes
from trainers.memory.fit import Fitted
from trainers.memory.hollow import Count, HollowStep, emptied
from trainers.memory.saving import PLAIN, Saving
from trainers.preview import TOGETHER
from trainers.reckoned import ORDERED, SLOWER, convolution_bytes, reckon

PLAIN_COUNT = Count(peak=0, forward=10**9, flops=2 * 10**9)
AGAIN = replace(PLAIN_COUNT, flops=3 * 10**9)  # all blocks are computed twice
RATE, READING, CONVERTING = 1e9, 1e6, 5e5


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.setattr(reckoned, "_speed", lambda device, dtype: RATE)
    monkeypatch.setattr(reckoned, "_attending", lambda denoiser, device, dtype: RATE / SLOWER)  # as all else
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


def test_attention_has_a_pace_of_its_own(given, monkeypatch):
    half = replace(PLAIN_COUNT, attended=PLAIN_COUNT.flops // 2)
    plain = reckon(*given, Fitted(PLAIN, half, half))
    monkeypatch.setattr(reckoned, "_attending", lambda denoiser, device, dtype: RATE / SLOWER / 4)
    slow = reckon(*given, Fitted(PLAIN, half, half))
    assert slow.step - plain.step == pytest.approx(SLOWER * (4 - 1))  # of 2 seconds a half
    one = denoised(given[0], given[1], (8, 8), TOGETHER, torch.float32)
    more = SLOWER * (4 - 1) * one.attended / RATE / TOGETHER
    assert slow.denoised - plain.denoised == pytest.approx(more) and one.attended > 0


def test_the_operations_of_attention_are_those_of_its_products(given, monkeypatch):
    family, components, config, plan = given
    seen, attend = [], F.scaled_dot_product_attention

    def watched(query, key, value, *rest, **more):
        seen.append(4 * query.numel() * key.shape[-2])  # two products, each a multiplication and an addition
        return attend(query, key, value, *rest, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    real = family.load(config.model, plan.dtype)
    with torch.no_grad():
        told = family.encode_text(real.text_encoders, family.tokenize(real, ["a"] * 2), 1)
        seen.clear()  # of the text encoders
        family.denoise(real.denoiser, torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.long), told)
    monkeypatch.undo()
    assert denoised(family, components, (8, 8), 1, torch.float32).attended == sum(seen) > 0
    step = HollowStep(family, emptied(components, torch.float32), config, torch.float32)
    assert step._side == 8 and step.count(PLAIN).attended == sum(seen) * 3.5  # and five products backward


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


def test_the_rates_of_this_machine_are_measured(tmp_path):
    config = config_io.parse({"model": {"base": str(tiny_pipeline_folder(tmp_path))}})
    cpu = torch.device("cpu")
    rates = [
        reckoned._speed(cpu, torch.float32),
        reckoned._attending(find_family(config.model).load(config.model, torch.float32).denoiser, cpu, torch.float32),
        reckoned._reading(cpu),
        reckoned._converting(cpu, torch.float32),
        reckoned._finding(),
    ]
    assert all(1e6 < rate < 1e15 for rate in rates)
