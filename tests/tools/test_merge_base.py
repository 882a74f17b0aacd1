"""A base with adapters merged into it predicts what the base does with them attached; nothing else changes."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tools import bases
from trainers.errors import UserError
from trainers.families.folders import weight_files
from trainers.families.headers import read_header
from trainers.tools.merge_base import merge_base


@pytest.fixture
def adapter(model, tmp_path):
    return bases.save(model.family, bases.random_modules(model.shapes), tmp_path / "a.safetensors")


def test_a_merged_folder_predicts_as_the_base_with_the_adapter(model, adapter, tmp_path):
    said = merge_base(model.folder, [adapter], [0.7], tmp_path / "merged")
    expected = bases.predict_with(model.family, model.folder, (adapter, 0.7))
    assert (expected - bases.predict_with(model.family, model.folder)).norm() > 0.05 * expected.norm()
    torch.testing.assert_close(bases.predict_with(model.family, tmp_path / "merged"), expected, rtol=1e-5, atol=1e-5)
    assert said["layers changed"] == len(model.shapes) and said["left out"] == []


@pytest.mark.usefixtures("own_settings")
def test_a_merged_checkpoint_file_predicts_as_the_base_with_the_adapter(model, adapter, tmp_path):
    merge_base(model.file, [adapter], [0.7], tmp_path / "merged.safetensors")
    expected = bases.predict_with(model.family, model.folder, (adapter, 0.7))
    merged = bases.predict_with(model.family, tmp_path / "merged.safetensors")
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


def test_file_and_folder_come_to_the_same_numbers(model, adapter, tmp_path):
    merge_base(model.file, [adapter], [0.7], tmp_path / "merged.safetensors")
    merge_base(model.folder, [adapter], [0.7], tmp_path / "merged")
    other = load_file(bases.make_file(model.family, tmp_path / "merged", tmp_path / "other.safetensors"))
    one = load_file(tmp_path / "merged.safetensors")
    layer_23 = "cond_stage_model.model.transformer.resblocks.23."  # not read; the tests' writer copies another into it
    for name in one.keys() - {name for name in one if name.startswith(layer_23)}:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_both_layouts_of_an_adapter_merge_alike(model, tmp_path, form):
    modules = bases.random_modules(model.shapes)
    path = bases.save(model.family, modules, tmp_path / "x.safetensors", form)
    merge_base(model.folder, [path], [1.0], tmp_path / "merged")
    base, merged = bases.load(model.family, model.folder), bases.load(model.family, tmp_path / "merged")
    for place, update in modules.items():
        before = bases.weight_of(base, place)
        torch.testing.assert_close(bases.weight_of(merged, place) - before, update.delta(before), rtol=1e-4, atol=2e-6)


def test_dora_loha_and_lokr_merge_as_they_run(model, tmp_path):
    modules = bases.of_other_types(model.small, bases.load(model.family, model.folder))
    path = bases.save(model.family, modules, tmp_path / "x.safetensors")
    merge_base(model.folder, [path], [1.0], tmp_path / "merged")
    expected = bases.predict_with(model.family, model.folder, (path, 1.0))
    torch.testing.assert_close(bases.predict_with(model.family, tmp_path / "merged"), expected, rtol=1e-4, atol=1e-4)


def test_keys_dtypes_and_what_is_not_merged_stay(model, tmp_path):
    attention = {place: shape for place, shape in model.shapes.items() if place[1].endswith("to_q")}
    adapter = bases.save(model.family, bases.random_modules(attention), tmp_path / "a.safetensors")
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in load_file(model.file).items()}
    tensors |= {"betas": torch.ones(4, dtype=torch.float64), "model_ema.steps": torch.tensor(7)}
    base, metadata = tmp_path / "base.safetensors", {"modelspec.title": "a base", "modelspec.hash_sha256": "0x00"}
    save_file(tensors, base, metadata)
    said = merge_base(base, [adapter], [1.0], tmp_path / "out.safetensors")
    (before, _), (after, told) = read_header(base), read_header(tmp_path / "out.safetensors")
    assert before == after and list(before) == list(after)
    merged = load_file(tmp_path / "out.safetensors")
    changed = {name for name in tensors if not torch.equal(merged[name], tensors[name])}
    assert changed and len(changed) == said["tensors changed"]
    assert all("to_q" in name or "qkv" in name for name in changed)
    assert told["modelspec.title"] == "a base" and told["modelspec.merged_from"] == "base, a"
    assert told["modelspec.hash_sha256"] not in ("0x00", f"0x{'0' * 64}")


def test_a_folder_keeps_its_files_and_shards(model, adapter, tmp_path):
    part = "transformer" if model.family == "sd3" else "unet"
    base = tmp_path / "base"
    shutil.copytree(model.folder, base)
    (file,) = weight_files(base / part)
    tensors = sorted(load_file(file).items())
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    halves = [dict(tensors[::2]), dict(tensors[1::2])]
    for name, half in zip(names, halves, strict=True):
        save_file(half, base / part / name, {"format": "pt"})
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index = base / part / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    file.rename(base / part / "diffusion_pytorch_model.fp16.bin")  # another format of the same weights
    (base / "LICENSE.md").write_text("what may be done with it")
    (base / "README.md").write_text("what the base can draw")
    merge_base(base, [adapter], [1.0], tmp_path / "merged")
    (base / "README.md").unlink()
    files = {path.relative_to(base) for path in base.rglob("*")} - {(file.with_suffix(".fp16.bin")).relative_to(base)}
    assert {path.relative_to(tmp_path / "merged") for path in (tmp_path / "merged").rglob("*")} == files
    expected = bases.predict_with(model.family, model.folder, (adapter, 1.0))
    torch.testing.assert_close(bases.predict_with(model.family, tmp_path / "merged"), expected, rtol=1e-5, atol=1e-5)


def test_two_adapters_merge_as_they_run_together(model, tmp_path):
    paths = [
        bases.save(model.family, bases.random_modules(model.shapes, rank, rank), tmp_path / f"{rank}.safetensors")
        for rank in (1, 3)
    ]
    merge_base(model.folder, paths, [1.0, -0.5], tmp_path / "both")
    merge_base(model.folder, paths[:1], [1.0], tmp_path / "one")
    merge_base(tmp_path / "one", paths[1:], [-0.5], tmp_path / "then")
    both, then = (bases.predict_with(model.family, tmp_path / name) for name in ("both", "then"))
    torch.testing.assert_close(both, then, rtol=1e-5, atol=1e-5)


def test_an_adapter_of_other_sizes_is_refused_and_leaves_nothing(model, tmp_path):
    (place, shape), *_ = model.shapes.items()
    wrong = bases.random_modules({place: (shape[0] + 8, *shape[1:])})
    path = bases.save(model.family, wrong, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="1 layers in other sizes"):
        merge_base(model.file, [path], [1.0], tmp_path / "out.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("name", ["merged.safetensors", "merged.CKPT"])
def test_a_folder_is_not_given_the_name_of_a_file(model, adapter, tmp_path, name):
    with pytest.raises(UserError, match=f"{name} would be a folder"):
        merge_base(model.folder, [adapter], [0.7], tmp_path / name)
    assert not (tmp_path / name).exists()
