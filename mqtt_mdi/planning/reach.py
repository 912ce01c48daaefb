"""How far frames go: s_1 .. s_K, the share of frames that reach each stage; s_1 is 1."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from mqtt_mdi.bundle.trace import ExitTrace, replay


def reach_of_exits(left: Sequence[int]) -> tuple[float, ...]:
    """The shares where `left[k]` frames, together at least one, left at exit k + 1."""
    reached = list(accumulate(reversed(left)))[::-1]
    return tuple(count / reached[0] for count in reached)


def reach_shares(trace: ExitTrace, thresholds: Sequence[float]) -> tuple[float, ...]:
    """The shares of a trace's samples under thresholds.

    Raises ConfigError unless there is one threshold for each exit but the last.
    """
    exits = replay(trace, thresholds)
    return reach_of_exits(np.bincount(exits, minlength=trace.exits + 1)[1:].tolist())
