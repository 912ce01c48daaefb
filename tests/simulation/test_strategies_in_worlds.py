"""Strategies, placements, topologies and changes in virtual time."""

from itertools import pairwise

import pytest
from test_world import MANIFEST, NETWORK, everywhere, run, scenario

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.simulation.world import World

EVERY = (1, 2, 3, 4)
MEMORY = [profile.memory for profile in NETWORK.profiles]
LATER = {"kind": "trace", "times_s": [1 + number / 500 for number in range(1000)]}
"""Frames that come when stages have been laid out."""
FAULTS = [
    {"at_s": 0.3, "device": "node-2", "what": "dies"},
    {"at_s": 0.6, "device": "node-3", "what": "changes speed", "macs_per_second": 5e8},
    {"at_s": 0.9, "device": "node-2", "what": "returns"},
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_seed_one_digest_whatever_happens(strategy: str) -> None:
    wanted = scenario(
        frames=600,
        faults=FAULTS,
        policy={"strategy": strategy},
        default_link={"jitter_ms": 2, "loss": 0.01, "duplication": 0.01},
        link_changes=[{"at_s": 0.5, "between": ["node-1", "node-3"], "bandwidth_mbit": 2}],
    )
    first, second = (World(wanted, NETWORK, everywhere) for _ in range(2))
    report = first.run()
    assert second.run() == report
    assert (first.policies, first.decisions) == (second.policies, second.decisions)
    assert (report.answered, report.failed, report.owed) == (600, 0, 0)
    other = World(wanted.model_copy(update={"seed": 2}), NETWORK, everywhere).run()
    assert (other.digest != report.digest) == (strategy != "local")  # which leaves nothing to chance


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_the_traces_answers(strategy: str) -> None:
    """Where a frame is computed has no bearing on its answer, but without exits all leave at the last."""
    found = World(scenario(policy={"strategy": strategy}), NETWORK, everywhere).run()
    usual = run(scenario())
    assert found.answered == 1000
    if strategy == "no-exit":
        assert found.exits == (0, 0, 0, 1000)
    else:
        assert (found.exits, found.accuracy) == (usual.exits, usual.accuracy)


def test_local_leaves_the_others_idle() -> None:
    report = run(scenario(policy={"strategy": "local"}))
    assert report.completed["node-2"] == report.completed["node-3"] == 0
    assert report.throughput == pytest.approx(run(scenario(1)).throughput, rel=0.01)


def test_a_pipeline_runs_each_stage_where_it_is_laid_out() -> None:
    world = World(scenario(4, arrivals=LATER, policy={"strategy": "pipeline"}), NETWORK)
    report = world.run()
    assert sorted(k for own in world.coordinator.policy.placement.values() for k in own) == list(EVERY)
    reach = [sum(report.exits[k:]) for k in range(len(EVERY))]
    assert sorted(report.completed.values(), reverse=True) == reach


@pytest.mark.parametrize("strategy", ["mdi-exit", "ddi", "planner"])
def test_on_a_ring_tasks_go_one_way(strategy: str) -> None:
    names = [f"node-{n}" for n in range(1, 5)]
    given = [
        {"id": n, "source": n == "node-1", "stages": "all" if n == "node-1" else [2, 3, 4]} for n in names
    ]
    wanted = scenario(topology="circular", devices=given, policy={"strategy": strategy})
    world = World(wanted, NETWORK, everywhere)
    world.run()
    senders = {
        name: {n for n, size in node.worker.received.items() if size} for name, node in world.nodes.items()
    }
    ring = {after: before for before, after in pairwise([*names, names[0]])}
    assert all(senders[name] <= {ring[name], name} for name in names)
    assert senders["node-2"]


def test_groups_keep_to_themselves() -> None:
    devices = [{"id": f"node-{n}", "source": n in (1, 3)} for n in range(1, 5)]
    world = World(scenario(topology="groups", group=2, devices=devices), NETWORK)
    report = world.run()
    senders = {
        name: {n for n, size in node.worker.received.items() if size} for name, node in world.nodes.items()
    }
    assert senders["node-2"] == {"node-1"}
    assert senders["node-4"] == {"node-3"}
    assert report.answered == 1000
    one, two = report.completed["node-2"], report.completed["node-4"]
    assert one == pytest.approx(two, rel=0.2)


# Memory and placement


def test_what_has_no_memory_for_the_network_gets_no_share_of_it() -> None:
    devices = [
        {"id": "node-1", "source": True},
        {"id": "node-2", "memory": sum(MEMORY)},
        {"id": "node-3", "memory": sum(MEMORY) - 1},
    ]
    world = World(scenario(devices=devices, arrivals=LATER, policy={"strategy": "ddi"}), NETWORK)
    report = world.run()
    assert world.coordinator.policy.placement == {"node-1": EVERY, "node-2": EVERY, "node-3": ()}
    assert report.completed["node-2"] > 0
    assert report.completed["node-3"] == 0


def test_the_solver_hears_of_memory_speed_and_neighbours() -> None:
    asked: list[tuple[System, Policy]] = []

    def solve(system: System, policy: Policy) -> Plan:
        asked.append((system, policy))
        return everywhere(system, policy)

    devices = [{"id": "node-1", "source": True, "macs_per_second": 2e9}, {"id": "node-2", "memory": 10**6}]
    World(scenario(frames=3000, devices=devices, policy={"strategy": "planner"}), NETWORK, solve).run()
    one, two = asked[-1][0].members
    assert (one.source, two.source, one.memory, two.memory) == (True, False, None, 10**6)
    assert one.seconds[0] == pytest.approx(MANIFEST.stages[0].macs / 2e9)
    assert asked[-1][0].links.keys() == {("node-1", "node-2"), ("node-2", "node-1")}
    assert asked[-1][1].strategy == "planner"


@pytest.mark.parametrize("load_s", [0.05, 1.0])
def test_a_plan_comes_into_force_as_fast_as_devices_load(load_s: float) -> None:
    split = {"node-1": (1, 2), "node-2": (3, 4)}

    def solve(_system: System, policy: Policy) -> Plan:
        shares = {n: {k: {m: 1.0 for m, own in split.items() if k in own} for k in EVERY} for n in split}
        return Plan(100.0, 100.0, policy.thresholds, split, shares, reason="split")

    devices = [{"id": "node-1", "source": True}, {"id": "node-2", "stages": []}]
    wanted = scenario(
        devices=devices, policy={"strategy": "planner"}, load_s=load_s, solve_s=0.25, frames=2000
    )
    world = World(wanted, NETWORK, solve)
    report = world.run()
    when = {origin.split("(")[1].rstrip(")"): at for at, origin, _ in world.policies if "(" in origin}
    assert list(when) == ["loading", "routing", "letting go"]
    assert when["loading"] == pytest.approx(world.policy.planning.interval_s + 0.25)
    said = 2 * world.policy.report_interval_s
    assert load_s < when["routing"] - when["loading"] < load_s + said
    assert when["letting go"] - when["routing"] < said
    assert {name: node.worker.stages for name, node in world.nodes.items()} == {
        name: frozenset(own) for name, own in split.items()
    }
    assert report.completed["node-2"] > 0
    assert (report.answered, report.failed) == (2000, 0)
    # Its frames wait at no time: while one loads the other works on.
    assert max(b - a for a, b in pairwise(world.times)) < 0.1


def test_placement_of_the_scenario_is_obeyed_from_the_start() -> None:
    given = {"placement": {"node-1": [1], "node-2": [2, 3, 4], "node-3": []}}
    report = run(scenario(policy=given))
    usual = report.exits
    assert report.completed == {
        "node-1": 1000,
        "node-2": sum(n * k for n, k in enumerate(usual)),
        "node-3": 0,
    }


def test_a_planner_without_a_plan_goes_by_the_published_rules() -> None:
    def solve(_system: System, _policy: Policy) -> Plan:
        raise ConfigError("stage 4 fits nowhere")

    world = World(scenario(frames=3000, policy={"strategy": "planner"}), NETWORK, solve)
    assert world.run().answered == 3000
    [(at, decision), *_] = world.decisions
    assert decision == "first plan: no plan: stage 4 fits nowhere; the last policy stays in force"
    assert at == pytest.approx(world.policy.planning.interval_s + world.scenario.solve_s)
    alone = World(scenario(frames=3000, policy={"strategy": "planner"}), NETWORK)
    assert alone.run().answered == 3000
    assert "no plan: this simulation was given no solver" in alone.decisions[0][1]


def test_who_dies_and_returns_is_planned_for() -> None:
    faults = [
        {"at_s": 2, "device": "node-2", "what": "dies"},
        {"at_s": 4, "device": "node-2", "what": "returns"},
    ]
    wanted = scenario(frames=4000, faults=faults, policy={"strategy": "planner"})
    world = World(wanted, NETWORK, everywhere)
    report = world.run()
    assert (report.answered, report.failed) == (4000, 0)
    reasons = [reason for _, reason in world.decisions]
    assert [r for r in reasons if "left" in r or "joined" in r] == [
        "node-2 left: everywhere",
        "node-2 joined: everywhere",
    ]
    named = [set(policy.placement) for at, _, policy in world.policies if 3 < at < 4]
    assert all("node-2" not in placement for placement in named)
    assert "node-2" in world.coordinator.policy.placement


def test_an_unknown_strategy_is_a_mistake_of_the_scenario() -> None:
    with pytest.raises(ConfigError, match="strategy: tea is not one of"):
        run(scenario(policy={"strategy": "tea"}))


# Changes


def rate(world: World, begin: float, end: float) -> float:
    return sum(begin <= at < end for at in world.times) / (end - begin)


def test_a_link_that_becomes_slow_slows_what_goes_over_it() -> None:
    held = [{"id": "node-1", "source": True, "stages": [1, 2]}, {"id": "node-2", "stages": [3, 4]}]
    changes = [
        {"at_s": 1, "between": ["node-2", "node-1"], "bandwidth_mbit": 1},
        {"at_s": 3, "between": ["node-1", "node-2"], "bandwidth_mbit": 100},
    ]
    world = World(scenario(frames=4000, devices=held, link_changes=changes), NETWORK)
    assert world.run().failed == 0
    # What was on the slow line at 3 s still takes the time of a slow line.
    before, meanwhile, after = rate(world, 0, 1), rate(world, 1.5, 3), rate(world, 11, 15)
    assert meanwhile < 0.6 * before
    assert after == pytest.approx(before, rel=0.2)


def test_a_device_that_becomes_slow_is_as_fast_as_it_is_then() -> None:
    faults = [{"at_s": 2, "device": "node-1", "what": "changes speed", "macs_per_second": 2.5e8}]
    world = World(scenario(1, frames=1200, faults=faults), NETWORK)
    world.run()
    assert rate(world, 2.5, 5) == pytest.approx(rate(world, 0.5, 2) / 4, rel=0.15)


def test_a_device_that_becomes_slow_is_planned_for() -> None:
    faults = [{"at_s": 2, "device": "node-2", "what": "changes speed", "macs_per_second": 2e8}]
    world = World(
        scenario(2, frames=4000, faults=faults, policy={"strategy": "planner"}), NETWORK, everywhere
    )
    world.run()
    late = [reason for at, reason in world.decisions if at > 2]
    assert late
    assert all(reason.startswith("node-2 takes ") for reason in late)


def test_stages_that_a_device_is_started_with_must_have_room_there() -> None:
    devices = [{"id": "node-1", "source": True, "memory": sum(MEMORY) - 5}]
    with pytest.raises(ConfigError, match=r"devices\.node-1\.stages: \[1, 2, 3, 4\] .*: 5 bytes short"):
        World(scenario(devices=devices), NETWORK)
