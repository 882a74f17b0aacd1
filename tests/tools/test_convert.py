"""Every trap that `inspect` names and a tool can mend is mended, and the file means the same as before."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.export import files
from tests.export.files import AB, denoiser, dotted, flat, joint, lora, places, sgm
from trainers.adapters.adapter_file import read_adapter
from trainers.errors import UserError
from trainers.export.distance import apart, distance, norm
from trainers.export.embedding import ALONE, belonging
from trainers.export.inspect import inspect
from trainers.families.headers import read_header
from trainers.families.registry import FAMILIES
from trainers.tools.convert import Wish, convert
from trainers.tools.opened import open_adapter

ATTENTION = ["mid_block.attentions.0.transformer_blocks.0.attn2"]
SDXL = {"ss_base_model_version": "sdxl_base_v1-0"}
TE = flat(text="lora_te_")


def attention(base="sd15"):
    return denoiser(base, ATTENTION)


@pytest.fixture
def mended(tmp_path):
    """Convert, and compare delta-W before and after at every layer."""

    def call(tensors, metadata=None, wish=None, times=1.0):
        path, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
        save_file(tensors, path, metadata)
        before = path.read_bytes()
        said = convert(path, out, wish or Wish(dtype="fp32"))
        assert path.read_bytes() == before
        one, other = open_adapter(path).modules, open_adapter(out).modules
        assert one.keys() == other.keys()
        for place, update in one.items():
            assert_alike(replace(update, alpha=update.alpha * times), other[place])
        return said, inspect(out), out

    return call


def assert_alike(one, other):
    for part, same in zip(apart(one), apart(other), strict=True):  # of a DoRA its pair and its magnitudes
        assert distance(part, same) <= 1e-3 * norm(part)


def names(problems):
    return {problem["name"] for problem in problems}


NAMES = {  # problem -> tensors and metadata of a file that has it
    "diffusers-names": (lora(places("sd15"), dotted(), 2, None, AB), {}),
    "diffusers-names of sdxl": (lora(places("sdxl"), dotted(), 2, None, AB), {}),
    "text-prefix": (lora(places("sd15"), flat(text="lora_te1_")), {}),
    "text-prefix of sdxl": (
        lora(denoiser("sdxl"), sgm) | lora({p: s for p, s in places("sdxl").items() if p[0] == "text_0"}, TE),
        SDXL,
    ),
    "mixed-block-names": (
        lora(denoiser("sdxl", ["mid"]), sgm) | lora(denoiser("sdxl", ["down_blocks.1.attentions.0"]), flat()),
        SDXL,
    ),
    "alpha-beside-dotted-names": (lora(denoiser("3.5-medium"), dotted("transformer"), ends=AB), {}),
    "alpha-missing": (lora(attention(), flat(), 4, None), {}),
    "alpha-in-header": (
        lora(attention(), dotted(), 4, None, AB),
        {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2})},
    ),
    "leftovers-in-names": (lora(attention(), lambda p: f"unet._orig_mod.{p[1]}", 2, None, AB), {}),
    "leftovers-in-names of peft": (
        lora(attention(), dotted(), 2, None, (".lora_A.default.weight", ".lora_B.default.weight")),
        {},
    ),
    "hash-of-nothing": (
        lora(attention(), flat()),
        {"sshs_model_hash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    ),
    "hash-wrong": (lora(attention(), flat()), {"sshs_model_hash": "0" * 64}),
    "hidden-in-a1111": (lora(places("sdxl"), sgm), {"format": "pt"}),
    "hidden-in-a1111 of sd2": (lora(places("sd2"), TE), {"ss_steps": "10"}),
    "embedding-inside": (
        lora(places("sdxl"), sgm) | {f"bundle_emb.zib.{part}": torch.zeros(2, 8) for part in ("clip_l", "clip_g")},
        SDXL,
    ),
    "unknown-keys": (lora(attention(), flat()) | files.pair("lora_unet_extra", (4, 4)), {}),
}


@pytest.mark.parametrize("trap", NAMES)
def test_a_trap_is_mended_without_being_asked_twice(mended, trap):
    problem, (tensors, metadata) = trap.split(" ")[0], NAMES[trap]
    said, facts, _ = mended(tensors, metadata)
    assert problem in names(said["mended"]) and said["not mended"] == facts["problems"] == []
    told = [v for v in facts["interfaces"].values() if v.startswith("does not load")]
    assert not told or facts["family"].startswith("Stable Diffusion 3")


def test_sd2s_projections_become_2d(mended):
    tensors = lora(places("sd2"), TE)
    tensors |= {
        key: t[..., None, None] for key, t in tensors.items() if "proj_in.lora" in key or "proj_out.lora" in key
    }
    said, facts, out = mended(tensors)
    assert names(said["mended"]) == {"shape-of-projection"} and facts["problems"] == []
    assert {t.ndim for key, t in load_file(out).items() if "proj_in.lora" in key} == {2}


def test_pefts_magnitudes_become_dora_scale(mended):
    shapes = attention()
    tensors = lora(shapes, flat()) | {f"{flat()(p)}.lora_magnitude_vector": torch.ones(s[0]) for p, s in shapes.items()}
    said, facts, out = mended(tensors)
    assert names(said["mended"]) == {"magnitude-name"} and facts["problems"] == []
    scales = [tuple(t.shape) for key, t in load_file(out).items() if key.endswith(".dora_scale")]
    assert len(scales) == 4 and all(shape[1:] == (1,) for shape in scales)


OVERWRITTEN = {"ss_network_dim": "4", "ss_network_alpha": "1.0", "ss_base_model_version": "sd_v1"}


@pytest.mark.parametrize("wish", [Wish(fix=True), Wish(alpha=1.0)], ids=["fix", "alpha"])
@pytest.mark.parametrize("stored", [4.0, None], ids=["overwritten", "missing"])
def test_the_true_alpha_comes_from_the_metadata_or_the_user(mended, wish, stored):
    said, facts, _ = mended(lora(attention(), flat(), 4, stored), OVERWRITTEN, wish, times=0.25)
    assert facts["alpha"] == {1.0: 4} and facts["problems"] == []
    assert "4 layers have alpha 1 now" in said["notes"][0] and "0.25 times as strong" in said["notes"][0]


def test_without_a_word_the_alpha_stays_and_what_would_mend_it_is_said(mended):
    said, facts, _ = mended(lora(attention(), flat(), 4, 4.0), OVERWRITTEN)
    assert names(said["not mended"]) == {"alpha-overwritten"} and "--fix mends it" in said["not mended"][0]["says"]
    assert facts["alpha"] == {4.0: 4}


def test_metadata_that_is_wrong_is_mended_to_be_fixed_alone(mended):
    wrong = {"ss_base_model_version": "sd_v1", "ss_network_dim": "8", "ss_tag_frequency": "{'x'", "ss_steps": "3"}
    tensors = lora(places("sdxl"), sgm)
    said, facts, out = mended(tensors, wrong, Wish(fix=True))
    problems = {"family-disagrees", "rank-disagrees", "metadata-broken"}
    assert names(said["mended"]) >= problems and facts["problems"] == []
    told = read_header(out)[1]
    assert told["ss_base_model_version"] == "sdxl_base_v1-0" and told["ss_network_dim"] == "2"
    assert told["ss_steps"] == "3" and "ss_tag_frequency" not in told
    out.unlink()
    said, *_ = mended(tensors, wrong)
    assert problems <= names(said["not mended"])
    assert all("--fix" in problem["says"] for problem in said["not mended"])


def test_what_a_wished_layout_implies_is_no_problem_of_the_result(tmp_path):
    save_file(lora(places("sd15"), TE), tmp_path / "a.safetensors")
    for form in ("diffusers", "peft"):
        said = convert(tmp_path / "a.safetensors", None, Wish(form))
        assert said["mended"] == said["not mended"] == [] and said["format"] == f"{form}, fp16"
    save_file(lora(places("sd15"), dotted(), 2, None, AB), tmp_path / "b.safetensors")
    assert convert(tmp_path / "b.safetensors", None, Wish("diffusers", "fp32"))["mended"] == []


def test_an_embedding_gets_a_file_of_its_own(mended):
    said, _, out = mended(*NAMES["embedding-inside"])
    (file,) = said["embeddings"]
    assert file == str(out.with_name("zib.safetensors"))  # programs know the word by the file's name
    assert belonging(read_adapter(out), FAMILIES["sdxl"].spec)[0] == "zib"
    assert load_file(file).keys() == {"clip_l", "clip_g"}


def test_an_embeddings_name_leads_out_of_no_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_file(lora(attention(), flat()) | {f"bundle_emb./../zib.{ALONE}": torch.zeros(2, 8)}, inside / "a.safetensors")
    (file,) = convert(inside / "a.safetensors", inside / "b", Wish())["embeddings"]
    assert file == str(inside / "_zib.safetensors")


def test_an_embedding_whose_word_is_the_adapters_name_goes_beside_it(tmp_path):
    save_file(lora(attention(), flat()) | {f"bundle_emb.zib.{ALONE}": torch.zeros(2, 8)}, tmp_path / "zib.safetensors")
    said = convert(tmp_path / "zib.safetensors", tmp_path / "b", Wish())
    assert said["embeddings"] == [str(tmp_path / "b-zib.safetensors")] and said["left out"] == []


def test_an_embedding_of_another_family_is_told_to_be_left_out(tmp_path):
    save_file(lora(attention(), flat()) | {"bundle_emb.zib.clip_l": torch.zeros(2, 8)}, tmp_path / "a.safetensors")
    said = convert(tmp_path / "a.safetensors", tmp_path / "b", Wish())
    assert said["embeddings"] == [] and said["left out"] == ["bundle_emb.zib.clip_l"]


def test_a_scale_that_half_precision_cannot_hold_is_reckoned_in_full(tmp_path):
    save_file(lora(attention(), flat(), 3, 1.0), tmp_path / "a.safetensors")  # alpha / rank = 1/3
    convert(tmp_path / "a.safetensors", tmp_path / "b", Wish("diffusers", "fp32"))
    one, other = (open_adapter(tmp_path / name).modules for name in ("a.safetensors", "b.safetensors"))
    for place, update in one.items():
        assert (other[place].delta() - update.delta()).norm() <= 1e-6 * update.delta().norm()


def test_magnitudes_of_inputs_are_not_written_as_those_of_outputs(tmp_path):
    tensors = lora(attention(), flat())
    down = {key: t for key, t in tensors.items() if key.endswith("lora_down.weight")}
    scales = {key.replace("lora_down.weight", "dora_scale"): torch.ones(1, t.shape[1]) for key, t in down.items()}
    save_file(tensors | scales, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="a magnitude for each input"):
        convert(tmp_path / "a.safetensors", tmp_path / "b", Wish("diffusers"))


def test_what_cannot_be_mended_is_listed(mended, tmp_path):
    tensors = lora(attention(), flat())
    zeros = {key: torch.zeros_like(t) for key, t in tensors.items() if "to_q.lora_up" in key}
    said, *_ = mended(tensors | zeros)
    assert names(said["not mended"]) == {"zeros"} and "nothing to mend" in said["not mended"][0]["says"]
    bad = {key: t * float("nan") for key, t in tensors.items() if "to_q.lora_up" in key}
    save_file(tensors | bad, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"cannot be mended.*NaN"):
        convert(tmp_path / "nan.safetensors", tmp_path / "c", Wish(fix=True))
    short = {key: t[:, :1].contiguous() for key, t in tensors.items() if "to_q.lora_up" in key}
    save_file(tensors | short, tmp_path / "short.safetensors")
    said = convert(tmp_path / "short.safetensors", tmp_path / "c", Wish())
    assert len(said["left out"]) == 1 and "to_q" in said["left out"][0]


FORMS = {
    "sd15": lora(places("sd15"), TE),
    "sd2": lora(places("sd2"), TE),
    "sdxl": lora(places("sdxl"), sgm),
    "3-medium": joint("3-medium"),
    "3.5-large": joint("3.5-large"),
}


@pytest.mark.parametrize("base", FORMS)
def test_every_layout_leads_to_every_other_and_back(base, tmp_path):
    first = tmp_path / "a.safetensors"
    save_file(FORMS[base], first)
    start, last = open_adapter(first).modules, first
    for form in ("diffusers", "peft", "kohya"):
        said = convert(last, tmp_path / f"{form}.safetensors", Wish(form, "fp32"))
        last = tmp_path / ("peft" if form == "peft" else f"{form}.safetensors")
        assert not said["left out"] and said["format"] == f"{form}, fp32"
        modules = open_adapter(last).modules
        assert modules.keys() == start.keys()
        for place, update in modules.items():
            assert_alike(start[place], update)
    assert load_file(last).keys() == FORMS[base].keys()


@pytest.mark.parametrize("earlier", [False, True])
def test_diffusers_layout_and_back_leaves_an_adapter_of_which_nothing_is_wrong(tmp_path, earlier):
    """There the matrices hold alpha / rank; once, the metadata still named the alpha from before."""
    said = {"ss_network_dim": "2", "ss_network_alpha": "1.0", "ss_network_args": '{"conv_dim": 2, "conv_alpha": 1.0}'}
    first, there, back = (tmp_path / f"{name}.safetensors" for name in ("first", "there", "back"))
    save_file(lora(places("sd15"), TE, 2, 1.0), first, said)
    convert(first, there, Wish(form="diffusers", dtype="fp32"))
    metadata = read_header(there)[1]
    assert metadata["ss_network_alpha"] == "2" and '"conv_alpha": 2' in metadata["ss_network_args"]
    if earlier:
        save_file(load_file(there), there, {**metadata, **said})
    convert(there, back, Wish(dtype="fp32"))
    assert inspect(back)["problems"] == []
    assert float(read_header(back)[1]["ss_network_alpha"]) == 2
    for place, update in open_adapter(first).modules.items():
        assert_alike(update, open_adapter(back).modules[place])


def test_kohyas_fused_layers_come_back_with_the_rank_they_had(tmp_path):
    save_file(joint("3-medium"), tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b", Wish("kohya"))
    one, other = (read_adapter(tmp_path / f"{name}.safetensors").tensors for name in "ab")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_the_number_format_changes(tmp_path, dtype):
    tensors = lora(attention(), flat())
    eight = {k: t if k.endswith("alpha") else t.to(torch.float8_e4m3fn) for k, t in tensors.items()}
    save_file(eight, tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b", Wish(dtype=dtype))
    written = {str(t.dtype) for t in load_file(tmp_path / "b.safetensors").values()}
    assert written == {{"fp16": "torch.float16", "bf16": "torch.bfloat16", "fp32": "torch.float32"}[dtype]}


def test_a_name_beside_the_input_is_found_and_nothing_is_written_over(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(lora(attention(), flat()), path)
    assert convert(path, None, Wish("diffusers"))["adapter"] == str(tmp_path / "a-diffusers.safetensors")
    assert convert(path, None, Wish(fix=True))["adapter"] == str(tmp_path / "a-fixed.safetensors")
    with pytest.raises(UserError, match="there already"):
        convert(path, None, Wish(fix=True))
    with pytest.raises(UserError, match="is an input"):
        convert(path, path, Wish(fix=True))


def test_loha_and_lokr_are_converted_but_not_for_diffusers(tmp_path):
    tensors = files.loha(attention(), flat()) | files.lokr(denoiser("sd15", ["mid_block.resnets.0.time"]), flat())
    save_file(tensors, tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b", Wish(dtype="fp32"))
    one, other = (read_adapter(tmp_path / f"{name}.safetensors").modules for name in "ab")
    assert one.keys() == other.keys()
    for name, update in one.items():
        torch.testing.assert_close(other[name].delta(), update.delta(), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="diffusers reads no"):
        convert(tmp_path / "a.safetensors", tmp_path / "c", Wish("diffusers"))
