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


def test_topologies() -> None:
    devices = [{"id": name, "source": name == "a"} for name in "abcd"]
    mesh = Scenario.model_validate({**GOOD, "devices": devices})
    ring = Scenario.model_validate({**GOOD, "devices": devices, "topology": "circular"})
    assert len(mesh.edges()) == 12
    assert {a for a, b in ring.edges() if b == "a"} == {"b", "d"}


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
