"""The policy's fields as a page, made from their schema."""

import inspect
import json
from typing import Any

from mqtt_mdi.cli.tables import table
from mqtt_mdi.core.types import IDENTIFIER
from mqtt_mdi.wire.schemas import json_schemas

_HEAD = f"""\
# Policy

Made from [`core/policy.py`](../../mqtt_mdi/core/policy.py) by `make schemas`. `mqtt-mdi policy show` prints
the policy in force, `mqtt-mdi policy set PATCH` and the page change it.
[protocol.md](../protocol.md#policy) has the messages,
[`policy.schema.json`](../../schemas/policy.schema.json) says the same as JSON Schema. Names match
`{IDENTIFIER.strip("^$")}`.
"""
_UNBOUNDED = 2**53
_BOUNDS = {"exclusiveMinimum": "over", "minimum": "from", "exclusiveMaximum": "under", "maximum": "to"}
_KINDS = {"number": "number", "integer": "whole number", "boolean": "true or false"}


def policy_page() -> str:
    """Every field of the policy with its values and default, as Markdown."""
    schema = json_schemas()["policy"]
    inner = {
        name: schema["$defs"][about["$ref"].rpartition("/")[2]]
        for name, about in schema["properties"].items()
        if "$ref" in about
    }
    sections = [_section("", schema), *(_section(f"## {name}\n\n", part) for name, part in inner.items())]
    return "\n".join([_HEAD, *sections])


def _section(title: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    rows = [_row(name, about, needed=name in needed) for name, about in schema["properties"].items()]
    lines = table(["field", "values", "default", "what"], rows)
    return f"{title}{inspect.cleandoc(schema['description'])}\n\n{lines}"


def _row(name: str, about: dict[str, Any], *, needed: bool) -> list[str]:
    if "$ref" in about:
        return [f"`{name}`", "object", "", f"See [below](#{name})."]
    default = "needed" if needed else f"`{json.dumps(about.get('default', {}))}`"
    return [f"`{name}`", _values(about), default, about.get("description", "")]


def _values(about: dict[str, Any]) -> str:
    """What a field may be, in words."""
    if "anyOf" in about:
        return " or ".join(_values(choice) for choice in about["anyOf"])
    if "enum" in about:
        return ", ".join(f"`{json.dumps(value)}`" for value in about["enum"])
    if about["type"] == "array":
        return f"list of: {_values(about['items'])}"
    if about["type"] == "object":
        [member] = about.get("patternProperties", {}).values() or [about["additionalProperties"]]
        return f"by name: {_values(member)}"
    bounds = [
        f"{word} {about[bound]}"
        for bound, word in _BOUNDS.items()
        if about.get(bound, _UNBOUNDED) < _UNBOUNDED
    ]
    return " ".join([_KINDS.get(about["type"], "name" if "pattern" in about else about["type"]), *bounds])
