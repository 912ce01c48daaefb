"""How long the planner takes, and how near to the proven limit its plans come."""

import random
import time
from dataclasses import replace
from itertools import permutations, product

import measure
import numpy as np

from mqtt_mdi.bundle.trace import ExitTrace
from mqtt_mdi.core.system import Member, Plan, StageProfile, System
from mqtt_mdi.planning.planner import Goal, plan

SIZES = ((3, 4), (5, 4), (10, 4), (20, 4), (20, 8))
LINK = 100e6 / 8
SAMPLES = 10_000
THRESHOLD = 0.95


def planner(rounds: int = 5) -> list[measure.Row]:
    """Seconds for plans of full meshes with uneven devices, a new one in each round."""
    measured: list[measure.Row] = []
    for number in range(rounds):
        for (devices, stages), memory in product(SIZES, ("ample", "tight")):
            system = mesh(devices, stages, number, tight=memory == "tight")
            trace = exits(stages, number)
            thresholds = (THRESHOLD,) * (stages - 1)
            first, first_s = timed(system, Goal(), trace, thresholds)
            settled = obeying(system, first)
            _, again_s = timed(settled, Goal(), trace, thresholds)
            _, less_s = timed(without(settled, 1), Goal(), trace, thresholds)
            _, goal_s = timed(system, Goal("rate", first.rate), trace, thresholds)
            measured.append(
                {
                    "system": f"{devices} devices, {stages} stages, {memory} memory",
                    "first plan, s": first_s,
                    "nothing new, s": again_s,
                    "one left, s": less_s,
                    "for a rate, s": goal_s,
                    "below the proven limit, %": 100 * (1 - first.rate / first.limit),
                }
            )
    return measure.medians(measured, "system")


def timed(system: System, goal: Goal, trace: ExitTrace, thresholds: tuple[float, ...]) -> tuple[Plan, float]:
    """A plan and the seconds it took."""
    began = time.perf_counter()
    made = plan(system, goal, trace, thresholds)
    return made, time.perf_counter() - began


def mesh(devices: int, stages: int, seed: int, *, tight: bool) -> System:
    """All linked, up to 8 times as fast as each other; tight memory is for a few stages of all."""
    chance = random.Random(seed)
    profiles = tuple(
        StageProfile(macs, chance.randint(2_000, 60_000), chance.randint(1_000_000, 4_000_000))
        for macs in (chance.randint(1_000_000, 4_000_000) for _ in range(stages))
    )
    largest, everything = max(p.memory for p in profiles), sum(p.memory for p in profiles)
    members = []
    for number in range(devices):
        speed = chance.choice([1e8, 2e8, 4e8, 8e8])
        seconds = tuple(profile.macs / speed * chance.uniform(0.8, 1.25) for profile in profiles)
        # The first and the third can hold all stages together, whoever leaves.
        share = 0.75 if number in (0, 2) else chance.uniform(0.2, 0.6)
        memory = max(largest, round(everything * share)) if tight else None
        members.append(Member(f"device-{number}", seconds, memory, source=number == 0))
    names = [member.device for member in members]
    return System(tuple(members), dict.fromkeys(permutations(names, 2), LINK), profiles)


def obeying(system: System, made: Plan) -> System:
    """The system once its devices have loaded what a plan says."""
    held = (replace(member, stages=frozenset(made.placement[member.device])) for member in system.members)
    return replace(system, members=tuple(held))


def without(system: System, number: int) -> System:
    """The system when one device has left."""
    gone = system.members[number].device
    return replace(
        system,
        members=tuple(member for member in system.members if member.device != gone),
        links={pair: rate for pair, rate in system.links.items() if gone not in pair},
    )


def exits(stages: int, seed: int) -> ExitTrace:
    """A trace of exits that become better from stage to stage, and say how sure they are."""
    chance = np.random.default_rng(seed)
    right = 1 / (1 + np.exp(-4 - 0.5 * np.arange(stages) + 6 * chance.random((SAMPLES, 1))))
    score = np.clip(right + chance.normal(0, 0.03, right.shape), 0, 1).astype(np.float32)
    label = (chance.random(right.shape) < right).astype(np.int16)
    return ExitTrace(score, label, np.ones(SAMPLES, np.int16))


def main() -> None:
    """Print the table alone."""
    measure.table("Planning", planner())


if __name__ == "__main__":
    main()
