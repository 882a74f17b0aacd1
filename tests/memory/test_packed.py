"""A quantised base: what is rounded and by how much, what is kept for the backward pass, what stays as it was."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from tests.memory.tiny_step import adapted, folder_of, gradients, told
from trainers import config_io
from trainers.adapters.registry import ADAPTERS
from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families.registry import FAMILIES
from trainers.memory.meter import Meter
from trainers.memory.packed import PackedLinear, pack
from trainers.memory.packing import BLOCK, FORMS, LEVELS
from trainers.memory.saving import PLAIN, Saving, apply
from trainers.memory.units import blocks

NAMES = ("sd15", "sdxl", "sd3")
SHAPES = [(48, 64), (5, 7), (33, 130)]  # whole blocks; less than one; a last one that is not full


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: folder_of(family, tmp_path_factory.mktemp(family)) for family in NAMES}


def loaded(family: str, folder, form: str = "none"):
    """Family and components in fp32, packed."""
    components = FAMILIES[family].load(ModelConfig(base=str(folder), family=family), torch.float32)
    pack(components.denoiser, form)
    return FAMILIES[family], components


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_8_bits_are_off_by_half_a_step_of_the_row_at_most(shape):
    weight = drawn(*shape)
    weight[1] = 0
    found = FORMS["int8"].unpack(FORMS["int8"].pack(weight), weight.shape, torch.float32)
    bound = weight.abs().amax(dim=1, keepdim=True) / 127 / 2
    assert ((found - weight).abs() <= bound * 1.0001).all() and (found[1] == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_4_bits_are_off_by_half_the_widest_gap_at_most(shape):
    weight = drawn(*shape)
    weight.view(-1)[:BLOCK] = 0
    found = FORMS["nf4"].unpack(FORMS["nf4"].pack(weight), weight.shape, torch.float32)
    gap = max(b - a for a, b in zip(LEVELS, LEVELS[1:], strict=False)) / 2  # between -1 and -0.696
    for wanted, got in zip(weight.flatten().split(BLOCK), found.flatten().split(BLOCK), strict=True):
        assert (got - wanted).abs().max() <= wanted.abs().max() * (gap + 2**-11)  # the scale is rounded to fp16
    assert (found.view(-1)[:BLOCK] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_levels_themselves_are_kept(dtype):
    weight = torch.tensor(LEVELS).repeat(3, 8) * 0.5  # two blocks a row, each with the largest
    found = FORMS["nf4"].unpack(FORMS["nf4"].pack(weight), weight.shape, dtype)
    assert found.dtype == dtype and torch.allclose(found.float(), weight, rtol=2**-8)
    assert dtype != torch.float32 or torch.equal(found, weight)


@pytest.mark.parametrize("form", FORMS)
def test_a_change_of_dtype_leaves_what_is_packed_as_it_is(form):
    layer = nn.Linear(64, 64).requires_grad_(False)
    packed = PackedLinear(layer, form)
    before = packed.weight
    assert torch.equal(packed.to(torch.bfloat16).weight, before) and packed.bias.dtype == torch.bfloat16


@pytest.mark.parametrize("form", FORMS)
def test_a_packed_layer_keeps_nothing_but_its_packed_weight_and_takes_half_or_a_quarter_of_its_bytes(form):
    layer = nn.Linear(256, 512, dtype=torch.bfloat16).requires_grad_(False)
    packed, saved = PackedLinear(layer, form), []
    assert packed.nbytes == {"int8": 512 * (256 + 4), "nf4": 512 * 256 // 2 + 2 * 512 * 256 // 64 + 2048}[form]
    x = torch.ones(4, 256, dtype=torch.bfloat16, requires_grad=True)
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor), Meter() as meter:
        y = packed(x)
    assert all(one is other for one, other in zip(saved, packed.packed, strict=True))
    assert meter.now == y.nbytes  # the unpacked weight is gone
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(y) @ packed.weight)
    assert torch.equal(y, nn.functional.linear(x, packed.weight, packed.bias))


@pytest.mark.parametrize("family", NAMES)
def test_only_linear_layers_inside_transformers_are_packed(family, folders):
    _, components = loaded(family, folders[family])
    plain = {path: type(module) for path, module in components.denoiser.named_modules()}
    told = pack(components.denoiser, "nf4")
    packed = {path: m for path, m in components.denoiser.named_modules() if isinstance(m, PackedLinear)}
    assert packed and told.layers == len(packed) and f"{len(packed)} linear layers" in told.told.what
    assert {plain[path] for path in packed} == {nn.Linear}
    assert all("transformer_blocks." in path or ".attentions." in path for path in packed)
    left = {path for path, kind in plain.items() if kind is nn.Linear} - packed.keys()
    assert all(
        path.startswith(("time", "add_emb", "context_emb", "norm_out", "proj_out")) or "resnets" in path
        for path in left
    )
    norms = [module.form for path, module in packed.items() if ".norm" in path]
    assert norms == [FORMS["int8"]] * len(norms) and bool(norms) == (family == "sd3")


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind != "dora"])
@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_learns_what_it_would_learn_on_the_rounded_weights(form, kind, folders):
    packed, plain = loaded("sdxl", folders["sdxl"], form), loaded("sdxl", folders["sdxl"])
    with torch.no_grad():
        for path, layer in packed[1].denoiser.named_modules():
            if isinstance(layer, PackedLinear):
                plain[1].denoiser.get_submodule(path).weight.copy_(layer.weight)
    for one, other in zip(gradients(*adapted(*packed, type=kind)), gradients(*adapted(*plain, type=kind)), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", NAMES)
def test_computing_again_gives_the_same_gradients_to_the_bit(family, folders):
    model = adapted(*loaded(family, folders[family], "nf4"))
    denoiser = model[1].denoiser
    plain = gradients(*model)
    apply(denoiser, Saving(blocks(denoiser), offload=True))
    assert all(a is b if a is None else torch.equal(a, b) for a, b in zip(plain, gradients(*model), strict=True))
    apply(denoiser, PLAIN)


def test_a_packed_step_keeps_no_more_than_a_plain_one(folders):
    kept = []
    for form in ("none", "nf4"):
        family, components, adapter = adapted(*loaded("sdxl", folders["sdxl"], form))
        text = told(family, components)
        with Meter() as meter:
            prediction = family.denoise(components.denoiser, torch.ones(2, 4, 8, 8), torch.tensor([7, 400]), text)
        kept.append(meter.now)
        del prediction
    assert kept[1] <= kept[0]


def test_a_dora_on_a_quantised_base_is_refused_in_words():
    with pytest.raises(UserError, match="nf4 is not for dora"):
        config_io.parse({"adapter": {"type": "dora"}, "memory": {"quantize": "nf4"}})
