"""Weights on disk in any number format, under any name, without a second copy in memory."""

import os

import pytest
import torch
from safetensors.torch import save_file

from trainers.errors import UserError
from trainers.families.weights import Weights

NUMBERS = torch.tensor([[0.5, -1.25], [3.0, 0.0]])
FORMATS = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("stored", FORMATS, ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16], ids=str)
def test_every_number_format_is_read_into_the_wanted_one(tmp_path, stored, wanted):
    file = tmp_path / "model.safetensors"
    save_file({"first": torch.ones(3), "x": NUMBERS.to(stored), "ids": torch.arange(4)}, file)
    weights = Weights([file])
    assert torch.equal(weights.take("x", wanted), NUMBERS.to(wanted))  # all four numbers are exact in each format
    assert torch.equal(weights.take("ids", wanted), torch.arange(4))
    assert weights.take("x", wanted).dtype == wanted


@pytest.mark.parametrize("scale", ["layer.scale_weight", "layer.weight_scale"])
def test_fp8_weights_with_a_scale_are_multiplied_by_it(tmp_path, scale):
    file = tmp_path / "model.safetensors"
    save_file({"layer.weight": NUMBERS.to(torch.float8_e4m3fn), scale: torch.tensor(0.25)}, file)
    weights = Weights([file])
    assert torch.equal(weights.take("layer.weight", torch.float32), NUMBERS / 4)
    assert weights.taken == {"layer.weight", scale}


def test_a_defined_name_reads_a_part_of_a_stored_tensor(tmp_path):
    file = tmp_path / "model.safetensors"
    fused = torch.arange(12.0).reshape(6, 2)
    save_file({"qkv": fused}, file)
    weights = Weights([file])
    weights.define("k", "qkv", (2, 2), lambda tensor: tensor.chunk(3)[1])
    assert "k" in weights and weights.shapes["k"] == (2, 2) and list(weights) == ["qkv"]
    assert torch.equal(weights.take("k", torch.float16), fused[2:4].half())
    assert weights.taken == {"qkv"}


@pytest.mark.parametrize("wanted", [torch.float32, torch.float16], ids=str)
def test_an_empty_tensor_is_read(tmp_path, wanted):
    file = tmp_path / "model.safetensors"
    save_file({"none": torch.empty(0, 4), "x": NUMBERS}, file)
    assert Weights([file]).take("none", wanted).shape == (0, 4)


def shortened(file):
    file.write_bytes(file.read_bytes()[:-4])


def replaced(file):
    save_file({"x": NUMBERS + 1}, file.with_name("other"))
    os.utime(file.with_name("other"), (0, 0))  # the clock of some file systems stands still for a moment
    file.with_name("other").replace(file)


@pytest.mark.parametrize("change", [shortened, replaced])
def test_a_file_that_changes_meanwhile_is_not_read_as_weights(tmp_path, change):
    file = tmp_path / "model.safetensors"
    save_file({"x": NUMBERS}, file)
    weights = Weights([file])
    assert torch.equal(weights.take("x", torch.float16), NUMBERS.half())
    change(file)
    with pytest.raises(UserError, match="model.safetensors was changed while it was read"):
        weights.take("x", torch.float16)
