"""What an adapter's metadata says of its type: ss_network_module and ss_network_args, as kohya and LyCORIS write them.

A1111 and others show the type by these; their values are texts.
"""

import json
from collections.abc import Mapping
from typing import Any

from trainers import json_values
from trainers.config import AdapterConfig, OptimizerConfig

ALGORITHMS = {"dora": "lora", "loha": "loha", "lokr": "lokr"}  # LyCORIS' names; the other types are kohya's own


def network(adapter: AdapterConfig, optimizer: OptimizerConfig, joint: bool = False) -> dict[str, object]:
    """The ss_network_... entries; `joint` for Stable Diffusion 3, which has a module of its own in sd-scripts."""
    rank, alpha = adapter.shape
    lycoris = adapter.type in ALGORITHMS
    return {
        "ss_network_module": "lycoris.kohya" if lycoris else "networks.lora_sd3" if joint else "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": {key: str(value) for key, value in _arguments(adapter, optimizer).items()},
        "ss_network_dropout": adapter.dropout or None,
    }


def scaled_by_one(entries: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a file whose matrices hold alpha / rank already: every alpha is the rank."""
    found = dict(entries)
    if "ss_network_dim" in entries:
        found["ss_network_alpha"] = entries["ss_network_dim"]
    arguments = said_arguments(entries)
    if "conv_dim" in arguments:
        found["ss_network_args"] = json.dumps(arguments | {"conv_alpha": arguments["conv_dim"]})
    return found


def said_arguments(entries: Mapping[str, str]) -> dict[str, Any]:
    """ss_network_args of any file's metadata; nothing where they are damaged."""
    try:
        found = json_values.parse(entries.get("ss_network_args", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _arguments(adapter: AdapterConfig, optimizer: OptimizerConfig) -> dict[str, object]:
    """The arguments with which kohya's trainer and LyCORIS make such a network."""
    found: dict[str, object] = {}
    if adapter.type in ALGORITHMS:
        found["algo"] = ALGORITHMS[adapter.type]
    if adapter.type == "locon" or adapter.targets == "full":
        found["conv_dim"], found["conv_alpha"] = adapter.conv_shape
    if adapter.type == "dora":
        found |= {"dora_wd": True, "wd_on_output": True}
    if adapter.type == "lokr":
        found |= {"factor": adapter.factor, "decompose_both": adapter.decompose_both}
    if adapter.rank_stabilised:
        found["rs_lora"] = True
    if optimizer.lora_plus != 1:
        found["loraplus_lr_ratio"] = optimizer.lora_plus
    dropouts = {"rank_dropout": adapter.rank_dropout, "module_dropout": adapter.module_dropout}
    return found | {name: share for name, share in dropouts.items() if share}
