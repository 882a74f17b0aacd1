"""Short runs as processes of their own, with all that a run writes; and what must be true of one that died."""

import json
import logging
import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from trainers import checkpoint, config_io, sums
from trainers import train as _loaded  # noqa: F401 - so that a copy of this process need not
from trainers.__main__ import main

MULTIPLE = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
ROOT = Path(__file__).parents[2]
SETTINGS = {
    "adapter": {"rank": 2, "alpha": 1.0, "text_encoder": True, "dropout": 0.1},
    "data": {"batch_size": 2, "shuffle_tags": True, "caption_dropout": 0.3, "flip": True, "validation_share": 0.2},
    "optimizer": {"rate": 1e-2, "accumulation": 2, "ema": True},
    "noise": {"offset": 0.05},
    "loss": {"preservation": 1.0, "preservation_every": 2},
    "schedule": {"steps": 12},
    "preview": {"every": 4, "sampling_steps": 2, "prompts": ["zib", "a cat"]},
    "saving": {"every": 2, "name": "tiny"},
}


def make_run(folder: Path, base: Path | None, pictures: Path, kind: str = "lora") -> Path:
    """A run folder with nothing but its settings; returns it. `base`: None for the built-in one, made short."""
    settings = {name: dict(values) for name, values in SETTINGS.items()}
    if base:
        settings["model"] = {"base": str(base)}
    else:
        settings["data"]["resolution"], settings["schedule"]["steps"] = 64, 8
    settings["data"]["folders"] = [str(pictures)]
    settings["adapter"] |= {"type": kind, **({"conv_rank": 2} if kind != "lora" else {})}
    folder.mkdir(parents=True)
    config_io.save(config_io.parse(settings), folder / "config.toml")
    return folder


def begin(run: Path) -> BaseProcess:
    """Train it in a process of its own, with the libraries loaded already where the system can copy this one."""
    process = MULTIPLE.Process(target=_train, args=(run,))
    process.start()
    return process


def _train(run: Path) -> None:
    logging.root.handlers.clear()  # those of the tests
    os.environ["DARKROOM_CACHE"], sys.argv = str(run / "cache"), ["trainers", str(run)]
    sys.exit(main())


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All that is left of a finished run: the adapter file's tensors, the masters, and the optimizer's state."""
    last = checkpoint.load(checkpoint.list_checkpoints(run / "checkpoints")[-1])
    state = {f"optimizer.{i}.{j}": tensor for i, j, tensor in _tensors(last.optimizer)}
    masters = {f"master.{name}": tensor for name, tensor in last.adapter.items()}
    average = {f"average.{name}": tensor for name, tensor in (last.ema or {}).items()}
    return {**load_file(run / "output" / "tiny.safetensors"), **masters, **average, **state}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """To the last bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def assert_nothing_is_half_written(run: Path) -> None:
    """What has its final name can be read, whatever the process was doing when it ended."""
    for folder in (run / "checkpoints").glob("step_*"):
        assert (folder / sums.NAME).exists() and sums.wrong(folder) == ""
    for file in [*run.glob("output/*.safetensors"), *run.glob("cache/**/*.safetensors")]:
        load_file(file)
    for file in [*run.glob("samples/*.png"), *run.glob("output/*.png")]:
        Image.open(file).load()
    for file in [*run.glob("*.json"), *run.glob("output/*.json"), *run.glob("cache/*.json")]:
        json.loads(file.read_text("utf-8"))


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's content and time, to see whether anybody has touched it."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.iterdir())}


def _tensors(optimizer: dict):
    for number, values in optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                yield number, name, value
