"""An adapter out of two checkpoints is the one that was merged into the first."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tools import bases
from trainers.errors import UserError
from trainers.tools.extract import Wanted, extract
from trainers.tools.factors import Limit
from trainers.tools.interpolate import interpolate
from trainers.tools.merge_base import merge_base
from trainers.tools.opened import open_adapter

FULL = Wanted(Limit(10_000), conv_rank=10_000)


@pytest.fixture
def tuned(model, tmp_path):
    """The tiny base with an adapter merged in, as file and as folder, and its updates."""
    modules = bases.random_modules(model.small, 3)
    adapter = bases.save(model.family, modules, tmp_path / "a.safetensors")
    for base, name in ((model.file, "tuned.safetensors"), (model.folder, "tuned")):
        merge_base(base, [adapter], [1.0], tmp_path / name)
    return tmp_path, modules


@pytest.mark.parametrize("new", ["tuned", "tuned.safetensors"])
@pytest.mark.parametrize("old", ["folder", "file"])
def test_at_full_rank_the_merged_update_comes_back(model, tuned, new, old):
    folder, modules = tuned
    said = extract(folder / new, getattr(model, old), folder / "x", FULL, "fp32")
    found = open_adapter(folder / "x.safetensors").modules
    assert found.keys() == modules.keys() and said["error"] == "none"
    for place, update in modules.items():
        torch.testing.assert_close(found[place].delta(), update.delta(), rtol=1e-5, atol=1e-5)


def test_the_extracted_adapter_predicts_as_the_tuned_model(model, tuned):
    folder, _ = tuned
    extract(folder / "tuned", model.folder, folder / "x", FULL, "fp32")
    expected = bases.predict_with(model.family, folder / "tuned")
    found = bases.predict_with(model.family, model.folder, (folder / "x.safetensors", 1.0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_lower_rank_is_the_best_one_and_tells_its_error(model, tuned):
    folder, modules = tuned
    said = extract(folder / "tuned", model.folder, folder / "x", Wanted(Limit(1), 1), "fp32")
    found, lost, whole = open_adapter(folder / "x.safetensors").modules, 0.0, 0.0
    for place, update in modules.items():
        sizes = torch.linalg.svdvals(update.delta().double().flatten(1)).square()
        error = float((found[place].delta() - update.delta()).double().square().sum())
        assert error == pytest.approx(float(sizes[1:].sum()), rel=1e-3, abs=1e-8)
        lost, whole = lost + error, whole + float(sizes.sum())
    assert float(said["error"].split()[0]) == pytest.approx(100 * (lost / whole) ** 0.5, rel=0.01)
    assert set(said["rank"]) == {1} and said["error by block"]


def test_convolutions_come_only_on_request(model, tuned):
    folder, _ = tuned
    said = extract(folder / "tuned", model.folder, folder / "x", Wanted(Limit(2)), "fp32")
    found = open_adapter(folder / "x.safetensors").modules
    assert not any("resnets" in path or "samplers" in path for _, path in found)
    assert bool(said["differ, but left out"]) == (model.family != "sd3")


def test_equal_layers_are_left_out_and_equal_models_are_no_adapter(model, tmp_path):
    queries = {place: shape for place, shape in model.small.items() if place[1].endswith("to_q")}
    adapter = bases.save(model.family, bases.random_modules(queries), tmp_path / "a.safetensors")
    merge_base(model.file, [adapter], [1.0], tmp_path / "tuned.safetensors")
    half = {name: t.half() if t.is_floating_point() else t for name, t in load_file(model.file).items()}
    save_file(half, tmp_path / "half.safetensors")
    said = extract(tmp_path / "tuned.safetensors", model.file, tmp_path / "x", FULL, "fp32")
    assert open_adapter(tmp_path / "x.safetensors").modules.keys() == queries.keys()
    assert said["equal layers"] > len(queries)
    for other in (model.file, tmp_path / "half.safetensors"):
        with pytest.raises(UserError, match="the same weights"):
            extract(other, model.folder, tmp_path / "y", FULL)


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_between_two_models_the_ends_are_the_models(model, tuned, layout):
    base, ending = getattr(model, layout), ".safetensors" if layout == "file" else ""
    new = tuned[0] / f"tuned{ending}"
    for strength, same in ((0.0, base), (1.0, new)):
        out = tuned[0] / f"at{strength:g}{ending}"
        said = interpolate(base, new, strength, out)
        assert said["tensors changed"] == sum(_changed(out, base))
        for one, other in zip(_files(out), _files(same), strict=True):
            found, expected = load_file(one), load_file(other)
            assert all(torch.equal(t, expected[name]) for name, t in found.items())


def _changed(one, other):
    pairs = zip(map(load_file, _files(one)), map(load_file, _files(other)), strict=True)
    return [not torch.equal(tensors[name], before[name]) for tensors, before in pairs for name in tensors]


def _files(path):
    return sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]


def test_half_way_is_half_the_adapter(model, tuned):
    folder, _ = tuned
    interpolate(model.folder, folder / "tuned", 0.5, folder / "half")
    expected = bases.predict_with(model.family, model.folder, (folder / "a.safetensors", 0.5))
    torch.testing.assert_close(bases.predict_with(model.family, folder / "half"), expected, rtol=1e-5, atol=1e-5)


def test_models_of_other_sizes_are_refused(model, tmp_path):
    tensors = load_file(model.file)
    name = next(name for name in tensors if name.endswith(("attn1.to_q.weight", "x_block.attn.qkv.weight")))
    save_file(tensors | {name: torch.zeros(6, 8)}, tmp_path / "other.safetensors")
    for tool in (
        lambda *paths: interpolate(*paths, 0.5, tmp_path / "x"),
        lambda a, b: extract(a, b, tmp_path / "x", FULL),
    ):
        with pytest.raises(UserError, match="of other sizes"):
            tool(model.file, tmp_path / "other.safetensors")
