"""Scenario files: what is taken, and what each mistake is called."""

from pathlib import Path

import pytest
import yaml

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.simulation.scenario import Scenario, read_scenario

EXAMPLES = Path(__file__).parents[2] / "benchmarks" / "scenarios"
GOOD = {
    "name": "two",
    "arrivals": {"kind": "fixed", "rate": 10},
    "devices": [{"id": "a", "source": True}, {"id": "b"}],
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_scenario(path: Path) -> None:
    assert read_scenario(path).devices


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"speed": 1}, "speed"),
        ({"arrivals": {"kind": "poisson"}}, "rate"),
        ({"arrivals": {"kind": "trace", "times_s": [2, 1]}}, "ascending"),
        ({"devices": [{"id": "a"}, {"id": "b"}]}, "no device is a source"),
        ({"devices": [{"id": "a", "source": True}, {"id": "a"}]}, "one id"),
        ({"topology": "links"}, "disconnected"),
        ({"topology": "links", "links": [{"between": ["a", "c"]}]}, "no device is called c"),
        ({"faults": [{"at_s": 1, "device": "z", "what": "dies"}]}, "no device is called z"),
        ({"default_link": {"loss": 1.5}}, "default_link.loss"),
        ({"devices": [{"id": "a b", "source": True}]}, "devices.0.id"),
        ({"devices": [{"id": "a", "source": True, "speed": 1}]}, "devices.0.speed: Extra inputs"),
        ({"devices": [{"id": "a", "source": True, "memory": -1}]}, "devices.0.memory"),
        ({"devices": []}, "devices"),
        ({"topology": "star"}, "topology"),
        ({"topology": "groups", "group": 0}, "group: Input should be greater"),
        ({"topology": "groups", "group": 1}, "disconnected: no path from a source to b"),
        ({"topology": "links", "links": [{"between": ["a"]}]}, r"links\.0\.between"),
        ({"link_changes": [{"between": ["a", "b"]}]}, r"link_changes\.0\.at_s: Field required"),
        ({"link_changes": [{"at_s": 1, "between": ["a", "z"]}]}, "no device is called z"),
        ({"link_changes": [{"at_s": 1, "between": ["a", "b"], "loss": 1}]}, r"link_changes\.0\.loss"),
        (
            {"faults": [{"at_s": 1, "device": "b", "what": "changes speed"}]},
            r"faults\.0: .*macs_per_second belongs to a change of speed",
        ),
        (
            {"faults": [{"at_s": 1, "device": "b", "what": "dies", "macs_per_second": 1}]},
            r"faults\.0: .*macs_per_second",
        ),
        ({"faults": [{"at_s": 1, "device": "a", "what": "dies"}]}, "faults: source a cannot die"),
        ({"faults": [{"at_s": 1, "device": "b", "what": "sleeps"}]}, r"faults\.0\.what"),
        ({"load_s": -1}, "load_s"),
        ({"solve_s": -1}, "solve_s"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: dict[str, object], names: str) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(ConfigError, match=names):
        read_scenario(path)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_what_is_no_scenario_at_all(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"scenario\.yaml"):
        read_scenario(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_scenario(tmp_path / "none.yaml")


def edges(names: str, topology: str, sources: str = "a", **change: object) -> set[str]:
    devices = [{"id": name, "source": name in sources} for name in names]
    scenario = Scenario.model_validate({**GOOD, "devices": devices, "topology": topology, **change})
    return {a + b for a, b in scenario.edges()}


def test_topologies() -> None:
    assert len(edges("abcd", "mesh")) == 12
    assert edges("abcd", "circular") == {"ab", "bc", "cd", "da"}
    assert edges("ab", "circular") == {"ab", "ba"}
    assert edges("a", "circular") == edges("a", "mesh") == set()
    assert edges("abcde", "groups", "ace", group=2) == {"ab", "ba", "cd", "dc"}
    assert edges("abcd", "groups", "a", group=4) == edges("abcd", "mesh")
    assert edges("abc", "links", links=[{"between": ("a", "b")}, {"between": ("b", "c")}]) == {
        "ab",
        "ba",
        "bc",
        "cb",
    }


def test_a_link_of_no_pair_adds_none() -> None:
    ring = {"ab", "bc", "ca"}
    assert edges("abc", "circular", links=[{"between": ("a", "b"), "latency_ms": 9}]) == ring


def test_a_link_overrides_the_default() -> None:
    scenario = Scenario.model_validate(
        {
            **GOOD,
            "default_link": {"latency_ms": 7, "bandwidth_mbit": 5},
            "links": [{"between": ["b", "a"], "bandwidth_mbit": 1}],
        }
    )
    for pair in (("a", "b"), ("b", "a")):
        assert scenario.edges()[pair].latency_ms == 7
        assert scenario.edges()[pair].bandwidth_mbit == 1
