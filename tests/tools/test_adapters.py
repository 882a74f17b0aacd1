"""Merging and resizing adapters: what they do stays what the numbers say, in every family and type."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.export import files
from tests.tools import bases
from trainers.adapters.adapter_file import read_adapter
from trainers.errors import UserError
from trainers.export.embedding import NEEDS
from trainers.export.hashes import adapter_hashes
from trainers.export.inspect import inspect
from trainers.families.headers import read_header
from trainers.tools.factors import Limit
from trainers.tools.merge_adapters import merge_adapters
from trainers.tools.merge_base import merge_base
from trainers.tools.opened import open_adapter
from trainers.tools.resize import resize


@pytest.fixture
def pair(model, tmp_path):
    """Two adapters; the second sits on every other layer alone."""
    some = dict(list(model.small.items())[::2])
    first = bases.save(model.family, bases.random_modules(model.small, 3, 1), tmp_path / "one.safetensors")
    return first, bases.save(model.family, bases.random_modules(some, 2, 2, 4.0), tmp_path / "two.safetensors")


def test_one_adapter_of_two_predicts_as_both_do(model, pair, tmp_path):
    merge_adapters(pair, [0.8, -0.5], tmp_path / "sum")
    file, _ = _merged_by_base(model, pair, [0.8, -0.5], tmp_path)
    merged = bases.predict_with(model.family, model.folder, (tmp_path / "sum.safetensors", 1.0))
    torch.testing.assert_close(merged, file, rtol=1e-5, atol=1e-5)


def _merged_by_base(model, paths, weights, tmp_path):
    """What the base predicts with both updates added, reckoned in this test."""
    components = bases.load(model.family, model.folder)
    deltas = {}
    for path, weight in zip(paths, weights, strict=True):
        for place, update in open_adapter(path).modules.items():
            deltas[place] = deltas.get(place, 0) + weight * update.delta(bases.weight_of(components, place))
    for place, delta in deltas.items():
        bases.weight_of(components, place).add_(delta)
    return bases.predict(model.family, components), deltas


@pytest.mark.parametrize("form", ["kohya", "diffusers", "peft"])
def test_every_layout_holds_the_sum(model, pair, tmp_path, form):
    said = merge_adapters(pair, [1.0, 1.0], tmp_path / "sum.safetensors", form=form)
    _, deltas = _merged_by_base(model, pair, [1.0, 1.0], tmp_path)
    modules = open_adapter(tmp_path / ("sum" if form == "peft" else "sum.safetensors")).modules
    assert modules.keys() == deltas.keys()
    for place, delta in deltas.items():
        torch.testing.assert_close(modules[place].delta(delta), delta, rtol=1e-4, atol=1e-5)
    assert said["layers"] and not said["left out"]


def test_a_sum_by_svd_is_the_best_of_its_rank(model, pair, tmp_path):
    said = merge_adapters(pair, [1.0, 1.0], tmp_path / "sum.safetensors", "svd", Limit(2))
    _, deltas = _merged_by_base(model, pair, [1.0, 1.0], tmp_path)
    lost = whole = 0.0
    for place, update in open_adapter(tmp_path / "sum.safetensors").modules.items():
        left, sizes, right = torch.linalg.svd(deltas[place].double().flatten(1), full_matrices=False)
        best = (left[:, :2] * sizes[:2] @ right[:2]).reshape(deltas[place].shape)
        torch.testing.assert_close(update.delta(best).double(), best, rtol=1e-3, atol=1e-5)
        lost, whole = lost + float(sizes[2:].square().sum()), whole + float(sizes.square().sum())
    assert said["error of the approximation"] == f"{100 * (lost / whole) ** 0.5:.3g} %"


def test_loha_and_lokr_become_plain_before_they_are_merged(model, pair, tmp_path):
    components = bases.load(model.family, model.folder)
    others = {p: m for p, m in bases.of_other_types(model.small, components).items() if m.label != "DoRA"}
    path = bases.save(model.family, others, tmp_path / "other.safetensors")
    if model.family == "sd3":  # kohya's names cannot hold them: LyCORIS' do
        assert any(key.startswith("lycoris_") for key in load_file(path))
    said = merge_adapters([pair[0], path], [1.0, 0.5], tmp_path / "sum.safetensors")
    _, deltas = _merged_by_base(model, [pair[0], path], [1.0, 0.5], tmp_path)
    for place, update in open_adapter(tmp_path / "sum.safetensors").modules.items():
        torch.testing.assert_close(update.delta(deltas[place]), deltas[place], rtol=1e-3, atol=1e-4)
    assert set(said["turned to plain LoRA"]) == {"LoHa", "LoKr"}


def test_the_metadata_of_a_merged_adapter_is_true(model, pair, tmp_path):
    merge_adapters(pair, [1.0, 1.0], tmp_path / "sum.safetensors")
    tensors, (_, told) = load_file(tmp_path / "sum.safetensors"), read_header(tmp_path / "sum.safetensors")
    assert told["modelspec.merged_from"] == "one, two" and told["ss_network_dim"] == "Dynamic"
    assert adapter_hashes(tensors, told).items() <= told.items()
    if model.family != "sd15":  # whose tiny base is taken for one of a size of its own
        assert not {problem["name"] for problem in inspect(tmp_path / "sum.safetensors")["problems"]} - {"other-shapes"}


@pytest.mark.parametrize("limit", [Limit(2), Limit(keep=0.8)], ids=["rank", "keep"])
def test_a_resized_adapter_keeps_what_is_promised(model, pair, tmp_path, limit):
    said = resize(pair[0], tmp_path / "small.safetensors", limit)
    before, after = open_adapter(pair[0]).modules, open_adapter(tmp_path / "small.safetensors").modules
    assert before.keys() == after.keys()
    lost = whole = 0.0
    for place, update in before.items():
        old, new = update.delta().double(), after[place].delta().double()
        error, size = float((old - new).square().sum()), float(old.square().sum())
        lost, whole = lost + error, whole + size
        assert after[place].scale == pytest.approx(1.0 if model.family == "sd3" else update.scale)
        assert limit.rank is None or after[place].rank == 2
        assert limit.keep is None or error <= (1 - limit.keep) * size * 1.001
    assert float(said["error"].split()[0]) == pytest.approx(100 * (lost / whole) ** 0.5, rel=0.02)
    assert said["rank before"] == {3: len(before)} and max(said["rank after"]) <= 3


def test_at_full_rank_resizing_changes_no_number(model, pair, tmp_path):
    resize(pair[0], tmp_path / "same.safetensors", Limit(3))
    one, other = load_file(pair[0]), load_file(tmp_path / "same.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_fused_layers_of_sd3_keep_one_rank(tmp_path):
    from safetensors.torch import save_file  # noqa: PLC0415

    save_file(files.joint("3-medium"), tmp_path / "a.safetensors")
    said = resize(tmp_path / "a.safetensors", tmp_path / "b.safetensors", Limit(1))
    one, other = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert one.keys() == other.keys() and said["rank after"] == {1: len(one) // 3}
    assert {len(tensor) for key, tensor in other.items() if "qkv.lora_down" in key} == {1}


def test_a_dora_is_resized_with_its_magnitudes_and_not_merged(model, tmp_path):
    components = bases.load(model.family, model.folder)
    doras = {p: m for p, m in bases.of_other_types(model.small, components).items() if m.label == "DoRA"}
    path = bases.save(model.family, doras, tmp_path / "dora.safetensors")
    resize(path, tmp_path / "small.safetensors", Limit(1))
    after = open_adapter(tmp_path / "small.safetensors").modules
    assert {(update.label, update.rank) for update in after.values()} == {("DoRA", 1)}
    assert all(torch.equal(after[place].magnitude, dora.magnitude) for place, dora in doras.items())
    with pytest.raises(UserError, match="is a DoRA"):
        merge_adapters([path, path], [1.0, 1.0], tmp_path / "sum")


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl", "3-medium", "3.5-medium", "3.5-large"])
def test_layers_and_names_of_a_full_size_adapter_stay(base, tmp_path):
    from safetensors.torch import save_file  # noqa: PLC0415

    name = {"sdxl": files.sgm, "sd15": files.flat(text="lora_te_"), "sd2": files.flat(text="lora_te_")}.get(base)
    tensors = files.lora(files.places(base), name) if name else files.joint(base)
    save_file(tensors, tmp_path / "a.safetensors")
    merge_adapters([tmp_path / "a.safetensors"] * 2, [1.0, 1.0], tmp_path / "sum", form="kohya")
    merged = read_adapter(tmp_path / "sum.safetensors")
    assert merged.tensors.keys() == tensors.keys()
    assert {update.rank for update in merged.modules.values()} <= {4, 12}  # 12: a fused layer of three parts
    assert inspect(tmp_path / "sum.safetensors")["problems"] == []


def test_a_merged_adapter_says_who_made_it_and_keeps_the_trigger_words(pair, tmp_path):
    told = []
    for path, word in zip((*pair, pair[0]), ("zib", "a wug", "zib"), strict=True):
        told.append(tmp_path / f"told{len(told)}.safetensors")
        save_file(load_file(path), told[-1], {**read_header(path)[1], "modelspec.trigger_phrase": word})
    merge_adapters(told, [1.0, 1.0, 1.0], tmp_path / "sum.safetensors")
    said = inspect(tmp_path / "sum.safetensors")
    assert said["made with"] == "LoRA Darkroom" and said["words"]["trigger"] == "zib, a wug"


def test_a_merged_adapter_names_the_learnt_word_that_it_still_needs(model, pair, tmp_path):
    told = []
    for path, file in zip((*pair, pair[0]), ("zib.safetensors", "", "wug.safetensors"), strict=True):
        told.append(tmp_path / f"told{len(told)}.safetensors")
        save_file(load_file(path), told[-1], {**read_header(path)[1], NEEDS: file})
    said = merge_adapters(told[:2], [1.0, 1.0], tmp_path / "sum.safetensors")
    assert said["needs beside it"] == ["zib.safetensors"]
    assert read_header(tmp_path / "sum.safetensors")[1][NEEDS] == "zib.safetensors"
    with pytest.raises(UserError, match=r"zib.safetensors, wug.safetensors"):
        merge_adapters(told, [1.0, 1.0, 1.0], tmp_path / "three.safetensors")
    (still,) = merge_base(model.folder, told[:2], [1.0, 1.0], tmp_path / "merged")["still needs"]
    assert still.startswith("zib.safetensors: put it into the program's folder for embeddings")
