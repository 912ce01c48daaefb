"""A figure of throughput over time, beneath what was possible then."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib import rc_context
from matplotlib.figure import Figure

from mqtt_mdi.experiments.figures import LOOK

LINES = (("#0072B2", "-"), ("#D55E00", "--"))


class Stretch(Protocol):
    """From when on which rate was possible, and what happened then."""

    @property
    def begins_s(self) -> float:
        """Seconds from the first frame."""

    @property
    def bound(self) -> float:
        """λ* in frames a second."""

    @property
    def event(self) -> str:
        """What happened."""


def throughput(answered_at: Mapping[str, Sequence[float]], stretches: Sequence[Stretch]) -> Figure:
    """Answers in each second, a line for each world, and λ* as steps with what changed it."""
    first = {stretch.begins_s: stretch for stretch in stretches}
    begins = sorted(first)
    end = begins[-1] + (begins[1] - begins[0])
    with rc_context(LOOK):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        axes = figure.subplots()
        steps = [first[at].bound for at in begins]
        axes.step([*begins, end], [*steps, steps[-1]], "black", where="post", linewidth=1.4, label="λ*")
        for (world, times), (colour, dashes) in zip(answered_at.items(), LINES, strict=False):
            seconds = Counter(int(at) for at in times if at < end)
            rates = [seconds[second] for second in range(int(end))]
            middles = [second + 0.5 for second in range(int(end))]
            axes.plot(middles, rates, dashes, color=colour, linewidth=1.2, label=world)
        highest = axes.get_ylim()[1]
        for at in begins[1:]:
            axes.axvline(at, color="0.7", linewidth=0.8, zorder=0)
            axes.annotate(
                first[at].event, (at, highest), (3, -2), textcoords="offset points", va="top", fontsize=8
            )
        axes.set_xlim(0, end)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds")
        axes.set_ylabel("answers (frames/s)")
        figure.legend(loc="outside upper center", ncols=3)
    return figure
