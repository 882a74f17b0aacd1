"""A base model is found where the settings say, and what of a hub model is downloaded; a failure says why."""

import errno
from types import SimpleNamespace

import huggingface_hub as hub
import pytest
from huggingface_hub import constants, errors

from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families import locate
from trainers.families.registry import find_family

MODEL = "diffusion_pytorch_model"
AROUND = ["model_index.json", "tokenizer/vocab.json", "scheduler/scheduler_config.json"]
AROUND += [f"vae/{MODEL}.safetensors", "text_encoder/model.safetensors"]
COPIES = {  # how diffusers and transformers name the index and the shards of each
    "plain": (f"{MODEL}.safetensors.index.json", f"{MODEL}-{{}}-of-00003.safetensors"),
    "fp16": (f"{MODEL}.safetensors.index.fp16.json", f"{MODEL}.fp16-{{}}-of-00002.safetensors"),
    "older fp16": (f"{MODEL}.safetensors.index.fp16.json", f"{MODEL}-{{}}-of-00002.fp16.safetensors"),
    "non_ema": (f"{MODEL}.safetensors.index.non_ema.json", f"{MODEL}.non_ema-{{}}-of-00003.safetensors"),
    "bin": (f"{MODEL}.bin.index.json", f"{MODEL}-{{}}-of-00004.bin"),
}


@pytest.mark.parametrize(
    ("base", "words"),
    [("", "There is no base model at an empty path"), ("~nosuchuser/x", "There is no base model at ~nosuchuser/x")],
)
def test_what_can_be_no_path_is_refused_in_words(base, words):
    with pytest.raises(UserError, match=words):
        locate.find_here(base)


def test_a_hub_download_takes_one_weight_file_per_part():
    names = ["model_index.json", "v1-5.safetensors", "safety_checker/model.safetensors", "tokenizer/vocab.json"]
    names += [f"unet/diffusion_pytorch_model{v}" for v in (".bin", ".safetensors", ".fp16.safetensors")]
    names += ["vae/diffusion_pytorch_model.bin", "text_encoder/model.safetensors", "scheduler/scheduler_config.json"]
    wanted = set(locate._wanted(names))
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in wanted and "vae/diffusion_pytorch_model.bin" in wanted
    assert not wanted & {"v1-5.safetensors", "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin"}


def files(copy: str) -> list[str]:
    index, shard = COPIES[copy]
    count = int(shard.partition("-of-")[2][:5])
    return [f"unet/{index}", *(f"unet/{shard.format(f'{i + 1:05d}')}" for i in range(count))]


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (["plain", "fp16", "non_ema", "bin"], "fp16"),
        (["plain", "older fp16", "bin"], "older fp16"),
        (["plain", "non_ema", "bin"], "plain"),
        (["bin"], "bin"),
    ],
)
def test_a_hub_download_takes_the_shards_of_one_index(there, wanted):
    kept = locate._wanted([*AROUND, f"unet/{MODEL}.notes.txt", *(name for copy in there for name in files(copy))])
    assert sorted(n for n in kept if n.startswith("unet/")) == sorted(["unet/config.json", *files(wanted)])


@pytest.fixture
def failing_download(monkeypatch):
    """Nothing is here yet, and every download ends in this error."""

    def arrange(error: Exception) -> None:
        def download(repository, local_files_only=False, **_):
            raise errors.LocalEntryNotFoundError("nothing") if local_files_only else error

        found = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in [*AROUND, *files("plain")]])
        monkeypatch.setattr(hub, "snapshot_download", download)
        monkeypatch.setattr(hub, "model_info", lambda *_, **__: found)

    return arrange


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Your account's share of the disk is used up"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "The disk is full"),
    ],
    ids=["full", "quota", "full, said by hf_xet"],
)
def test_a_disk_that_fills_up_during_a_download_is_named(failing_download, error, words):
    failing_download(error)
    with pytest.raises(UserError, match=words) as refused:
        locate.locate("owner/model")
    assert constants.HF_HUB_CACHE in refused.value.hint and "goes on where it stopped" in refused.value.hint
    assert "cannot be reached" not in str(refused.value)


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/caches/hub/models--owner--model"), "/caches/hub/models"),
        (PermissionError(errno.EACCES, "Permission denied"), constants.HF_HUB_CACHE),
    ],
    ids=["named", "unnamed"],
)
def test_a_download_folder_that_may_not_be_written_is_named(failing_download, error, place):
    failing_download(error)
    with pytest.raises(UserError, match="may not") as refused:
        locate.locate("owner/model")
    assert place in refused.value.message and "cannot be reached" not in str(refused.value)


def test_a_download_folder_that_may_not_be_read_is_named(monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/caches/hub/models--owner--model/refs/main")

    monkeypatch.setattr(hub, "snapshot_download", denied)
    with pytest.raises(UserError, match="refs/main"):
        locate.locate("owner/model")


@pytest.mark.parametrize("error", [ConnectionError("refused"), TimeoutError("timed out")])
def test_a_download_that_the_network_ends_says_so(failing_download, error):
    failing_download(error)
    with pytest.raises(UserError, match="the Hugging Face hub cannot be reached"):
        locate.locate("owner/model")


def test_a_hub_model_that_is_refused_is_called_by_its_name_not_its_commit(tmp_path, monkeypatch):
    folder = tmp_path / "0123abcd"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}', encoding="utf-8")
    monkeypatch.setattr(locate, "download", lambda _: folder)
    with pytest.raises(UserError, match="^some-flux is a Flux model"):
        find_family(ModelConfig(base="owner/some-flux"))
