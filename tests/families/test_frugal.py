"""A frugal UNet predicts the same to the bit, with fewer operators."""

import torch

from tests.adapters.bases import predict, tiny_components
from trainers.bench.counter import DispatchCounter
from trainers.families.frugal import frugal


def test_the_prediction_stays_the_same_to_the_bit():
    components = tiny_components()
    before = predict(components)
    for _ in range(2):
        frugal(components.denoiser)
        assert torch.equal(predict(components), before)


def test_it_divides_no_more_and_activates_the_time_embedding_once():
    components = tiny_components()
    with DispatchCounter() as plain:
        predict(components)
    frugal(components.denoiser)
    with DispatchCounter() as counter:
        predict(components)
    blocks = sum(type(module).__name__ == "ResnetBlock2D" for module in components.denoiser.modules())
    assert plain.by_name["silu"] - counter.by_name["silu"] == blocks - 1
    assert plain.by_name["div"] > blocks and counter.by_name["div"] <= 1  # of the sines of the timestep


def test_a_block_that_scales_its_output_goes_on_scaling():
    components = tiny_components()
    components.denoiser.mid_block.resnets[0].output_scale_factor = 2.0
    before = predict(components)
    frugal(components.denoiser)
    assert torch.equal(predict(components), before)


def test_it_can_be_compiled_in_one_piece():
    components = tiny_components()
    frugal(components.denoiser)
    expected = predict(components)
    components.denoiser.compile(backend="eager", fullgraph=True)
    assert torch.equal(predict(components), expected)
