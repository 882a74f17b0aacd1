"""Documents damaged in their structure: read as a tree of dicts and lists, twisted, and written again."""

import copy
import hashlib
import io
import json
import math
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import tomlkit
from hypothesis import strategies as st

from app.archive import CONTENTS
from tests.mutated.bites import bitten

ODD_TEXTS = (
    *("", " ", "x" * 50_000, "\0", "a\nb", "\ud800", "\u202e", "漢字🎉", "<script>", "None", "null", "NaN", "1e999"),
    *("../../../outside/kept.txt", "..\\..\\outside", "/etc/passwd", "C:\\x", "~/x", "CON", "nul.txt", ".", "..", "/"),
    *(
        "[" * 50_000,
        '{"a": [1, {"b": null}]}',
        "9" * 5000,
        "{",
        "(",
        "[a-",
        "-1",
        "0",
        "true",
        "step_x",
        "step_9999999",
    ),
)
ODD_VALUES = (
    *(None, True, False, 0, 1, -1, 0.5, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, 1e308, -0.0),
    *(math.nan, math.inf, -math.inf, [], {}, [[]], [None], {"a": {}}, {"": ""}, [1, "a", None, {}], date(1, 1, 1)),
    *([0] * 3000, {str(i): i for i in range(300)}),
    *ODD_TEXTS,
)


@dataclass(frozen=True)
class Shape:
    """How a document becomes a tree of dicts, lists and values, and a tree a document."""

    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]


@st.composite
def twisted(draw: st.DrawFn, shape: Shape, data: bytes) -> bytes:
    """The document after one to three changes of its tree."""
    tree = [shape.read(data)]
    for _ in range(draw(st.integers(1, 3))):
        holders = list(_holders(tree))
        holder, key = holders[draw(st.integers(0, len(holders) - 1))]
        _change(draw, holder, key)
    return shape.write(tree[0])


def _holders(tree: dict | list) -> Any:
    """Every place of the tree: (the dict or list, the key or number in it)."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _holders(tree[key])


def _change(draw: st.DrawFn, holder: Any, key: Any) -> None:
    how = draw(st.sampled_from(("value", "value", "value", "remove", "name", "double", "wrap", "bytes")))
    if how == "remove" and len(holder) > 1:
        del holder[key]
    elif how == "name" and isinstance(holder, dict):
        holder[draw(st.sampled_from(ODD_TEXTS))] = holder.pop(key)
    elif how == "double" and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(draw(st.sampled_from((1, 2, 200))))]
    elif how == "wrap":
        holder[key] = draw(st.sampled_from(([holder[key]], {"a": holder[key]}, [[[[holder[key]]]]])))
    elif isinstance(holder[key], bytes):
        holder[key] = draw(bitten(holder[key], (holder[key],)))
    elif how == "bytes" and isinstance(holder[key], str):
        holder[key] = draw(bitten(holder[key].encode("utf-8", "replace"), (b"x",))).decode("utf-8", "surrogateescape")
    else:
        holder[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))


def _json(tree: Any) -> bytes:
    return json.dumps(tree, default=str).encode("utf-8", "surrogatepass")


def _toml(tree: Any) -> bytes:
    tree = tree if isinstance(tree, dict) else {"a": tree}
    return tomlkit.dumps(_without_none(tree)).encode("utf-8", "surrogatepass")


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(value) for value in tree if value is not None] if isinstance(tree, list) else tree


def _lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def _as_lines(tree: Any) -> bytes:
    return b"".join(_json(line) + b"\n" for line in (tree if isinstance(tree, list) else [tree]))


def _tensors(data: bytes) -> dict[str, Any]:
    """A safetensors file: its header, and the bytes after it."""
    length = int.from_bytes(data[:8], "little")
    return {"header": json.loads(data[8 : 8 + length]), "length": length, "tensors": data[8 + length :]}


def _as_tensors(tree: Any) -> bytes:
    """With a true header length, unless that is what was changed."""
    tree = tree if isinstance(tree, dict) else {}
    header = _json(tree.get("header"))
    length, before = tree.get("length"), len(header)
    lies = not isinstance(length, int) or isinstance(length, bool) or length < 10 or length > 2**32
    told = (length if isinstance(length, int) else 0) % 2**64 if lies else before
    return told.to_bytes(8, "little") + header + _raw(tree.get("tensors"))


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _chunks(data: bytes) -> list[dict[str, Any]]:
    """A PNG file: its chunks."""
    found, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        found.append({"kind": data[place + 4 : place + 8], "data": data[place + 8 : place + 8 + length]})
        place += 12 + length
    return found


def _as_chunks(tree: Any) -> bytes:
    """With true lengths and checksums, so that what is inside is looked at."""
    found = [b"\x89PNG\r\n\x1a\n"]
    for chunk in tree if isinstance(tree, list) else [tree]:
        chunk = chunk if isinstance(chunk, dict) else {}
        kind, inside = _raw(chunk.get("kind"))[:4].ljust(4, b"x"), _raw(chunk.get("data"))
        found.append(struct.pack(">I", len(inside)) + kind + inside + struct.pack(">I", zlib.crc32(kind + inside)))
    return b"".join(found)


def _entries(data: bytes) -> dict[str, Any]:
    """A zip file: its entries; the list of an archive's files as a tree of its own."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        files = [
            {"name": one.filename, "mode": one.external_attr >> 16, "how": one.compress_type, "data": packed.read(one)}
            for one in packed.infolist()
            if one.filename != CONTENTS
        ]
        said = json.loads(packed.read(CONTENTS)) if CONTENTS in packed.namelist() else None
    return {"files": files, "said": said, "true": True}


def _as_entries(tree: Any) -> bytes:
    """Where `true` is left alone, sizes and hashes in an archive's list are made to fit its files."""
    tree = tree if isinstance(tree, dict) else {}
    files = [file for file in _listed(tree.get("files")) if isinstance(file, dict)]
    said = tree.get("said")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for file in files:
            name = str(file.get("name")).encode("utf-8", "replace").decode()[:60_000]
            entry = zipfile.ZipInfo(name)
            mode, how = file.get("mode"), file.get("how")
            entry.external_attr = (mode % 2**16 if isinstance(mode, int) else 0o120777) << 16
            entry.compress_type = how if type(how) is int and how in (0, 8, 12, 14) else 8
            packed.writestr(entry, _raw(file.get("data")))
            if tree.get("true") is True and isinstance(said, dict) and isinstance(said.get("files"), dict):
                inside = name.partition("/")[2]
                content = _raw(file.get("data"))
                said["files"][inside] = [len(content), hashlib.sha256(content).hexdigest()]
        if said is not None:
            packed.writestr(CONTENTS, _json(said))
    return made.getvalue()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


JSON = Shape(json.loads, _json)
TOML = Shape(lambda data: tomllib.loads(data.decode()), _toml)
LINES = Shape(_lines, _as_lines)
TENSORS = Shape(_tensors, _as_tensors)
PNG = Shape(_chunks, _as_chunks)
ZIP = Shape(_entries, _as_entries)
