"""`experiment accuracy`: what is right of what arrives, as more and more does."""

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from mqtt_mdi.experiments import figures
from mqtt_mdi.experiments.compare import STATIC_BUNDLE, no_static, static_rates
from mqtt_mdi.experiments.contestants import (
    DDI,
    MDI_EXIT,
    MDI_EXIT_SHIPPED,
    NO_EXIT,
    PIPELINE,
    PLANNER,
    STATIC_ONE,
    Contestant,
    Patch,
    choices,
    present,
)
from mqtt_mdi.experiments.findings import Findings
from mqtt_mdi.experiments.lab import Lab
from mqtt_mdi.experiments.measure import KEPT_UP, Model, Run, Trial, bound, read_model
from mqtt_mdi.experiments.rows import Accuracy, Chosen, Limit
from mqtt_mdi.experiments.settings import Settings
from mqtt_mdi.experiments.systems import TOPOLOGIES
from mqtt_mdi.experiments.tables import Cells, percent, rounded
from mqtt_mdi.experiments.tuning import best_policy, with_policy
from mqtt_mdi.planning.frontier import frontier
from mqtt_mdi.simulation.scenario import Arrivals, Scenario

FRAMES = 3000
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""Arrival rates, as shares of λ* when every frame leaves at the first exit."""
TUNED_AT = (0.1, 0.35, 0.65)
MARGIN = 1.03
"""The rate that a planner is to keep up with, as a multiple of the frames that arrive."""
WAITING: Patch = {"pending_limit": 64}

ADAPTIVE = {
    "window": (256, 64),
    "report_interval_s": (0.02,),
    "output_threshold": (8,),
    "adaptation": tuple(
        {"rule": "adaptive", "least": least, "period_s": period, "low": low, "high": high}
        for least in (0.1, 0.3)
        for period in (0.5, 0.1)
        for low, high in ((10, 30), (2, 6))
    ),
}
ADAPTIVE_FINER = {"output_threshold": (0, 2, 8)}
"""Algorithm 4 moves the thresholds by the source's queues: the window must let these fill."""
FIXED = {"window": (64, 256), "report_interval_s": (0.02,)}

CONTESTANTS = (
    PLANNER,
    replace(MDI_EXIT, grid=ADAPTIVE, fine=ADAPTIVE_FINER),
    replace(MDI_EXIT_SHIPPED, grid=ADAPTIVE, fine=ADAPTIVE_FINER),
    replace(NO_EXIT, grid=FIXED, fine=ADAPTIVE_FINER),
    replace(DDI, grid=FIXED),
    replace(PIPELINE, grid=FIXED),
)


def experiment(settings: Settings) -> Findings:
    """Every contestant that adapts, or does not, on every topology."""
    systems = (TOPOLOGIES[0], TOPOLOGIES[-1]) if settings.quick else TOPOLOGIES
    shares = SHARES[1::4] if settings.quick else SHARES
    model = read_model(settings.bundle)
    limits = {system.name: limit(settings, system, model) for system in systems}
    entries, chosen = [], []
    with Lab(settings) as lab:
        for system in systems:
            most = max(limits[system.name].rates)
            for contestant in CONTESTANTS:
                policy = _tuned(lab, contestant, system, most)
                if policy is None:
                    continue
                chosen.append(Chosen(system.name, contestant.name, json.dumps(policy)))
                entries += [
                    (contestant, trial)
                    for share in shares
                    for trial in _trials(settings, contestant, system, policy, share * most)
                ]
        runs = lab.run([trial for _, trial in entries], "at every rate")
    rows = [
        _row(contestant, trial, run, limits) for (contestant, trial), run in zip(entries, runs, strict=True)
    ]
    for system in systems:
        rows += _static_rows(system, limits[system.name], shares)
    rows = rounded(rows)
    return Findings(
        csv={"accuracy": rows, "accuracy-policies": chosen},
        tables={"accuracy": accuracies(rows, systems[-1].name)},
        figures={"accuracy": figures.accuracies(rows, limits)},
        remarks=[reason] if (reason := no_static()) else [],
    )


def limit(settings: Settings, system: Scenario, model: Model) -> Limit:
    """The frontier of the replayed samples as rates of a system; of equal devices, multiply-adds decide."""
    points = frontier(model.replayed, [stage.macs for stage in model.manifest.stages])
    trial = Trial(settings.bundle, system)
    return Limit(
        tuple(bound(trial, point.reach) for point in points), tuple(point.accuracy for point in points)
    )


def accuracies(rows: Sequence[Accuracy], system: str) -> Cells:
    """Accuracy by arrival rate in one system, and how many frames were refused."""
    own = [row for row in rows if row.system == system]
    rates = sorted({row.arrival_rate for row in own})
    head = f"{system}, frames/s"
    limits = {row.arrival_rate: row.limit for row in own}
    return [
        {head: name} | {f"{rate:.0f}": _cell(own, name, rate) for rate in rates}
        for name in present(row.contestant for row in own)
    ] + [{head: "limit of fixed thresholds"} | {f"{rate:.0f}": percent([limits[rate]]) for rate in rates}]


def _cell(rows: Sequence[Accuracy], contestant: str, rate: float) -> str:
    own = [row for row in rows if (row.contestant, row.arrival_rate) == (contestant, rate)]
    refused = fmean(row.refused for row in own)
    accuracy = percent(row.accuracy for row in own)
    return accuracy if refused <= KEPT_UP else f"{accuracy}, {percent([refused], 0)} refused"


def _tuned(lab: Lab, contestant: Contestant, system: Scenario, most: float) -> Patch | None:
    """The policy with the most right answers at a low, a middle and a high rate."""
    settings = lab.settings
    policies = choices(contestant, system, read_model(settings.bundle), quick=settings.quick)
    return best_policy(
        lab,
        contestant,
        [_arriving(system, share * most) for share in TUNED_AT],
        [{**WAITING, **policy} for policy in (policies[:1] if settings.quick else policies)],
        lambda run: run.right,
    )


def _trials(
    settings: Settings, contestant: Contestant, system: Scenario, policy: Patch, rate: float
) -> list[Trial]:
    if contestant == PLANNER:
        policy = {**policy, "planning": {"goal": "rate", "rate": MARGIN * rate}}
    frames = settings.frames_or(FRAMES)
    arriving = _arriving(system, rate)
    return [Trial(settings.bundle, with_policy(arriving, policy, frames, seed)) for seed in settings.seeds]


def _arriving(system: Scenario, rate: float) -> Scenario:
    return system.model_copy(update={"arrivals": Arrivals(kind="poisson", rate=rate)})


def _row(contestant: Contestant, trial: Trial, run: Run, limits: dict[str, Limit]) -> Accuracy:
    scenario = trial.scenario
    rate = scenario.arrivals.rate or 0.0
    return Accuracy(
        system=scenario.name,
        contestant=contestant.name,
        seed=scenario.seed,
        arrival_rate=rate,
        accuracy=run.accuracy,
        right=run.right,
        refused=run.refused,
        limit=limits[scenario.name].at(rate),
        latency_p50_ms=run.latency_p50_ms,
        latency_p95_ms=run.latency_p95_ms,
    )


def _static_rows(system: Scenario, limit: Limit, shares: Sequence[float]) -> list[Accuracy]:
    """The static network on one device: as accurate at every rate, and what it cannot do it refuses."""
    if not STATIC_BUNDLE.exists():
        return []
    static = read_model(STATIC_BUNDLE)
    accuracy = float(static.replayed.correct[:, -1].mean())
    capacity, _ = static_rates(static, system)
    rows = []
    for share in shares:
        rate = share * max(limit.rates)
        refused = max(0.0, 1 - capacity / rate)
        rows.append(
            Accuracy(
                system=system.name,
                contestant=STATIC_ONE,
                seed=0,
                arrival_rate=rate,
                accuracy=accuracy,
                right=accuracy * (1 - refused),
                refused=refused,
                limit=limit.at(rate),
                latency_p50_ms=None,
                latency_p95_ms=None,
            )
        )
    return rows
