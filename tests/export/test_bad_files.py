"""One deliberately bad file per trap: which program fails, why, and under which name the problem is reported."""

import json
import random

import pytest
import torch
from safetensors.torch import save_file

from tests.export import files
from tests.export.files import AB, denoiser, dotted, flat, joint, lora, places, sgm
from trainers.export.contents import contents_of_tensors
from trainers.export.hashes import adapter_hashes, hash_of_file
from trainers.export.inspect import inspect
from trainers.export.modules import ENDINGS
from trainers.export.problems import NOTHING, Problem, findings
from trainers.export.verify import UIS, verdicts
from trainers.export.which_base import base_of

ALL = [rules.ui for rules in UIS]
SDXL = {"ss_base_model_version": "sdxl_base_v1-0"}
ATTENTION = ["mid_block.attentions.0.transformer_blocks.0.attn2"]


def attention(base="sd15"):
    return denoiser(base, ATTENTION)


def judged(tensors, metadata=None):
    return {verdict.ui: verdict for verdict in verdicts(tensors, metadata or {})}


def loads(tensors, metadata=None):
    return {ui: verdict.loads for ui, verdict in judged(tensors, metadata).items()}


def problems(tensors, metadata=None):
    contents = contents_of_tensors(tensors, metadata or {})
    return {finding.problem: finding for finding in findings(contents, base_of(contents))}


def all_but(**exceptions):
    return dict.fromkeys(ALL, "whole") | {ui.replace("_", "."): loads for ui, loads in exceptions.items()}


def dora(shapes, name, ending=".dora_scale"):
    return lora(shapes, name) | {f"{name(place)}{ending}": torch.ones(s[0], 1).half() for place, s in shapes.items()}


def test_pefts_keys_for_sdxl():
    tensors = lora(denoiser("sdxl"), dotted(), alpha=None, ends=AB)
    found = judged(tensors, SDXL)
    assert loads(tensors) == {"A1111": "no", "Forge": "no", "InvokeAI": "no", "ComfyUI": "partly"} | dict.fromkeys(
        ("SD.Next", "diffusers"), "whole"
    )
    assert "without a word" in found["A1111"].why and "more than 12 keys" in found["Forge"].why
    assert all(".to_" in key for key in found["ComfyUI"].unmatched)
    assert "attention" in found["ComfyUI"].why and "lora_te2_" in found["InvokeAI"].why
    assert Problem.DIFFUSERS_NAMES in problems(tensors)


def test_diffusers_names_of_attention_alone_load_nothing_in_comfyui():
    verdict = judged(lora(attention(), dotted(), alpha=None, ends=AB))["ComfyUI"]
    assert verdict.loads == "no" and "attention" in verdict.why


@pytest.mark.parametrize("base", ["sd15", "sd2"])
def test_lora_te1_on_a_base_with_one_text_encoder(base):
    tensors = lora(places(base), flat(text="lora_te1_"))
    found = judged(tensors)
    assert found["InvokeAI"].loads == "partly"
    assert all(key.startswith("lora_te1_") for key in found["InvokeAI"].unmatched)
    assert {found[ui].loads for ui in ("Forge", "ComfyUI", "SD.Next", "diffusers")} == {"whole"}
    assert len(problems(tensors)[Problem.TEXT_PREFIX].about) == 6


def test_lora_te_on_sdxl():
    text = {p: s for p, s in places("sdxl").items() if p[0] == "text_0"}
    tensors = lora(denoiser("sdxl"), sgm) | lora(text, flat(text="lora_te_"))
    assert loads(tensors) == all_but(A1111="partly", InvokeAI="no", SD_Next="partly")
    assert "lora_te1_" in problems(tensors)[Problem.TEXT_PREFIX].says


def test_a_file_without_alphas():
    tensors = lora(attention(), flat(), rank=4, alpha=None)
    assert loads(tensors) == all_but()
    assert {verdict.why for verdict in judged(tensors).values()} == {"it scales the 4 modules without alpha by 1"}
    said = problems(tensors, {"ss_network_alpha": "1.0", "ss_network_dim": "4"})[Problem.ALPHA_MISSING].says
    assert "4 modules" in said and "says 1" in said


def test_a_file_with_some_alphas_missing_is_scaled_otherwise_in_diffusers():
    tensors = lora(attention(), flat(), rank=4)
    del tensors[next(key for key in tensors if key.endswith(".alpha"))]
    found = judged(tensors)
    assert "by 1" in found["ComfyUI"].why and "the others' alpha, 1" in found["diffusers"].why


def test_an_alpha_equal_to_the_rank_written_over_another():
    tensors = lora(attention(), flat(), rank=4, alpha=4.0)
    said = {"ss_network_dim": "4", "ss_network_alpha": "1.0"}
    assert "4 times" in problems(tensors, said)[Problem.ALPHA_OVERWRITTEN].says
    assert not problems(tensors, said | {"ss_network_alpha": "4.0"})
    assert not problems(lora(attention(), flat(), rank=4, alpha=1.0), said)


def test_an_alpha_in_the_header_alone():
    tensors = lora(attention(), dotted(), rank=4, alpha=None, ends=AB)
    header = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2})}
    found = judged(tensors, header)
    assert found["diffusers"].why == "" and "by 1 instead" in found["SD.Next"].why
    assert len(problems(tensors, header)[Problem.ALPHA_IN_HEADER].about) == 4


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
def test_doras_magnitude_under_pefts_name(many):
    shapes = denoiser("sd15") if many else attention()
    shapes = {place: shape for place, shape in shapes.items() if len(shape) == 2}
    tensors = dora(shapes, flat(), ".lora_magnitude_vector")
    expected = dict.fromkeys(ALL, "partly") | {"diffusers": "no"} | ({"Forge": "no"} if many else {})
    found = judged(tensors)
    assert loads(tensors) == expected
    assert "magnitude" in found["diffusers"].why and "without them" in found["ComfyUI"].why
    assert not many or "more than 12" in found["Forge"].why
    assert problems(tensors)[Problem.MAGNITUDE_NAME].about == found["ComfyUI"].unmatched


def test_doras_norms_are_reckoned_otherwise_by_some():
    tensors = dora(attention(), flat())
    found = judged(tensors)
    assert loads(tensors) == all_but(diffusers="partly")
    assert all("norms" in found[ui].why for ui in ("ComfyUI", "Forge", "InvokeAI"))
    assert not found["A1111"].why and "plain LoRA" in found["diffusers"].why
    assert not problems(tensors)


def test_an_sdxl_file_without_the_version_is_hidden_by_a1111():
    tensors = lora(places("sdxl"), sgm)
    found = judged(tensors, {"format": "pt"})
    assert loads(tensors, {"format": "pt"}) == all_but() and "lacks ss_base_model_version" in found["A1111"].why
    assert Problem.HIDDEN_IN_A1111 in problems(tensors, {"format": "pt"})
    for shown in ({}, SDXL):
        assert not judged(tensors, shown)["A1111"].why and not problems(tensors, shown)


def test_metadata_of_another_family_is_not_believed():
    tensors = lora(places("sdxl"), sgm)
    said = problems(tensors, {"ss_base_model_version": "sd_v1"})[Problem.FAMILY_DISAGREES].says
    assert "Stable Diffusion 1.x" in said and "Stable Diffusion XL" in said


def test_sd2s_projections_stored_4d_stop_diffusers_alone():
    tensors = lora(places("sd2"), flat(text="lora_te_"))
    names = [key for key in tensors if "proj_in.lora" in key or "proj_out.lora" in key]
    tensors |= {key: tensors[key][..., None, None] for key in names}
    assert loads(tensors) == all_but(diffusers="no")
    assert "4-D" in judged(tensors)["diffusers"].why
    assert len(problems(tensors)[Problem.SHAPE_OF_PROJECTION].about) == 2


def test_kohyas_names_for_sd3_are_dropped_by_diffusers_without_an_error():
    tensors = joint("3-medium")
    verdict = judged(tensors)["diffusers"]
    assert verdict.loads == "no" and "without an error" in verdict.why
    assert loads(tensors)["ComfyUI"] == loads(tensors)["Forge"] == "whole"


def test_alphas_beside_diffusers_names_for_sd3():
    tensors = lora(denoiser("3.5-medium"), dotted("transformer"), ends=AB)
    assert loads(tensors)["ComfyUI"] == "whole" and loads(tensors)["diffusers"] == "no"
    assert "`.alpha` keys" in judged(tensors)["diffusers"].why
    assert Problem.ALPHA_BESIDE_DOTTED in problems(tensors)


def test_a_textual_inversion_in_the_file():
    bundle = {f"bundle_emb.zib.{part}": torch.zeros(2, 8) for part in ("clip_l", "clip_g")}
    tensors = lora(places("sdxl"), flat()) | bundle
    expected = {"A1111": "whole", "InvokeAI": "no", "diffusers": "no"}
    assert loads(tensors, SDXL) == {ui: expected.get(ui, "partly") for ui in ALL}
    assert judged(tensors)["ComfyUI"].unmatched == tuple(sorted(bundle))
    assert problems(tensors)[Problem.EMBEDDING_INSIDE].about == tuple(sorted(bundle))


def test_sdxl_keys_with_another_prefix_stop_invokeai():
    tensors = lora(denoiser("sdxl"), sgm) | files.pair("lora_controlnet_x", (4, 4))
    assert loads(tensors) == {ui: "no" if ui in ("InvokeAI", "diffusers") else "partly" for ui in ALL}
    assert "stops at a key" in judged(tensors)["InvokeAI"].why


def test_sdxl_blocks_named_in_both_ways():
    mid, down = ({p: s for p, s in denoiser("sdxl").items() if p[1].startswith(start)} for start in ("mid", "down"))
    tensors = lora(mid, sgm) | lora(down, flat())
    found = judged(tensors)
    assert loads(tensors) == all_but(InvokeAI="no", diffusers="partly")
    assert all(key.startswith("lora_unet_middle") for key in found["diffusers"].unmatched)
    assert "without an error" in found["diffusers"].why and Problem.MIXED_BLOCK_NAMES in problems(tensors)


@pytest.mark.parametrize(("count", "verdict"), [(12, "partly"), (13, "no")])
def test_forge_counts_keys_that_match_nothing(count, verdict):
    tensors = lora(attention(), flat()) | {f"lora_unet_nothing_{i}.alpha": torch.ones(()) for i in range(count)}
    assert loads(tensors)["Forge"] == verdict and loads(tensors)["ComfyUI"] == "partly"


def test_leftovers_of_torch_compile_and_peft_are_named():
    compiled = lora(attention(), lambda place: f"unet._orig_mod.{place[1]}", alpha=None, ends=AB)
    named = lora(attention(), dotted(), alpha=None, ends=(".lora_A.default.weight", ".lora_B.default.weight"))
    for tensors in (compiled, named):
        assert set(loads(tensors).values()) == {"no"}
        found = problems(tensors)
        assert len(found[Problem.LEFTOVERS].about) == 4 and Problem.UNKNOWN_KEYS not in found
        assert base_of(contents_of_tensors(tensors, {})).name == "sd15"


def test_a_type_that_a_program_lacks_is_named():
    ia3 = {f"{flat()(place)}.{part}": torch.ones(1) for place in attention() for part in ("weight", "on_input")}
    assert loads(ia3) == {ui: "whole" if ui in ("A1111", "InvokeAI", "SD.Next") else "no" for ui in ALL}
    assert judged(ia3)["ComfyUI"].why == "it does not read IA3"
    glora = {f"{flat()(place)}.{p}.weight": torch.ones(2, 2) for place in attention() for p in ("a1", "a2", "b1", "b2")}
    assert loads(glora) == all_but(InvokeAI="no", diffusers="no")
    full = {f"{flat()(place)}.diff": torch.ones(shape) for place, shape in attention().items()}
    assert loads(full) == all_but(diffusers="no")


def test_a_layer_that_no_base_has_is_listed():
    tensors = lora(attention(), flat()) | files.pair("lora_unet_extra", (4, 4))
    assert problems(tensors)[Problem.UNKNOWN_KEYS].about == ("lora_unet_extra",)


def test_a_rank_that_the_matrices_do_not_have():
    assert "rank 8" in problems(lora(attention(), flat()), {"ss_network_dim": "8"})[Problem.RANK_DISAGREES].says


@pytest.fixture
def said(tmp_path):
    def look(tensors, metadata=None):
        path = tmp_path / "a.safetensors"
        save_file(tensors, path, metadata)
        facts = inspect(path)
        return facts, {problem["name"]: problem for problem in facts["problems"]}

    return look


def test_zeros_and_broken_numbers_are_found_in_the_tensors(said):
    tensors = lora(attention(), flat())
    first, second = (key for key in tensors if "to_k.lora_" in key)
    _, found = said(tensors | {second: torch.zeros_like(tensors[second])})
    assert found["zeros"]["concerns"] == 1
    _, found = said(tensors | {key: torch.zeros_like(tensors[key]) for key in tensors if "lora_up" in key})
    assert "changes nothing" in found["zeros"]["says"]
    for bad in (float("nan"), float("inf")):
        broken = tensors[first].clone()
        broken[0, 0] = bad
        facts, found = said(tensors | {first: broken})
        assert found["not-a-number"]["concerns"] == 1 and facts["blocks"]["mid"]["norm"] is None


def test_matrices_that_do_not_fit_one_another_are_named(said):
    name = flat()(next(iter(attention())))
    up = {f"{name}.lora_up.weight": torch.ones(1280, 3)}
    facts, found = said(lora(attention(), flat()) | up)
    assert found["matrices-disagree"]["concerns"] == found["other-shapes"]["concerns"] == 1
    assert facts["interfaces"]["ComfyUI"].startswith("loads in part")


@pytest.mark.parametrize("seed", range(8))
def test_no_shape_or_ending_is_too_odd_to_be_looked_at(said, seed):
    draw = random.Random(seed)
    shapes = [(), (0,), (1,), (3,), (0, 3), (2, 3), (3, 2, 1, 1), (2, 3, 3, 3), (1, 2, 3)]
    names = [make(place) for place in attention() for make in (flat(), dotted(), files.peft, flat("lycoris_"))]
    names += ["lora_unet_joint_blocks_0_x_block_adaLN_modulation_1", "transformer.transformer_blocks.0.attn.to_q", ""]
    tensors = {f"{draw.choice(names)}{end}": torch.ones(draw.choice(shapes)) for end in ENDINGS for _ in range(3)}
    facts, _ = said(tensors | lora(attention(), flat()))
    assert facts["family"] and facts["interfaces"]


def test_a_hash_is_right_wrong_or_of_nothing(said, tmp_path):
    tensors = lora(attention(), flat())
    true = adapter_hashes(tensors, {})["sshs_model_hash"]
    facts, found = said(tensors, {"sshs_model_hash": true})
    assert facts["hash"].startswith("fits") and not found and hash_of_file(tmp_path / "a.safetensors") == true
    facts, found = said(tensors, {"sshs_model_hash": NOTHING})
    assert "hash of nothing" in facts["hash"] and found.keys() == {"hash-of-nothing"}
    facts, found = said(tensors, {"sshs_model_hash": "0" * 64})
    assert facts["hash"].startswith("FALSE") and true[:12] in found["hash-wrong"]["says"]
    assert said(tensors)[0]["hash"] == "none in the file"


def test_broken_metadata_is_one_sentence_each_and_stops_nothing(said):
    broken = {
        "ss_tag_frequency": "{'zib': 3",
        "ss_network_dim": "two",
        "ss_training_started_at": "yesterday",
        "lora_adapter_metadata": json.dumps({"unet.lora_alpha": "many"}),
    }
    facts, _ = said(lora(attention(), flat()), broken)
    sentences = [problem["says"] for problem in facts["problems"]]
    assert {problem["name"] for problem in facts["problems"]} == {"metadata-broken"} and len(sentences) == 4
    assert all(any(key in sentence for sentence in sentences) for key in broken)
    assert facts["interfaces"]["ComfyUI"] == "loads" and facts["words"] == {}
