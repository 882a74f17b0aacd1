"""Bytes and operations of what runs, followed on the meta device."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainers.memory.meter import Meter, attending


def test_the_meter_follows_a_tensor_until_it_is_freed():
    with Meter() as live:
        first = torch.empty(1000, device="meta")
        view = first.view(10, 100)
        del first
        assert live.now == 4000  # the view keeps it
        del view
        second = torch.empty(500, device="meta")
        assert live.now == 2000 and live.peak == 4000
        del second
    assert live.now == 0


def test_activations_that_backward_needs_count_until_it_has_run():
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(100, 100), nn.Sigmoid()) for _ in range(10))).to("meta")
    with Meter() as live:
        layers(torch.empty(50, 100, device="meta", requires_grad=True)).sum()
        kept = live.peak
    with Meter() as live, torch.no_grad():
        layers(torch.empty(50, 100, device="meta")).sum()
    one = 50 * 100 * 4  # bytes of one layer's output
    assert kept >= 10 * one and live.peak <= 4 * one


def test_attention_is_counted_like_the_fused_kernels():
    query, key = (
        torch.empty(1, 2, 512, 16, device="meta", requires_grad=True),
        torch.empty(1, 2, 256, 16, device="meta"),
    )
    once = 2 * (2 * 512 * 256 * 16) * 2  # two products of two operations each
    with Meter() as meter:
        output = nn.functional.scaled_dot_product_attention(query, key, key)
        assert output.shape == query.shape and meter.flops == once
        output.sum().backward()
    assert meter.flops == once * 3.5  # five products backward
    assert meter.peak < 4 * (2 * 512 * 256)  # a score matrix
    assert nn.functional.scaled_dot_product_attention(torch.ones(1, 1, 1, 1), *[torch.ones(1, 1, 1, 1)] * 2) == 1


def test_plain_mathematics_is_counted_with_its_score_matrices():
    query, key = (torch.empty(1, 2, n, 16, device="meta", requires_grad=True) for n in (512, 256))
    once, scores = 2 * (2 * 512 * 256 * 16) * 2, 4 * (2 * 512 * 256)  # operations of two products; bytes
    with attending("math"), Meter() as meter:
        output = nn.functional.scaled_dot_product_attention(query, key, key)
        assert meter.flops == meter.attended == once
        assert scores < meter.now < 1.5 * scores  # after the softmax, for the backward pass
        assert 2.25 * scores < meter.mark() < 2.75 * scores  # before it, too, and a mask of a byte each
        output.sum().backward()
    assert 3 * scores < meter.mark() < 3.5 * scores  # what was kept, its gradient, and that of the one before
    assert meter.flops == meter.attended == once * 3  # four products backward
    with Meter() as meter:
        nn.functional.scaled_dot_product_attention(query, key, key)
    assert meter.peak < scores  # as the fused kernels again


def test_what_is_computed_again_is_let_go_when_it_has_served():
    layers = [nn.Sequential(nn.Linear(100, 100), nn.Sigmoid(), nn.Linear(100, 100)).to("meta") for _ in range(10)]
    x = torch.empty(50, 100, device="meta", requires_grad=True)
    with Meter() as meter:
        for layer in layers:
            x = checkpoint(layer, x, use_reentrant=False)
        kept = meter.now
        x.sum().backward()
    one = 50 * 100 * 4
    assert kept == 10 * one
    gradients = 10 * 2 * (100 * 100 + 100) * 4
    assert meter.peak < kept + gradients + 5 * one
