"""Every kind of document that the product reads: whole ones to begin with, their structure, and what reads them."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from app import archive, captions_edit
from app.trash import NOTE
from tests.bad_input.files import SDXL
from tests.export.files import denoiser, dotted, flat, loha, lokr, lora
from tests.mutated import feed_files as files
from tests.mutated import feed_runs as runs
from tests.mutated import feed_settings as settings
from tests.mutated.scratch import Scratch
from tests.mutated.shapes import JSON, LINES, PNG, TENSORS, TOML, ZIP, Shape
from trainers import sums

CONFIGS = Path(__file__).parents[1] / "importing" / "configs"
ATTENTION = ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]


@dataclass(frozen=True)
class Kind:
    """`share`: how many inputs it gets, where others get 1."""

    seeds: Callable[[Scratch], list[bytes]]
    shape: Shape | None
    feed: Callable[[Scratch, bytes], None]
    share: float = 1.0


def of(*names: str) -> Callable[[Scratch], list[bytes]]:
    """Files of the scratch home, by patterns below it."""
    return lambda scratch: [file.read_bytes() for name in names for file in sorted(scratch.folder.glob(name))]


def in_run(name: str) -> Callable[[Scratch], list[bytes]]:
    return of(f"home/projects/cats/runs/*/{name}")


def theirs(*names: str) -> Callable[[Scratch], list[bytes]]:
    """Other trainers' files."""
    return lambda _: [(CONFIGS / name).read_bytes() for name in names]


def said(*texts: str) -> Callable[[Scratch], list[bytes]]:
    return lambda _: [text.encode() for text in texts]


def adapters(scratch: Scratch) -> list[bytes]:
    shapes = denoiser("sd15", ATTENTION)
    more = [lora(shapes, dotted()), loha(shapes, flat()), lokr(shapes, flat())]
    config = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.alpha_pattern": {"mid.*": 4}})}
    told = {"ss_network_dim": "2", "modelspec.title": "x", "ss_training_started_at": "1.7e9", "software": "{}"}
    return [scratch.adapter.read_bytes(), *(save(one, config | told) for one in more)]


def bases(_: Scratch) -> list[bytes]:
    tensors = {name: torch.zeros(1, dtype=torch.float16).expand(shape).contiguous() for name, shape in SDXL.items()}
    small = {f"model.diffusion_model.{i}.weight": torch.ones(2, 2) for i in range(3)}
    return [save({name: tensor[:1] for name, tensor in tensors.items()}), save(small, {"modelspec.architecture": "x"})]


def pickles(_: Scratch) -> list[bytes]:
    made = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.ones(2, 2)}}, made)
    old = io.BytesIO()
    torch.save({"a.weight": torch.ones(2, 2)}, old, _use_new_zipfile_serialization=False)
    return [made.getvalue(), old.getvalue()]


def png(_: Scratch) -> list[bytes]:
    return [
        _picture("RGBA", "PNG"),
        _picture("P", "PNG"),
        _picture("I;16", "PNG"),
        _picture("L", "PNG", icc_profile=bytes(200)),
    ]


def pictures(_: Scratch) -> list[bytes]:
    kinds = [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF")]
    return [*(_picture(mode, form) for mode, form in kinds), _picture("L", "TIFF", compression="tiff_lzw")]


def _picture(mode: str, form: str, **more: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = io.BytesIO()
    grey = Image.linear_gradient("L").resize((40, 30))
    picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256) if mode == "I;16" else grey.convert(mode)
    extra = {"exif": exif} if form in ("PNG", "JPEG", "WEBP") else {}
    picture.save(made, form, **extra, **more)
    return made.getvalue()


def dropped(scratch: Scratch) -> list[bytes]:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("a/0.png", "a/new.png", "b/new.png"):
            packed.writestr(name, _picture("RGB", "PNG", dpi=(len(name), 1)))
        packed.writestr("a/new.txt", "tabby")
        packed.writestr("readme.md", "x")
    return [made.getvalue()]


def archived(scratch: Scratch) -> list[bytes]:
    """Of a run that is not in the library."""
    file = archive.save_zip(scratch.home, scratch.run, [])
    data = file.read_bytes()
    file.unlink()
    file.parent.rmdir()
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as packed, zipfile.ZipFile(made, "w") as new:
        for entry in packed.infolist():
            content = packed.read(entry).replace(b"_tabby", b"_other") if entry.filename == archive.CONTENTS else None
            new.writestr(entry.filename.replace("_tabby/", "_other/"), content or packed.read(entry))
    return [made.getvalue()]


CAPTIONS = ("tabby cat, a tin roof", "\ufefftabby", "ein tabby, größer", "tabby\r\non two lines")
BASE = {"_class_name": "StableDiffusionPipeline", "in_channels": 4, "cross_attention_dim": 768, "architectures": ["a"]}
BASE |= {"prediction_type": "epsilon", "rescale_betas_zero_snr": False, "weight_map": {"a": files.SHARD}}
PEFT = '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"mid.*": 2}, "rank_pattern": {}}'
PROMPTS = "a cat --n bad --w 512 --h 512 --d 7 --s 20\n# no\na dog --l 7.5\n"
PROMPTS_JSON = '[{"prompt": "a cat", "seed": 3, "width": 512}, {"prompt": "a dog", "negative_prompt": "bad"}]'
CONCEPTS = (
    '[{"path": "/x", "text": {"prompt_source": "sample"}, "image": {"enable_random_flip": true}, "balancing": 2}]'
)
TASK = '{"function": "compare", "values": {"run": "x"}, "module": "app.engine"}'
CACHE = json.dumps(
    [[["/x.png", 1, 2], {"size": [3, 4], "content": "a", "likeness": 5, "sharpness": 0.5, "reason": ""}]]
)

KINDS: dict[str, Kind] = {
    "config": Kind(in_run("config.toml"), TOML, settings.config, 2),
    "preset": Kind(of("home/presets/*.toml"), TOML, settings.preset),
    "project": Kind(of("home/projects/*/project.toml"), TOML, settings.project),
    "draft": Kind(of("home/projects/*/draft.toml"), TOML, settings.draft),
    "about": Kind(in_run("about.toml"), TOML, settings.about_run, 0.5),
    "settings": Kind(of("home/settings.toml"), TOML, settings.settings, 0.5),
    "thrown": Kind(of(f"home/trash/*/{NOTE}"), TOML, settings.thrown, 0.5),
    "kohya json": Kind(theirs("kohya_ss.json"), JSON, settings.theirs_json, 2),
    "kohya toml": Kind(
        theirs("sd_scripts.toml", "sd_scripts_sections.toml", "dataset.toml"), TOML, settings.theirs_toml, 2
    ),
    "kohya prompts": Kind(said(PROMPTS), None, settings.their_prompts, 0.5),
    "kohya prompts json": Kind(said(PROMPTS_JSON), JSON, settings.theirs_json, 0.5),
    "onetrainer": Kind(theirs("onetrainer.json"), JSON, settings.theirs_json, 2),
    "onetrainer concepts": Kind(said(CONCEPTS), JSON, settings.theirs_json, 0.5),
    "events": Kind(in_run("events.jsonl"), LINES, runs.event_log, 3),
    "queue": Kind(of("home/queue.json"), JSON, runs.queue, 0.5),
    "process": Kind(in_run("process.json"), JSON, runs.process, 0.5),
    "pick": Kind(in_run("picked.json"), JSON, runs.pick),
    "instead": Kind(in_run("instead.json"), JSON, runs.instead, 0.5),
    "prompts": Kind(in_run("control/prompts.json"), JSON, runs.prompts, 0.5),
    "sample now": Kind(in_run("control/sample_now"), JSON, runs.sample_now, 0.5),
    "comparison": Kind(in_run("comparisons/*/comparison.json"), JSON, runs.compared),
    "undo": Kind(of(f"home/projects/*/{captions_edit.HISTORY}"), LINES, runs.undo),
    "task": Kind(said(TASK), JSON, runs.task, 0.5),
    "small cache": Kind(said(CACHE), JSON, runs.small_cache, 0.5),
    "encoded picture": Kind(in_run("checkpoints/*/adapter.safetensors"), TENSORS, runs.encoded_picture),
    "checkpoint state": Kind(in_run("checkpoints/*/state.json"), JSON, runs.checkpoint_state),
    "checkpoint facts": Kind(in_run("checkpoints/*/facts.json"), JSON, runs.checkpoint_facts, 0.5),
    "checkpoint adapter": Kind(in_run("checkpoints/*/adapter.safetensors"), TENSORS, runs.checkpoint_adapter),
    "checkpoint optimizer": Kind(in_run("checkpoints/*/optimizer.pt"), None, runs.checkpoint_optimizer),
    "checkpoint sums": Kind(in_run(f"checkpoints/*/{sums.NAME}"), None, runs.checkpoint_sums, 0.5),
    "adapter": Kind(adapters, TENSORS, files.adapter, 3),
    "converted adapter": Kind(adapters, TENSORS, files.converted_adapter),
    "peft config": Kind(said(PEFT), JSON, files.peft_config),
    "base file": Kind(bases, TENSORS, files.base_file),
    "base pickle": Kind(pickles, None, files.base_pickle),
    "model index": Kind(said(json.dumps(BASE)), JSON, files.model_index, 0.5),
    "png": Kind(png, PNG, files.picture, 2),
    "picture": Kind(pictures, None, files.picture, 3),
    "caption": Kind(said(*CAPTIONS), None, files.caption),
    "dropped zip": Kind(dropped, ZIP, files.dropped_zip, 2),
    "archived run": Kind(archived, ZIP, files.archived_run, 2),
}
