"""What people see: the progress lines, the before/after sheet, the doctor's findings."""

import io

import pytest
from PIL import Image, ImageFont
from rich.console import Console

from app import cli_output, grid, hardware
from app.progress import Display, duration, step_text
from trainers.events import Adjusted, Phase, Started, Step, Validation, Warned

GPU = {"name": "NVIDIA GeForce RTX 3060", "capability": [8, 6], "memory": 12 * 2**30, "free": 11 * 2**30}
GOOD = {
    "system": "Linux",
    "python": "3.11.7",
    "cpu": {"name": "CPU", "cores": 2, "threads": 4},
    "memory_gb": 16.0,
    "memory_free_gb": 12.0,
    "home": "/home/me",
    "disk_free_gb": 50.0,
    "driver_gpus": [GPU["name"]],
    "libraries": dict.fromkeys((*hardware.LIBRARIES, *hardware.OPTIONAL), "1.0"),
    "base": "assets/base",
    "torch": {
        "version": "2.13",
        "cuda_build": "12.8",
        "gpus": [GPU],
        "xformers": True,
        "bitsandbytes": True,
        "threads": 2,
    },
}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1 s"), (40, "40 s"), (1560, "26 min"), (12_000, "3 h 20 min"), (90_000, "25 h 0 min")]
)
def test_durations_read_like_speech(seconds, text):
    assert duration(seconds) == text


def test_lines_tell_step_loss_rate_and_time_left():
    written, times = io.StringIO(), iter(range(0, 1000, 4))
    display = Display(Console(file=written, width=200), clock=lambda: next(times))
    with display:
        display([Phase("Encoding pictures", 1, 40), Phase("Encoding pictures", 2, 40), Phase("Training")])
        display(
            [Started(1600, 400, "cuda:0", 12, "漢字 [bold]"), Adjusted("SDPA", "no xformers"), Warned("Dark.", "Fine.")]
        )
        display([Step(step, 1600, 0.1234, 1e-4, 1.3, 4.0) for step in range(410, 450, 10)])
        display([Validation(440, 0.2, 0.1)])
    lines = written.getvalue().splitlines()
    assert lines[0] == "Encoding pictures ..."
    assert lines[1] == "Training 漢字 [bold] on 12 pictures: 1,600 steps on cuda:0, going on from step 400."
    assert lines[2:4] == ["SDPA (no xformers).", "Note: Dark. Fine."]
    assert lines[4] == "Step 410 of 1,600, loss 0.1234, rate 1.0e-04, 1.30 s/step, about 26 min left"
    assert sum(line.startswith("Step 4") for line in lines) < 5  # not every step


def test_bar_shows_on_a_terminal():
    written = io.StringIO()
    with Display(Console(file=written, width=120, force_terminal=True)) as display:
        display([Started(100, 0, "cpu", 1, "cat"), Step(50, 100, 0.5, 1e-4, 2.0, 1.0)])
        display.bar.refresh()
    assert "Step 50 of 100" in written.getvalue() and "about 100 min left" not in written.getvalue()
    assert "about 2 min left" in written.getvalue()


def test_sheet_shows_every_picture_enlarged_under_its_prompt():
    rows = [[Image.new("RGB", (64, 64), colour) for colour in row] for row in (("red", "lime"), ("blue", "yellow"))]
    sheet = grid.before_after(rows, ["base model", "with the adapter"], ["a fluent style cat", "x " * 60], title="Both")
    pixels = list(sheet.get_flattened_data()) if hasattr(sheet, "get_flattened_data") else list(sheet.getdata())
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)):
        assert pixels.count(colour) == 192 * 192
    top = sheet.crop((0, 0, sheet.width, 100)).convert("L")
    assert top.getextrema()[0] < 100  # there is writing above


def test_labels_wrap_at_words():
    font = ImageFont.load_default(20)
    assert grid.wrap("a fluent style delivery truck", font, 120) == "a fluent style\ndelivery truck"
    assert grid.wrap("short", font, 1) == "short"


def test_healthy_machine_has_no_findings_and_uses_its_gpu():
    assert hardware.findings(GOOD) == []
    use = hardware.will_use(GOOD)
    assert (use["device"], use["precision"]) == (GPU["name"], "bf16")


@pytest.mark.parametrize(
    ("capability", "name", "precision"),
    [([7, 5], "RTX 2080", "fp16"), ([7, 5], "GTX 1660", "fp32"), ([9, 0], "H100", "bf16")],
)
def test_precision_fits_the_card(capability, name, precision):
    torch = {**GOOD["torch"], "gpus": [{**GPU, "name": name, "capability": capability}]}
    assert hardware.will_use({**GOOD, "torch": torch})["precision"] == precision


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"torch": {"error": "ModuleNotFoundError: No module named 'torch'"}}, "PyTorch does not start"),
        ({"torch": {"version": "2.13+cpu", "gpus": []}}, "has no GPU support"),
        ({"torch": {**GOOD["torch"], "gpus": [{**GPU, "free": 2**30}]}}, "taken by other programs"),
        ({"torch": {**GOOD["torch"], "xformers": "DLL load failed"}}, "xformers is installed but does not load"),
        ({"libraries": {**GOOD["libraries"], "peft": ""}}, "not installed: peft"),
        ({"base": ""}, "built-in base model is missing"),
        ({"memory_free_gb": 1.0}, "GB of memory are free"),
        ({"disk_free_gb": 0.5}, "free on the disk"),
    ],
)
def test_what_is_wrong_comes_with_what_mends_it(change, words):
    found = hardware.findings({**GOOD, **change})
    assert words in found[0].message and found[0].hint


def test_doctor_prints_machine_use_and_findings(capsys):
    cli_output.doctor(GOOD, hardware.will_use(GOOD), hardware.findings(GOOD), as_json=False)
    text = capsys.readouterr().out
    assert "RTX 3060, 12.0 GB" in text and "what is wrong:\n  - nothing" in text


def test_facts_of_this_machine_are_complete(place):
    found = hardware.facts(place, probe=lambda: GOOD["torch"])
    assert set(found) == set(GOOD)
    assert found["memory_gb"] > 0 and found["libraries"]["pydantic"]


def test_what_is_still_to_be_encoded_is_part_of_the_time_left():
    assert step_text(Step(10, 100, 0.5, 1e-4, 2.0, 0.1, beside_left=900.0)).endswith("about 18 min left")
