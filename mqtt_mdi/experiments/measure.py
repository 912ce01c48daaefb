"""One simulation, from its scenario to the figures that experiments compare."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import Manifest, read_manifest
from mqtt_mdi.bundle.trace import ExitTrace, read_trace
from mqtt_mdi.core.coordinator import quantile
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.core.types import Task
from mqtt_mdi.planning.fluid import fluid_bound
from mqtt_mdi.planning.placement import Search
from mqtt_mdi.planning.planner import Goal, plan
from mqtt_mdi.planning.reach import reach_shares
from mqtt_mdi.simulation.bound import problem_of
from mqtt_mdi.simulation.compute import Network, network_of
from mqtt_mdi.simulation.node import Node
from mqtt_mdi.simulation.scenario import Scenario
from mqtt_mdi.simulation.world import Solve, World

WARM_UP = 0.2
"""The first share of the frames and of the answers, that does not count: queues fill, the planner plans."""


KEPT_UP = 0.01
"""Whoever refuses more than this share of the frames does not keep up with them."""


@dataclass(frozen=True)
class Model:
    """A bundle for experiments. No planner looks at the samples it is judged by.

    `known` is the half of the exit trace that planners see, `replayed` the half that frames are taken from.
    """

    manifest: Manifest
    known: ExitTrace
    replayed: ExitTrace

    def shuffled(self, seed: int) -> ExitTrace:
        """The samples that frames are taken from, in the order of a seed."""
        return _some(self.replayed, np.random.default_rng(seed).permutation(len(self.replayed.truth)))


@cache
def read_model(folder: Path) -> Model:
    """Read a bundle once a process; raises BundleError."""
    trace = read_trace(folder)
    here = np.arange(len(trace.truth))
    return Model(read_manifest(folder), _some(trace, here[::2]), _some(trace, here[1::2]))


@dataclass(frozen=True)
class Trial:
    """A simulation to run. With `seed` come the order of the samples and all that is left to chance."""

    bundle: Path
    scenario: Scenario


@dataclass(frozen=True)
class Run:
    """What a simulation brought.

    `rate` is answers a second from the warm-up to the last admission. `reach[k]` is the share of these
    answers' frames that reach stage k + 1 with the bundle's thresholds. All else is about the frames that
    came after the first fifth, whenever they were answered: one that is slow counts as much as a fast one.
    `right` are right answers as a share of these frames, `accuracy` as a share of their answers, `refused`
    is the share that was not admitted. `busy[n][k]` is the share of its time that device n spent on stage
    k + 1.
    """

    rate: float
    accuracy: float
    right: float
    refused: float
    failed: int
    latency_p50_ms: float
    latency_p95_ms: float
    reach: tuple[float, ...]
    busy: dict[str, tuple[float, ...]]
    events: int


STANDSTILL = Run(0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, (1.0,), {}, 0)
"""A simulation that did not come to its end in time, or only by giving up: devices wait for each other."""


def run(trial: Trial) -> Run:
    """Run a simulation; raises ConfigError where its policy does not fit its system."""
    scenario, model = trial.scenario, read_model(trial.bundle)
    trace = model.shuffled(scenario.seed)
    world = Watched(scenario, network_of(model.manifest, trace, None), solver(model.known))
    report = world.run()
    if not report.answered or report.answered + report.failed + report.refused < scenario.frames:
        return STANDSTILL
    answers = _answers(world)
    begin = float(np.quantile(answers.at, WARM_UP))
    end = float(answers.admitted_at.max())
    counted = (begin < answers.at) & (answers.at <= end)
    first = WARM_UP * scenario.frames
    judged = answers.frame >= first
    latencies = (1000 * (answers.at - answers.admitted_at))[judged].tolist()
    right = (answers.label == trace.truth[answers.sample])[judged]
    offered = scenario.frames - first
    taken = sum(int(result.frame_id) >= first for result in world.results)
    return Run(
        rate=float(counted.sum() / (end - begin)),
        accuracy=float(right.mean()),
        right=float(right.sum() / offered),
        refused=1 - taken / offered,
        failed=report.failed,
        latency_p50_ms=quantile(latencies, 0.5) or 0.0,
        latency_p95_ms=quantile(latencies, 0.95) or 0.0,
        reach=reach_shares(_some(trace, answers.sample[counted]), model.manifest.thresholds),
        busy=world.busy(report.seconds),
        events=report.events,
    )


@dataclass(frozen=True)
class _Answers:
    """Arrays of answers: seconds of their coming and of their frames' admission, frames, samples, labels."""

    at: NDArray[np.float64]
    admitted_at: NDArray[np.float64]
    frame: NDArray[np.float64]
    sample: NDArray[np.intp]
    label: NDArray[np.intp]


def _answers(world: World) -> _Answers:
    given = zip(world.times, world.results, strict=True)
    rows = [(at, r.latency_ms, int(r.frame_id), r.label) for at, r in given if r.status == "ok"]
    at, latency_ms, frame, label = np.array(rows, float).T
    sample = frame.astype(np.intp) % len(world.network.truth)
    return _Answers(at, at - latency_ms / 1000, frame, sample, label.astype(np.intp))


def solver(trace: ExitTrace) -> Solve:
    """The planner, knowing a trace."""

    def solve(system: System, policy: Policy) -> Plan:
        rule = policy.planning
        goal = Goal(rule.goal, {"accuracy": rule.accuracy, "rate": rule.rate}.get(rule.goal) or 0.0)
        return plan(system, goal, trace, policy.thresholds, Search(rule.time_limit_s))

    return solve


def bound(trial: Trial, reach: tuple[float, ...], *, stage_1_at_source: bool = False) -> float:
    """λ*: frames a second that no policy beats, with stages placed freely where there is memory."""
    problem = problem_of(trial.scenario, read_model(trial.bundle).manifest, reach, placed_freely=True)
    return fluid_bound(replace(problem, source_runs_stage_1=stage_1_at_source)).rate


class Watched(World):
    """A world that counts which stages each device ran."""

    def __init__(self, scenario: Scenario, network: Network, solve: Solve) -> None:
        super().__init__(scenario, network, solve)
        self._ran: Counter[tuple[str, int]] = Counter()

    def _completed(self, node: Node, task: Task, seconds: float, boot: int) -> None:
        self._ran[node.spec.id, task.stage] += 1
        super()._completed(node, task, seconds, boot)

    def busy(self, seconds: float) -> dict[str, tuple[float, ...]]:
        """Shares of the time that devices spent, by stage."""
        return {
            name: tuple(self._ran[name, k] * each / seconds for k, each in enumerate(node.seconds, 1))
            for name, node in self.nodes.items()
        }


def _some(trace: ExitTrace, samples: NDArray[np.intp]) -> ExitTrace:
    return ExitTrace(trace.score[samples], trace.label[samples], trace.truth[samples])
