"""A home with one project, one run and all that goes with it, for every input as it was at first."""

import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from app import captions_edit, comparisons, picks, projects, trash
from app.about import about_file
from app.paths import Home
from app.projects import Project
from app.runs import Run
from app.settings import Settings, save_settings
from tests.app.library_runs import make_run
from tests.export.files import AB, denoiser, flat, lora, peft, places
from trainers import checkpoint
from trainers.checkpoint import Position, Saved
from trainers.comparison import Comparison

STEP = 20


@dataclass(frozen=True)
class Scratch:
    """`folder` may be written; `outside`, beside it, may not."""

    folder: Path

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    @property
    def project(self) -> Project:
        return next(project for project in projects.list_projects(self.home) if project.slug == "cats")

    @property
    def pictures(self) -> Path:
        return self.home.projects / "cats" / "pictures"

    @property
    def run(self) -> Run:
        (found,) = self.home.projects.glob("cats/runs/*")
        return Run(found)

    @property
    def adapter(self) -> Path:
        return self.run.folder / "output" / "tabby.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.run.folder / "checkpoints" / f"step_{STEP:06d}"

    @property
    def comparison(self) -> Comparison:
        (found,) = comparisons.list_comparisons(self.run)
        return found


def make(folder: Path) -> Scratch:
    """What every input finds."""
    made = Scratch(folder)
    made.home.root.mkdir(parents=True)
    project = projects.create_own(made.home, "Cats", "object", "tabby")
    for number in range(2):
        Image.new("RGB", (32, 32), (90 * number, 60, 30)).save(made.pictures / f"{number}.png")
    (made.pictures / "0.txt").write_text("tabby cat, a tin roof", "utf-8")
    run = make_run(project, "tabby")
    layers = ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    save_file(lora(denoiser("sd15", layers), peft, 2, None, AB), made.folder / "peft.safetensors")
    tensors = lora(places("sd15", layers), flat())
    save_file(tensors, made.adapter, {"ss_network_dim": "2", "ss_tag_frequency": '{"10_cat": {"cat": 3}}'})
    _save_checkpoint(made)
    save_settings(made.home, Settings(model_folders=(str(folder),)))
    _write_small_files(made, run)
    captions_edit.write(project, {made.pictures / "1.png": "tabby cat, asleep"}, "A caption")
    picks.pick(run, STEP, 0.8)
    wish = comparisons.Wish((STEP,), ("tabby on a chair",), (1.0,), (42,))
    for cell in comparisons.create(run, wish).cells[:1]:
        Image.new("RGB", (8, 8)).save(made.comparison.folder / cell.file)
    trash.throw_run(made.home, make_run(project, "thrown"), [])
    return made


class Bench:
    """Copies of a template, one after the other, each under a path of its own: readers may remember by path.

    What an input has changed is put back, which takes a tenth of the time of copying all.
    """

    def __init__(self, template: Scratch, folder: Path):
        self.template, self.folder, self.number = template, folder, 0
        self.whole = _states(template.folder)
        shutil.copytree(template.folder, folder / "inside 0")

    def fresh(self) -> Scratch:
        """As the template is, whatever became of the last one."""
        before = self.folder / f"inside {self.number}"
        self.number += 1
        made = before.rename(self.folder / f"inside {self.number}")
        for name, state in _states(made).items():
            if self.whole.get(name) != state and os.path.lexists(made / name):
                _remove(made / name)
        for name in sorted(self.whole):
            if not os.path.lexists(made / name):
                source = self.template.folder / name
                (made / name).mkdir() if source.is_dir() else shutil.copy2(source, made / name)
        return Scratch(made)


def _states(folder: Path) -> dict[str, tuple[int, ...]]:
    """Path inside -> what tells that it was changed; of a folder only that it is one."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            facts = os.lstat(path)
            told = () if stat.S_ISDIR(facts.st_mode) else (facts.st_mode, facts.st_size, facts.st_mtime_ns)
            found[os.path.relpath(path, folder)] = told
    return found


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _save_checkpoint(made: Scratch) -> None:
    adapter = {"unet.mid.down": torch.full((2, 2), 0.5), "unet.mid.up": torch.zeros(2, 2)}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 1e-4}]}
    saved = Saved(Position(STEP, threads=2), adapter, adapter, optimizer, {"last_epoch": 3}, None, None, {"steps": 20})
    shutil.rmtree(made.checkpoint, ignore_errors=True)
    checkpoint.save(made.checkpoint.parent, saved, keep=2)


def _write_small_files(made: Scratch, run: Run) -> None:
    dead = 2**22 + 1  # no process has this number on any Linux
    files = {
        about_file(run): 'name = "Tabby"\nnote = "mine"\npreset = "object"\npreset_title = "Object"\n',
        run.process: json.dumps({"pid": dead, "create_time": 1.5e9}),
        run.folder / "instead.json": json.dumps({"memory.precision": ["auto", "fp32"], "data.batch_size": ["1", "1"]}),
        run.control / "prompts.json": json.dumps(["tabby on a chair", "a cat"]),
        run.control / "sample_now": json.dumps([{"prompt": "tabby", "seed": 7, "strength": 0.5}]),
        run.log: "a line\nanother\n",
        made.home.root / "queue.json": json.dumps(
            {
                "waiting": [f"cats/runs/{run.folder.name}"],
                "problems": [{"run": f"cats/runs/{run.folder.name}", "message": "No.", "hint": "Yes."}],
                "held": False,
            }
        ),
        made.home.projects / "cats" / "draft.toml": 'base = "embedded"\npreset = "object"\nopened = true\n\n[changes]\n'
        '"adapter.rank" = "8"\n"optimizer.rate" = "1e-4"\n',
        made.home.root / "presets" / "mine.toml": 'title = "Mine"\ndescription = "My own."\nviews_per_picture = 100\n'
        "views_min = 500\nviews_max = 3000\n[adapter]\nrank = 8\n[sdxl.optimizer]\nrate = 1e-4\n"
        '[embedded.data]\nclass_pictures = 4\n[embedded.adapter.ranks]\n"up_blocks.1" = 8\n',
    }
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")
