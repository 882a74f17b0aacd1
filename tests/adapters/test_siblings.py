"""Query, key and value computed together are what they are alone, and stay layers of their own."""

import pytest
import torch
from torch.testing import assert_close

from tests.adapters.bases import predict, tiny_components, trained
from trainers.adapters.lora import attach
from trainers.adapters.siblings import JOINS, find_siblings
from trainers.bench.counter import DispatchCounter
from trainers.config import AdapterConfig
from trainers.families.sd15 import SD15

DTYPES = [torch.float32, torch.bfloat16]
GROUPS = {"attn1": ["to_q", "to_k", "to_v"], "attn2": ["to_k", "to_v"], "self_attn": ["q_proj", "k_proj", "v_proj"]}


def adapted(dtype=torch.float32, **settings):
    components = tiny_components(dtype)
    config = AdapterConfig(**{"rank": 4, "alpha": 2.0, "targets": "attention", "text_encoder": True, **settings})
    adapter = attach(components, SD15.spec, config, seed=0)
    trained(adapter)
    return components, adapter


def alone(adapter):
    for layer in adapter.layers.values():
        layer.siblings = None


def gradients(components, adapter):
    prediction = predict(components)
    prediction.float().square().mean().backward()
    return prediction.detach(), [parameter.grad for _, _, parameter in adapter.trained()]


def groups_of(components, adapter):
    models = (components.denoiser, *components.text_encoders)
    return [group for model in models for group in find_siblings(model, adapter.layers.values())]


def test_the_groups_are_those_that_read_one_input():
    components, adapter = adapted()
    names = {id(layer): path for (_, path), layer in adapter.layers.items()}
    found = [
        [names[id(layer)].rsplit(".", 2)[1:] for layer in group.layers] for group in groups_of(components, adapter)
    ]
    assert {members[0][0] for members in found} == set(GROUPS)
    assert all([name for _, name in members] == GROUPS[members[0][0]] for members in found)
    attentions = [name for name, _ in components.denoiser.named_modules() if name.endswith(("attn1", "attn2"))]
    assert len(found) == len(attentions) + components.text_encoders[0].config.num_hidden_layers


@pytest.mark.parametrize("dtype", DTYPES)
def test_together_they_compute_what_each_computes_alone(dtype):
    (one, ours), (other, theirs) = adapted(dtype), adapted(dtype)
    (prediction, grads), _ = gradients(one, ours), alone(theirs)
    expected, references = gradients(other, theirs)
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    assert_close(prediction, expected, **near)
    for mine, reference in zip(grads, references, strict=True):
        assert (mine - reference).norm() <= (1e-5 if dtype == torch.float32 else 0.05) * reference.norm() + 1e-9


def test_a_step_takes_fewer_operators_by_sixteen_for_query_key_and_value_and_by_four_for_key_and_value():
    counts = []
    for together in (True, False):
        components, adapter = adapted(torch.bfloat16)
        if not together:
            alone(adapter)
        gradients(components, adapter)  # lays the base's weights side by side
        for _, _, parameter in adapter.trained():
            parameter.grad = None
        with DispatchCounter() as counter:
            gradients(components, adapter)
        counts.append(sum(counter.dispatches.values()))
    groups = groups_of(*adapted())
    saved = sum(16 if len(group.layers) == 3 else 4 for group in groups)
    assert counts[1] - counts[0] >= saved


def test_the_base_keeps_its_weights_and_its_parameters():
    components, adapter = adapted()
    before = {name: (parameter, parameter.clone()) for name, parameter in components.denoiser.named_parameters()}
    gradients(components, adapter)
    for name, parameter in components.denoiser.named_parameters():
        assert parameter is before[name][0] and torch.equal(parameter, before[name][1]), name


def test_a_model_that_was_moved_is_joined_anew_and_not_for_ever():
    components, adapter = adapted()
    expected = predict(components)
    for _ in range(JOINS + 2):
        for parameter in components.denoiser.parameters():
            parameter.data = parameter.data.clone()
        assert_close(predict(components), expected)


def test_layers_merged_into_the_base_predict_the_same_and_come_out_again():
    components, adapter = adapted()
    expected = predict(components)
    for layer in adapter.layers.values():
        layer.merge()
    assert_close(predict(components), expected, rtol=1e-4, atol=1e-5)
    for layer in adapter.layers.values():
        layer.unmerge()
    assert_close(predict(components), expected, rtol=1e-4, atol=1e-5)


def test_one_layer_called_by_itself_gives_its_own_output():
    components, adapter = adapted()
    predict(components)
    layer = next(layer for layer in adapter.layers.values() if layer.siblings)
    x = torch.randn(2, 5, layer.in_features)
    expected = layer.base_layer(x) + layer.scaling["default"] * layer.lora_B["default"](layer.lora_A["default"](x))
    for same in (x, x, x.clone()):
        assert_close(layer(same), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_with_a_strength_of_its_own_is_computed_alone():
    components, adapter = adapted()
    layer = next(layer for layer in adapter.layers.values() if layer.siblings)
    plain = predict(components)
    layer.set_scale("default", 3.0)
    changed = predict(components)
    alone(adapter)
    assert not torch.allclose(changed, plain)
    assert_close(changed, predict(components), rtol=1e-5, atol=1e-5)


def test_layers_with_one_between_them_are_computed_alone():
    """Weights of a streamed block lie in the order of the block, where these are no neighbours."""
    assert groups_of(*adapted(targets="to_(q|v)$", text_encoder=False)) == []
    assert {len(group.layers) for group in groups_of(*adapted(targets="to_(q|k)$", text_encoder=False))} == {2}
