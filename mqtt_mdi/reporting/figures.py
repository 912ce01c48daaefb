"""The figures of a report, as SVG that takes its colours from the page around it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mqtt_mdi.reporting.runs import Run
from mqtt_mdi.storage.history import DeviceChange, History, PolicyVersion, Stretch

# Stand-ins that are drawn with and then named anew: the page knows whether it is dark.
_INK, _PAPER = "#010203", "#040506"
_RUNS = ("#010a01", "#010b01")
_CSS = {_INK: "currentColor", _PAPER: "var(--paper)", _RUNS[0]: "var(--first)", _RUNS[1]: "var(--second)"}
_DASHES = ("-", "--")
MOST_LINES = 40
"""Of policies; more would hide what is drawn."""

MOST_DEVICES = 60

LOOK: dict[Any, Any] = {
    "svg.hashsalt": "mqtt-mdi",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
SIZE_IN = (5.0, 2.6)
_UNITS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (300, 60, "minutes"))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure: its title, what it shows in a sentence, and its `<svg>`."""

    title: str
    about: str
    svg: str


def draw(runs: Sequence[Run]) -> list[Drawing]:
    """Throughput, accuracy and latency over time, exits and devices; two runs from the same zero."""
    unit = _unit(max(run.history.last - run.history.first for run in runs))
    drawings = [
        _lines("Throughput", "Answers a second.", runs, unit, _THROUGHPUT),
        _lines("Accuracy", "Right answers among those whose truth is known.", runs, unit, _ACCURACY),
        _lines("Latency", "Milliseconds from admission to answer.", runs, unit, _LATENCY),
    ]
    colours = [(run, colour, f", {run.name}" if len(runs) > 1 else "") for run, colour in _coloured(runs)]
    drawings += [_exits(f"Exits{of_run}", run.history, unit) for run, _, of_run in colours]
    drawings += [
        _devices(f"Devices{of_run}", run.history, unit, colour)
        for run, colour, of_run in colours
        if run.history.changes
    ]
    drawings += [
        _thresholds(f"Thresholds{of_run}", run.history, unit)
        for run, _, of_run in colours
        if _policy_changes(run.history)
    ]
    return [
        Drawing(
            drawing.title, drawing.about, re.sub(r'(\bid="|href="#|url\(#)', rf"\1f{number}-", drawing.svg)
        )
        for number, drawing in enumerate(drawings)
    ]


_Unit = tuple[float, str]
_Series = dict[str, Callable[[Stretch], float | None]]
_THROUGHPUT: _Series = {"": lambda s: s.throughput}
_ACCURACY: _Series = {"": lambda s: None if s.accuracy is None else 100 * s.accuracy}
_LATENCY: _Series = {"p50": lambda s: s.latency_p50_ms, "p95": lambda s: s.latency_p95_ms}


def _unit(duration_s: float) -> _Unit:
    return next(((size, name) for least, size, name in _UNITS if duration_s >= least), (1, "seconds"))


def _lines(title: str, about: str, runs: Sequence[Run], unit: _Unit, series: _Series) -> Drawing:
    def onto(axes: Axes) -> None:
        for run, colour in _coloured(runs):
            if marked:
                for policy in _policy_changes(run.history):
                    at = (policy.set_at - run.history.first) / unit[0]
                    axes.axvline(at, color=colour, linestyle=":", linewidth=1)
            stretches = run.history.stretches
            middles = [(s.began_s + s.seconds / 2) / unit[0] for s in stretches]
            for (name, value), dashes in zip(series.items(), _DASHES, strict=False):
                values = [float("nan") if (found := value(s)) is None else found for s in stretches]
                label = " ".join(filter(None, (run.name if len(runs) > 1 else "", name)))
                axes.plot(
                    middles, values, dashes, marker=".", color=colour, linewidth=1.3, label=label or None
                )
        axes.set_xlim(left=0)
        if title != "Accuracy":
            axes.set_ylim(bottom=0)

    marked = 0 < sum(len(_policy_changes(run.history)) for run in runs) <= MOST_LINES
    if marked:
        about += " Dotted lines are changes of policy."
    ylabel = {"Throughput": "answers/s", "Accuracy": "%", "Latency": "ms"}[title]
    legend = len(runs) * len(series) > 1
    return Drawing(title, about, _svg(onto, unit, ylabel, legend=legend))


def _coloured(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    return list(zip(runs, _RUNS, strict=False))


def _policy_changes(history: History) -> list[PolicyVersion]:
    """Those put in force while results came."""
    return [policy for policy in history.policies if history.first < policy.set_at <= history.last]


def _exits(title: str, history: History, unit: _Unit) -> Drawing:
    def onto(axes: Axes) -> None:
        floor = [0.0] * len(history.stretches)
        starts = [s.began_s / unit[0] for s in history.stretches]
        widths = [(s.seconds or 1) / unit[0] for s in history.stretches]
        for stage in range(len(history.exits)):
            shares = [100 * s.exits[stage] / s.answered if s.answered else 0.0 for s in history.stretches]
            shade = _shade(stage, len(history.exits))
            axes.bar(
                starts,
                shares,
                widths,
                floor,
                align="edge",
                color=shade,
                linewidth=0,
                label=f"exit {stage + 1}",
            )
            floor = [low + part for low, part in zip(floor, shares, strict=True)]
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)

    about = "Where answers left the network, of a hundred."
    return Drawing(title, about, _svg(onto, unit, "%", legend=len(history.exits) > 1))


def _devices(title: str, history: History, unit: _Unit, colour: str) -> Drawing:
    names = sorted({change.device for change in history.changes})
    left_out = len(names) - MOST_DEVICES
    names = names[:MOST_DEVICES]

    def onto(axes: Axes) -> None:
        for row, name in enumerate(names):
            own = [change for change in history.changes if change.device == name]
            bars = [
                (began / unit[0], max(ended - began, 0.0) / unit[0]) for began, ended in _online(own, history)
            ]
            axes.broken_barh(bars, (row - 0.35, 0.7), color=colour, linewidth=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, (history.last - history.first or 1) / unit[0])

    height = 1.0 + 0.22 * len(names)
    about = "When each device was there." + (f" {left_out} more are left out." if left_out > 0 else "")
    return Drawing(title, about, _svg(onto, unit, "", height=height))


def _thresholds(title: str, history: History, unit: _Unit) -> Drawing:
    in_force = [policy for policy in history.policies if policy.set_at <= history.last]
    found = [list(policy.body.get("thresholds", ())) for policy in in_force]
    starts = [max(0.0, policy.set_at - history.first) / unit[0] for policy in in_force]
    end = (history.last - history.first) / unit[0]

    def onto(axes: Axes) -> None:
        for place in range(max(map(len, found))):
            values = [thresholds[place] if place < len(thresholds) else float("nan") for thresholds in found]
            shade = _shade(place, max(map(len, found)))
            look: dict[str, Any] = {"color": shade, "linewidth": 1.3, "label": f"exit {place + 1}"}
            axes.step([*starts, end], [*values, values[-1]], where="post", **look)
        axes.set_ylim(0, 1.02)
        axes.set_xlim(0, end)

    about = "The score from which on a frame leaves at an exit, by the policy in force."
    return Drawing(title, about, _svg(onto, unit, "threshold", legend=True))


def _shade(stage: int, stages: int) -> str:
    return to_hex(colormaps["viridis"](0.95 - 0.85 * stage / max(1, stages - 1)))


def _online(changes: Sequence[DeviceChange], history: History) -> list[tuple[float, float]]:
    """From when to when a device was there, in seconds after the first result, within the run."""
    made = []
    ends = [change.at for change in changes[1:]] + [history.last]
    for change, ended in zip(changes, ends, strict=True):
        began, until = max(change.at, history.first), min(ended, history.last)
        if change.online and began <= until:
            made.append((began - history.first, until - history.first))
    return made


def _svg(
    onto: Callable[[Axes], None],
    unit: _Unit,
    ylabel: str,
    *,
    legend: bool = False,
    height: float = SIZE_IN[1],
) -> str:
    """A figure as an `<svg>` that stands in a page by itself: no header, no metadata, no white ground."""
    with rc_context(LOOK):
        figure = Figure(figsize=(SIZE_IN[0], height), layout="constrained")
        axes = figure.subplots()
        onto(axes)
        axes.set_xlabel(f"{unit[1]} since the first result")
        axes.set_ylabel(ylabel)
        if legend:
            figure.legend(loc="outside upper center", ncols=4)
        file = StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, name in _CSS.items():
        svg = svg.replace(stand_in, name)
    return svg
