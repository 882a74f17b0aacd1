"""Good files of every family and layout are known for what they are, and load whole wherever they should."""

import pytest
import torch

from tests.export import files
from tests.export.files import AB, dotted, flat, joint, lora, places, sgm
from trainers.export.contents import contents_of_tensors
from trainers.export.inspect import layout
from trainers.export.problems import findings
from trainers.export.verify import UIS, verdicts
from trainers.export.which_base import base_of

ALL = {rules.ui for rules in UIS}
NO_SD3 = {"A1111", "InvokeAI"}
SDXL = {"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"}
SD2 = {"ss_base_model_version": "sd_v2", "ss_v2": "True"}
SD1 = {"ss_base_model_version": "sd_v1", "ss_v2": "False"}
OLD = (".down.weight", ".up.weight")


def old_processor(place):
    return f"unet.{place[1]}".replace(".to_", ".processor.to_").removesuffix(".0") + "_lora"


def attention(base):
    return {p: s for p, s in files.denoiser(base).items() if ".to_" in p[1]}


def orig(place):
    return f"diffusion_model.{files.names_sdxl.to_sgm(place[1])}"


# name -> (tensors, metadata, base, layout, UIs that load it whole)
GOOD = {
    "SD 1.5, kohya": lambda: (lora(places("sd15"), flat(text="lora_te_")), SD1, "sd15", "kohya", ALL),
    "SD 2, kohya, 2-D": lambda: (lora(places("sd2"), flat(text="lora_te_")), SD2, "sd2", "kohya", ALL),
    "SDXL, kohya": lambda: (lora(places("sdxl"), sgm), SDXL, "sdxl", "kohya with original blocks", ALL),
    "SDXL, kohya, diffusers' blocks": lambda: (lora(places("sdxl"), flat()), SDXL, "sdxl", "kohya", ALL),
    "SD 1.5, diffusers": lambda: (
        *(lora(places("sd15"), dotted(), alpha=None, ends=AB), {}, "sd15", "diffusers"),
        {"SD.Next", "diffusers"},
    ),
    "SDXL, diffusers": lambda: (
        *(lora(places("sdxl"), dotted(), alpha=None, ends=AB), {}, "sdxl", "diffusers"),
        {"SD.Next", "diffusers"},
    ),
    "SD 1.5, old diffusers": lambda: (
        *(lora(attention("sd15"), old_processor, alpha=None, ends=OLD), {}, "sd15", "old diffusers"),
        {"Forge", "ComfyUI", "diffusers"},
    ),
    "SDXL, LyCORIS": lambda: (
        *(lora(files.denoiser("sdxl"), flat("lycoris_")), SDXL, "sdxl", "lycoris"),
        {"ComfyUI"},
    ),
    "SDXL, original": lambda: (lora(files.denoiser("sdxl"), orig), SDXL, "sdxl", "original", {"Forge", "ComfyUI"}),
    "SD 1.5, peft": lambda: (lora(files.denoiser("sd15"), files.peft, alpha=None, ends=AB), {}, "sd15", "peft", set()),
    **{
        f"SD {size}, diffusers": lambda size=size: (
            *(lora(places(size), dotted("transformer"), alpha=None, ends=AB), {}, size, "diffusers"),
            {"ComfyUI", "SD.Next", "diffusers"},
        )
        for size in files.SD3_SIZES
    },
    **{
        f"SD {size}, kohya": lambda size=size: (joint(size), {}, size, "kohya", {"Forge", "ComfyUI", "SD.Next"})
        for size in files.SD3_SIZES
    },
    "SD 3, OneTrainer": lambda: (
        *(lora(places("3-medium"), flat("lora_transformer_")), {}, "3-medium", "OneTrainer"),
        {"ComfyUI", "SD.Next"},
    ),
    "SD 3.5, peft": lambda: (
        *(lora(files.denoiser("3.5-medium"), files.peft, alpha=None, ends=AB), {}, "3.5-medium", "peft"),
        {"ComfyUI"},
    ),
    "SD 3.5, LyCORIS LoKr": lambda: (
        *(files.lokr(files.denoiser("3.5-large"), flat("lycoris_")), {}, "3.5-large", "lycoris"),
        {"ComfyUI", "SD.Next"},
    ),
}


@pytest.fixture(scope="module", params=GOOD)
def case(request):
    return GOOD[request.param]()


def test_the_base_and_the_layout_are_told(case):
    tensors, metadata, name, wanted, _ = case
    contents = contents_of_tensors(tensors, metadata)
    base = base_of(contents)
    assert base.name == name and layout(contents, base) == wanted


def test_it_loads_whole_where_it_should_and_nowhere_else(case):
    tensors, metadata, base, names, readers = case
    found = {verdict.ui: verdict for verdict in verdicts(tensors, metadata)}
    assert {ui for ui in ALL if found[ui].loads == "whole"} == readers
    partly = {"ComfyUI"} if (base, names) in (("sd15", "diffusers"), ("sdxl", "diffusers")) else set()  # no attention
    assert {ui for ui in ALL if found[ui].loads == "no"} == ALL - readers - partly
    assert all(verdict.why for verdict in found.values() if verdict.loads == "no")


def test_only_names_that_most_programs_lack_are_wrong_with_it(case):
    tensors, metadata, _, _, _ = case
    contents = contents_of_tensors(tensors, metadata)
    assert {finding.problem for finding in findings(contents, base_of(contents))} <= {"diffusers-names"}


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("make", [files.loha, files.lokr], ids=["LoHa", "LoKr"])
def test_lycoris_types_load_everywhere_but_in_diffusers(base, make):
    name = flat(text="lora_te_") if base == "sd15" else sgm
    shapes = {place: s for place, s in attention(base).items() if ".proj_" not in place[1]}
    found = {verdict.ui: verdict.loads for verdict in verdicts(make(shapes, name), {})}
    assert found == {ui: "no" if ui == "diffusers" else "whole" for ui in ALL}


def test_mixed_ranks_whole_number_alphas_and_both_shapes_of_1x1_are_read():
    shapes = list(files.denoiser("sd15").items())
    tensors = {}
    for i, (place, shape) in enumerate(shapes):
        tensors |= files.pair(flat()(place), shape, rank=1 + i % 3)
        tensors[f"{flat()(place)}.alpha"] = torch.tensor(1 + i % 2)  # int64, as kohya writes it without a precision
    name = flat()(("denoiser", "mid_block.attentions.0.proj_in"))
    tensors |= {key: tensors[key].flatten(1) for key in tensors if key.startswith(f"{name}.lora")}
    contents = contents_of_tensors(tensors, {})
    assert {module.rank for module in contents.modules.values()} == {1, 2, 3}
    assert set(contents.alphas.values()) == {1.0, 2.0}
    found = {verdict.ui: verdict.loads for verdict in verdicts(tensors, {})}
    assert found == {ui: "no" if ui == "diffusers" else "whole" for ui in ALL}  # which wants a convolution 4-D


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ({}, "Stable Diffusion 3 Medium or 3.5 Medium"),
        ({"modelspec.architecture": "stable-diffusion-3-5-medium/lora"}, "Stable Diffusion 3.5 Medium"),
        ({"ss_base_model_version": "medium"}, "Stable Diffusion 3 Medium"),
    ],
)
def test_where_the_shapes_leave_two_sizes_the_metadata_may_choose(said, label):
    tensors = lora(files.denoiser("3-medium", ["transformer_blocks.20.attn."]), dotted("transformer"), ends=AB)
    assert base_of(contents_of_tensors(tensors, said)).label == label


@pytest.mark.parametrize(
    ("base", "path", "prefix"),
    [
        ("sd15", "encoder.layers.3.mlp", "lora_te_"),
        ("sd2", "encoder.layers.3.mlp", "lora_te_"),
        ("sdxl", "text_model.encoder.layers.3.mlp", "lora_te2_"),
        ("sdxl", "down_blocks.1.resnets.0.conv1", "lora_unet_"),
    ],
)
def test_a_file_without_cross_attention_is_known_by_its_shapes(base, path, prefix):
    shapes = {p: s for p, s in places(base, [path]).items()}
    name = sgm if base == "sdxl" else flat(text="lora_te_")
    tensors = lora(shapes, name)
    assert all(key.startswith(prefix) for key in tensors)
    assert base_of(contents_of_tensors(tensors, {})).name == base


def test_flux_and_the_refiner_are_named_but_not_judged():
    flux = files.pair("lora_unet_double_blocks_0_img_attn_qkv", (9, 3))
    refiner = files.pair("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", (768, 1280))
    for tensors, label in ((flux, "Flux"), (refiner, "Stable Diffusion XL refiner")):
        assert base_of(contents_of_tensors(tensors, {})).label == label and verdicts(tensors, {}) == []


def test_a_peft_folder_of_sdxls_second_text_encoder_is_known_as_one():
    shapes = {p: s for p, s in places("sdxl", ["text_model.encoder.layers"]).items() if p[0] == "text_1"}
    contents = contents_of_tensors(lora(shapes, files.peft, alpha=None, ends=AB), {})
    base = base_of(contents)
    assert base.name == "sdxl" and layout(contents, base) == "peft"
    assert not findings(contents, base)


@pytest.mark.parametrize(
    ("base", "make"), [("sdxl", lambda: lora(places("sdxl"), sgm)), ("3.5-large", lambda: joint("3.5-large"))]
)
def test_the_layers_of_a_loaded_base_can_be_judged_against(base, make):
    tensors, shapes = make(), files.family_shapes(base)
    assert verdicts(tensors, {}, shapes) == verdicts(tensors, {})
    fewer = {place: shape for place, shape in shapes.items() if "mid_block" not in place[1] and ".23." not in place[1]}
    assert {verdict.loads for verdict in verdicts(tensors, {}, fewer) if verdict.ui == "ComfyUI"} == {"partly"}
