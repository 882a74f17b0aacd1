"""Whatever stands in a file: a line in the report, or one sentence; never a traceback."""

import json
import tomllib
from itertools import cycle, islice

import pytest

from tests.mutated.guard import guarded
from trainers.errors import UserError
from trainers.importing import report
from trainers.importing.imported import import_files

ODD = (None, "", "None", 0, -1, 1e30, True, "many", "a=b", [], ["x"], [[1]], {}, {"a": {"b": 1}}, [{"path": 3}], "\0")
EACH = 3  # odd values at each place, in turn: all of them would take minutes


def variants(content, odd, at=()):
    """The content with one value after the other replaced by odd ones."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(inner):
        for content[key] in islice(odd, EACH):
            yield (*at, key), content[key]
        content[key] = value
        yield from variants(value, odd, (*at, key))


@pytest.mark.parametrize(
    "name", ["kohya_ss.json", "sd_scripts.toml", "sd_scripts_sections.toml", "dataset.toml", "onetrainer.json"]
)
def test_no_value_is_too_odd(config, name, monkeypatch):
    path = config(name)
    text = path.read_text("utf-8")
    content = json.loads(text) if name.endswith("json") else tomllib.loads(text)
    monkeypatch.setattr("trainers.importing.imported.read_structure", lambda file: content)
    monkeypatch.setattr("trainers.importing.imported._companions", lambda files: [])
    for place, odd in variants(content, cycle(ODD)):
        try:
            found = import_files([path])
            assert report.as_text(found) and json.dumps(report.as_values(found))
            assert found.config
        except UserError as error:
            assert error.message
        except Exception as error:
            raise AssertionError(f"{place} = {odd!r}") from error


@pytest.mark.parametrize("depth", [40, 400, 900, 5000])
def test_settings_nested_without_end_are_a_sentence(tmp_path, depth):
    file = tmp_path / "a.json"
    file.write_text('{"LoRA_type": "Standard", "a": ' + '{"a": ' * depth + "1" + "}" * depth + "}", "utf-8")
    with pytest.raises(UserError, match="nested too deeply"):
        import_files([file])


def test_hundreds_of_concepts_are_read_soon(tmp_path):
    file = tmp_path / "concepts.json"
    concept = {"path": "/x", "text": {"prompt_source": "sample"}, "image": {"enable_random_flip": True}}
    file.write_text(json.dumps([concept] * 200), "utf-8")
    with guarded(tmp_path):
        assert len(import_files([file]).lines) == 600
