from pathlib import Path

import pytest

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.stages import read_stage, verify_stage
from mqtt_mdi.errors import BundleError


def test_every_shipped_stage_has_the_hash_of_the_manifest() -> None:
    for spec in read_manifest(SHIPPED_BUNDLE).stages:
        data = read_stage(SHIPPED_BUNDLE, spec)
        assert len(data) == spec.graph_bytes
        assert verify_stage(data, spec) is data


def test_one_changed_bit_is_found(tmp_path: Path) -> None:
    spec = read_manifest(SHIPPED_BUNDLE).stage(2)
    data = bytearray(read_stage(SHIPPED_BUNDLE, spec))
    data[len(data) // 2] ^= 1
    (tmp_path / spec.graph).write_bytes(data)
    with pytest.raises(BundleError, match=r"wrong hash: file .*stage-2\.onnx has .*rebuild or fetch"):
        read_stage(tmp_path, spec)
    with pytest.raises(BundleError, match=rf"wrong hash: stage-2\.onnx has .*manifest says {spec.sha256}"):
        verify_stage(bytes(data), spec)


def test_a_missing_graph(tmp_path: Path) -> None:
    spec = read_manifest(SHIPPED_BUNDLE).stage(1)
    with pytest.raises(BundleError, match=r"cannot read stage 1, .*stage-1\.onnx: No such file"):
        read_stage(tmp_path, spec)
