"""Computing again and keeping less: the same gradients to the bit, and fewer bytes."""

import pytest
import torch

from tests.memory.tiny_step import folder_of, gradients, loaded, told
from trainers import prepacked
from trainers.choices import ADAPTERS
from trainers.config import MemoryConfig
from trainers.memory.meter import Meter
from trainers.memory.saving import PLAIN, Saving, apply
from trainers.memory.units import blocks, units

FAMILIES = ("sd15", "sdxl", "sd3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: folder_of(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def all_equal(one, other) -> bool:
    pairs = list(zip(one, other, strict=True))  # None where a layer was left out of the step
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_plain_torch_to_the_bit(family, folders):
    model = loaded(family, folders[family])
    denoiser = model[1].denoiser
    plain = gradients(*model)
    assert any(grad.abs().max() > 0 for grad in plain[1:])
    parts = tuple(path for path, _ in units(denoiser) if path not in blocks(denoiser))
    for saving in (Saving(), Saving(parts), Saving(blocks(denoiser)), Saving(blocks(denoiser), offload=True), PLAIN):
        apply(denoiser, saving)
        assert all_equal(plain, gradients(*model)), saving


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_gradients_stay_where_convolutions_are_prepacked_and_turn_the_layout(family, folders, monkeypatch):
    """Prepacked convolutions give channels last, and what comes back to a normalisation need not be laid out so."""
    monkeypatch.setattr(prepacked, "LEAST", 1)
    model = loaded(family, folders[family])
    denoiser, config = model[1].denoiser, MemoryConfig()
    plain = gradients(*model)
    assert prepacked.chosen(denoiser, config)
    prepacked.prepack(denoiser, config, PLAIN)
    for saving in (PLAIN, Saving(), Saving(blocks(denoiser))):
        apply(denoiser, saving)
        for one, other in zip(plain, gradients(*model), strict=True):
            assert one is other or (one - other).norm() <= 1e-4 * one.norm(), saving


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_adapter_type_has_the_same_gradients(kind, folders):
    model = loaded("sdxl", folders["sdxl"], type=kind)
    plain = gradients(*model)
    apply(model[1].denoiser, Saving(blocks(model[1].denoiser)))
    assert all_equal(plain, gradients(*model))


@pytest.mark.parametrize("dropout", ["dropout", "rank_dropout", "module_dropout"])
def test_what_is_dropped_is_dropped_again(dropout, folders):
    model = loaded("sdxl", folders["sdxl"], **{dropout: 0.3})
    plain = gradients(*model)
    apply(model[1].denoiser, Saving(blocks(model[1].denoiser)), draws=True)
    assert all_equal(plain, gradients(*model))


def test_what_stands_before_the_first_adapter_is_not_computed_again(folders):
    model = loaded("sdxl", folders["sdxl"], targets=r"up_blocks\.1\..*to_q")
    denoiser = model[1].denoiser
    calls = []
    first = denoiser.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    last = denoiser.up_blocks[1].attentions[2].transformer_blocks[0].attn1
    for module in (first, last):
        module.register_forward_hook(lambda module, inputs, output: calls.append(module))
    apply(denoiser, Saving(blocks(denoiser)))
    gradients(*model)
    assert calls.count(first) == 1 and calls.count(last) == 2


def measured(model) -> Meter:
    text = told(*model[:2])
    with Meter() as meter:
        gradients(*model, text)
    return meter


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_less_costs_no_products_and_computing_again_frees_more(family, folders):
    model = loaded(family, folders[family])
    denoiser = model[1].denoiser
    plain = measured(model)
    apply(denoiser, Saving())
    slim = measured(model)
    apply(denoiser, Saving(blocks(denoiser)))
    everything = measured(model)
    assert slim.flops == plain.flops < everything.flops < 2 * plain.flops  # no forward pass costs more than a step
    assert everything.peak < slim.peak <= plain.peak
    apply(denoiser, PLAIN)
    assert measured(model).peak == plain.peak
    assert family != "sd15" or slim.peak < 0.95 * plain.peak  # the others are all text at this size, or have no gates


def test_pictures_are_drawn_as_ever(folders):
    family, components, _ = loaded("sdxl", folders["sdxl"])
    text, latents = told(family, components, 1), torch.ones(1, 4, 8, 8)
    with torch.no_grad():
        plain = family.denoise(components.denoiser, latents, torch.tensor([3]), text)
        apply(components.denoiser, Saving(blocks(components.denoiser), offload=True))
        assert torch.equal(family.denoise(components.denoiser, latents, torch.tensor([3]), text), plain)
