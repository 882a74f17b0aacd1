"""Write the adapter file of a run's checkpoint."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from trainers import checkpoint, config_io
from trainers.adapters.adapter_file import read_adapter
from trainers.errors import UserError


def export_run(run: Path, step: str | None, form: str, to: Path | None) -> dict[str, Any]:
    """Write the adapter of a checkpoint (the newest without `step`) in kohya's layout, from the run's own adapter file.

    Raises:
        UserError: the run has no such checkpoint or no adapter file yet, or the layout is not written.
    """
    if form != "kohya":
        raise UserError(f"The {form} layout is not written yet.", "Use kohya: every image UI and diffusers load it.")
    config = config_io.load(run / "config.toml")
    saved = checkpoint.list_checkpoints(run / "checkpoints")
    chosen = [p for p in saved if step is None or int(p.name.split("_")[1]) == int(step)]
    if not chosen:
        known = ", ".join(str(int(p.name.split("_")[1])) for p in saved) or "none"
        raise UserError(f"{run.name} has no checkpoint of step {step}.", f"Its checkpoints: {known}.")
    source = run / "output" / f"{config.saving.name}.safetensors"
    if not source.exists():
        raise UserError(f"{run.name} has written no adapter file yet.", "Stop the run once: stopping writes it.")
    number = int(chosen[-1].name.split("_")[1])
    finished = read_adapter(source)
    if str(number) == finished.metadata.get("ss_steps"):
        tensors, metadata = finished.tensors, finished.metadata
    else:
        tensors, metadata = _of_checkpoint(chosen[-1], finished.tensors), dict(finished.metadata)
        metadata |= {"ss_steps": str(number), "ss_output_name": f"{config.saving.name}-step{number:08d}"}
        for name in ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"):
            metadata.pop(name, None)
    folder = to or run / "output"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (
        source.name if tensors is finished.tensors else f"{config.saving.name}-step{number:08d}.safetensors"
    )
    if path != source:
        partial = path.with_name(f".{path.name}.partial")
        save_file(tensors, partial, metadata)
        partial.replace(path)
    return {"adapter": str(path), "step": number, "modules": len(read_adapter(path).modules)}


def _of_checkpoint(folder: Path, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The checkpoint's weights under the names, in the format and with the alphas of the finished file."""
    state = checkpoint.load(folder).adapter
    named = {}
    for key, value in state.items():
        part, path = key.split("/", 1)
        path, side = path.rsplit(".", 1)
        name = f"lora_unet_{path}" if part == "denoiser" else f"lora_te_text_model.{path.removeprefix('text_model.')}"
        named[f"{name.replace('.', '_')}.lora_{side}.weight"] = value
    return {name: named[name].to(tensor.dtype) if name in named else tensor for name, tensor in like.items()}
