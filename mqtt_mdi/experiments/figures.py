"""The figures: readable in black and white, each contestant looks the same in all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, takewhile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mqtt_mdi.experiments import contestants as who
from mqtt_mdi.experiments.measure import KEPT_UP
from mqtt_mdi.experiments.rows import Accuracy, Busy, Cost, Limit, Rate

LOOK: dict[Any, Any] = {
    "svg.hashsalt": "mqtt-mdi",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
}
GREY = "0.25"
STAGES = (("#FFFFFF", ""), ("#BBBBBB", "///"), ("#777777", "xxx"), ("#222222", ""))
"""Colours and hatches of stages, in turn."""


@dataclass(frozen=True)
class Style:
    """Colour (Okabe and Ito's, told apart by all eyes), hatch of bars, marker and dashes of lines."""

    colour: str
    hatch: str
    marker: str
    dashes: str = "-"

    @property
    def line(self) -> str:
        """The colour, or black where lines in it would be invisible."""
        return "black" if self.colour == "#FFFFFF" else self.colour


STYLES = {
    who.PLANNER.name: Style("#0072B2", "", "o"),
    who.MDI_EXIT.name: Style("#D55E00", "///", "s", "--"),
    who.MDI_EXIT_SHIPPED.name: Style("#E69F00", "\\\\\\", "D", "--"),
    who.NO_EXIT.name: Style("#999999", "---", "X", ":"),
    who.DDI.name: Style("#009E73", "xxx", "^", "-."),
    who.PIPELINE.name: Style("#CC79A7", "|||", "v", ":"),
    who.LOCAL.name: Style("#F0E442", "++", "P", ":"),
    who.STATIC_ONE: Style("#FFFFFF", "", "*", ":"),
    who.STATIC_ALL: Style("#DDDDDD", "/", "h", ":"),
}


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as SVG, with its text as text, and as PNG; the same figure makes the same SVG."""
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    with rc_context(LOOK):
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png, dpi=200)
    return [svg, png]


def rates(rows: Sequence[Rate]) -> Figure:
    """Bars of rates, a group for each system, beneath its bounds."""
    systems = list(dict.fromkeys(row.system for row in rows))
    names = who.present(row.contestant for row in rows)
    width = 0.86 / len(names)
    with rc_context(LOOK):
        figure = Figure(figsize=(5.5 + 0.7 * len(systems), 3.8), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(names):
            _bars(axes, [row for row in rows if row.contestant == name], systems, place, width)
        for group, system in enumerate(systems):
            own = [row for row in rows if row.system == system]
            for limit, dashes, label in (
                (fmean(row.bound for row in own), "-", "λ*, the bound of every policy"),
                (fmean(row.bound_at_source for row in own), ":", "λ* with stage 1 at the source"),
            ):
                ends = [group - width / 2 - 0.02, group + 0.86 - width / 2 + 0.02]
                axes.plot(
                    ends,
                    [limit, limit],
                    dashes,
                    color="black",
                    linewidth=1.4,
                    label=label if not group else None,
                )
        middle = 0.43 - width / 2
        axes.set_xticks([group + middle for group in range(len(systems))], systems)
        axes.set_ylabel("admitted rate (frames/s)")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=4 if len(systems) > 1 else 3)
    return figure


def _bars(axes: Axes, rows: Sequence[Rate], systems: Sequence[str], place: int, width: float) -> None:
    """One contestant's bars, `place` bars right of the first of each group, over the systems it is in."""
    found = {s: [row.rate for row in rows if row.system == s] for s in systems}
    there = [(group, own) for group, own in enumerate(found.values()) if own]
    style = STYLES[rows[0].contestant]
    axes.bar(
        [group + place * width for group, _ in there],
        [fmean(own) for _, own in there],
        width * 0.92,
        yerr=[stdev(own) if len(own) > 1 else 0.0 for _, own in there],
        color=style.colour,
        hatch=style.hatch,
        edgecolor=GREY,
        linewidth=0.6,
        error_kw={"elinewidth": 0.8, "ecolor": "black"},
        label=rows[0].contestant,
    )


def accuracies(rows: Sequence[Accuracy], limits: Mapping[str, Limit]) -> Figure:
    """Accuracy by arrival rate, a panel for each system; hollow where frames are refused."""
    names = who.present(row.contestant for row in rows)
    columns = min(3, len(limits))
    lines = -(-len(limits) // columns)
    with rc_context(LOOK):
        figure = Figure(figsize=(3.1 * columns + 0.4, 2.6 * lines + 0.9), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel().tolist()
        for axes, (system, limit) in zip(panels, limits.items(), strict=False):
            rates = sorted({0.0, *limit.rates})
            highest = [limit.at(rate) for rate in rates]
            axes.step(rates, highest, "black", where="pre", linewidth=1.2, label="limit of fixed thresholds")
            for name in names:
                own = [row for row in rows if (row.system, row.contestant) == (system, name)]
                _line(axes, own, name)
            axes.set_title(system, fontsize=9)
            axes.set_xlabel("arrival rate (frames/s)")
            axes.set_xlim(left=0)
        for axes in panels[len(limits) :]:
            axes.remove()
        figure.supylabel("accuracy of the answers", fontsize=9)
        handles, labels = panels[len(limits) - 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def _line(axes: Axes, rows: Sequence[Accuracy], name: str) -> None:
    """A contestant's accuracy, up to the first rate that it does not keep up with: a hollow marker there."""
    style = STYLES[name]
    rates = sorted({row.arrival_rate for row in rows})
    there = [[row for row in rows if row.arrival_rate == rate] for rate in rates]
    kept = list(takewhile(lambda own: fmean(row.refused for row in own) <= KEPT_UP, there))
    shown = there[: len(kept) + 1]
    look: dict[str, Any] = {"color": style.line, "marker": style.marker, "markersize": 5, "linewidth": 0.9}
    means = [fmean(row.accuracy for row in own) for own in shown]
    axes.plot(rates[: len(shown)], means, linestyle=style.dashes, label=name, **look)
    if len(shown) > len(kept):
        axes.plot(rates[len(kept)], means[-1], markerfacecolor="white", zorder=3, **look)


def busy(rows: Sequence[Busy]) -> Figure:
    """Where devices' time goes: a panel for each contestant, a bar for each device, stages stacked."""
    names = who.present(row.contestant for row in rows)
    devices = list(dict.fromkeys(row.device for row in rows))
    with rc_context(LOOK):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False).ravel().tolist()
        for axes, name in zip(panels, names, strict=True):
            floor = [0.0] * len(devices)
            for stage, (colour, hatch) in zip(sorted({row.stage for row in rows}), cycle(STAGES)):
                own = [row for row in rows if (row.contestant, row.stage) == (name, stage)]
                shares = [fmean(row.share for row in own if row.device == device) for device in devices]
                axes.bar(
                    devices,
                    shares,
                    0.7,
                    floor,
                    color=colour,
                    hatch=hatch,
                    edgecolor=GREY,
                    linewidth=0.6,
                    label=f"stage {stage}",
                )
                floor = [low + share for low, share in zip(floor, shares, strict=True)]
            axes.set_title(name, fontsize=9)
            axes.set_ylim(0, 1.02)
        panels[0].set_ylabel("share of the device's time")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def costs(rows: Sequence[Cost]) -> Figure:
    """What simulating takes, by the number of devices: seconds of a virtual one, and CPU an event."""
    with rc_context(LOOK):
        figure = Figure(figsize=(7, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name in dict.fromkeys(row.strategy for row in rows):
            own = [row for row in rows if row.strategy == name]
            sizes, style = [row.devices for row in own], STYLES[name]
            look = {"color": style.line, "marker": style.marker, "linestyle": style.dashes, "label": name}
            left.plot(sizes, [row.wall_s / row.virtual_s for row in own], **look)
            right.plot(sizes, [row.us_an_event for row in own], **look)
        left.set_yscale("log")
        left.set_ylabel("wall seconds a simulated second")
        right.set_ylim(bottom=0)
        right.set_ylabel("CPU an event (µs)")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xlabel("devices")
        left.legend()
    return figure
