"""What only the engine can tell comes to the page through the worker: what a file is, and why a base is refused."""

import os
import pickle
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from app import projects
from tests.bad_input.files import LORA, UNET_FILE, safetensors, text_as_model
from trainers.families.locate import embedded_base

A_START = 600_000  # ms: torch is loaded for the first question, by a process that steps back behind all others
UP = LORA.replace("lora_down", "lora_up")
MARK = "code of the file ran"
pytestmark = pytest.mark.slow


class Code:
    """Runs a command where a file that holds it is unpickled without care."""

    def __reduce__(self):
        return os.mkdir, (MARK,)


def test_a_dropped_adapter_file_is_inspected_and_what_is_none_is_named(served, open_page, tmp_path):
    page = open_page(f"{served.address}?show=library")
    page.get_by_role("button", name="Inspect an adapter file").click()
    library = page.get_by_role("tabpanel", name="Library")
    field = library.locator("input[type=file]").first
    whole = safetensors(tmp_path / "cat.safetensors", {LORA: (16, 768), UP: (640, 16)})
    field.set_input_files(whole)
    expect(library.get_by_role("row", name="ComfyUI")).to_be_visible(timeout=A_START)
    expect(library.get_by_text("Stable Diffusion 1.x").first).to_be_visible()

    cut = safetensors(tmp_path / "cut.safetensors", {LORA: (16, 768)})
    os.truncate(cut, cut.stat().st_size - 1)
    for file, words in [
        (text_as_model(tmp_path), "is a text file"),
        (cut, "is cut off"),
        (embedded_base() / "vae" / UNET_FILE, "is a VAE, not a LoRA adapter"),
    ]:
        library.get_by_role("button", name="Clear").click()
        field.set_input_files(file)
        expect(library.get_by_role("alert")).to_contain_text(words)


def test_a_base_that_only_loading_shows_to_be_none_is_told_beside_the_train_button(
    served, open_page, tmp_path, tmp_path_factory
):
    pictures = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 90, 40)).save(pictures / f"{number}.png")
    projects.create(served.context.home, "Cat", pictures, "object")
    code = tmp_path / "code.ckpt"
    code.write_bytes(pickle.dumps({"state_dict": Code()}, protocol=2))
    page = open_page(f"{served.address}?show=train&project=cat")
    base = page.get_by_label(re.compile("^Base model"))
    for value, words in [(code, "code.ckpt"), ("somebody/some-model", "cannot be reached")]:
        base.fill(str(value))
        base.press("Enter")
        said = page.get_by_text(re.compile(f"^No estimate: .*{re.escape(words)}"))
        expect(said).to_be_visible(timeout=A_START)
    assert not any(path.name == MARK for path in tmp_path.rglob("*")) and not os.path.exists(MARK)
