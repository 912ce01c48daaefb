"""The fair sweep: every contestant gets the best of its policies for each system."""

from collections.abc import Callable, Sequence

from mqtt_mdi.experiments.contestants import Contestant, Patch
from mqtt_mdi.experiments.lab import Lab
from mqtt_mdi.experiments.measure import Run, Trial
from mqtt_mdi.simulation.scenario import Scenario

ROUNDS = (500, 1500, 4000)
"""Frames of the rounds, as in successive halving (Jamieson & Talwalkar, AISTATS 2016)."""
KEPT = 3
"""So many policies get into the next round."""
SECOND_WORTH = 0.004
"""A second of median latency is worth this share of what counts: better soon than late."""
LONGEST_S = 1.0
"""Virtual seconds a frame at the very most; what takes longer stands still."""
TUNING_SEED = 1000
"""Tuned on other orders of the samples than judged on."""


def best_policy(
    lab: Lab,
    contestant: Contestant,
    scenarios: Sequence[Scenario],
    policies: Sequence[Patch],
    score: Callable[[Run], float],
) -> Patch | None:
    """A contestant's policy with the highest sum of scores over some scenarios, from coarse to fine.

    Of two policies about as good, the one that answers sooner is better.

    The first round is among `policies`, the second among the finer ones of the best of them, the third among
    the best of these. None where no policy scores anything.
    """
    about = f"{scenarios[0].name}, {contestant.name}"

    def worth(run: Run) -> float:
        return score(run) / (1 + SECOND_WORTH * run.latency_p50_ms / 1000)

    def best(left: Sequence[Patch], frames: int) -> list[Patch]:
        trials = [
            Trial(lab.settings.bundle, with_policy(scenario, policy, frames, TUNING_SEED))
            for policy in left
            for scenario in scenarios
        ]
        scores = list(map(worth, lab.run(trials, f"{about}: {len(left)} policies, {frames} frames")))
        step = len(scenarios)
        sums = [sum(scores[start : start + step]) for start in range(0, len(scores), step)]
        ranked = sorted(range(len(left)), key=lambda index: -sums[index])
        return [left[index] for index in ranked[:KEPT] if sums[index] > 0]

    coarse, fine, finest = ROUNDS
    left = best(policies, coarse)
    if not lab.settings.quick:
        left = best([policy for each in left for policy in contestant.finer(each)], fine)
        left = best(left, finest) if len(left) > 1 else left
    return left[0] if left else None


def with_policy(scenario: Scenario, policy: Patch, frames: int, seed: int) -> Scenario:
    """A scenario with another policy, number of frames and seed."""
    limit = frames * LONGEST_S
    return scenario.model_copy(update={"policy": policy, "frames": frames, "seed": seed, "limit_s": limit})
