"""JSON merge patches (RFC 7396) and the policy's own limits."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mqtt_mdi.core.policy import Policy, merge_patch

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_cases_of_the_rfcs_appendix_a(original: object, patch: object, result: object) -> None:
    assert merge_patch(original, patch) == result


@given(json_values, json_values)
def test_a_patch_changes_its_target_once_and_only_in_the_copy(target: Any, patch: Any) -> None:  # noqa: ANN401
    before = json.dumps(target)
    merged = merge_patch(target, patch)
    assert json.dumps(target) == before
    assert merge_patch(merged, patch) == merged


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", -1),
        ("thresholds", [float("nan")]),
        ("thresholds", [0.5] * 64),
        ("placement", {"no spaces": [1]}),
        ("placement", {"a": [0]}),
        ("strategy", "no spaces"),
        ("shares", {"a": {1: {"b": 1.1}}}),
        ("shares", {"a": {65: {"b": 1.0}}}),
        ("neighbours", {"a": ["no spaces"]}),
        ("planning", {"goal": "rate"}),
        ("planning", {"goal": "accuracy", "rate": 5}),
        ("planning", {"patience_s": -1}),
        ("queue_limit", 0),
        ("window", 0),
        ("lease_s", 0),
        ("lease_s", float("inf")),
        ("max_attempts", 0),
        ("report_interval_s", 0),
        ("silence_s", -1),
        ("data_qos", 2),
        ("tea", 1),
    ],
)
def test_a_policy_out_of_its_limits_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Policy.model_validate({"thresholds": [0.5], name: value})
