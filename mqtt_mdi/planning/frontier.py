"""What accuracy costs: thresholds over an exit trace, from the most accurate to the cheapest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.thresholds import NEVER
from mqtt_mdi.bundle.trace import ExitTrace
from mqtt_mdi.errors import ConfigError

STEPS = 100
"""Thresholds tried at each exit: so many quantiles of its scores."""
PRICES = (1e-6, *np.geomspace(1e-3, 100, 40).tolist())
"""Shares of accuracy to give up for saving all that can be saved; the first is for the best accuracy."""
APART = 0.99
"""The cost of a point, at most, as a share of that of the point before it."""
ROUNDING = 1e-10
"""Gains below it are none: sums of the same numbers in another order."""

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Point:
    """Thresholds, one for each exit but the last, and what they bring on the trace.

    `accuracy` is the share of right answers, `reach[k]` the share of samples that reach stage k + 1, `cost`
    the mean of what the stages cost that a sample goes through.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    reach: tuple[float, ...]
    cost: float


def frontier(trace: ExitTrace, cost: Sequence[float]) -> tuple[Point, ...]:
    """The best thresholds, from the most accurate to the cheapest: all that another beats are left out.

    `cost[k]` is what running stage k + 1 costs, in multiply-adds or any other unit. The cost falls from
    point to point by 1 % or more (to the last by anything), and the accuracy with it. The first point may
    be more accurate than the last exit: where early exits know better, or have luck with this trace.

    For one price of accuracy after the other, one threshold at a time moves to where accuracy less cost is
    highest, until none can. Whatever was tried on the way may be a point. This is a search: good, not
    proven best.

    Raises:
        ConfigError: The trace has another number of exits than there are stages with a cost.
    """
    if len(cost) != trace.exits:
        raise ConfigError(f"the trace has {trace.exits} exits, but costs are given for {len(cost)} stages")
    levels = _Levels(trace, cost)
    chosen = np.zeros(trace.exits - 1, np.intp)
    tried = levels.neighbours(chosen)
    pool = [tried]
    for price in PRICES:
        while True:
            value = tried.accuracy - price * tried.cost / levels.span
            if value.max() <= value[0] + ROUNDING:
                break
            chosen = tried.chosen[value.argmax()]
            tried = levels.neighbours(chosen)
            pool.append(tried)
    accuracy = np.concatenate([each.accuracy for each in pool])
    mean_cost = np.concatenate([each.cost for each in pool])
    choices = np.concatenate([each.chosen for each in pool])
    return tuple(levels.point(choices[index], cost) for index in _undominated(accuracy, mean_cost))


@dataclass(frozen=True)
class _Tried:
    """Choices of levels (M, K - 1), and the accuracy (M,) and mean cost (M,) of each."""

    chosen: Ints
    accuracy: Floats
    cost: Floats


class _Levels:
    """A trace whose thresholds are one of a few levels at each exit, from the highest to the lowest."""

    def __init__(self, trace: ExitTrace, cost: Sequence[float]) -> None:
        self.correct = trace.correct.T.astype(np.float64)
        self.spent = np.cumsum(cost)
        self.span = float(self.spent[-1] - self.spent[0]) or 1.0
        scores = trace.score[:, :-1].T.astype(np.float64)
        # Rounded down, so that the lowest level lets every sample pass.
        quantiles = [
            np.floor(np.quantile(score, np.linspace(0, 1, STEPS + 1)) * 1e4) / 1e4 for score in scores
        ]
        self.levels = [np.concatenate([[NEVER], np.unique(some)[::-1]]) for some in quantiles]
        self._passes = [
            np.searchsorted(-some, -score) for some, score in zip(self.levels, scores, strict=True)
        ]
        """For each exit, the highest level that each sample passes (N,)."""
        self._gain = np.stack(
            [self.correct, np.broadcast_to(self.spent[:, None], self.correct.shape)], axis=1
        )
        """By exit, whether each sample is answered rightly there and what it has cost: (K, 2, N)."""

    def neighbours(self, chosen: Ints) -> _Tried:
        """The choice itself, and all that differ from it at one exit."""
        samples = self.correct.shape[1]
        later = [self._gain[-1]]
        for gain, passes, level in zip(self._gain[-2::-1], self._passes[::-1], chosen[::-1], strict=True):
            later.insert(0, np.where(passes <= level, gain, later[0]))
        choices, totals = [chosen[None]], [later[0].sum(axis=1)[:, None]]
        left, here = np.zeros((2, 1)), np.arange(samples)
        for k, passes in enumerate(self._passes):
            count, goes_on = len(self.levels[k]), later[k + 1][:, here]
            first, change = passes[here], self._gain[k][:, here] - goes_on
            changes = [np.bincount(first, row, count).cumsum() for row in change]
            totals.append(left + goes_on.sum(axis=1)[:, None] + changes)
            others = np.tile(chosen, (count, 1))
            others[:, k] = np.arange(count)
            choices.append(others)
            leaves = first <= chosen[k]
            left = left + self._gain[k][:, here[leaves]].sum(axis=1)[:, None]
            here = here[~leaves]
        accuracy, cost = np.concatenate(totals, axis=1) / samples
        return _Tried(np.concatenate(choices), accuracy, cost)

    def point(self, chosen: Ints, cost: Sequence[float]) -> Point:
        """The thresholds of a choice and what they bring, exactly."""
        samples = self.correct.shape[1]
        here, right, reach = np.ones(samples, bool), 0.0, [1.0]
        for correct, passes, level in zip(self.correct, self._passes, chosen, strict=False):
            leaves = here & (passes <= level)
            right += correct[leaves].sum()
            here &= ~leaves
            reach.append(int(here.sum()) / samples)
        right += self.correct[-1][here].sum()
        thresholds = tuple(float(some[level]) for some, level in zip(self.levels, chosen, strict=True))
        return Point(thresholds, float(right / samples), tuple(reach), float(np.dot(reach, cost)))


def _undominated(accuracy: Floats, cost: Floats) -> list[int]:
    """Indices of what nothing else beats in both, from the most accurate to the cheapest."""
    cheapest_first = np.lexsort((-accuracy, cost))
    before = np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[cheapest_first]]))[:-1]
    best = cheapest_first[accuracy[cheapest_first] > before][::-1]
    kept = [int(best[0])]
    for index in best[1:]:
        if cost[index] <= APART * cost[kept[-1]] or index == best[-1]:
            kept.append(int(index))
    return kept
