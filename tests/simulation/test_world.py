"""The simulated world: deterministic, lossless where it must be, and true to the exit trace."""

from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.trace import operating_point, read_trace, replay
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.simulation.compute import Network, network_of
from mqtt_mdi.simulation.report import Report
from mqtt_mdi.simulation.scenario import Scenario
from mqtt_mdi.simulation.world import World

MANIFEST = read_manifest(SHIPPED_BUNDLE)
TRACE = read_trace(SHIPPED_BUNDLE)
NETWORK = network_of(MANIFEST, TRACE, 1)


def scenario(count: int = 3, **change: object) -> Scenario:
    devices = [{"id": f"node-{n}", "source": n == 1} for n in range(1, count + 1)]
    given_fields = {
        "name": "test",
        "frames": 1000,
        "arrivals": {"kind": "saturating"},
        "devices": devices,
        **change,
    }
    return Scenario.model_validate(given_fields)


def run(wanted: Scenario, network: Network = NETWORK) -> Report:
    return World(wanted, network).run()


def everywhere(system: System, policy: Policy) -> Plan:
    """Every stage wherever it fits, and everything shared out evenly among those a device may send to."""
    placement = {}
    for member in system.members:
        room = float("inf") if member.memory is None else member.memory
        ends = accumulate(profile.memory for profile in system.profiles)
        placement[member.device] = tuple(k for k, end in enumerate(ends, 1) if end <= room)
    shares: dict[str, dict[int, dict[str, float]]] = {}
    for name in placement:
        for k in range(1, len(system.profiles) + 1):
            near = [
                n for n, own in placement.items() if k in own and (n == name or (name, n) in system.links)
            ]
            shares.setdefault(name, {})[k] = {n: 1 / len(near) for n in near}
    return Plan(100.0, 100.0, policy.thresholds, placement, shares, reason="everywhere")


def test_one_seed_one_digest() -> None:
    wanted = scenario(default_link={"jitter_ms": 2, "loss": 0.01, "duplication": 0.01})
    assert run(wanted) == run(wanted)
    assert run(wanted).digest != run(wanted.model_copy(update={"seed": 2})).digest


def test_one_device_runs_at_the_rate_of_its_work() -> None:
    report = run(scenario(1, frames=10_000))
    shares = operating_point(TRACE, MANIFEST.thresholds, MANIFEST.macs_shares)
    expected = 1e9 / (shares.macs_share * MANIFEST.full_macs)
    assert report.throughput == pytest.approx(expected, rel=0.01)
    assert report.accuracy == pytest.approx(shares.accuracy, abs=1e-9)


def test_exits_are_the_traces_whatever_the_topology() -> None:
    """Parity: where a frame is computed has no bearing on the exit it takes."""
    wanted = scenario(5, topology="circular", default_link={"jitter_ms": 5})
    world = World(wanted, NETWORK)
    world.run()
    exits = replay(TRACE, MANIFEST.thresholds)
    replayed = network_of(MANIFEST, TRACE, wanted.seed)
    assert replayed == NETWORK
    order = {tuple(scores): index for index, scores in enumerate(TRACE.score.tolist())}
    for result in world.results:
        sample = order[tuple(NETWORK.scores[int(result.frame_id)])]
        assert result.exit_stage == exits[sample]


def test_more_devices_answer_more() -> None:
    alone, three = run(scenario(1)), run(scenario(3))
    assert three.throughput > 1.5 * alone.throughput
    assert sum(three.completed.values()) == sum(alone.completed.values())


@pytest.mark.parametrize("kind", ["fixed", "poisson"])
def test_a_rate_below_capacity_is_kept(kind: str) -> None:
    report = run(scenario(arrivals={"kind": kind, "rate": 100}, frames=2000))
    assert report.answered == 2000
    assert report.throughput == pytest.approx(100, rel=0.1)


def test_frames_at_given_times() -> None:
    report = run(scenario(arrivals={"kind": "trace", "times_s": [0.5, 1.0, 4.0]}, frames=3))
    assert report.answered == 3
    assert 4.0 < report.seconds < 4.1


def test_overload_is_refused_and_counted() -> None:
    policy = {"window": 8, "pending_limit": 8}
    report = run(scenario(1, arrivals={"kind": "fixed", "rate": 2000}, policy=policy))
    assert report.refused > 0
    assert report.answered + report.failed + report.refused == 1000


def test_a_slow_link_slows_and_loses_nothing() -> None:
    held = [
        {"id": "node-1", "source": True, "stages": [1, 2]},
        {"id": "node-2", "stages": [3, 4]},
    ]
    fast = run(scenario(devices=held))
    slow = run(scenario(devices=held, default_link={"bandwidth_mbit": 2}))
    assert slow.answered == fast.answered == 1000
    assert slow.throughput < 0.8 * fast.throughput


def test_a_device_dies_and_returns() -> None:
    faults = [
        {"at_s": 1, "device": "node-2", "what": "dies"},
        {"at_s": 3, "device": "node-2", "what": "returns"},
    ]
    report = run(scenario(faults=faults, frames=3000))
    assert (report.answered, report.failed, report.owed) == (3000, 0, 0)


def test_policy_is_part_of_the_scenario() -> None:
    never = run(scenario(policy={"thresholds": [2, 2, 2]}))
    assert never.exits == (0, 0, 0, 1000)
    with pytest.raises(ConfigError, match="lease_s"):
        run(scenario(policy={"lease_s": -1}))


def test_stages_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="nobody holds stage 4"):
        run(scenario(devices=[{"id": "node-1", "source": True, "stages": [1, 2, 3]}]))
    with pytest.raises(ConfigError, match=r"node-1\.stages"):
        run(scenario(devices=[{"id": "node-1", "source": True, "stages": [1, 2, 3, 4, 9]}]))


def test_a_trace_of_another_network() -> None:
    with pytest.raises(ConfigError, match="do not belong together"):
        network_of(MANIFEST, type(TRACE)(TRACE.score[:, :3], TRACE.label[:, :3], TRACE.truth), 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from([(s, t) for s in STRATEGIES for t in ("mesh", "circular")]),
    count=st.integers(1, 5),
    seed=st.integers(0, 1000),
    loss=st.sampled_from([0.0, 0.05, 0.2]),
    duplication=st.sampled_from([0.0, 0.1]),
    jitter=st.sampled_from([0.0, 5.0, 50.0]),
    window=st.integers(1, 64),
    dies_at=st.one_of(st.none(), st.floats(0, 2)),
)
def test_whatever_the_network_does_each_frame_is_answered_once(
    kind: tuple[str, str],
    count: int,
    seed: int,
    loss: float,
    duplication: float,
    jitter: float,
    window: int,
    dies_at: float | None,
) -> None:
    faults = [] if dies_at is None or count == 1 else [{"at_s": dies_at, "device": "node-2", "what": "dies"}]
    wanted = scenario(
        count,
        seed=seed,
        frames=200,
        topology=kind[1],
        faults=faults,
        policy={"strategy": kind[0], "window": window, "max_attempts": 20},
        default_link={"loss": loss, "duplication": duplication, "jitter_ms": jitter},
    )
    report = World(wanted, NETWORK, everywhere).run()
    assert report.answered + report.failed == 200
    assert report.admitted == 200
    assert report.owed == 0


def test_paced_admission_keeps_the_queue_short() -> None:
    """Algorithm 3: near the rate of the window's rule, at a fraction of its latency."""
    policy = {"admission": {"rule": "paced"}, "window": 5000}
    paced, full = run(scenario(frames=6000, policy=policy)), run(scenario(frames=6000))
    assert (paced.answered, paced.failed) == (6000, 0)
    assert paced.throughput > 0.8 * full.throughput
    assert sorted(paced.latencies_ms)[3000] < 0.6 * sorted(full.latencies_ms)[3000]


def test_adaptive_thresholds_trade_accuracy_for_rate() -> None:
    """Algorithm 4: surer than the shipped thresholds with time to spare, less sure when short of it."""
    policy = {"adaptation": {"rule": "adaptive"}, "pending_limit": 100_000}

    def adaptive(rate: float) -> Report:
        return run(scenario(frames=6000, arrivals={"kind": "poisson", "rate": rate}, policy=policy))

    easy, hard = adaptive(150), adaptive(520)
    assert easy.accuracy is not None
    assert hard.accuracy is not None
    assert easy.accuracy > hard.accuracy
    assert sum(easy.exits[2:]) > sum(hard.exits[2:])
    assert (easy.failed, hard.failed) == (0, 0)
