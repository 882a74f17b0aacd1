"""What an adapter file is, in words and HTML: facts, what is wrong with it, and which programs load it."""

from collections.abc import Mapping
from typing import Any

from app.adapter_facts import Verdict, in_words, verdicts
from app.gui.markup import notice, text

SHOWN_APART = ("file", "problems", "interfaces", "unmatched keys", "what is wrong")
CALLED = {"dtype": "Precision", "words": "Trained words"}
LOADS = {"whole": ("good", "Loads whole"), "partly": ("warning", "Loads in part"), "no": ("error", "Does not load")}


def inspected(name: str, values: Mapping[str, Any]) -> str:
    """The whole result; `values` as app.engine.inspect gives them, be it through JSON."""
    found = verdicts(values)
    facts = {key: value for key, value in in_words(values).items() if key not in SHOWN_APART and value}
    called = {key: CALLED.get(key, key[0].upper() + key[1:]) for key in facts}
    rows = "".join(f"<dt>{text(called[key])}</dt><dd>{text(value)}</dd>" for key, value in facts.items())
    return (
        f'<h3 class="dr-title">{text(name)}</h3>{_summary(found)}{_problems(values.get("problems") or [])}'
        f'<dl class="dr-run-facts">{rows}</dl><h3 class="dr-title">Where it loads</h3>{_table(found)}'
    )


def _summary(found: list[Verdict]) -> str:
    known = [one for one in found if one.loads]
    whole = [one.program for one in known if one.loads == "whole"]
    if not known:
        return ""
    if len(whole) == len(known):
        return notice("It loads whole in every program that is known here.", kind="good")
    if whole:
        return notice(f"It loads whole in {', '.join(whole)}.", "The table below says what the others do.", "warning")
    return notice("It loads whole in no program that is known here.", "The table below says why.", "error")


def _problems(found: list[Mapping[str, Any]]) -> str:
    if not found:
        return '<p class="dr-quiet">Nothing is wrong with the file.</p>'
    rows = "".join(f"<li>{text(one['says'])}</li>" for one in found)
    hint = 'What can be mended, the command <span class="dr-mono">darkroom convert FILE --fix</span> mends in a copy.'
    return f'<h3 class="dr-title">What is wrong</h3><ul class="dr-said">{rows}</ul><p class="dr-quiet">{hint}</p>'


def _table(found: list[Verdict]) -> str:
    rows = "".join(_row(one) for one in found)
    return f'<table class="dr-table"><tbody>{rows}</tbody></table>'


def _row(one: Verdict) -> str:
    kind, word = LOADS.get(one.loads, ("", "Not known"))
    _, _, why = one.said.partition(": ") if one.loads else ("", "", one.said)
    keys = "".join(f"<li>{text(key)}</li>" for key in one.unmatched)
    keys = f'<ul class="dr-mono" aria-label="Keys that {text(one.program)} does not use">{keys}</ul>' if keys else ""
    return (
        f'<tr><th scope="row">{text(one.program)}</th><td><span class="dr-verdict {kind}">{word}</span></td>'
        f"<td>{text(why[:1].upper() + why[1:])}{keys}</td></tr>"
    )
