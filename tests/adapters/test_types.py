"""What every adapter type promises, from the first step to the file and back."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests.adapters.bases import predict, stirred, tiny_components
from trainers.adapters.adapter import modules_of_state
from trainers.adapters.adapter_file import apply_file, read_adapter, warm_start
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.targets import parts
from trainers.adapters.weights import LoraWeights
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.export import check_file, writer
from trainers.export.kohya import kohya_name
from trainers.families.sd15 import SD15

SPEC = SD15.spec
TYPES = list(ADAPTERS)
LORAS = ("lora", "locon", "dora")


def config_of(kind: str, **changes: object) -> AdapterConfig:
    """Every kind of layer, each with a rank and an alpha of its own."""
    settings = {"rank": 4, "alpha": 2.0, "conv_rank": 3, "conv_alpha": 1.0, "text_encoder": True, "text_rank": 2}
    return AdapterConfig(**{"type": kind, "targets": "full", **settings, **changes})


def attach(components, kind: str, seed: int = 0, fast: bool = True, **changes: object):
    return ADAPTERS[kind](components, SPEC, config_of(kind, **changes), seed, fast)


def trained_pair(kind: str, dtype: torch.dtype = torch.float32, **changes: object):
    """(components, adapter) as after some training."""
    components = tiny_components(dtype)
    adapter = attach(components, kind, **changes)
    stirred(adapter)
    adapter.eval()
    return components, adapter


def base_weights(components=None):
    """Place -> weight of the base."""
    models = parts(components or tiny_components())
    return lambda place: models[place[0]].get_submodule(place[1]).weight.detach()


def merged(modules, strength: float = 1.0):
    """The base with every delta-W added to its weights."""
    components = tiny_components()
    weight = base_weights(components)
    for place, module in modules.items():
        own = weight(place)
        own += strength * module.delta(own)
    return components


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", TYPES)
def test_a_fresh_adapter_changes_nothing_and_its_masters_are_fp32(kind, dtype):
    components = tiny_components(dtype)
    before = predict(components)
    adapter = attach(components, kind)
    assert_close(predict(components), before, rtol=0, atol=1e-6)
    assert {parameter.dtype for _, _, parameter in adapter.trained()} == {torch.float32}
    assert all(module.idle for module in adapter.modules().values())


@pytest.mark.parametrize("kind", TYPES)
def test_the_start_follows_from_the_seed_alone(kind):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = attach(tiny_components(), kind, seed=5).state()
    torch.manual_seed(2)
    other = attach(tiny_components(), kind, seed=5).state()
    assert all(torch.equal(one[key], other[key]) for key in one)
    different = attach(tiny_components(), kind, seed=6).state()
    assert any(not torch.equal(one[key], different[key]) for key in one)
    components = tiny_components()
    torch.set_rng_state(before)
    attach(components, kind)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", TYPES)
def test_the_forward_is_that_of_the_base_with_the_delta_added(kind):
    components, adapter = trained_pair(kind)
    expected = predict(merged(adapter.modules()))
    assert_close(predict(components), expected, rtol=1e-3, atol=1e-4)
    assert (predict(tiny_components()) - expected).abs().max() > 0.05


@pytest.mark.parametrize("kind", TYPES)
def test_the_delta_is_that_of_peft(kind):
    components, adapter = trained_pair(kind)
    weight = base_weights()
    for place, layer in adapter.layers.items():
        own = weight(place)
        layer.merge()
        assert_close(layer.get_base_layer().weight.detach() - own, adapter.modules()[place].delta(own))


@pytest.mark.parametrize(("kind", "dropout"), [("dora", 0.0), ("dora", 0.3), ("loha", 0.0), ("lokr", 0.0)])
def test_forward_and_gradients_are_those_of_peft(kind, dropout):
    results = []
    for fast in (True, False):
        components = tiny_components()
        adapter = attach(components, kind, fast=fast, dropout=dropout)
        stirred(adapter)
        adapter.train()
        torch.manual_seed(0)
        predict(components).square().mean().backward()
        results.append((predict(components).detach(), [parameter.grad for _, _, parameter in adapter.trained()]))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, reference in zip(our_gradients, their_gradients, strict=True):
        assert (mine - reference).norm() <= 1e-3 * reference.norm() + 1e-8


@pytest.mark.parametrize("kind", TYPES)
def test_on_a_bf16_base_the_prediction_is_right_to_bf16s_rounding(kind):
    components, adapter = trained_pair(kind, torch.bfloat16)
    exact, other = trained_pair(kind)
    for model, source in zip(parts(exact).values(), parts(components).values(), strict=True):
        model.load_state_dict(source.state_dict())  # the same weights, rounded to bf16, and the same adapter
    expected, plain = predict(exact), predict(tiny_components())
    error = (predict(components).float() - expected).norm()
    assert error <= 0.05 * expected.norm() and error <= 0.3 * (expected - plain).norm()


@pytest.mark.parametrize("kind", TYPES)
def test_only_the_adapter_gets_gradients_and_all_of_it(kind):
    components, adapter = trained_pair(kind)
    predict(components).square().mean().backward()
    mine = {id(parameter) for _, _, parameter in adapter.trained()}
    for model in parts(components).values():
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in mine), name


@pytest.mark.parametrize("kind", TYPES)
def test_training_lowers_the_loss_and_leaves_the_base_alone(kind):
    components = tiny_components()
    before = copy.deepcopy({n: p for m in parts(components).values() for n, p in m.named_parameters()})
    target = predict(tiny_components(), seed=1).detach()
    adapter = attach(components, kind)
    adapter.train()
    optimizer = torch.optim.AdamW([parameter for _, _, parameter in adapter.trained()], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = (predict(components) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert not any(module.idle for module in adapter.modules().values())
    for place, layer in adapter.layers.items():
        assert torch.equal(layer.get_base_layer().weight, before[f"{place[1]}.weight"])


@pytest.mark.parametrize("kind", TYPES)
def test_it_can_be_switched_off_and_set_to_any_strength(kind):
    base = predict(tiny_components())
    components, adapter = trained_pair(kind)
    whole = predict(components)
    with adapter.disabled():
        assert torch.equal(predict(components), base)
    assert torch.equal(predict(components), whole)
    adapter.set_strength(0.0)
    assert_close(predict(components), base, rtol=0, atol=1e-5)
    adapter.set_strength(0.5)
    assert_close(predict(components), predict(merged(adapter.modules(), 0.5)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", TYPES)
def test_a_checkpoint_tells_its_modules_without_the_base_and_comes_back_to_the_bit(kind):
    components, adapter = trained_pair(kind, rank_stabilised=True)
    state = adapter.state()
    modules, live, weight = modules_of_state(state, AdapterConfig()), adapter.modules(), base_weights()
    assert list(modules) == list(live)
    for place, module in modules.items():
        assert type(module) is type(live[place]) and module.alpha == live[place].alpha
        assert torch.equal(module.delta(weight(place)), live[place].delta(weight(place)))
    other = attach(tiny_components(), kind, seed=1, rank_stabilised=True)
    other.load_state(state)
    assert all(torch.equal(value, state[key]) for key, value in other.state().items())
    with pytest.raises(UserError, match="does not fit"):
        attach(tiny_components(), kind, alpha=1.0).load_state(state)


@pytest.mark.parametrize("kind", TYPES)
def test_a_written_file_holds_the_trained_delta_and_predicts_the_same(kind, tmp_path):
    components, adapter = trained_pair(kind)
    expected, weight = predict(components), base_weights()
    report = writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32")
    read = read_adapter(report.path).modules
    assert len(read) == len(adapter.layers) == sum(report.modules.values())
    for place, module in adapter.modules().items():
        delta = module.delta(weight(place))
        assert (read[kohya_name(place, SPEC)].delta(weight(place)) - delta).norm() <= 1e-3 * delta.norm()
    fresh = tiny_components()
    applied = apply_file(fresh, report.path)
    assert_close(predict(fresh), expected, rtol=1e-4, atol=1e-4)
    assert applied.unknown == ()
    with applied.disabled():
        assert torch.equal(predict(fresh), predict(tiny_components()))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", TYPES)
def test_a_rounded_file_passes_its_check_and_a_changed_one_does_not(kind, dtype, tmp_path):
    _, adapter = trained_pair(kind)
    modules = adapter.modules()
    report = writer.write(modules, {}, SPEC, tmp_path / "a.safetensors", dtype)
    assert 0 < report.rounding < 0.02
    tensors = load_file(report.path)
    key = next(key for key in tensors if key.endswith(("lora_up.weight", "hada_w1_a", "lokr_w1")))
    save_file(tensors | {key: tensors[key] * 1.25}, report.path)
    with pytest.raises(UserError, match="is not what was to be written"):
        check_file.compare(read_adapter(report.path).modules, modules, "a", dtype)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_peft_loads_its_own_layout(kind, both, tmp_path):
    settings = {"decompose_both": True, "conv_rank": 1, "rank": 1, "factor": 8} if both else {"targets": "transformer"}
    if both and kind != "lokr":
        pytest.skip("a setting of LoKr")
    _, adapter = trained_pair(kind, **settings)
    writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32", "peft")
    weight = base_weights()
    for part, name in (("denoiser", "unet"), ("text_0", "text_encoder")):
        loaded = PeftModel.from_pretrained(parts(tiny_components())[part], tmp_path / "a" / name).base_model.model
        fresh = tiny_components()
        applied = apply_file(fresh, tmp_path / "a" / name / "adapter_model.safetensors")
        for place in (place for place in adapter.layers if place[0] == part):
            own, layer = weight(place), loaded.get_submodule(place[1])
            expected = adapter.modules()[place].delta(own)
            assert_close(applied.modules()[place].delta(own), expected)
            layer.merge()
            assert_close(layer.get_base_layer().weight.detach() - own, expected)


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_a_layout_that_diffusers_does_not_read_is_refused(kind, tmp_path):
    _, adapter = trained_pair(kind)
    with pytest.raises(UserError, match=r"diffusers reads no Lo(Ha|Kr) adapters\. Use the kohya layout"):
        writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32", "diffusers")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dropout", ["dropout", "rank_dropout", "module_dropout"])
def test_dropouts_act_while_training_only_and_follow_the_seed(kind, dropout):
    components = tiny_components()
    adapter = attach(components, kind, **{dropout: 0.3})
    stirred(adapter, size=0.3)
    adapter.eval()
    assert torch.equal(predict(components), predict(components))
    adapter.train()
    seen = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seen.append(predict(components).detach())
    assert torch.equal(seen[0], seen[1]) and not torch.allclose(seen[0], seen[2])
    predict(components).square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for _, _, p in adapter.trained())


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_rank_dropout_keeps_the_mean_and_drops_whole_ranks_for_each_picture(kind):
    adapter = attach(tiny_components(), kind, rank_dropout=0.5)
    layer = next(iter(adapter.layers.values()))
    adapter.train()
    torch.manual_seed(0)
    hidden = layer.thinned(torch.ones(2000, 4, 3, 3))  # that layer is a 1x1 convolution
    assert set(hidden.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(hidden.amax((2, 3)), hidden.amin((2, 3)))
    assert abs(hidden.mean().item() - 1) < 0.05


@pytest.mark.parametrize("kind", TYPES)
def test_a_warm_start_goes_on_from_the_file(kind, tmp_path):
    components, adapter = trained_pair(kind, alpha=2.0)
    expected = predict(components)
    path = writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32").path
    fresh = tiny_components()
    other = attach(fresh, kind, seed=9, alpha=8.0)  # another alpha, the same update
    assert warm_start(other, fresh, path) == []
    assert_close(predict(fresh), expected, rtol=1e-4, atol=1e-4)
    assert {module.alpha for place, module in other.modules().items() if place[0] == "denoiser"} != {2.0}
    assert all(parameter.requires_grad for _, _, parameter in other.trained())


def test_a_warm_start_lists_what_it_does_not_take(tmp_path):
    _, adapter = trained_pair("lora")
    path = writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32").path
    save_file(load_file(path) | {"bundle_emb.x": torch.ones(2)}, path)
    components = tiny_components()
    smaller = attach(components, "lora", targets="attention", text_encoder=False)
    left = warm_start(smaller, components, path)
    assert "bundle_emb.x" in left and "denoiser: mid_block.resnets.0.conv1" in left
    assert len(left) == len(adapter.layers) - len(smaller.layers) + 1


def test_a_warm_start_says_nothing_of_layers_that_change_nothing(tmp_path):
    _, adapter = trained_pair("lora")
    modules = {place: module for place, module in adapter.modules().items() if place[0] == "denoiser"}
    idle = next(place for place in modules if "resnets" in place[1])
    modules[idle] = replace(modules[idle], up=torch.zeros_like(modules[idle].up))
    path = writer.write(modules, {}, SPEC, tmp_path / "a.safetensors", "fp32").path
    components = tiny_components()
    assert "denoiser: " + idle[1] not in warm_start(attach(components, "lora", targets="attention"), components, path)
    components = tiny_components()
    whole = attach(components, "lora")
    assert warm_start(whole, components, path) == [] and whole.modules()[idle].idle


@pytest.mark.parametrize("alpha", [3**0.5 * 3, 117.58, 387.0])
def test_alpha_is_never_rounded_to_a_files_dtype(alpha):
    weights = LoraWeights(down=torch.ones(3, 4), up=torch.ones(4, 3), alpha=alpha)
    assert weights.stored(torch.bfloat16)["alpha"].item() == pytest.approx(alpha, rel=1e-7)
    assert replace(weights, alpha=16.0).stored(torch.bfloat16)["alpha"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("lora", {"rank": 8}, r"a\.safetensors has rank 4 at .*, and rank 8 is to be trained"),
        ("dora", {}, "is a LoRA adapter, and a DoRA is to be trained"),
        ("lora", {"targets": "conv_in", "text_encoder": False}, "holds none of the layers that are to be trained"),
    ],
)
def test_a_warm_start_from_a_file_that_does_not_fit_is_refused(tmp_path, kind, changes, sentence):
    _, adapter = trained_pair("lora")
    path = writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32").path
    components = tiny_components()
    with pytest.raises(UserError, match=sentence):
        warm_start(attach(components, kind, **changes), components, path)


def test_a_warm_start_of_lokr_with_other_factors_is_refused(tmp_path):
    _, adapter = trained_pair("lokr", rank=1, conv_rank=1, text_rank=1, factor=2)
    path = writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32").path
    components = tiny_components()
    with pytest.raises(UserError, match="other sizes|rank"):
        warm_start(attach(components, "lokr", rank=1, conv_rank=1, text_rank=1, factor=4), components, path)


def test_a_file_of_several_types_is_applied_whole(tmp_path):
    tensors, expected = {}, {}
    for kind in ("dora", "loha", "lokr", "lora"):
        _, adapter = trained_pair(kind)
        own = [place for i, place in enumerate(adapter.layers) if i % 4 == ("dora", "loha", "lokr", "lora").index(kind)]
        modules = {place: adapter.modules()[place] for place in own}
        path = writer.write(modules, {}, SPEC, tmp_path / f"{kind}.safetensors", "fp32").path
        tensors |= load_file(path)
        expected |= modules
    save_file(tensors, tmp_path / "mixed.safetensors")
    components = tiny_components()
    applied = apply_file(components, tmp_path / "mixed.safetensors")
    assert len(applied.layers) == len(expected) == 91 and applied.unknown == ()
    assert_close(predict(components), predict(merged(expected)), rtol=1e-3, atol=1e-4)


def test_a_dora_over_input_columns_is_applied(tmp_path):
    name, place = "lora_unet_mid_block_resnets_0_conv1", ("denoiser", "mid_block.resnets.0.conv1")
    generator = torch.Generator().manual_seed(0)
    out, width = 32, 32
    tensors = {
        f"{name}.lora_down.weight": torch.randn(2, width, 3, 3, generator=generator),
        f"{name}.lora_up.weight": torch.randn(out, 2, 1, 1, generator=generator),
        f"{name}.dora_scale": torch.rand(1, width, 1, 1, generator=generator) + 0.5,
    }
    save_file(tensors, tmp_path / "a.safetensors")
    (module,) = read_adapter(tmp_path / "a.safetensors").modules.values()
    components = tiny_components()
    apply_file(components, tmp_path / "a.safetensors")
    assert_close(predict(components), predict(merged({place: module})), rtol=1e-3, atol=1e-4)


def test_a_type_that_is_not_read_is_refused_in_a_sentence(tmp_path):
    save_file({"lora_unet_mid_block_attentions_0_proj_in.oft_blocks": torch.ones(2, 4, 4)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="is an OFT adapter, which cannot be used here"):
        apply_file(tiny_components(), tmp_path / "a.safetensors")
