"""The cut moves to a later exit when the link gets slow, and frames go on being answered."""

from pathlib import Path

import pytest

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.planning.solve import solver
from mqtt_mdi.simulation.compute import network_of
from mqtt_mdi.simulation.scenario import read_scenario
from mqtt_mdi.simulation.world import World

SCENARIO = Path(__file__).parents[2] / "benchmarks" / "scenarios" / "slow-link.yaml"


@pytest.fixture(scope="module")
def world() -> World:
    scenario = read_scenario(SCENARIO)
    world = World(
        scenario,
        network_of(read_manifest(SHIPPED_BUNDLE), read_trace(SHIPPED_BUNDLE), scenario.seed),
        solver(SHIPPED_BUNDLE),
    )
    world.run()
    return world


def sent_on(world: World, second: float) -> set[int]:
    """The stages whose inputs node-1 sends to node-2, by the policy at a time."""
    policy = [policy for at, _, policy in world.policies if at <= second][-1]
    return {stage for stage, split in policy.shares["node-1"].items() if split.get("node-2", 0) > 0.1}


def test_the_cut_moves_behind_the_early_exits(world: World) -> None:
    assert sent_on(world, 15.0) >= {1}
    assert {3} <= sent_on(world, 30.0) <= {3, 4}


def test_the_reason_names_the_link_and_what_it_carries(world: World) -> None:
    moved = [reason for at, reason in world.decisions if at > 15]
    assert moved[0].startswith("node-1 to node-2 carries ")
    assert "any amount were planned" in moved[0]


def test_the_rate_comes_back_to_what_the_slow_link_allows(world: World) -> None:
    def rate(begin: float, end: float) -> float:
        return sum(begin <= at < end for at in world.times) / (end - begin)

    clogged, moved = rate(16, 20), rate(25, 35)
    assert moved > 3 * clogged
    assert world.coordinator.replanner.plan is not None
    assert moved > 0.7 * world.coordinator.replanner.plan.rate


def test_nothing_is_lost_on_the_way(world: World) -> None:
    assert len(world.results) == world.scenario.frames
    assert all(result.status == "ok" for result in world.results)
