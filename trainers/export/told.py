"""What an adapter file's metadata tells: trained words, base, dates, program; and what of it is broken."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from trainers import json_values

JSON_ENTRIES = ("ss_tag_frequency", "ss_network_args", "ss_dataset_dirs", "ss_bucket_info", "ss_datasets", "software")
JSON_ENTRIES += ("lora_adapter_metadata", "lora_darkroom.config")
NUMBERS = ("ss_network_dim", "ss_network_alpha", "ss_steps", "ss_epoch", "ss_training_started_at")
NUMBERS += ("ss_training_finished_at",)
UNSET = ("", "None", "null")
WORDLESS = ("Dynamic",)  # what kohya's resize script writes for a rank
MOST_WORDS = 12
PROGRAMS = {  # beginning of a metadata key -> who writes it
    "lora_darkroom.": "LoRA Darkroom",
    "ot_": "OneTrainer",
    "ss_": "kohya's sd-scripts",
    "lora_adapter_metadata": "diffusers",
}


def value(metadata: Mapping[str, str], key: str) -> str:
    """An entry, or "" where it is unset."""
    found = metadata.get(key, "")
    return "" if found in UNSET else found


def number(metadata: Mapping[str, str], key: str) -> float | None:
    try:
        return float(value(metadata, key))
    except ValueError:
        return None


def digest(metadata: Mapping[str, str], key: str) -> str:
    """A hash as plain lower-case hex."""
    return value(metadata, key).lower().removeprefix("0x")


def words(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The trigger phrase, and the commonest tags of the captions with their counts."""
    found: dict[str, Any] = {}
    if trigger := value(metadata, "modelspec.trigger_phrase"):
        found["trigger"] = trigger
    counts: Counter[str] = Counter()
    for tags in (_json(metadata, "ss_tag_frequency") or {}).values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            counts[str(tag).strip()] += count if isinstance(count, int) else 0
    if counts:
        found["tags"] = dict(counts.most_common(MOST_WORDS))
        found["different tags"] = len(counts)
    return found


def base_model(metadata: Mapping[str, str]) -> str:
    """The name of the base it was trained on, with the beginning of its hash."""
    name = value(metadata, "ss_sd_model_name")
    digest = value(metadata, "ss_new_sd_model_hash") or value(metadata, "ss_sd_model_hash")
    return f"{name} (hash {digest[:10]})" if name and digest else name or (f"hash {digest[:10]}" if digest else "")


def dates(metadata: Mapping[str, str]) -> dict[str, str]:
    """When it was trained, in UTC."""
    found = {}
    for name, key in (("begun", "ss_training_started_at"), ("finished", "ss_training_finished_at")):
        if (seconds := number(metadata, key)) and 0 < seconds < 1e11:
            found[name] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not found and (date := value(metadata, "modelspec.date")):
        found["dated"] = date
    return found


def program(metadata: Mapping[str, str]) -> str:
    """What wrote the file."""
    software = _json(metadata, "software")
    if isinstance(software, dict) and software.get("name"):  # ai-toolkit: {"name": "ai-toolkit", "version": ...}
        return f"{software['name']} {software.get('version', '')}".strip()
    found = next((who for key, who in PROGRAMS.items() if any(entry.startswith(key) for entry in metadata)), "")
    if found == "kohya's sd-scripts" and "lycoris" in metadata.get("ss_network_module", ""):
        return "kohya's sd-scripts with LyCORIS"
    return found


def broken(metadata: Mapping[str, str]) -> list[str]:
    """One sentence for each entry that cannot be read."""
    found = [f"{key} is no readable JSON." for key in JSON_ENTRIES if _json(metadata, key, failed=True) is True]
    for key in NUMBERS:
        text = value(metadata, key)
        if text and text not in WORDLESS and number(metadata, key) is None:
            found.append(f"{key} should be a number and is {_short(text)!r}.")
    tags = _json(metadata, "ss_tag_frequency")
    if tags is not None and not isinstance(tags, dict):
        found.append("ss_tag_frequency is not a table of folders and their tags.")
    return found


def _json(metadata: Mapping[str, str], key: str, failed: Any = None) -> Any:
    """The decoded entry; None where it is unset, `failed` where it is no JSON."""
    text = value(metadata, key)
    if not text:
        return None
    try:
        found = json_values.parse(text)
    except ValueError:
        return failed
    return found if key != "ss_tag_frequency" or isinstance(found, dict) or failed is not None else {}


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
