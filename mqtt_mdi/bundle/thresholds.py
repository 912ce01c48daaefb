"""Choosing thresholds: the least work that keeps a required accuracy on a trace."""

from collections.abc import Sequence

import numpy as np

from mqtt_mdi.bundle.trace import ExitTrace, operating_point

NEVER = 2.0
"""A threshold that no softmax score reaches."""


def choose_thresholds(
    trace: ExitTrace, macs_shares: Sequence[float], max_accuracy_loss: float, steps: int = 40
) -> tuple[float, ...]:
    """One threshold for each exit but the last, minimising the mean share of multiply-adds.

    Starts with exits that nobody takes and lowers one threshold at a time to a lower quantile of its
    scores: always the move that saves most work for each answer lost, among those that stay within
    `max_accuracy_loss` (0..1) of the last exit's accuracy. Use a trace of samples that neither fitted
    the weights nor report the result.
    """
    levels = np.linspace(1, 0, steps + 1)
    candidates = [
        [NEVER, *(round(float(t), 4) for t in np.quantile(trace.score[:, k], levels))]
        for k in range(trace.exits - 1)
    ]
    floor = float(trace.correct[:, -1].mean()) - max_accuracy_loss
    half_an_answer = 0.5 / len(trace.truth)
    chosen = tuple(NEVER for _ in candidates)
    while True:
        now = operating_point(trace, chosen, macs_shares)
        moves = []
        for k, values in enumerate(candidates):
            for value in values:
                if value >= chosen[k]:
                    continue
                trial = (*chosen[:k], value, *chosen[k + 1 :])
                then = operating_point(trace, trial, macs_shares)
                saved = now.macs_share - then.macs_share
                lost = max(now.accuracy - then.accuracy, half_an_answer)
                if saved > 0 and then.accuracy >= floor:
                    moves.append((saved / lost, trial))
        if not moves:
            return chosen
        chosen = max(moves)[1]
