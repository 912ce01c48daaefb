"""Writes `schemas/`: the wire in words that other languages' tools read, made from the code.

One JSON Schema (draft 2020-12) for each JSON message, CDDL (RFC 8610) for the task batch and an AsyncAPI
document for the topics: `python -m mqtt_mdi.wire.schemas FOLDER`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mqtt_mdi.core.types import FRAME_ID, IDENTIFIER
from mqtt_mdi.wire import messages
from mqtt_mdi.wire.asyncapi import document
from mqtt_mdi.wire.frames import CONTENT_TYPES
from mqtt_mdi.wire.tasks import MAX_BATCH
from mqtt_mdi.wire.tensors import DTYPES, MAX_DIMENSIONS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

CODECS: dict[str, messages.Codec[Any]] = {
    "result": messages.RESULT,
    "exits": messages.OUTCOMES,
    "truth": messages.TRUTH,
    "device-state": messages.DEVICE_STATE,
    "policy": messages.POLICY,
    "policy-reply": messages.POLICY_REPLY,
    "coordinator-state": messages.COORDINATOR_STATE,
    "metrics": messages.METRICS,
    "dead-letter": messages.DEAD_LETTER,
}

_CDDL = """\
; Made by `make schemas`; CDDL is RFC 8610.
; Payload of mdi/v1/{{pipeline}}/stage/{{stage}}/{{device}}: tasks of that stage with their inputs.
batch = {{
  tasks: [1*{batch} task],
  inputs: tensor / [1*{batch} frame],  ; one for each task, in their order
  ? from: identifier,
  * tstr => any,
}}

task = {{
  sensor: identifier,
  frame_id: tstr .regexp "{frame_id}",
  source: identifier,        ; the device that gets what comes out on its topic exits/
  stage: 1..64,              ; as in the topic
  ? attempt: uint .ge 1,     ; leases of the frame, 1 when absent
  ? hops: uint,              ; devices it was handed on to, 0 when absent
  ? admitted_at: float / int, ; seconds on the source's own clock, 0 when absent
  * tstr => any,
}}

; Input of stage 1 alone: a sensor's frame as it came.
frame = {{ type: {types}, data: bstr, * tstr => any }}

; RFC 8746, section 3.1.1: row-major. Activations have the shape [tasks, channels, height, width].
tensor = #6.40([shape: [0*{dimensions} uint], elements: typed-array])

; RFC 8746, section 2.1: integers of 8 to 64 bits, floating point numbers of 16, 32 and 64.
typed-array = {tags}

identifier = tstr .regexp "{identifier}"
"""


class _Plain(GenerateJsonSchema):
    """Leaves out titles that only repeat the names of fields."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 -- pydantic's signature
        return False


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every JSON message by its name."""
    schemas = {name: _described(codec.adapter, name) for name, codec in CODECS.items()}
    return schemas | {"policy-patch": _patch_of(schemas["policy"])}


def cddl() -> str:
    """The CDDL of a task batch."""
    return _CDDL.format(
        batch=MAX_BATCH,
        dimensions=MAX_DIMENSIONS,
        identifier=IDENTIFIER.strip("^$"),
        frame_id=FRAME_ID.strip("^$"),
        types=" / ".join(f'"{kind}"' for kind in CONTENT_TYPES),
        tags=" / ".join(f"#6.{tag}(bstr)" for tag in sorted(DTYPES)),
    )


def files() -> dict[str, str]:
    """What `schemas/` holds: text by file name."""
    documents = {f"{name}.schema.json": schema for name, schema in json_schemas().items()}
    documents["asyncapi.json"] = document()
    texts = {name: json.dumps(value, indent=2) + "\n" for name, value in documents.items()}
    return texts | {"tasks.cddl": cddl()}


def write(folder: Path) -> None:
    """Write `files()` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, "utf-8")


def _described(adapter: TypeAdapter[Any], name: str) -> dict[str, Any]:
    schema: dict[str, Any] = adapter.json_schema(schema_generator=_Plain)
    for part in [schema, *schema.get("$defs", {}).values()]:
        for member in part.get("properties", {}).values():
            if "patternProperties" in member:  # pydantic refuses other names, and its schema forgets to
                member["additionalProperties"] = False
    return {"$schema": DIALECT} | schema | {"title": name}


def _patch_of(policy: dict[str, Any]) -> dict[str, Any]:
    """A merge patch (RFC 7396) of the policy: any of its fields but the version, null to reset one."""
    patch = _optional(policy)
    del patch["properties"]["version"]
    patch["$defs"] = {name: _optional(part) for name, part in policy.get("$defs", {}).items()}
    return patch | {
        "title": "policy-patch",
        "description": "A JSON merge patch (RFC 7396) of the policy: null resets a field to its default.",
    }


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with none of its members required, and null allowed for each."""
    optional = {name: value for name, value in schema.items() if name not in {"required", "default"}}
    for members in optional.keys() & {"properties", "patternProperties"}:
        optional[members] = {
            name: {"anyOf": [_optional(member), {"type": "null"}]} for name, member in schema[members].items()
        }
    return optional


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 -- the program and one folder
        sys.exit("usage: python -m mqtt_mdi.wire.schemas FOLDER")
    write(Path(sys.argv[1]))
