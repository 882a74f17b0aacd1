"""What `darkroom inspect` says of files that newcomers have: the demo's, peft's, and files with odd keys."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from app import cli_inspect
from tests.commands import here
from tests.export import files
from tests.export.runs import CONFIG, FACTS
from trainers.adapters.adapter_file import read_adapter
from trainers.adapters.lora import attach
from trainers.adapters.weights import LoraWeights
from trainers.config import AdapterConfig, ModelConfig
from trainers.export import weigh, writer
from trainers.export.embedded import fits_embedded
from trainers.export.hashes import adapter_hashes
from trainers.export.inspect import inspect
from trainers.export.metadata import metadata
from trainers.families.sd15 import SD15

ALL = ["A1111", "Forge", "ComfyUI", "InvokeAI", "SD.Next", "diffusers"]
BLOCK = "mid_block.attentions.0.transformer_blocks.0"


@pytest.fixture(scope="module")
def embedded_modules():
    components = SD15.load(ModelConfig(base="embedded"), torch.float32)
    settings = AdapterConfig(rank=2, text_encoder=True, targets="full")
    return attach(components, SD15.spec, settings, seed=0).modules()


@pytest.fixture
def sd15_modules():
    """Two layers in Stable Diffusion 1.5's sizes."""
    keys = LoraWeights(torch.ones(2, 768), torch.ones(1280, 2), 2.0)
    queries = LoraWeights(torch.ones(2, 1280), torch.ones(1280, 2), 1.0)
    return {("denoiser", f"{BLOCK}.attn2.to_k"): keys, ("denoiser", f"{BLOCK}.attn2.to_q"): queries}


def written(modules, path, form="kohya"):
    return writer.write(modules, metadata(CONFIG, FACTS, SD15.spec, "a"), SD15.spec, path, "fp16", form).files


def test_an_adapter_of_the_embedded_base_is_at_home_there_and_alarms_nobody(embedded_modules, tmp_path):
    (file,) = written(embedded_modules, tmp_path / "a.safetensors")
    facts = inspect(file)
    assert "teaching base" in facts["family"] and "loads there" in facts["interfaces"]
    assert "does not load" not in json.dumps(facts) and "unmatched keys" not in facts


def test_a_layer_that_the_embedded_base_lacks_makes_it_another_bases_adapter(embedded_modules, sd15_modules):
    layers = {
        f"lora_unet_{path.replace('.', '_')}": m for (part, path), m in embedded_modules.items() if part != "text_0"
    }
    assert fits_embedded(layers) and not fits_embedded({})
    assert not fits_embedded(layers | {"lora_unet_nothing": next(iter(layers.values()))})
    name = f"lora_unet_{BLOCK.replace('.', '_')}_attn2_to_k"
    assert not fits_embedded({name: next(iter(sd15_modules.values()))})


def test_an_adapter_for_stable_diffusion_has_a_verdict_per_program(sd15_modules, tmp_path):
    (file,) = written(sd15_modules, tmp_path / "a.safetensors")
    facts = inspect(file)
    assert facts["interfaces"] == dict.fromkeys(ALL, "loads")
    assert facts["alpha"] == {2.0: 1, 1.0: 1}


def test_a_file_of_pefts_layout_is_sent_to_peft(sd15_modules, tmp_path):
    weights = next(f for f in written(sd15_modules, tmp_path / "a.safetensors", "peft") if f.suffix == ".safetensors")
    facts = inspect(weights)
    assert facts["interfaces"]["peft"].startswith("loads") and facts["interfaces"]["A1111"].startswith("does not load")
    assert facts["alpha"] == {2.0: 1, 1.0: 1} and facts["hash"].startswith("fits")
    assert "unmatched keys" not in facts  # all of them: the reason says it


@pytest.mark.parametrize("level", ["", "text_model."], ids=["transformers 5", "transformers 4"])
def test_a_text_encoder_of_pefts_layout_is_counted_as_one(embedded_modules, sd15_modules, tmp_path, level):
    files = written({**embedded_modules, **sd15_modules}, tmp_path / "a.safetensors", "peft")
    counts = {}
    for file in (file for file in files if file.suffix == ".safetensors"):
        tensors = {key.replace(".model.encoder.", f".model.{level}encoder."): t for key, t in load_file(file).items()}
        save_file(tensors, tmp_path / "renamed.safetensors")
        counts[file.parent.name] = inspect(tmp_path / "renamed.safetensors")["modules"]
    assert counts["unet"].keys() == {"denoiser"} and counts["text_encoder"].keys() == {"text encoder"}


def test_layers_without_alpha_and_keys_without_a_place_are_told_apart(sd15_modules, tmp_path, capsys):
    (file,) = written(sd15_modules, tmp_path / "a.safetensors")
    tensors = load_file(file)
    del tensors[f"lora_unet_{BLOCK.replace('.', '_')}_attn2_to_k.alpha"]
    save_file(tensors | {"bundle_emb.x": torch.ones(2)}, tmp_path / "odd.safetensors")
    facts = inspect(tmp_path / "odd.safetensors")
    assert facts["alpha"] == {"none: scale 1": 1, 1.0: 1} and facts["unknown keys"] == ["bundle_emb.x"]
    assert "any key" in facts["interfaces"]["diffusers"] and "1 key unmatched" in facts["interfaces"]["ComfyUI"]
    cli_inspect.adapter_facts(facts, as_json=False)
    said = capsys.readouterr().out
    assert "alpha: none: scale 1 (1 of them), 1.0 (1 of them)" in said and "rank: 2\n" in said
    assert said.count("bundle_emb.x") == 2  # as an unknown key, and once for all the programs that miss it


META = {
    "ss_base_model_version": "sdxl_base_v1-0",
    "ss_network_dim": "2",
    "ss_network_alpha": "1.0",
    "ss_network_module": "networks.lora",
    "ss_sd_model_name": "sd_xl_base_1.0.safetensors",
    "ss_new_sd_model_hash": "31e35c80fc4829d14f90153f4c74cd59",
    "ss_training_started_at": "1700000000.5",
    "ss_training_finished_at": "1700003600.5",
    "ss_tag_frequency": json.dumps({"20_zib": {"zib": 20, " red": 12}, "5_more": {"red": 3, "round": 1}}),
    "modelspec.trigger_phrase": "zib",
    "ss_output_name": "zib",
    "ss_steps": "2000",
}


@pytest.fixture
def darkroom(capsys):
    return here(capsys)


@pytest.fixture
def sdxl_file(tmp_path):
    path = tmp_path / "zib.safetensors"
    tensors = files.lora(files.places("sdxl"), files.sgm)
    save_file(tensors, path, META | adapter_hashes(tensors, META))
    return path


def test_an_sdxl_file_tells_its_story(sdxl_file):
    facts = inspect(sdxl_file)
    assert facts["family"] == "Stable Diffusion XL"
    assert facts["type"] == "LoRA, kohya layout with the original block names"
    assert facts["made with"] == "kohya's sd-scripts"
    assert facts["base model"] == "sd_xl_base_1.0.safetensors (hash 31e35c80fc)"
    assert facts["trained"] == {"begun": "2023-11-14 22:13 UTC", "finished": "2023-11-14 23:13 UTC"}
    assert facts["words"] == {"trigger": "zib", "tags": {"zib": 20, "red": 15, "round": 1}, "different tags": 3}
    assert (facts["rank"], facts["alpha"], facts["dtype"]) == ({2: 64}, {1.0: 64}, "float16")
    assert facts["modules"] == {"text encoder": 12, "denoiser": 52}
    blocks = ["down 0", "down 1", "mid", "up 0", "up 1", "text encoder 1", "text encoder 2"]
    assert list(facts["blocks"]) == blocks
    assert facts["hash"].startswith("fits") and facts["problems"] == [] and facts["metadata"]["ss_steps"] == "2000"
    assert set(facts["interfaces"].values()) == {"loads"}


def test_the_strength_of_a_block_is_the_sum_of_its_modules(sdxl_file):
    layers = read_adapter(sdxl_file).layers
    mid = sum(float(layer.delta().double().norm()) for name, layer in layers.items() if "middle_block" in name)
    assert inspect(sdxl_file)["blocks"]["mid"]["norm"] == pytest.approx(mid, rel=1e-5)


def test_what_is_printed_is_short(sdxl_file, darkroom):
    said = darkroom("inspect", sdxl_file).out
    assert said.count("\n") <= 25 and max(map(len, said.splitlines())) < 200
    assert "words: trigger zib; zib (20), red (15), round (1); 3 different tags" in said
    assert "trained: begun 2023-11-14 22:13 UTC, finished 2023-11-14 23:13 UTC" in said
    assert "modules: 12 in the text encoder, 52 in the denoiser" in said and "what is wrong" not in said
    assert re.search(r"strength by block: down 0 [\d.e+]+, down 1", said)
    assert said.endswith("".join(f"  {ui}: loads\n" for ui in ALL))
    assert json.loads(darkroom("inspect", sdxl_file, "--json").out) == json.loads(json.dumps(inspect(sdxl_file)))


def test_a_bad_file_is_printed_short_too(tmp_path, darkroom):
    path = tmp_path / "bad.safetensors"
    tensors = files.lora(files.denoiser("sdxl", ["mid_block", "down_blocks"]), files.dotted())
    odd = {f"something.{i}": torch.ones(1) for i in range(500)}
    save_file(tensors | odd | {"bundle_emb.zib.clip_l": torch.ones(2)}, path, {"format": "pt", "ss_network_dim": "x"})
    said = darkroom("inspect", path).out
    assert said.count("\n") <= 40 and max(map(len, said.splitlines())) < 250
    assert "what is wrong:" in said and "and 497 more" in said
    names = {problem["name"] for problem in inspect(path)["problems"]}
    assert names == {"unknown-keys", "diffusers-names", "alpha-beside-dotted-names", "embedding-inside"} | {
        "hidden-in-a1111",
        "metadata-broken",
    }


def test_many_ranks_and_blocks_are_summed_up(tmp_path, darkroom):
    shapes = files.denoiser("3.5-large", ["transformer_blocks."])
    queries = [place for place in shapes if place[1].endswith("attn.to_q")]
    tensors = {}
    for i, place in enumerate(queries):
        tensors |= files.pair(files.dotted("transformer")(place), shapes[place], 1 + i % 7, None, files.AB)
    save_file(tensors, tmp_path / "a.safetensors")
    said = darkroom("inspect", tmp_path / "a.safetensors").out
    assert re.search(r"rank: 1 to 7, 7 different, mostly \d \(\d of them\)", said)
    assert re.search(r"strength by block: 38, the strongest block \d+ ", said)


def test_a_folder_of_peft_is_inspected_like_its_file(sd15_modules, tmp_path, darkroom):
    weights = next(f for f in written(sd15_modules, tmp_path / "a.safetensors", "peft") if f.suffix == ".safetensors")
    of_folder, of_file = inspect(weights.parent), inspect(weights)
    assert {**of_folder, "file": ""} == {**of_file, "file": ""}
    assert darkroom("inspect", weights.parent).code == 0


def test_a_folder_of_several_models_is_inspected_part_by_part(embedded_modules, sd15_modules, tmp_path, darkroom):
    both = {**{place: m for place, m in embedded_modules.items() if place[0] == "text_0"}, **sd15_modules}
    folder = written(both, tmp_path / "a.safetensors", "peft")[0].parent.parent
    facts = inspect(folder)
    assert facts["file"] == str(folder) and list(facts["parts"]) == ["unet", "text_encoder"]
    assert facts["parts"]["unet"] == inspect(folder / "unet")
    said = darkroom("inspect", folder)
    assert said.code == 0 and "unet:\n" in said.out and "text_encoder" in said.out, said.err
    assert json.loads(darkroom("inspect", folder, "--json").out)["parts"].keys() == {"unet", "text_encoder"}


def test_a_folder_of_one_model_is_inspected_like_that_model(sd15_modules, tmp_path):
    folder = written(sd15_modules, tmp_path / "a.safetensors", "peft")[0].parent.parent
    assert [part.name for part in folder.iterdir()] == ["unet"]
    assert inspect(folder) == inspect(folder / "unet")


def test_matrices_are_read_one_module_at_a_time(sdxl_file, monkeypatch):
    seen = []
    original = weigh.norm

    def watched(module, parts, alpha):
        seen.append(len(parts))
        return original(module, parts, alpha)

    monkeypatch.setattr(weigh, "norm", watched)
    monkeypatch.setattr("safetensors.torch.load_file", None)
    inspect(sdxl_file)
    assert seen == [3] * 64


def test_zeros_in_a_layer_that_training_cannot_change_are_no_fault(tmp_path):
    """SDXL reads CLIP-L's last layer but one."""
    shapes = files.places("sdxl", ("encoder.layers.10.self_attn", "encoder.layers.11.self_attn"))
    shapes = {place: shape for place, shape in shapes.items() if place[0] == "text_0"} | files.denoiser("sdxl")
    tensors = files.lora(shapes, files.flat())
    ups = [name for name in tensors if name.startswith("lora_te1") and name.endswith("lora_up.weight")]
    last, before = ([name for name in ups if f"layers_{number}_" in name] for number in (11, 10))
    for zero, said in ((last, []), ([*last, before[0]], ["1 module is zero, without effect."])):
        file = tmp_path / f"{len(zero)}.safetensors"
        changed = {name: torch.zeros_like(t) if name in zero else t for name, t in tensors.items()}
        save_file(changed, file, {"ss_base_model_version": "sdxl_base_v1-0"})
        assert len(last) == 4 and [one["says"] for one in inspect(file)["problems"] if one["name"] == "zeros"] == said
