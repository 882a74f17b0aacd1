"""The command line: what it prints, what it makes, and its exit codes."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from app import cli_new, engine, runs, window
from app.about import read_about
from app.cli_output import quoted
from app.runs import Run
from tests.app.conftest import NASTY_NAME
from trainers import config_io

READING = "Reading the pictures ...\n"  # what `new` says while it looks at them
WITH_FAKE_ENGINE = Path(__file__).with_name("with_fake_engine.py")


@pytest.fixture
def new_run(darkroom, pictures):
    """Make a run with `darkroom new`; more arguments may follow."""

    def make(*arguments: str, name: str = NASTY_NAME) -> Path:
        said = darkroom("new", name, "--pictures", pictures, "--kind", "object", *arguments)
        assert (said.code, said.err) == (0, READING)
        return Path(said.out.strip())

    return make


def test_without_a_command_it_opens_the_window(darkroom, place, monkeypatch):
    asked = []
    monkeypatch.setattr(
        window, "open_window", lambda home, port, browser, native, say: asked.append((home, port, browser, native))
    )
    assert darkroom().code == 0 and darkroom("--port", 8000, "--no-browser", "--window").code == 0
    assert asked == [(place, None, True, False), (place, 8000, False, True)]


def test_help_names_every_command(darkroom):
    said = darkroom("--help")
    assert said.code == 0
    for (
        command
    ) in "demo new import check train resume stop less-memory status queue sample export inspect doctor bench".split():
        assert command in said.out


@pytest.mark.parametrize("arguments", [["paint"], ["new"], ["train"], ["demo", "--steps", "0"], ["status", "--nope"]])
def test_wrong_usage_exits_with_2(darkroom, arguments):
    assert darkroom(*arguments).code == 2


def test_new_makes_a_run_of_the_preset_for_any_name(new_run, pictures, home):
    folder = new_run("--trigger", "zorb", "--set", "adapter.rank=4")
    assert folder.parent.parent.parent == home / "projects"
    config = config_io.load(folder / "config.toml")
    assert config.data.folders == (str(pictures),)
    assert (config.data.kind, config.data.trigger, config.adapter.rank) == ("object", "zorb", 4)
    assert config.optimizer.rate == 1e-3  # the preset's rate for the built-in base


def test_a_run_keeps_the_preset_it_was_made_with_and_so_do_those_made_from_it(darkroom, new_run):
    folder = new_run("--preset", "style")
    assert read_about(Run(folder)).preset == "style"
    darkroom("train", folder / "config.toml", "--set", "adapter.rank=4")
    (made,) = [one for one in folder.parent.iterdir() if one != folder]
    assert read_about(Run(made)).preset_title == "Style"


def test_new_says_that_a_hub_model_does_not_tell_its_family_yet(darkroom, pictures):
    arguments = ("new", "cat", "--pictures", pictures, "--kind", "object", "--base", "somebody/some-model")
    said = darkroom(*arguments)
    assert "shows its family only when it is loaded" in said.err
    views = config_io.load(Path(said.out.strip()) / "config.toml").schedule.views
    said = darkroom(*arguments, "--set", "model.family=sd3")
    assert said.err == READING
    assert (
        config_io.load(Path(said.out.strip()) / "config.toml").schedule.views > views
    )  # as the preset has it for SD 3


def test_new_reports_all_misspelt_settings_and_leaves_nothing_behind(darkroom, pictures, home):
    wrong = ["--set", "adapter.rnak=4", "--set", "adapter.alpha=-1"]
    said = darkroom("new", "cat", "--pictures", pictures, "--kind", "style", *wrong)
    assert said.code == 1 and said.out == ""
    assert "Unknown setting adapter.rnak. Did you mean adapter.rank?" in said.err
    assert "adapter.alpha is -1" in said.err
    assert not (home / "projects").exists()


def test_new_names_the_pictures_that_cannot_be_used(darkroom, pictures):
    (pictures / "broken.png").write_text("no picture")
    said = darkroom("new", "cat", "--pictures", pictures, "--kind", "style")
    assert said.code == 0 and Path(said.out.strip()).is_dir()
    (line,) = said.err.removeprefix(READING).splitlines()
    assert "/broken.png: " in line


def test_new_lists_at_most_so_many_pictures_that_cannot_be_used(darkroom, pictures):
    for i in range(cli_new.LISTED + 3):
        (pictures / f"broken {i}.png").write_text("no picture")
    said = darkroom("new", "cat", "--pictures", pictures, "--kind", "style")
    assert len(said.err.removeprefix(READING).splitlines()) == cli_new.LISTED + 1 and "... and 3 more." in said.err


def test_new_makes_nothing_where_no_picture_can_be_used(darkroom, home, tmp_path, pictures):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.png").write_text("no picture")
    said = darkroom("new", "cat", "--pictures", tmp_path / "bad", "--kind", "style")
    assert (said.code, said.out) == (1, "")
    assert "None of the pictures in" in said.err and "bad/broken.png: " in said.err
    assert not (home / "projects").exists()
    assert darkroom("new", "cat", "--pictures", pictures, "--kind", "style").code == 0


def test_new_names_a_missing_folder_and_a_wrong_kind(darkroom, tmp_path):
    said = darkroom("new", "cat", "--pictures", tmp_path / "nowhere", "--kind", "style")
    assert said.code == 1 and "nowhere" in said.err and "Traceback" not in said.err
    assert darkroom("new", "cat", "--pictures", tmp_path, "--kind", "landscape").code == 2


def test_train_finishes_and_names_the_adapter(darkroom, new_run):
    folder = new_run()
    said = darkroom("train", folder)
    assert said.code == 0
    assert "Step 1 of 10, loss 0.5000" in said.err and "9 s left" in said.err
    adapter = Path(said.out.strip().removeprefix("Adapter: "))
    assert adapter.read_bytes() == b"adapter"


def test_train_of_a_finished_run_only_says_so(darkroom, new_run):
    folder = new_run()
    darkroom("train", folder)
    before = (folder / "events.jsonl").read_bytes()
    said = darkroom("train", folder)
    assert said.code == 0 and "is finished" in said.out
    assert (folder / "events.jsonl").read_bytes() == before


def test_train_makes_a_run_from_a_settings_file_with_paths_relative_to_it(darkroom, pictures, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f'[data]\nfolders = "{pictures.name}"\n', "utf-8")
    said = darkroom("train", file, "--set", "schedule.steps=5")
    assert said.code == 0
    folder = Path(said.out.splitlines()[0].removeprefix("Run folder: "))
    config = config_io.load(folder / "config.toml")
    assert config.data.folders == (str(pictures),) and config.schedule.steps == 5
    assert "projects/mine/runs" in folder.as_posix()


def test_settings_change_before_a_run_begins_and_never_after(darkroom, new_run):
    folder = new_run()
    assert darkroom("train", folder, "--set", "schedule.steps=7").code == 0
    assert config_io.load(folder / "config.toml").schedule.steps == 7
    said = darkroom("train", folder, "--set", "schedule.steps=9")
    assert said.code == 1 and "has begun" in said.err
    assert config_io.load(folder / "config.toml").schedule.steps == 7


def test_failure_in_the_engine_is_its_sentence_and_exit_code_1(darkroom, new_run, engine_mode):
    engine_mode("fail")
    said = darkroom("train", new_run())
    assert said.code == 1
    assert "The model is a text file. Choose a .safetensors file." in said.err and "Traceback" not in said.err


def test_engine_that_dies_without_a_word_is_reported(darkroom, new_run, engine_mode):
    engine_mode("die")
    folder = new_run()
    said = darkroom("train", folder)
    assert said.code == 1 and "exit code 7" in said.err and "log.txt" in said.err
    assert "the last words" in (folder / "log.txt").read_text("utf-8")
    assert darkroom("status", folder).out.splitlines()[1].startswith("state: interrupted")


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to another process there")
def test_ctrl_c_saves_and_exits_with_130_and_resume_goes_on(darkroom, new_run):
    folder = new_run()
    command = [sys.executable, str(WITH_FAKE_ENGINE), "wait", "train", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        heard = ""
        while not heard.startswith("Training"):
            heard = process.stderr.readline()
            assert heard, "it ended before it began to train"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "everything is saved" in out and "Traceback" not in err
    assert (folder / "checkpoints" / "step_000001").is_dir()
    assert darkroom("status", folder).out.splitlines()[1].startswith("state: stopped, step 1 of 10")
    said = darkroom("resume", folder)
    assert said.code == 0 and "going on from step 1" in said.err


def test_stop_ends_a_run_in_the_background(darkroom, new_run, engine_mode):
    engine_mode("wait")
    folder = new_run()
    assert darkroom("train", folder, "--background").code == 0
    said = darkroom("train", folder)
    assert said.code == 1 and "being trained already" in said.err
    said = darkroom("stop", folder)
    assert said.code == 0 and "is stopped at step 1" in said.out
    assert darkroom("stop", folder).code == 1


def test_resume_of_a_run_that_never_began_says_so(darkroom, new_run):
    said = darkroom("resume", new_run())
    assert said.code == 1 and "has not begun" in said.err


def test_status_lists_runs_as_text_and_json(darkroom, new_run):
    assert "no run yet" in darkroom("status").out
    folder = new_run()
    darkroom("train", folder)
    assert darkroom("status").out.startswith(f"{folder.name}: finished, step 10 of 10")
    (listed,) = json.loads(darkroom("status", "--json").out)
    assert (listed["run"], listed["status"], listed["step"]) == (str(folder), "finished", 10)
    assert json.loads(darkroom("status", "last", "--json").out)["adapter"].endswith(".safetensors")


def test_status_of_a_run_tells_what_it_is_made_of(darkroom, new_run, pictures):
    folder = new_run("--trigger", "zorb", "--set", "schedule.steps=1200")
    said = darkroom("status", folder).out
    for line in ("state: new", "base: embedded", f"pictures: {pictures}", "trigger: zorb", "steps: 1,200"):
        assert line in said.splitlines()
    assert "preset: Object" in said
    (folder / "config.toml").write_text("[", "utf-8")
    assert "settings: " in darkroom("status", folder).out


@pytest.mark.parametrize("command", ["check", "train", "status", "compare", "sample", "export", "resume", "stop"])
def test_help_says_which_run_is_the_last(darkroom, command):
    assert '"last", the newest made' in " ".join(darkroom(command, "--help").out.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    "typed", [("sample", "cat", "--prompt", "a cat", "--out"), ("export", "cat", "--to"), ("demo", "--out")]
)
def test_a_file_is_no_folder_for_results(darkroom, new_run, tmp_path, typed):
    darkroom("train", new_run(name="cat"))
    (tmp_path / "there").touch()
    said = darkroom(*typed, tmp_path / "there")
    assert said.code == 1 and said.err.startswith(f"{tmp_path / 'there'} is a file. Name a folder")


def test_export_names_the_layouts_that_there_are(darkroom, new_run):
    said = darkroom("export", new_run(), "--format", "foo")
    assert said.code == 1 and said.err == 'There is no adapter layout "foo". Choose one of kohya, diffusers, peft.\n'


def test_home_counts_before_and_after_the_command(darkroom, pictures, tmp_path):
    for arguments in (["--home", tmp_path / "a", "new"], [f"--home={tmp_path / 'a'}", "new"]):
        said = darkroom(*arguments, "x", "--pictures", pictures, "--kind", "style")
        assert said.out.startswith(str(tmp_path / "a"))
    said = darkroom("new", "x", "--pictures", pictures, "--kind", "style", "--home", tmp_path / "b")
    assert said.out.startswith(str(tmp_path / "b"))


def test_unknown_run_names_the_nearest(darkroom, new_run):
    new_run(name="kitten")
    said = darkroom("train", "kiten")
    assert said.code == 1 and "Did you mean kitten?" in said.err


def test_full_disk_is_one_sentence(darkroom, pictures, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs.config_io, "save", full)
    said = darkroom("new", "x", "--pictures", pictures, "--kind", "style")
    assert said.code == 1 and said.err.startswith(f"{READING}The disk is full.") and "Traceback" not in said.err


def test_check_reads_relative_paths_and_prints_what_was_found(darkroom, new_run, monkeypatch):
    seen = []

    def check(config, report, card="", cache=None, run=None):
        seen.append((config, run))
        return {"pictures": 3, "problems": ["0.png: dark"], "fits": True}

    monkeypatch.setattr(engine, "check", check)
    folder = new_run()
    said = darkroom("check", folder, "--set", "adapter.rank=2")
    assert said.code == 0 and said.out == "pictures: 3\nproblems:\n  - 0.png: dark\nfits: yes\n"
    assert json.loads(darkroom("check", folder, "--json").out)["pictures"] == 3
    assert seen[0][0].adapter.rank == 2 and seen[0][1] == folder
    assert not (folder / "events.jsonl").exists()
    darkroom("train", folder)
    said = darkroom("check", folder, "--set", "adapter.rank=3")
    assert said.code == 1 and "has begun, and a run's settings stay as they are." in said.err and len(seen) == 2


def test_sample_writes_one_file_per_prompt_and_seed(darkroom, new_run, monkeypatch, tmp_path):
    def sample(config, adapter, prompts, seed, strength=1.0, count=1):
        assert adapter.name == "cat.safetensors" and strength == 0.5
        return [[Image.new("RGB", (4, 4))] * count for _ in prompts]

    monkeypatch.setattr(engine, "sample", sample)
    folder = new_run(name="cat")
    said = darkroom("sample", folder, "--prompt", "a cat")
    assert said.code == 1 and "no adapter file yet" in said.err
    darkroom("train", folder)
    options = ["--strength", "0.5", "--seed", "7", "--count", "2", "--out", tmp_path / "out"]
    said = darkroom("sample", folder, "--prompt", "a cat!", "--prompt", "漢字", *options)
    names = [f"{name}_{seed}_0.5.png" for name in ("a-cat", "漢字") for seed in (7, 8)]
    assert [Path(line).name for line in said.out.split()] == names
    assert size_of(tmp_path / "out" / names[0]) == (4, 4)


@pytest.mark.parametrize("part", ["", "unet"])
def test_sample_takes_the_folder_that_peft_wrote(darkroom, monkeypatch, tmp_path, part):
    seen = []
    monkeypatch.setattr(engine, "sample", lambda config, adapter, *rest: seen.append(adapter) or [])
    (tmp_path / "cat-peft" / part).mkdir(parents=True)
    (tmp_path / "cat-peft" / part / "adapter_model.safetensors").touch()
    darkroom("sample", tmp_path / "cat-peft", "--prompt", "a cat", "--out", tmp_path / "out")
    assert seen == [tmp_path / "cat-peft"]


def test_sample_never_writes_over_a_picture(darkroom, new_run, monkeypatch, tmp_path):
    colours = iter(["red", "blue", "lime"])

    def sample(config, adapter, prompts, seed, strength=1.0, count=1):
        return [[Image.new("RGB", (4, 4), next(colours))] for _ in prompts]

    monkeypatch.setattr(engine, "sample", sample)
    folder, long = new_run(name="cat"), "a cat that sits in the sun " * 9
    darkroom("train", folder)
    words = ["sample", folder, "--seed", "7", "--out", tmp_path / "out"]
    said = darkroom(*words, "--prompt", f"{long} by day", "--prompt", f"{long} by night")
    said = [*said.out.split(), *darkroom(*words, "--prompt", f"{long} by day").out.split()]
    assert [Path(line).stem.partition("_")[2] for line in said] == ["7", "7-2", "7-3"]
    assert [colour_of(Path(line)) for line in said] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]


@pytest.mark.parametrize("concept", ["style", "mascot"])
def test_demo_trains_a_bundled_concept_and_shows_before_and_after(darkroom, monkeypatch, tmp_path, concept):
    rows = []

    def sample(config, adapter, prompts, seed, strength=1.0, count=1):
        rows.append((adapter, seed, tuple(prompts)))
        return [[Image.new("RGB", (64, 64), "red" if adapter else "blue")] for _ in prompts]

    monkeypatch.setattr(engine, "sample", sample)
    out = tmp_path / "out"
    said = darkroom("demo", "--steps", "3", "--concept", concept, "--out", out)
    assert said.code == 0, said.err
    grid, adapter = (Path(line.partition(": ")[2]) for line in said.out.splitlines()[-2:])
    assert adapter.read_bytes() == b"adapter" and adapter.with_suffix(".json").exists()
    assert grid == out / "before_after.png" and size_of(grid)[0] > 5 * 192
    assert rows[0][0] is None and rows[1][0] is not None and rows[0][1:] == rows[1][1:]
    config = config_io.load(Path(said.out.splitlines()[0].removeprefix("Run folder: ")) / "config.toml")
    captions = " ".join(file.read_text("utf-8") for file in Path(config.data.folders[0]).glob("*.txt"))
    new_words = [prompt.rpartition(" ")[2] for prompt in rows[0][2][1:]]
    assert not any(word in captions.split() for word in new_words)
    assert config.schedule.steps == 3


def test_bench_and_inspect_hand_over_to_the_engine(darkroom, monkeypatch, tmp_path):
    heard = []
    monkeypatch.setattr(engine, "bench", lambda arguments: heard.extend(arguments))
    assert darkroom("bench", "--steps", "3", "--json").code == 0
    assert heard == ["--steps", "3", "--json"]
    monkeypatch.setattr(engine, "inspect", lambda file: {"family": "sd15", "interfaces": {"ComfyUI": "loads"}})
    file = tmp_path / "x.safetensors"
    assert darkroom("inspect", file).code == 1
    file.touch()
    assert darkroom("inspect", file).out == "family: sd15\ninterfaces:\n  ComfyUI: loads\n"


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def colour_of(file: Path) -> tuple[int, int, int]:
    with Image.open(file) as picture:
        return picture.getpixel((0, 0))


@pytest.mark.skipif(os.name == "nt", reason="cmd.exe quotes otherwise")
@pytest.mark.parametrize("name", ["plain", "mein Zuhause ü", "it's $HOME"])
def test_a_path_in_a_suggested_command_is_one_word_of_it(name):
    path = Path("/tmp") / name / "config.toml"
    assert shlex.split(f"darkroom train {quoted(path)} --set x=1")[2] == str(path)
