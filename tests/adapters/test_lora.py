"""Where LoRA layers go, how they start, and that the base can always be had back."""

import copy

import pytest
import torch
from torch.testing import assert_close

from tests.adapters.bases import full_size_components, predict, tiny_components, trained
from trainers.adapters.adapter import modules_of_state
from trainers.adapters.lora import attach
from trainers.adapters.names import kohya_name
from trainers.adapters.registry import ADAPTERS
from trainers.choices import ADAPTERS as CHOICES
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.families.sd15 import SD15

SPEC = SD15.spec


@pytest.fixture(scope="module")
def full_size():
    return full_size_components()


@pytest.mark.parametrize(("targets", "count"), [("attention", 128), ("transformer", 192), ("full", 278)])
def test_presets_adapt_as_many_layers_of_sd15_as_kohya(full_size, targets, count):
    components = copy.deepcopy(full_size)
    adapter = attach(components, SPEC, AdapterConfig(rank=4, targets=targets, text_encoder=True), seed=0)
    places = list(adapter.layers)
    assert len([part for part, _ in places if part == "denoiser"]) == count
    assert len([part for part, _ in places if part == "text_0"]) == 72
    assert len(places) == len(adapter.modules()) == count + 72
    paths = {path for _, path in places}
    assert not paths & {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}


def test_names_are_those_of_kohya(full_size):
    adapter = attach(copy.deepcopy(full_size), SPEC, AdapterConfig(rank=4, targets="full", text_encoder=True), seed=0)
    modules = {kohya_name(place, SPEC): module for place, module in adapter.modules().items()}
    block = "lora_unet_down_blocks_0_attentions_0"
    for name, down, up in (  # rank 4; 1x1 convolutions stay 4-D
        (f"{block}_proj_in", (4, 320, 1, 1), (320, 4, 1, 1)),
        (f"{block}_transformer_blocks_0_attn1_to_q", (4, 320), (320, 4)),
        (f"{block}_transformer_blocks_0_attn2_to_k", (4, 768), (320, 4)),
        (f"{block}_transformer_blocks_0_attn2_to_out_0", (4, 320), (320, 4)),
        (f"{block}_transformer_blocks_0_ff_net_0_proj", (4, 320), (2560, 4)),
        (f"{block}_transformer_blocks_0_ff_net_2", (4, 1280), (320, 4)),
        ("lora_unet_mid_block_attentions_0_proj_out", (4, 1280, 1, 1), (1280, 4, 1, 1)),
        ("lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_v", (4, 768), (1280, 4)),
        ("lora_unet_down_blocks_0_resnets_0_conv1", (4, 320, 3, 3), (320, 4, 1, 1)),
        ("lora_unet_down_blocks_1_resnets_0_conv_shortcut", (4, 320, 1, 1), (640, 4, 1, 1)),
        ("lora_unet_down_blocks_0_resnets_0_time_emb_proj", (4, 1280), (320, 4)),
        ("lora_unet_down_blocks_0_downsamplers_0_conv", (4, 320, 3, 3), (320, 4, 1, 1)),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", (4, 768), (768, 4)),
        ("lora_te_text_model_encoder_layers_11_self_attn_out_proj", (4, 768), (768, 4)),
        ("lora_te_text_model_encoder_layers_11_mlp_fc1", (4, 768), (3072, 4)),
        ("lora_te_text_model_encoder_layers_0_mlp_fc2", (4, 3072), (768, 4)),
    ):
        assert (tuple(modules[name].down.shape), tuple(modules[name].up.shape)) == (down, up), name


def test_a_pattern_chooses_layers_anywhere_in_the_path():
    adapter = attach(tiny_components(), SPEC, AdapterConfig(rank=2, targets=r"up_blocks.*attn2\.to_[kv]"), seed=0)
    assert adapter.layers and all("up_blocks" in path and "attn2" in path for _, path in adapter.layers)


@pytest.mark.parametrize("targets", ["no_such_layer", "(unclosed"])
def test_targets_that_fit_nothing_are_refused(targets):
    with pytest.raises(UserError, match=r"adapter\.targets"):
        attach(tiny_components(), SPEC, AdapterConfig(targets=targets), seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_fp32_masters_on_any_base(dtype):
    adapter = attach(tiny_components(dtype), SPEC, AdapterConfig(rank=2, text_encoder=True), seed=0)
    assert {p.dtype for p in adapter.denoiser_parameters() + adapter.text_parameters()} == {torch.float32}


def test_a_fresh_adapter_leaves_the_output_unchanged():
    components = tiny_components()
    before = predict(components)
    attach(components, SPEC, AdapterConfig(rank=4, targets="full", text_encoder=True), seed=0)
    assert_close(predict(components), before, rtol=0, atol=1e-6)


def test_the_start_follows_from_the_seed_alone():
    config = AdapterConfig(rank=4, text_encoder=True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = attach(tiny_components(), SPEC, config, seed=5).state()
    torch.manual_seed(2)
    other = attach(tiny_components(), SPEC, config, seed=5).state()
    assert all(torch.equal(one[key], other[key]) for key in one)
    different = attach(tiny_components(), SPEC, config, seed=6).state()
    assert not torch.equal(one[next(iter(one))], different[next(iter(one))])
    components = tiny_components()
    torch.set_rng_state(before)
    attach(components, SPEC, config, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_start_is_kaiming_uniform():
    components = tiny_components()
    for (_, path), module in attach(components, SPEC, AdapterConfig(rank=64), seed=0).modules().items():
        bound = module.down[0].numel() ** -0.5
        assert 0.9 * bound < module.down.abs().max() <= bound, path
        assert not module.up.any()


def test_only_the_adapter_gets_gradients():
    components = tiny_components()
    adapter = attach(components, SPEC, AdapterConfig(rank=2, text_encoder=True), seed=0)
    trained(adapter)
    predict(components).square().mean().backward()
    mine = {id(p) for p in adapter.denoiser_parameters() + adapter.text_parameters()}
    for model in (components.denoiser, *components.text_encoders):
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in mine), name


def test_a_disabled_adapter_is_the_base_and_comes_back():
    components = tiny_components()
    base = predict(components)
    adapter = attach(components, SPEC, AdapterConfig(rank=2, text_encoder=True), seed=0)
    trained(adapter)
    frozen = adapter.text_parameters()[0].requires_grad_(False)
    with_it = predict(components)
    with adapter.disabled():
        assert torch.equal(predict(components), base)
    assert torch.equal(predict(components), with_it)
    assert not torch.allclose(base, with_it)
    assert not frozen.requires_grad and adapter.denoiser_parameters()[0].requires_grad


def test_strength_scales_the_update():
    components = tiny_components()
    config = AdapterConfig(rank=2, targets=r"mid_block.*attn1\.to_out")
    base = predict(components)
    adapter = attach(components, SPEC, config, seed=0)
    trained(adapter)
    whole = predict(components) - base
    adapter.set_strength(0.0)
    assert_close(predict(components), base)
    adapter.set_strength(0.5)
    assert_close(predict(components) - base, whole / 2, rtol=0.05, atol=1e-4)  # nearly linear for a small update


def test_doubled_alpha_doubles_the_delta():
    deltas = []
    for alpha in (3.0, 6.0):
        adapter = attach(tiny_components(), SPEC, AdapterConfig(rank=4, alpha=alpha), seed=0)
        trained(adapter)
        deltas.append([module.delta() for module in adapter.modules().values()])
    for one, two in zip(*deltas, strict=True):
        assert_close(2 * one, two)


def test_the_text_encoder_has_its_own_rank_and_alpha():
    config = AdapterConfig(rank=4, alpha=2.0, text_encoder=True, text_rank=3)
    modules = attach(tiny_components(), SPEC, config, seed=0).modules()
    shapes = {
        part: {(m.rank, m.alpha) for (p, _), m in modules.items() if p == part} for part in ("denoiser", "text_0")
    }
    assert shapes == {"denoiser": {(4, 2.0)}, "text_0": {(3, 3.0)}}


def test_state_comes_back_to_the_bit_and_nothing_else_does():
    config = AdapterConfig(rank=2, text_encoder=True)
    adapter = attach(tiny_components(), SPEC, config, seed=0)
    trained(adapter)
    state = adapter.state()
    other = attach(tiny_components(), SPEC, config, seed=1)
    other.load_state(state)
    assert all(torch.equal(value, state[key]) for key, value in other.state().items())
    key = next(iter(state))
    for wrong in ({**state, "more": torch.zeros(1)}, {k: v for k, v in state.items() if k != key}):
        with pytest.raises(UserError, match="does not fit"):
            other.load_state(wrong)
    with pytest.raises(UserError, match="does not fit"):
        other.load_state({**state, key: state[key][:1]})


def test_a_checkpoint_tells_its_modules_without_the_base():
    config = AdapterConfig(rank=4, alpha=2.0, text_encoder=True, text_rank=3)
    adapter = attach(tiny_components(), SPEC, config, seed=0)
    trained(adapter)
    from_state, live = modules_of_state(adapter.state(), config), adapter.modules()
    assert list(from_state) == list(live)
    assert all(torch.equal(from_state[place].delta(), live[place].delta()) for place in live)


def test_adapter_types_are_those_the_settings_offer():
    assert set(ADAPTERS) == set(CHOICES)
