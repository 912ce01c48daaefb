"""Accuracy against multiply-adds of some bundles, in one figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mqtt_mdi.bundle.manifest import Manifest, macs_shares, read_manifest
from mqtt_mdi.bundle.trace import ExitTrace, operating_point, read_trace
from mqtt_mdi.experiments.figures import LOOK
from mqtt_mdi.planning.frontier import frontier

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
MARKERS = "os^Dv*"
GRID = 100
"""Costs at which a curve is drawn."""


@dataclass(frozen=True)
class Tradeoff:
    """What a bundle reaches on its test samples: (mean multiply-adds, accuracy in 0..1) pairs.

    `exits` are those of a network that always leaves at one exit, having computed those before it;
    `chosen` is the bundle's own operating point; `curve` that of many thresholds, found on half of the
    samples and measured on the other, both ways round.
    """

    name: str
    exits: tuple[tuple[float, float], ...]
    chosen: tuple[float, float]
    curve: tuple[tuple[float, float], ...]


def tradeoff(folder: Path) -> Tradeoff:
    """Read what a bundle's exits said and replay it; raises BundleError."""
    manifest, trace = read_manifest(folder), read_trace(folder)
    macs = [stage.macs for stage in manifest.stages]
    point = manifest.operating_point
    return Tradeoff(
        f"{manifest.name} ({folder.name})",
        tuple(zip(np.cumsum(macs).astype(float).tolist(), trace.correct.mean(axis=0).tolist(), strict=True)),
        (point.macs_share * manifest.full_macs, point.accuracy),
        _curve(manifest, trace, macs),
    )


def _curve(manifest: Manifest, trace: ExitTrace, macs: Sequence[int]) -> tuple[tuple[float, float], ...]:
    halves = [
        ExitTrace(trace.score[start::2], trace.label[start::2], trace.truth[start::2]) for start in (0, 1)
    ]
    shares = macs_shares(manifest.stages)
    folds = []
    for seen, unseen in (halves, reversed(halves)):
        points = [operating_point(unseen, found.thresholds, shares) for found in frontier(seen, macs)]
        folds.append(sorted((point.macs_share * manifest.full_macs, point.accuracy) for point in points))
    # Who has no use for more multiply-adds stays at the accuracy reached.
    least, most = max(fold[0][0] for fold in folds), max(fold[-1][0] for fold in folds)
    costs = np.linspace(least, most, GRID if least < most else 1)
    accuracy = np.mean([np.interp(costs, *np.array(fold).T) for fold in folds], axis=0)
    return tuple(zip(costs.tolist(), accuracy.tolist(), strict=True))


def draw(bundles: Sequence[Tradeoff]) -> Figure:
    """A curve and the exits of each bundle; one without early exits is a point."""
    with rc_context(LOOK):
        figure = Figure(figsize=(6.5, 4.0), layout="constrained")
        axes = figure.subplots()
        for place, bundle in enumerate(bundles):
            colour = COLOURS[place % len(COLOURS)]
            look: dict[str, Any] = {"color": colour, "marker": MARKERS[place % len(MARKERS)]}
            macs, accuracy = np.array(bundle.exits).T
            axes.plot(macs / 1e6, 100 * accuracy, **look, linestyle="none", label=bundle.name)
            if len(bundle.exits) > 1:
                macs, accuracy = np.array(bundle.curve).T
                axes.plot(macs / 1e6, 100 * accuracy, color=colour, linewidth=1)
                axes.plot(
                    bundle.chosen[0] / 1e6, 100 * bundle.chosen[1], **look, markersize=11, fillstyle="none"
                )
        axes.set_xlabel("million multiply-adds a sample, mean")
        axes.set_ylabel("accuracy, %")
        axes.legend(
            loc="lower right",
            title="points: one exit for all; lines: thresholds;\nring: the bundle's own thresholds",
            title_fontsize=8,
        )
    return figure
