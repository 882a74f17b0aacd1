"""The lean forward equals peft's, costs fewer kernels, and the gradients agree."""

import pytest
import torch
from peft.tuners.lora import Conv2d, Linear
from torch.testing import assert_close

from tests.adapters.bases import predict, tiny_components, trained
from trainers.adapters.lora import attach
from trainers.bench.counter import DispatchCounter
from trainers.config import AdapterConfig
from trainers.families.sd15 import SD15

DTYPES = [torch.float32, torch.bfloat16]


def both(dtype, config, strength=1.0):
    """The same trained adapter on the same base: peft's forward, and the lean one."""
    pair = []
    for fast in (False, True):
        components = tiny_components(dtype)
        adapter = attach(components, SD15.spec, config, seed=0, fast=fast)
        trained(adapter)
        adapter.set_strength(strength)
        pair.append((components, adapter))
    return pair


def gradients(components, adapter):
    components.denoiser.train(False)
    prediction = predict(components)
    prediction.float().square().mean().backward()
    return prediction.detach(), [p.grad for p in adapter.denoiser_parameters() + adapter.text_parameters()]


@pytest.mark.parametrize(("alpha", "strength"), [(4.0, 1.0), (1.0, 1.0), (4.0, 0.5)])
def test_forward_and_gradients_equal_those_of_peft(alpha, strength):
    config = AdapterConfig(rank=4, alpha=alpha, targets="full", text_encoder=True)
    (one, theirs), (other, ours) = [gradients(*pair) for pair in both(torch.float32, config, strength)]
    assert_close(other, one, rtol=1e-5, atol=1e-5)
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine - reference).norm() <= 2e-5 * reference.norm() + 1e-9


def test_in_bf16_it_is_as_close_to_the_exact_result_as_peft():
    config = AdapterConfig(rank=4, alpha=2.0, targets="full", text_encoder=True)
    rounded = both(torch.bfloat16, config)
    components, adapter = both(torch.float32, config)[0]
    for model, source in zip(
        (components.denoiser, *components.text_encoders),
        (rounded[0][0].denoiser, *rounded[0][0].text_encoders),
        strict=True,
    ):
        model.load_state_dict(source.state_dict())  # the same base, its weights rounded to bf16
    components.denoiser.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().float(), *inputs[1:]))
    exact, exact_gradients = gradients(components, adapter)
    errors = []
    for pair in rounded:
        output, grads = gradients(*pair)
        assert {grad.dtype for grad in grads} == {torch.float32}
        shares = [(g - e).norm() / (e.norm() + 1e-9) for g, e in zip(grads, exact_gradients, strict=True)]
        errors.append(((output - exact).norm() / exact.norm(), torch.stack(shares).mean()))
    (theirs, their_gradients), (ours, our_gradients) = errors
    assert ours < 1.5 * theirs < 0.1 and our_gradients < 1.5 * their_gradients < 0.3


def test_layers_stay_those_of_peft():
    _, (components, adapter) = both(torch.float32, AdapterConfig(rank=2, targets="full"))
    assert all(isinstance(layer, (Linear, Conv2d)) for layer in adapter.layers.values())
    assert all(components.denoiser.get_submodule(path) is layer for (_, path), layer in adapter.layers.items())


def test_dropout_acts_while_training_and_not_in_eval_mode():
    components = tiny_components()
    adapter = attach(components, SD15.spec, AdapterConfig(rank=4, dropout=0.5), seed=0)
    trained(adapter, size=0.5)
    adapter.eval()
    still = [predict(components) for _ in range(2)]
    adapter.train()
    moving = [predict(components) for _ in range(2)]
    assert torch.equal(*still) and not torch.allclose(*moving)


def test_dropout_draws_what_peft_draws():
    outputs = []
    for components, adapter in both(torch.float32, AdapterConfig(rank=4, dropout=0.3)):
        adapter.train()
        torch.manual_seed(0)
        outputs.append(predict(components))
    assert_close(*outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_of_the_optimizer_reaches_the_next_forward(dtype):
    _, (components, adapter) = both(dtype, AdapterConfig(rank=4, alpha=2.0))
    before = predict(components)
    with torch.no_grad():
        for parameter in adapter.denoiser_parameters():
            parameter.mul_(1.5)
    assert not torch.equal(predict(components), before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_checkpointing_gives_the_same_gradients(dtype):
    results = []
    for checkpointing in (False, True):
        _, (components, adapter) = both(dtype, AdapterConfig(rank=4, alpha=2.0))
        if checkpointing:
            components.denoiser.enable_gradient_checkpointing()
        results.append(gradients(components, adapter)[1])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_prediction_without_gradients_does_not_spoil_the_next_step():
    _, (components, adapter) = both(torch.bfloat16, AdapterConfig(rank=4))
    with torch.no_grad():
        predict(components)
    assert all(grad is not None for grad in gradients(components, adapter)[1])


def test_a_block_can_be_run_by_itself_after_a_prediction_without_gradients():
    _, (components, adapter) = both(torch.bfloat16, AdapterConfig(rank=4))
    with torch.no_grad():
        predict(components)
    layer = next(iter(adapter.layers.values()))
    layer(torch.ones(1, 16, 4, 4, dtype=torch.bfloat16)).sum().backward()
    assert layer.lora_B["default"].weight.grad is not None


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.85), (torch.bfloat16, 0.7)])
def test_it_takes_fewer_kernels_than_peft(dtype, share):
    counts = []
    for components, adapter in both(dtype, AdapterConfig(rank=4, alpha=2.0)):
        gradients(components, adapter)
        for parameter in adapter.denoiser_parameters():
            parameter.grad = None
        with DispatchCounter() as counter:
            gradients(components, adapter)
        counts.append(sum(counter.dispatches.values()))
    assert counts[1] < share * counts[0]
