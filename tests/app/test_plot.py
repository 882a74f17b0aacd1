"""The loss plot: few points, true numbers, nothing lost that matters."""

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from app.gui import plot
from trainers.events import Checkpoint, RunState

SVG = "{http://www.w3.org/2000/svg}"


def a_state(count: int, every: int = 10) -> RunState:
    losses = [(every * (i + 1), 0.1 + 0.02 * math.sin(i * 12.9898)) for i in range(count)]
    state = RunState(steps=count * every, step=count * every, losses=losses)
    state.validation = [(every * count // 2, 0.11), (every * count, 0.105)]
    state.checkpoints = [Checkpoint(every * count // 2, "checkpoints/a"), Checkpoint(every * count, "checkpoints/b")]
    return state


def drawn(state: RunState) -> ET.Element:
    html = plot.loss_plot(state)
    svg = html[html.index("<svg") : html.index("</svg>") + 6]
    return ET.fromstring(svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))


def test_a_run_without_losses_has_no_plot():
    assert plot.loss_plot(RunState()) == "" and plot.loss_plot(RunState(losses=[(1, 0.5)])) == ""


@pytest.mark.parametrize("count", [2, 3, 160, 100_000])
def test_no_line_has_more_than_five_hundred_points_and_all_lie_inside(count):
    svg = drawn(a_state(count))
    lines = {line.get("class"): line.get("points").split() for line in svg.iter(f"{SVG}polyline")}
    assert set(lines) == {"raw", "smooth", "held"}
    assert all(2 <= len(points) <= 500 for points in lines.values())
    for point in lines["smooth"] + lines["held"]:
        x, y = map(float, point.split(","))
        assert plot.LEFT - 0.1 <= x <= plot.WIDTH and plot.TOP <= y <= plot.HEIGHT - plot.BOTTOM
    assert len([path for path in svg.iter(f"{SVG}path") if path.get("class") == "saved"]) == 2


def test_the_dot_of_the_last_held_out_loss_is_drawn_whole():
    svg = drawn(a_state(10))
    window = next(svg.iter(f"{SVG}clipPath"))[0]
    last = list(svg.iter(f"{SVG}circle"))[-1]
    right = float(window.get("x")) + float(window.get("width"))
    assert float(last.get("cx")) + float(last.get("r")) <= right < plot.WIDTH


def test_screen_readers_are_told_what_the_plot_shows():
    svg = drawn(a_state(160))
    assert svg.get("role") == "img" and svg.find(f"{SVG}title").text == "Loss by step"
    assert "0.1050 at step 1,600" in svg.find(f"{SVG}desc").text


def test_thinning_keeps_the_extremes_the_order_and_the_ends():
    points = [(i, 0.1) for i in range(10_000)]
    points[777], points[778] = (777, 9.0), (778, -9.0)
    found = plot.thinned(points)
    assert (777, 9.0) in found and (778, -9.0) in found and len(found) <= plot.MOST
    assert all(a[0] <= b[0] for a, b in pairwise(found))
    assert plot.thinned(points[:100]) == points[:100]


def test_smoothing_leaves_a_constant_as_it_is_from_the_first_point():
    assert all(loss == pytest.approx(0.3) for _, loss in plot.smoothed([(10 * i, 0.3) for i in range(1, 50)], 100))


def test_smoothing_weighs_by_steps_and_not_by_reports():
    kept = math.exp(-10 / 50)
    first, second = plot.smoothed([(10, 1.0), (20, 0.0)], 50)
    assert first == (10, pytest.approx(1.0))
    assert second[1] == pytest.approx(kept * (1 - kept) / (1 - kept**2))  # by hand: bias-corrected mean of two
    assert plot.smoothed([(10, 1.0), (500, 0.0)], 50)[1][1] < 0.01  # long ago counts for nothing


def test_one_outlier_does_not_flatten_the_rest():
    state = a_state(160)
    state.losses[100] = (1010, 5.0)
    svg = drawn(state)
    labels = [
        float(one.text) for one in svg.iter(f"{SVG}text") if one.get("text-anchor") == "end" and one.text != "step"
    ]
    assert max(labels) < 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1600, [0, 500, 1000, 1500]), (0.09, 0.13, [0.09, 0.1, 0.11, 0.12, 0.13]), (10, 20, [10, 12, 14, 16, 18, 20])],
)
def test_axes_have_round_numbers(low, high, expected):
    assert plot.ticks(low, high, 5) == pytest.approx(expected)


def test_numbers_have_just_enough_decimals():
    assert plot.number(0.1, [0.1, 0.12]) == "0.10" and plot.number(2, [1, 2]) == "2"
    assert plot.number(0.1234, [0.1234]) != ""
