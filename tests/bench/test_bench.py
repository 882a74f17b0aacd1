"""What `darkroom bench` says is so: counts without numbers are those of a real step, parts add up, the floor holds."""

import json
import subprocess
import sys

import pytest

from app.paths import ROOT
from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory
from trainers.adapters.adapter import DENOISER
from trainers.bench import models
from trainers.bench.loops import BareLoop
from trainers.bench.run import remarks
from trainers.bench.start import STEPS, Sitting, draw_pictures, sitting, start, trained
from trainers.bench.table import table
from trainers.errors import UserError
from trainers.events import MAKING, Phase, Step
from trainers.families.loading import CONFIGS
from trainers.stores import encode_texts


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_pipeline_folder(tmp_path_factory.mktemp("base")))


def measured(base: str, meta: bool, *changes: str, alone: bool = False, steps: int = 1, bare: str = "auto") -> dict:
    """What the command prints, in a process of its own: see models.without_numbers."""
    settings = ["memory.device=cpu", "memory.precision=bf16", "adapter.rank=2", *changes]
    command = ["--base", base, "--device", "meta" if meta else "real", "--steps", str(steps), "--json"]
    command += ["--alone"] * alone + ["--bare", bare] + [part for change in settings for part in ("--set", change)]
    command = [sys.executable, "-m", "app.cli", "bench", *command]
    called = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert called.returncode == 0, called.stderr
    return json.loads(called.stdout)


@pytest.fixture(scope="module")
def results(base):
    changes = ("adapter.text_encoder=true", "data.batch_size=2")
    return {meta: measured(base, meta, *changes, steps=3) for meta in (False, True)}


@pytest.fixture(scope="module")
def alone(base):
    return measured(base, True, alone=True)


def test_every_name_has_its_shapes_at_hand():
    for _, folder, _ in models.SIZES.values():
        assert (CONFIGS / folder / "model_index.json").is_file()


@pytest.mark.parametrize("loop", ["darkroom", "bare"])
def test_counting_without_numbers_finds_what_a_real_step_on_a_cpu_does(results, loop):
    real, counted = (results[meta]["loops"][loop] for meta in (False, True))
    for what in ("modules", "dispatches", "host_syncs", "gflop"):
        assert counted[what] == real[what], what
    for part, size in real["memory_gb"].items():
        assert counted["memory_gb"][part] == pytest.approx(size, abs=0.001), part


def test_a_step_never_waits_for_the_device_and_calls_fewer_operators_than_peft(results):
    loops = results[True]["loops"]
    assert loops["darkroom"]["host_syncs"] == 0
    assert loops["darkroom"]["dispatches"]["total"] < 0.6 * loops["bare"]["dispatches"]["total"]


def test_the_bare_loop_accumulates_as_often(base):
    config = models.settings(base, ["memory.device=cpu", "adapter.rank=2", "optimizer.accumulation=3"])
    plan = memory.plan(config.memory)
    family, components, _ = models.build(base, config, plan.dtype)
    places = [(DENOISER, "mid_block.resnets.0.time_emb_proj")]
    told = encode_texts(family, components, ["a cat"] * config.data.batch_size, 1, plan.device)
    loop, passes = BareLoop(family, components, config, plan, told, places), []
    loop.mark = passes.append
    loop(0)
    assert passes == ["forward", "backward"] * 3 + ["optimizer"]


def test_the_bare_loop_computes_in_what_is_asked_for_and_casts_nothing_in_fp32(base):
    usual, asked = measured(base, True), measured(base, True, bare="fp32")
    assert (usual["bare_precision"], asked["bare_precision"], asked["precision"]) == ("bf16", "fp32", "bf16")
    assert asked["loops"]["darkroom"] == usual["loops"]["darkroom"]
    fewer, more = (result["loops"]["bare"]["dispatches"]["total"] for result in (asked, usual))
    assert fewer < 0.8 * more
    assert asked["loops"]["bare"]["memory_gb"]["weights"] > 1.5 * usual["loops"]["bare"]["memory_gb"]["weights"]
    assert "The bare loop computes in fp32." in table(asked) and "The bare loop" not in table(usual).splitlines()[1]


PLAIN_LORA = "The bare loop trains a plain LoRA, without dropout."


@pytest.mark.parametrize(
    ("changes", "meta", "alone", "said"),
    [
        ((), True, False, []),
        (("adapter.type=dora",), False, False, [PLAIN_LORA]),
        (("adapter.module_dropout=0.1",), True, False, [PLAIN_LORA]),
        (("adapter.type=dora", "adapter.dropout=0.1"), True, True, []),
        (("memory.budget=1", "memory.offload=true", "memory.compile=all", "memory.stream=all"), False, False, []),
        (("memory.compile=auto",), True, False, ["Not counted without a device: memory.compile."]),
        (("memory.attention=flash",), True, True, ["Not counted without a device: memory.attention."]),
        (("memory.attention=math",), True, True, []),
        (("memory.attention=math",), False, False, ["In the bare loop attention is as torch chooses."]),
    ],
)
def test_where_a_loop_is_not_what_the_settings_say_is_told(base, changes, meta, alone, said):
    assert remarks(models.settings(base, list(changes)), meta, alone) == said


def test_settings_that_are_told_not_to_count_change_no_number(base, alone):
    ignored = ("memory.budget=1", "memory.offload=true", "memory.compile=all", "memory.attention=flash")
    result = measured(base, True, *ignored, alone=True)
    lost = "memory.budget, memory.offload, memory.compile, memory.attention"
    assert result["remarks"] == [f"Not counted without a device: {lost}."]
    assert table(result).splitlines()[1:2] == result["remarks"] and result["loops"] == alone["loops"]


def test_score_matrices_are_counted_without_a_device():
    held, usual = (
        measured("embedded", True, "data.resolution=256", f"memory.attention={kind}", alone=True)["loops"]["darkroom"]
        for kind in ("math", "sdpa")
    )
    assert held["memory_gb"]["activations"] > 4 * usual["memory_gb"]["activations"]
    assert held["memory_gb"]["weights"] == usual["memory_gb"]["weights"]


def test_a_step_in_fp32_is_counted_without_numbers():
    counted = measured("embedded", True, "memory.precision=fp32", alone=True)["loops"]["darkroom"]
    assert counted["gflop"]["total"] > 0 and counted["memory_gb"]["weights"] > 0


def test_the_parts_of_memory_add_up_to_the_peak(results):
    parts = dict(results[True]["loops"]["darkroom"]["memory_gb"])
    peak, _ = parts.pop("peak"), parts.pop("gradients")
    assert sum(parts.values()) == pytest.approx(peak, abs=0.003) and min(parts.values()) >= 0


def test_only_a_real_step_takes_time(results):
    assert "seconds" not in results[True]["loops"]["darkroom"] and not results[True]["ratios"]
    seconds = results[False]["loops"]["darkroom"]["seconds"]
    assert 0 < seconds["fastest"] <= seconds["median"] <= seconds["slowest"]
    assert set(results[False]["ratios"]) == {"wall", "processor"}


def test_a_step_computes_little_more_than_the_least_and_checkpointing_a_forward_pass_more(base, alone):
    again = measured(base, True, "memory.checkpointing=true", alone=True)
    least, own, redone = alone["floor_gflop"], alone["loops"]["darkroom"], again["loops"]["darkroom"]
    assert again["floor_gflop"] == least
    assert least["total"] <= own["gflop"]["total"]
    assert redone["gflop"]["backward"] > own["gflop"]["backward"]
    assert redone["memory_gb"]["activations"] <= own["memory_gb"]["activations"]


def test_the_table_has_a_column_for_each_loop_and_a_row_for_each_number(results):
    text = table(results[False])
    assert all(word in text for word in ("darkroom", "bare", "host syncs", "GB activations", "seconds median"))
    assert str(results[False]["loops"]["darkroom"]["dispatches"]["total"]) in text


def test_one_loop_alone_is_told_operator_by_operator(alone):
    assert list(alone["loops"]) == ["darkroom"] and alone["loops"]["darkroom"]["operators"]["forward"]["mm"]


def test_a_start_cannot_be_measured_on_random_weights():
    with pytest.raises(UserError, match="sdxl stands for random weights"):
        start("sdxl", models.settings("sdxl", []), 2, lambda text: None)


def test_a_start_is_told_in_phases_and_a_warm_cache_encodes_no_picture_anew(base, results):
    config = models.settings(base, ["memory.device=cpu", "adapter.rank=2", "data.resolution=16"])
    found = start(base, config, 3, lambda text: None)
    cold, warm = found["cold"], found["warm"]
    assert found["pictures"] == 3 and cold["preview_seconds"] == 0 < warm["preview_seconds"]
    assert 0 < cold["seconds_to_first_step"] and "Encoding pictures" in cold["phases"]
    assert all(0 < one["seconds_per_step"] and 0 < one["peak_memory_gb"] for one in (cold, warm))
    lines = table(results[True] | {"start": found}).splitlines()[-4:]
    assert all(str(cold[number]) in "".join(lines[:2]) for number in ("seconds_to_first_step", "peak_memory_gb"))
    assert f"preview {warm['preview_seconds']} s" in lines[2]


def test_a_start_reports_the_first_step_and_the_mean_of_the_last_ten(base, tmp_path):
    draw_pictures(tmp_path / "pictures", 2, 16)
    changes = ["memory.device=cpu", "adapter.rank=2", "data.resolution=16", "preview.every=0", "saving.every=0"]
    config = models.settings(base, [*changes, f"data.folders={[str(tmp_path / 'pictures')]}"])
    (tmp_path / "run").mkdir()
    told = [trained(tmp_path / "run", config_io.override(config, [f"schedule.steps={steps}"])) for steps in (1, STEPS)]
    reports = [[event.step for _, event in heard if isinstance(event, Step)] for heard in told]
    assert reports == [[1], [10, 20]]


def test_a_sitting_tells_the_preview_apart_and_the_peak_of_all_of_it():
    first = [
        (11.0, Phase("Loading the base model")),
        (13.0, Phase(MAKING)),
        (18.0, Phase("Training")),
        (20.0, step_of(1, seconds=2.0, memory_gb=1.0)),
        (20.5, Phase(MAKING)),  # the picture after it
    ]
    later = [
        (31.0, Phase("Training")),
        (40.0, step_of(10, seconds=0.6, memory_gb=3.0)),
        (45.0, step_of(20, seconds=0.5, memory_gb=2.0)),
    ]
    phases = {"": 1.0, "Loading the base model": 2.0, MAKING: 5.0, "Training": 2.0}
    assert sitting(10.0, first, later) == Sitting(5.0, 5.0, 0.5, 3.0, phases)


def step_of(number: int, seconds: float, memory_gb: float) -> Step:
    return Step(number, STEPS, loss=0.1, rate=1e-4, seconds=seconds, memory_gb=memory_gb)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "most"),
    [
        (("adapter.targets=attention",), 2000),
        ((), 2700),
        (("adapter.targets=attention", "adapter.text_encoder=true"), 3000),
    ],
    ids=["attention", "default", "text"],
)
def test_stable_diffusion_15_takes_this_many_operators_at_most(changes, most):
    result = measured("sd15", True, "adapter.rank=16", *changes, alone=True)["loops"]["darkroom"]
    assert result["dispatches"]["total"] <= most and result["host_syncs"] == 0
