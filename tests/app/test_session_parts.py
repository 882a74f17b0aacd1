"""A browser tab that stays open costs no more with every answer."""

import asyncio

import gradio as gr
from gradio.state_holder import SessionState

from app.gui.kept import kept
from app.gui.session_parts import keep_numbers


def test_answers_that_say_something_of_an_input_leave_no_components_behind():
    keep_numbers()
    with gr.Blocks() as window:
        place, words = kept(0), gr.HTML("", label="Words")
        gr.Timer(1).tick(
            lambda number, told: [gr.skip(), gr.update(value=f"{number}{told}")], [place, words], [place, words]
        )
    (tick,) = window.fns.values()
    tab, sizes = SessionState(window), []
    for number in range(5):
        answer = asyncio.run(window.process_api(tick, [number, "x"], state=tab))
        assert answer["data"][1]["value"] == f"{number}x"
        sizes.append((len(tab.blocks_config.blocks), len(tab.config_values)))
    assert len(set(sizes)) == 1
    assert all(part._id == number for number, part in tab.blocks_config.blocks.items())
