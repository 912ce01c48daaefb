"""The simulated world keeps below the fluid bound, whatever happens in it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.trace import operating_point, read_trace
from mqtt_mdi.planning.fluid import fluid_bound
from mqtt_mdi.planning.reach import reach_of_exits, reach_shares
from mqtt_mdi.simulation.bound import problem_of
from mqtt_mdi.simulation.compute import network_of
from mqtt_mdi.simulation.scenario import Scenario
from mqtt_mdi.simulation.world import World

MANIFEST = read_manifest(SHIPPED_BUNDLE)
TRACE = read_trace(SHIPPED_BUNDLE)
NETWORK = network_of(MANIFEST, TRACE, 1)


def test_reach_is_what_has_not_left_before() -> None:
    assert reach_of_exits((5, 0, 3, 2)) == (1.0, 0.5, 0.5, 0.2)
    assert reach_of_exits((4, 0)) == (1.0, 0.0)
    left = operating_point(TRACE, MANIFEST.thresholds, MANIFEST.macs_shares).exits
    expected = [1 - sum(left[:k]) for k in range(4)]
    assert reach_shares(TRACE, MANIFEST.thresholds) == pytest.approx(expected)


def test_a_scenario_becomes_a_problem() -> None:
    scenario = Scenario.model_validate(
        {
            "name": "two",
            "arrivals": {"kind": "saturating"},
            "devices": [
                {"id": "a", "source": True, "macs_per_second": 1e9, "stages": [1, 2]},
                {"id": "b", "macs_per_second": 2e9},
            ],
            "default_link": {"bandwidth_mbit": 8},
        }
    )
    problem = problem_of(scenario, MANIFEST, (1.0, 0.5, 0.25, 0.1))
    assert problem.sources == ("a",)
    assert problem.devices[0].stages == {1, 2}
    assert problem.devices[1].stages == {1, 2, 3, 4}
    assert problem.devices[1].seconds[0] == pytest.approx(MANIFEST.stages[0].macs / 2e9)
    assert problem.links == {("a", "b"): 1e6, ("b", "a"): 1e6}
    assert problem.input_bytes[1] == MANIFEST.stages[0].activation_bytes + 200


@settings(max_examples=25, deadline=None)
@given(
    speeds=st.lists(st.sampled_from([1.0, 2.0, 8.0]), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    bandwidth=st.sampled_from([1.0, 10.0, 100.0]),
    topology=st.sampled_from(["mesh", "circular"]),
    held=st.lists(st.sets(st.integers(1, 4), min_size=1), min_size=4, max_size=4),
    loss=st.sampled_from([0.0, 0.05]),
)
def test_no_simulation_beats_the_bound(
    speeds: list[float], seed: int, bandwidth: float, topology: str, held: list[set[int]], loss: float
) -> None:
    """Without tolerance for chance: s_k are those of the very frames answered."""
    scenario = Scenario.model_validate(
        {
            "name": "any",
            "seed": seed,
            "frames": 150,
            "arrivals": {"kind": "saturating"},
            "topology": topology,
            "default_link": {"bandwidth_mbit": bandwidth, "loss": loss},
            "devices": [
                {
                    "id": f"d{n}",
                    "source": n == 0,
                    "macs_per_second": speed * 1e9,
                    "stages": "all" if n == 0 else sorted(held[n]),
                }
                for n, speed in enumerate(speeds)
            ],
        }
    )
    report = World(scenario, NETWORK).run()
    if report.answered:
        bound = fluid_bound(problem_of(scenario, MANIFEST, reach_of_exits(report.exits)))
        assert report.throughput <= bound.rate * (1 + 1e-6)
