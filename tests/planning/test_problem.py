"""What cannot be, and what the error says of it."""

import pytest
from cases import device, problem

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.fluid import Search, fluid_bound
from mqtt_mdi.planning.problem import Device, reached, useful_holders

ONE, TWO, ALL = frozenset({1}), frozenset({2}), frozenset({1, 2, 3})


@pytest.mark.parametrize(
    ("devices", "more", "message"),
    [
        (
            [device("a", memory=390.0), device("b", memory=350.0)],
            {},
            "stage 3 needs 400 .* a has .* 10 short",
        ),
        ([device("a", memory=400.0), device("b", memory=250.0)], {}, "do not fit: .* lack 50 bytes"),
        ([device("a", memory=650.0)], {}, "do not fit: .* lack 50 bytes"),
        ([device("a", stages=ONE), device("b", stages=TWO)], {}, "nobody holds stage 3"),
        ([device("a", stages=ALL, memory=650.0)], {}, "devices.a: .* 50 bytes short"),
        (
            [device("a", stages=ONE), device("b", stages=ALL)],
            {"links": {}},
            "disconnected: .* from a .* stage 2",
        ),
        (
            [device("a", stages=ONE), device("b", stages=TWO), device("c", stages=ALL)],
            {"links": {("a", "b"): 1.0, ("c", "b"): 1.0}},
            "disconnected: a path .* from b .* stage 3.* on c only",
        ),
        (
            [device("a", stages=TWO), device("b", stages=ALL)],
            {"source_runs_stage_1": True},
            "disconnected: a frame, which stays .* from a .* stage 1.* on b only",
        ),
        ([device("a", memory=300.0), device("b", memory=400.0)], {"links": {}}, "disconnected|do not fit"),
    ],
)
def test_no_frame_can_be_processed(devices: list[Device], more: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fluid_bound(problem(*devices, **more))


@pytest.mark.parametrize(
    ("devices", "more", "message"),
    [
        ([device("a"), device("a")], {"links": {}}, "two devices"),
        ([device("a")], {"sources": ()}, "sources: at least one"),
        ([device("a")], {"sources": ("z",)}, "no device is called z"),
        ([device("a")], {"links": {("a", "z"): 1.0}}, "no device is called z"),
        ([device("a"), device("b")], {"link": 0.0}, "links.a->b: 0.0"),
        ([device("a")], {"broker": -1.0}, "broker: -1.0"),
        ([device("a")], {"reach": (0.9, 0.5, 0.2)}, "reach: every frame"),
        ([device("a")], {"reach": (1.0, 0.5, 0.6)}, "reach: shares must not rise"),
        ([device("a")], {"reach": (1.0, 0.5, float("nan"))}, "reach: shares"),
        ([device("a")], {"input_bytes": (1.0, 1.0)}, "input_bytes: 2 values, 3 stages"),
        ([device("a")], {"stage_bytes": (1.0, -1.0, 1.0)}, "stage_bytes: .* at least 0"),
        ([device("a", seconds=(1.0, 0.0, 1.0))], {}, r"devices.a.seconds: .* at least 1e-09"),
        ([device("a", seconds=(1.0, float("inf"), 1.0))], {}, "devices.a.seconds: .* finite"),
        ([device("a", stages=frozenset({4}))], {}, r"devices.a.stages: \[4\], there are 1 to 3"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    devices: list[Device], more: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        problem(*devices, **more)


def test_a_search_without_time_says_so() -> None:
    devices = [device(f"d{n}", 1 + n % 3, memory=410.0 + n) for n in range(12)]
    with pytest.raises(ConfigError, match="no placement found in 0 s"):
        fluid_bound(problem(*devices), Search(time_limit_s=0.0))


def test_holders_count_only_where_frames_can_get_to() -> None:
    devices = (device("a", stages=ONE), device("b", stages=ALL), device("c", stages=ALL))
    there = problem(*devices, links={("a", "b"): 1.0, ("c", "a"): 1.0})
    assert useful_holders(there) == [{"a", "b"}, {"b"}, {"b"}]


def test_reached_follows_directions() -> None:
    assert reached({"a", "x"}, [("a", "b"), ("b", "c"), ("d", "a")]) == {"a", "b", "c", "x"}
