import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mqtt_mdi.bundle.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    SHIPPED_BUNDLE,
    parse_manifest,
    read_manifest,
)
from mqtt_mdi.errors import BundleError


def shipped() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SHIPPED_BUNDLE / MANIFEST_FILE).read_bytes())
    return loaded


def test_json_there_and_back() -> None:
    manifest = read_manifest(SHIPPED_BUNDLE)
    assert parse_manifest(manifest.model_dump_json().encode(), "copy") == manifest
    assert read_manifest(SHIPPED_BUNDLE / MANIFEST_FILE) == manifest


def test_the_shipped_bundle_keeps_its_promises() -> None:
    manifest = read_manifest(SHIPPED_BUNDLE)
    assert manifest.stage_count == 4
    assert len(manifest.classes) == 10
    assert manifest.exit_accuracy[-1] >= 0.93
    assert manifest.operating_point.accuracy >= manifest.exit_accuracy[-1] - 0.005
    assert manifest.operating_point.macs_share <= 0.6
    assert sum(file.stat().st_size for file in SHIPPED_BUNDLE.iterdir()) <= 3.2 * 2**20


def test_costs_add_up() -> None:
    manifest = read_manifest(SHIPPED_BUNDLE)
    heads = sum(stage.exit_macs for stage in manifest.stages[:-1])
    assert manifest.full_macs == sum(stage.macs for stage in manifest.stages) - heads
    assert all(a < b for a, b in pairwise(manifest.macs_shares))
    assert manifest.macs_shares[-1] == pytest.approx(1 + heads / manifest.full_macs)


def test_a_stage_that_is_not_there() -> None:
    manifest = read_manifest(SHIPPED_BUNDLE)
    assert manifest.stage(4).index == 4
    for index in (0, 5, -1):
        with pytest.raises(BundleError, match=f"no stage {index}: it has 1 to 4"):
            manifest.stage(index)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (lambda m: m.update(format=2), "format"),
    "unknown field": (lambda m: m.update(colour="red"), "colour"),
    "threshold missing": (lambda m: m["thresholds"].pop(), "4 stages need 3 thresholds, not 2"),
    "threshold not finite": (lambda m: m["thresholds"].__setitem__(0, float("nan")), "thresholds"),
    "accuracy missing": (lambda m: m["exit_accuracy"].pop(), "4 values of exit_accuracy, not 3"),
    "ece missing": (lambda m: m["exit_ece"].pop(), "4 values of exit_ece"),
    "share missing": (lambda m: m["operating_point"]["exits"].pop(), "operating_point.exits"),
    "order of stages": (lambda m: m["stages"].reverse(), "numbered 1 to 4"),
    "chain": (
        lambda m: m["stages"][1].update(input_shape=[1, 2, 3]),
        r"2 takes float32 of shape \(1, 2, 3\)",
    ),
    "input": (lambda m: m["input"].update(height=32), "stage 1 takes"),
    "costs": (lambda m: m["stages"][0].update(macs=10**400), r"stages\.0\.macs: .*less than or equal to"),
    "bytes": (lambda m: m["stages"][0].update(activation_bytes=7), "activation_bytes is 7"),
    "exit too dear": (lambda m: m["stages"][0].update(exit_macs=10**9), "more than macs"),
    "open end": (lambda m: m["stages"].pop(), "numbered|thresholds"),
    "same graph": (lambda m: m["stages"][0].update(graph="stage-2.onnx"), "two stages name the same graph"),
    "path": (lambda m: m["stages"][0].update(graph="../../etc/passwd"), "stages.0.graph"),
    "hash": (lambda m: m["stages"][0].update(sha256="abc"), "stages.0.sha256"),
    "temperature": (lambda m: m["stages"][0].update(temperature=0), "stages.0.temperature"),
    "no stages": (lambda m: m.update(stages=[]), "stages"),
    "one class": (lambda m: m.update(classes=["all"]), "classes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_manifest_is_refused_with_its_fault(kind: str) -> None:
    manifest = shipped()
    damage, message = DAMAGE[kind]
    damage(manifest)
    with pytest.raises(BundleError, match=message) as caught:
        parse_manifest(json.dumps(manifest).encode(), "model/manifest")
    assert str(caught.value).startswith("model/manifest is not a manifest of format 1")


def test_a_last_stage_that_goes_on_is_refused() -> None:
    manifest = shipped()
    manifest["stages"][-1].update(output_shape=[1, 1, 1], activation_bytes=4)
    with pytest.raises(BundleError, match="last stage must have no output_shape"):
        parse_manifest(json.dumps(manifest).encode(), "model/manifest")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_json_object_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(data)
    with pytest.raises(BundleError, match=r"manifest\.json is not a manifest"):
        read_manifest(tmp_path)


def test_a_missing_or_huge_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*expected a folder with manifest\.json"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="no bundle at"):
        read_manifest(tmp_path)
    with pytest.raises(BundleError, match="at most"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1), "model/manifest")
