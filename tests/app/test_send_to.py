"""Adapter files reach an image program's folders whole, and replace nothing of another adapter's."""

import json
from pathlib import Path

import pytest

from app import send_to
from app.paths import Home
from app.send_to import NameTaken, choose_folder, embeddings_folder, lora_folders, send
from app.settings import load_settings
from trainers.errors import UserError


def weights(path: Path, content: bytes = b"\1\2\3\4", needs: str = "") -> Path:
    """A safetensors file of one tensor."""
    header = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    if needs:
        header["__metadata__"] = {send_to.NEEDS: needs}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """An adapter with its picture and facts."""
    adapter = weights(tmp_path / "output" / "zib v1.safetensors")
    adapter.with_suffix(".png").write_bytes(b"picture")
    adapter.with_suffix(".json").write_bytes(b"{}")
    return [adapter, adapter.with_suffix(".json"), adapter.with_suffix(".png")]


@pytest.fixture
def comfy(tmp_path: Path) -> Path:
    folder = tmp_path / "person" / "ComfyUI" / "models" / "loras"
    folder.mkdir(parents=True)
    (folder.parent / "embeddings").mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_adapter_goes_with_its_picture_and_facts(files, comfy):
    sent = send(files, "ComfyUI", comfy)
    assert names(comfy) == ["zib v1.json", "zib v1.png", "zib v1.safetensors"]
    assert sent[0].read_bytes() == files[0].read_bytes()


def test_sending_twice_is_no_quarrel(files, comfy):
    send(files, "ComfyUI", comfy)
    send(files, "ComfyUI", comfy)
    assert len(names(comfy)) == 3


def test_another_adapter_of_the_name_stays_and_a_free_name_is_offered(files, comfy):
    for name in ("zib v1", "zib v1-2"):
        weights(comfy / f"{name}.safetensors", b"\4\3\2\1")
    before = {file: file.read_bytes() for file in comfy.iterdir()}
    with pytest.raises(NameTaken, match=r"another zib v1\.safetensors") as taken:
        send(files, "ComfyUI", comfy)
    assert {file: file.read_bytes() for file in comfy.iterdir()} == before
    assert taken.value.free == "zib v1-3"
    send(files, "ComfyUI", comfy, taken.value.free)
    assert {"zib v1-3.json", "zib v1-3.png", "zib v1-3.safetensors"} < set(names(comfy))


def test_facts_that_a_person_wrote_there_stay(files, comfy):
    (comfy / "zib v1.json").write_text("my notes", "utf-8")
    send(files, "ComfyUI", comfy)
    assert (comfy / "zib v1.json").read_text("utf-8") == "my notes"


def test_new_tokens_go_into_the_folder_for_embeddings(files, comfy):
    weights(files[0], needs="zib.safetensors")
    tokens = weights(files[0].with_name("zib.safetensors"), b"\7\7\7\7")
    sent = send(files, "ComfyUI", comfy)
    assert comfy.parent / "embeddings" / "zib.safetensors" in sent
    assert (comfy.parent / "embeddings" / "zib.safetensors").read_bytes() == tokens.read_bytes()
    weights(tokens, b"\6\6\6\6")
    with pytest.raises(UserError, match="other vectors for the trigger word"):
        send(files, "ComfyUI", comfy)


def test_a_full_disk_leaves_nothing_half_written(files, comfy, monkeypatch):
    def full(source: Path, goal: Path) -> None:
        goal.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(goal))

    monkeypatch.setattr(send_to.shutil, "copyfile", full)
    with pytest.raises(UserError, match="No space left"):
        send(files, "ComfyUI", comfy)
    assert names(comfy) == []


@pytest.mark.parametrize(
    ("program", "install", "loras", "embeddings"),
    [
        ("A1111", "stable-diffusion-webui", "models/Lora", "embeddings"),
        ("A1111", "Downloads/sd.webui/webui", "models/Lora", "embeddings"),
        ("Forge", "stable-diffusion-webui-forge", "models/Lora", "embeddings"),
        ("Forge", "ai/webui_forge_cu121_torch231/webui", "models/Lora", "embeddings"),
        ("ComfyUI", "Desktop/ComfyUI_windows_portable/ComfyUI", "models/loras", "models/embeddings"),
        ("InvokeAI", "invokeai", "autoimport/lora", "autoimport/embedding"),
        ("SD.Next", "git/automatic", "models/Lora", "models/embeddings"),
    ],
)
def test_programs_are_found_where_they_usually_are(place, tmp_path, program, install, loras, embeddings):
    root = tmp_path / "person" / install
    for folder in (loras, embeddings):
        (root / folder).mkdir(parents=True)
    assert lora_folders(place, tmp_path / "person") == {program: root / loras}
    assert embeddings_folder(program, root / loras) == root / embeddings


def test_a_chosen_folder_is_remembered_and_wins(place: Home, tmp_path, comfy):
    other = tmp_path / "elsewhere" / "models" / "loras"
    other.mkdir(parents=True)
    assert choose_folder(place, "ComfyUI", f' "{other.parent.parent}" ') == other
    plain = tmp_path / "plain = folder ü"
    plain.mkdir()
    assert choose_folder(place, "A1111", str(plain)) == plain
    assert lora_folders(place, tmp_path / "person") == {"A1111": plain, "ComfyUI": other}
    assert load_settings(place).base == "embedded"


def test_a_chosen_folder_that_is_gone_is_not_used(place, tmp_path, comfy):
    gone = tmp_path / "gone"
    gone.mkdir()
    choose_folder(place, "ComfyUI", str(gone))
    gone.rmdir()
    assert lora_folders(place, tmp_path / "person") == {"ComfyUI": comfy}


def test_a_folder_that_is_none_is_not_remembered(place):
    for text in ("", "/no/such/folder"):
        with pytest.raises(UserError):
            choose_folder(place, "A1111", text)
    assert load_settings(place).lora_folders == ""


def test_the_name_of_the_entry_is_the_exporters():
    source = Path(send_to.__file__).parents[1] / "trainers" / "export" / "embedding.py"
    assert f'NEEDS = "{send_to.NEEDS}"' in source.read_text("utf-8")
