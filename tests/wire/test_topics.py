from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mqtt_mdi.errors import ConfigError, ProtocolError
from mqtt_mdi.wire.topics import MOST_PARSED, Topic, Topics, identifier

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
STAGES = st.integers(1, 64)


@given(NAMES, NAMES, STAGES)
def test_every_topic_built_is_taken_apart_again(pipeline: str, name: str, stage: int) -> None:
    topics = Topics(pipeline)
    built = {
        topics.frames(name): Topic("frames", name),
        topics.stage(stage, name): Topic("stage", name, stage),
        topics.stage_any(stage): Topic("stage", "any", stage),
        topics.exits(name): Topic("exits", name),
        topics.results(name): Topic("results", name),
        topics.truth(name): Topic("truth", name),
        topics.device(name): Topic("devices", name),
        topics.deadletter(name): Topic("deadletter", name),
        topics.model_stage(stage): Topic("model/stage", stage=stage),
        topics.policy: Topic("policy"),
        topics.policy_set: Topic("policy/set"),
        topics.policy_result: Topic("policy/result"),
        topics.manifest: Topic("model/manifest"),
        topics.metrics: Topic("metrics"),
        topics.coordinator: Topic("coordinator/state"),
    }
    assert {topic: topics.parse(topic) for topic in built} == built


def test_without_a_name_a_topic_filter_comes_out() -> None:
    topics = Topics("demo")
    filters = [topics.frames(), topics.results(), topics.truth(), topics.device(), topics.deadletter()]
    assert filters == [
        "mdi/v1/demo/frames/+",
        "mdi/v1/demo/results/+",
        "mdi/v1/demo/truth/+",
        "mdi/v1/demo/devices/+/state",
        "mdi/v1/demo/deadletter/+",
    ]
    assert topics.stage_shared(2) == "$share/stage-2/mdi/v1/demo/stage/2/any"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "mdi/v1/demo",
        "mdi/v1/demo/",
        "mdi/v1/other/policy",
        "mdi/v1/demo2/policy",
        "mdi/v2/demo/policy",
        "mdi/v1/demo/policy/",
        "mdi/v1/demo/Policy",
        "mdi/v1/demo/policy/reset",
        "mdi/v1/demo/frames",
        "mdi/v1/demo/frames/",
        "mdi/v1/demo/frames/a b",
        "mdi/v1/demo/frames/+",
        "mdi/v1/demo/frames/a/b",
        "mdi/v1/demo/frames/a\n",
        "mdi/v1/demo/frames/" + "a" * 65,
        "mdi/v1/demo/stage/0/a",
        "mdi/v1/demo/stage/01/a",
        "mdi/v1/demo/stage/-1/a",
        "mdi/v1/demo/stage/100/a",
        "mdi/v1/demo/stage/\N{ARABIC-INDIC DIGIT TWO}/a",
        "mdi/v1/demo/stage/1",
        "mdi/v1/demo/stage/1/",
        "mdi/v1/demo/devices//state",
        "mdi/v1/demo/devices/a",
        "mdi/v1/demo/model/stage/x",
        "mdi/v1/demo/model/stage",
    ],
)
def test_any_other_topic_is_refused(topic: str) -> None:
    with pytest.raises(ProtocolError):
        Topics("demo").parse(topic)


@given(st.text(max_size=80))
def test_any_text_is_a_topic_or_a_protocol_error(text: str) -> None:
    topics = Topics("demo")
    for topic in (text, f"{topics.root}/{text}"):
        with suppress(ProtocolError):
            assert topics.parse(topic).kind


@pytest.mark.parametrize("name", ["", "a b", "a/b", "+", "#", "\u00e9", "a\n", "a" * 65])
def test_a_name_that_cannot_stand_in_a_topic_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--id"):
        identifier(name, "--id")
    with pytest.raises(ConfigError, match="pipeline"):
        Topics(name)


def test_a_name_that_can_is_given_back() -> None:
    assert identifier("cam_1-B", "--id") == "cam_1-B"


def test_what_is_remembered_of_topics_is_bounded() -> None:
    topics = Topics("p")
    for number in range(MOST_PARSED + 10):
        assert topics.parse(topics.results(f"cam{number}")) == Topic("results", f"cam{number}")
    assert len(topics._parsed) == MOST_PARSED


@given(st.lists(NAMES, min_size=2, max_size=3), st.lists(NAMES, min_size=2, max_size=3))
def test_no_two_processes_are_called_alike(first: list[str], second: list[str]) -> None:
    assume(first != second)
    assert Topics(first[0]).client_id(*first[1:]) != Topics(second[0]).client_id(*second[1:])
    assert Topics("cams").client_id("device", "a-b") != Topics("cams-a").client_id("device", "b")
