"""One scenario in both worlds: what the simulator says and what a real broker shows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.trace import ExitTrace, read_trace
from mqtt_mdi.experiments.live import LiveReport, run_live
from mqtt_mdi.planning.fluid import fluid_bound
from mqtt_mdi.planning.reach import reach_shares
from mqtt_mdi.simulation.bound import problem_of
from mqtt_mdi.simulation.compute import Network, network_of
from mqtt_mdi.simulation.scenario import Scenario
from mqtt_mdi.simulation.world import Solve, World

SETTLED_S = 2.0
"""Seconds after the last change of policy from which a rate counts as steady."""


@dataclass(frozen=True)
class Comparison:
    """Frames a second, steady, of one scenario, and λ* of its devices at the sample's exits."""

    simulated: float
    live: float
    bound: float
    report: LiveReport

    @property
    def ratio(self) -> float:
        """Live as a share of simulated."""
        return self.live / self.simulated

    @property
    def efficiency(self) -> float:
        """Live as a share of λ*."""
        return self.live / self.bound


def slower(scenario: Scenario, factor: float) -> Scenario:
    """The same system with every device's speed multiplied by a factor."""
    devices = tuple(
        spec.model_copy(update={"macs_per_second": spec.macs_per_second * factor})
        for spec in scenario.devices
    )
    return scenario.model_copy(update={"devices": devices})


def sample_network(bundle: Path) -> Network:
    """A bundle's network answering the frames that a sensor sends: its sample, in order, again and again."""
    trace = sample_trace(bundle)
    return network_of(read_manifest(bundle), trace, seed=None)


def sample_trace(bundle: Path) -> ExitTrace:
    """The exit trace of a bundle's sample alone."""
    trace, rows = read_trace(bundle), read_sample(bundle).indices
    return ExitTrace(trace.score[rows], trace.label[rows], trace.truth[rows])


def compare(
    scenario: Scenario,
    bundle: Path,
    solve: Solve,
    seconds: float,
    progress: Callable[[float], None] = lambda _seconds: None,
) -> Comparison:
    """Run a scenario without faults in both worlds for so many seconds of frames.

    Rates are taken over the same seconds in both, from when the slower of them had settled.
    """
    report = run_live(scenario, bundle, seconds, progress)
    endless = scenario.model_copy(update={"frames": 10_000_000, "limit_s": seconds})
    world = World(endless, sample_network(bundle), solve)
    world.run()
    changes = [at for at, _ in report.policies] + [at for at, _, _ in world.policies]
    begin = max(0.0, *changes) + SETTLED_S
    manifest = read_manifest(bundle)
    reach = reach_shares(sample_trace(bundle), world.policies[-1][2].thresholds)
    bound = fluid_bound(problem_of(scenario, manifest, reach, placed_freely=True)).rate
    simulated = sum(begin <= at < seconds for at in world.times) / (seconds - begin)
    return Comparison(simulated, report.rate(begin, seconds), bound, report)
