import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from mangling import mangled
from test_messages import BAD, VALUES

from mqtt_mdi.core.policy import Policy, merge_patch
from mqtt_mdi.core.types import Task
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire import schemas
from mqtt_mdi.wire.asyncapi import EXAMPLES
from mqtt_mdi.wire.messages import PATCH, POLICY
from mqtt_mdi.wire.schemas import CODECS, DIALECT
from mqtt_mdi.wire.tasks import _FIELDS
from mqtt_mdi.wire.tensors import DTYPES

KEPT = Path(__file__).parents[2] / "schemas"
SCHEMAS = schemas.json_schemas()
VALIDATORS = {name: Draft202012Validator(schema) for name, schema in SCHEMAS.items()}


def test_the_kept_files_are_what_the_code_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "mqtt_mdi.wire.schemas", str(tmp_path)], check=True)
    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert made == schemas.files()
    for name, text in made.items():
        assert (KEPT / name).read_text() == text, f"schemas/{name} has drifted: make schemas"


def test_the_program_asks_for_a_folder() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mqtt_mdi.wire.schemas"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr == "usage: python -m mqtt_mdi.wire.schemas FOLDER\n"


def test_missing_folders_are_made(tmp_path: Path) -> None:
    schemas.write(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "tasks.cddl").read_text() == schemas.cddl()


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_a_valid_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == DIALECT
    assert SCHEMAS[name]["title"] == name


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_example_is_valid_and_understood(name: str) -> None:
    VALIDATORS[name].validate(json.loads(EXAMPLES[name]))
    codec = CODECS.get(name, PATCH)
    assert codec.decode(codec.encode(codec.decode(EXAMPLES[name]))) == codec.decode(EXAMPLES[name])


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_whatever_we_send_is_valid(name: str, data: st.DataObject) -> None:
    VALIDATORS[name].validate(json.loads(CODECS[name].encode(data.draw(VALUES[name]))))


@pytest.mark.parametrize(("name", "change"), BAD)
def test_the_schema_refuses_what_decoding_refuses(name: str, change: dict[str, Any]) -> None:
    message = json.loads(EXAMPLES[name]) | change
    try:
        text = json.dumps(message, allow_nan=False)
    except ValueError:
        return  # NaN and infinity are no JSON to begin with
    if "a\n" in change.values():
        return  # Python's $ matches before a last line end, ECMA's, which JSON Schema means, does not
    assert not VALIDATORS[name].is_valid(json.loads(text))


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_decoding_refuses_whatever_the_schema_refuses(name: str, data: st.DataObject) -> None:
    raw = data.draw(mangled([EXAMPLES[name]]))
    try:
        document = json.loads(raw)
    except ValueError:
        return
    if not VALIDATORS[name].is_valid(document):
        with pytest.raises(ProtocolError):
            CODECS[name].decode(raw)


BASE = json.loads(EXAMPLES["policy"])
PATCHES = {
    '{"window": 10}': True,
    '{"window": null}': True,
    '{"placement": {"d1": [1], "d2": null}}': True,
    '{"placement": null, "thresholds": [0.5]}': True,
    "{}": True,
    '{"window": 0}': False,
    '{"window": "10"}': False,
    '{"placement": {"d/1": [1]}}': False,
    '{"placement": {"d1": [0]}}': False,
    '{"thresholds": 0.5}': False,
    '{"colour": 1}': False,
    "[]": False,
}


@pytest.mark.parametrize("text", PATCHES)
def test_a_patch_that_is_valid_makes_a_policy(text: str) -> None:
    assert VALIDATORS["policy-patch"].is_valid(json.loads(text)) is PATCHES[text]
    if PATCHES[text]:
        POLICY.decode(json.dumps(merge_patch(BASE, PATCH.decode(text.encode()))).encode())


def test_parts_of_a_policy_can_be_patched_in_parts() -> None:
    nested = [
        name for name, field in Policy.model_fields.items() if hasattr(field.annotation, "model_fields")
    ]
    assert nested
    for name in nested:
        for inner, default in BASE[name].items():
            VALIDATORS["policy-patch"].validate({name: {inner: default}})
            VALIDATORS["policy-patch"].validate({name: {inner: None}})
        assert not VALIDATORS["policy-patch"].is_valid({name: {"unknown": 1}})


def test_the_version_of_a_policy_cannot_be_patched() -> None:
    assert not VALIDATORS["policy-patch"].is_valid({"version": 7})


def test_the_cddl_names_every_field_and_tag() -> None:
    text = schemas.cddl()
    assert set(_FIELDS) <= set(Task.__dataclass_fields__)
    for name in (*_FIELDS, "inputs", "tasks"):
        assert f"{name}:" in text
    for tag in DTYPES:
        assert f"#6.{tag}(bstr)" in text
