"""A file rewritten tensor by tensor: dtypes and bytes stay, fp8 keeps its scale, hashes are true."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainers.errors import UserError
from trainers.export.hashes import hash_of_file
from trainers.families.headers import read_header
from trainers.tools.stream import TensorFile, rewrite

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.fixture
def rewritten(tmp_path):
    def call(tensors, changes, entries=None):
        save_file(tensors, tmp_path / "a.safetensors", {"note": "kept"})
        source = TensorFile(tmp_path / "a.safetensors")
        rewrite(source, tmp_path / "b.safetensors", changes, entries or source.metadata)
        return load_file(tmp_path / "b.safetensors"), read_header(tmp_path / "b.safetensors")[1]

    return call


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_stays_and_only_the_named_tensors_change(rewritten, dtype):
    tensors = {name: torch.tensor([[0.5, -1.0], [2.0, 1.5]]).to(dtype) for name in "abc"}
    tensors |= {"steps": torch.tensor([7]), "empty": torch.zeros(0, 4), "one": torch.tensor(3.0)}
    found, told = rewritten(tensors, {"b": lambda tensor: tensor * 2})
    assert told == {"note": "kept"} and found.keys() == tensors.keys()
    assert torch.equal(found["b"].float(), tensors["b"].float() * 2)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert name == "b" or torch.equal(found[name].float(), tensor.float())


@pytest.mark.parametrize("scale", ["x.scale_weight", "x.weight_scale"])
def test_a_scaled_fp8_weight_changes_in_its_own_numbers(rewritten, scale):
    tensors = {"x.weight": torch.tensor([[2.0, 4.0]]).to(torch.float8_e4m3fn), scale: torch.tensor(0.25)}
    seen = []

    def change(weight):
        seen.append(weight.clone())
        return weight + 0.5

    found, _ = rewritten(tensors, {"x.weight": change})
    assert torch.equal(seen[0], torch.tensor([[0.5, 1.0]]))
    assert torch.equal(found["x.weight"].float() * found[scale], torch.tensor([[1.0, 1.5]]))


def test_what_fp8_cannot_hold_becomes_its_largest_number(rewritten):
    found, _ = rewritten({"x": torch.ones(2).to(torch.float8_e4m3fn)}, {"x": lambda tensor: tensor * 1e4})
    assert found["x"].float().tolist() == [448.0, 448.0]


def test_hashes_in_the_metadata_are_those_of_the_new_tensors(rewritten, tmp_path):
    entries = {"modelspec.hash_sha256": "0xab", "sshs_model_hash": "cd", "other": "\u00e9"}
    _, told = rewritten({"x": torch.ones(4)}, {"x": lambda tensor: tensor + 1}, entries)
    digest = hash_of_file(tmp_path / "b.safetensors")
    assert told == {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest, "other": "\u00e9"}


def test_numbers_that_the_dtype_cannot_hold_are_refused_and_leave_nothing(rewritten, tmp_path):
    with pytest.raises(UserError, match="x holds numbers that F16 cannot"):
        rewritten({"x": torch.ones(4).half()}, {"x": lambda tensor: tensor * 1e6})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
