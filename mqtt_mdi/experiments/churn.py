"""Devices that die and return while frames are in flight: is each frame answered, how soon is all well?"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.experiments.findings import Findings
from mqtt_mdi.experiments.live import run_live
from mqtt_mdi.experiments.parity import sample_network, sample_trace, slower
from mqtt_mdi.experiments.settings import Settings
from mqtt_mdi.experiments.systems import UNEVEN
from mqtt_mdi.experiments.tables import Cells, rounded
from mqtt_mdi.experiments.timeline import throughput
from mqtt_mdi.planning.fluid import fluid_bound
from mqtt_mdi.planning.reach import reach_shares
from mqtt_mdi.planning.solve import solver
from mqtt_mdi.simulation.bound import problem_of
from mqtt_mdi.simulation.scenario import Fault, Scenario
from mqtt_mdi.simulation.world import Solve, World

SLOWER = 0.3
"""Boards this much slower than the other experiments': a whole pipeline shares this machine's cores."""

WINDOW_S = 2.0
"""Over which a throughput is taken."""

RECOVERED = 0.9
"""Share of the new bound at which all counts as well again."""

FAULTS = (("node-4", "dies"), ("node-4", "returns"), ("node-5", "dies"), ("node-5", "returns"))
PHASE_S = 15.0
QUICK_PHASE_S = 6.0


@dataclass(frozen=True)
class Phase:
    """From one fault to the next: λ* of the devices that are left, and what was answered.

    `recovered_s` are the seconds after which two seconds' throughput was within 10% of the bound, None for
    never; `rate` is that of the phase from there on.
    """

    world: str
    begins_s: float
    event: str
    bound: float
    recovered_s: float | None
    rate: float


@dataclass(frozen=True)
class Churn:
    """One run: its phases, the second of each answer, and the books: admitted, answered, failed, doubled."""

    phases: tuple[Phase, ...]
    answered_at: tuple[float, ...]
    admitted: int
    answered: int
    failed: int
    doubled: int
    lost: int
    decisions: tuple[tuple[float, str], ...]


def experiment(settings: Settings) -> Findings:
    """The same faults on virtual time and over a real broker."""
    phase_s = QUICK_PHASE_S if settings.quick else PHASE_S
    simulated = churn_simulated(settings.bundle, solver(settings.bundle), phase_s)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("devices die and return", total=phase_s * (len(FAULTS) + 1))
        runs = [
            simulated,
            churn_live(settings.bundle, phase_s, lambda seconds: bar.update(task, completed=seconds)),
        ]
    phases = rounded(phase for run in runs for phase in run.phases)
    books = [
        f"{run.phases[0].world}: {run.admitted} frames admitted, {run.answered} answered, "
        f"{run.failed} failed, {run.doubled} doubled, {run.lost} without an answer"
        for run in runs
    ]
    return Findings(
        csv={"churn": phases},
        tables={"churn": recoveries(phases)},
        figures={"churn": throughput({run.phases[0].world: run.answered_at for run in runs}, phases)},
        remarks=books,
    )


def recoveries(phases: Sequence[Phase]) -> Cells:
    """How soon all was well after each fault."""
    return [
        {
            "world": phase.world,
            "at": f"{phase.begins_s:.0f} s",
            "what happens": phase.event,
            "λ* from then on": f"{phase.bound:.1f} frames/s",
            "within 10% of it after": "never" if phase.recovered_s is None else f"{phase.recovered_s:.1f} s",
            "rate from there": f"{phase.rate:.1f} frames/s",
        }
        for phase in phases
    ]


def churn_scenario(phase_s: float = PHASE_S) -> Scenario:
    """The uneven five; the two fastest die and return in turn."""
    faults = tuple(
        Fault.model_validate({"at_s": phase_s * number, "device": device, "what": what})
        for number, (device, what) in enumerate(FAULTS, 1)
    )
    policy = {"strategy": "planner"}
    return slower(UNEVEN, SLOWER).model_copy(
        update={"name": "churn", "faults": faults, "policy": policy, "frames": 10_000_000}
    )


def churn_simulated(bundle: Path, solve: Solve, phase_s: float = PHASE_S) -> Churn:
    """On virtual time. Raises ConfigError when the bundle does not fit."""
    scenario = churn_scenario(phase_s)
    arrivals = scenario.arrivals.model_copy(update={"until_s": phase_s * (len(FAULTS) + 1)})
    world = World(scenario.model_copy(update={"arrivals": arrivals}), sample_network(bundle), solve)
    world.run()
    times = world.times
    books = [node.source.ledger for node in world.nodes.values() if node.source is not None]
    admitted, failed = sum(book.admitted for book in books), sum(book.failed for book in books)
    answered = sum(book.answered for book in books)
    return Churn(
        _phases("simulated", scenario, bundle, times, phase_s),
        tuple(times),
        admitted,
        answered,
        failed,
        len(world.results) - len({result.frame for result in world.results}),
        admitted - answered - failed,
        tuple(world.decisions),
    )


def churn_live(
    bundle: Path, phase_s: float = PHASE_S, progress: Callable[[float], None] = lambda _seconds: None
) -> Churn:
    """Over a real broker, with processes that are killed. Raises ConfigError when a part does not come up."""
    scenario = churn_scenario(phase_s)
    report = run_live(scenario, bundle, phase_s * (len(FAULTS) + 1), progress)
    tally = report.tally
    return Churn(
        _phases("over a broker", scenario, bundle, report.answered_at, phase_s),
        report.answered_at,
        tally.sent,
        tally.answered,
        tally.failed,
        tally.duplicates,
        tally.lost,
        tuple((at, change.origin) for at, change in report.policies),
    )


def _phases(
    world: str, scenario: Scenario, bundle: Path, times: Sequence[float], phase_s: float
) -> tuple[Phase, ...]:
    manifest = read_manifest(bundle)
    reach = reach_shares(sample_trace(bundle), manifest.thresholds)
    missing: set[str] = set()
    phases = []
    for number, (device, what) in enumerate((("all", "begin"), *FAULTS)):
        if what == "dies":
            missing.add(device)
        missing -= {device} if what == "returns" else set()
        left = tuple(spec for spec in scenario.devices if spec.id not in missing)
        alive = scenario.model_copy(update={"devices": left})
        bound = fluid_bound(problem_of(alive, manifest, reach, placed_freely=True)).rate
        begins, ends = number * phase_s, (number + 1) * phase_s
        recovered = _recovered(times, begins, ends, RECOVERED * bound)
        steady = begins + (recovered or 0.0)
        rate = _count(times, steady, ends) / (ends - steady)
        phases.append(Phase(world, begins, f"{device} {what}", bound, recovered, rate))
    return tuple(phases)


def _recovered(times: Sequence[float], begins: float, ends: float, rate: float) -> float | None:
    """Seconds from `begins` to the first window that ends before `ends` and has the rate."""
    steps = int((ends - begins - WINDOW_S) / 0.1)
    for step in range(steps + 1):
        at = begins + 0.1 * step
        if _count(times, at, at + WINDOW_S) >= rate * WINDOW_S:
            return 0.1 * step
    return None


def _count(times: Sequence[float], begin: float, end: float) -> int:
    return bisect_left(times, end) - bisect_left(times, begin)
