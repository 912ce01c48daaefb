"""All contestants, each at its best, on some systems, with frames arriving as fast as they are taken."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.experiments.contestants import (
    CONTESTANTS,
    STATIC_ALL,
    STATIC_ONE,
    Contestant,
    choices,
)
from mqtt_mdi.experiments.lab import Lab
from mqtt_mdi.experiments.measure import Model, Run, Trial, bound, read_model
from mqtt_mdi.experiments.rows import Rate
from mqtt_mdi.experiments.settings import Settings
from mqtt_mdi.experiments.tuning import best_policy, with_policy
from mqtt_mdi.planning.fluid import fluid_bound
from mqtt_mdi.planning.reach import reach_shares
from mqtt_mdi.simulation.bound import problem_of
from mqtt_mdi.simulation.scenario import Scenario

STATIC_BUNDLE = SHIPPED_BUNDLE.with_name(f"{SHIPPED_BUNDLE.name}-static")
"""A smaller network without early exits, about as accurate."""

FRAMES = 10_000


def compare(lab: Lab, systems: Sequence[Scenario]) -> list[tuple[Rate, Run | None]]:
    """Tune and run all contestants; the static network's rows were computed and have no run."""
    settings = lab.settings
    model = read_model(settings.bundle)
    entries = []
    for system in systems:
        for contestant in CONTESTANTS:
            policy = best_policy(
                lab,
                contestant,
                [system],
                choices(contestant, system, model, quick=settings.quick),
                partial(work_rate, model),
            )
            if policy is None:
                continue
            frames = settings.frames_or(FRAMES)
            entries += [
                (contestant, Trial(settings.bundle, with_policy(system, policy, frames, seed)))
                for seed in settings.seeds
            ]
    runs = lab.run([trial for _, trial in entries], "with many frames")
    judged: list[tuple[Rate, Run | None]] = [
        (_row(contestant, trial, run), run) for (contestant, trial), run in zip(entries, runs, strict=True)
    ]
    return judged + [(row, None) for system in systems for row in static_rows(settings, system)]


def work_rate(model: Model, run: Run) -> float:
    """Multiply-adds asked for by the frames answered in a second: easy frames first are nobody's merit."""
    work = sum(stage.macs * share for stage, share in zip(model.manifest.stages, run.reach, strict=False))
    return run.rate * work


def static_rows(settings: Settings, system: Scenario) -> Iterator[Rate]:
    """The static network on the one device that is fastest with it, and at its bound on all of them."""
    if not STATIC_BUNDLE.exists():
        return
    model, static = read_model(settings.bundle), read_model(STATIC_BUNDLE)
    trial = Trial(settings.bundle, system)
    reach = reach_shares(model.replayed, model.manifest.thresholds)
    limit, at_source = bound(trial, reach), bound(trial, reach, stage_1_at_source=True)
    for name, rate in zip((STATIC_ONE, STATIC_ALL), static_rates(static, system), strict=True):
        yield Rate(
            system=system.name,
            contestant=name,
            seed=0,
            frames=0,
            rate=rate,
            efficiency=rate / limit,
            accuracy=float(static.replayed.correct[:, -1].mean()),
            latency_p50_ms=None,
            latency_p95_ms=None,
            bound=limit,
            bound_at_source=at_source,
            failed=0,
            policy="{}",
        )


def static_rates(static: Model, system: Scenario) -> tuple[float, float]:
    """Frames a second of a network whose frames all go to its end: on the best device alone, and on all."""
    reach = (1.0,) * static.manifest.stage_count
    problem = problem_of(system, static.manifest, reach, placed_freely=True)
    every = frozenset(range(1, static.manifest.stage_count + 1))
    room = [d for d in problem.devices if d.memory is None or d.memory >= sum(problem.stage_bytes)]
    alone = [
        fluid_bound(
            replace(
                problem,
                devices=tuple(replace(d, stages=every if d is one else frozenset()) for d in problem.devices),
            )
        ).rate
        for one in room
    ]
    return max(alone, default=0.0), fluid_bound(problem).rate


def no_static() -> str | None:
    """Why there is no static network to compare with, or None."""
    return (
        None if STATIC_BUNDLE.exists() else f"no static network to compare with: there is no {STATIC_BUNDLE}"
    )


def _row(contestant: Contestant, trial: Trial, run: Run) -> Rate:
    limit = bound(trial, run.reach)
    return Rate(
        system=trial.scenario.name,
        contestant=contestant.name,
        seed=trial.scenario.seed,
        frames=trial.scenario.frames,
        rate=run.rate,
        efficiency=run.rate / limit,
        accuracy=run.accuracy,
        latency_p50_ms=run.latency_p50_ms,
        latency_p95_ms=run.latency_p95_ms,
        bound=limit,
        bound_at_source=bound(trial, run.reach, stage_1_at_source=True),
        failed=run.failed,
        policy=json.dumps(trial.scenario.policy),
    )
