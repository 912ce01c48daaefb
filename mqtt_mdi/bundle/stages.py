"""Stage graphs as bytes: read from a bundle or received, used only when their hash is right."""

import hashlib
from pathlib import Path

from mqtt_mdi.bundle.manifest import StageSpec
from mqtt_mdi.errors import BundleError


def verify_stage(data: bytes, spec: StageSpec, where: str | None = None) -> bytes:
    """Return `data` when it is the graph the manifest names, else raise BundleError."""
    found = hashlib.sha256(data).hexdigest()
    if found != spec.sha256:
        raise BundleError(
            f"wrong hash: {where or spec.graph} has {found}, manifest says {spec.sha256}; "
            "rebuild or fetch the bundle again"
        )
    return data


def read_stage(folder: Path, spec: StageSpec) -> bytes:
    """Read and verify the graph of one stage of the bundle in `folder`; raises BundleError."""
    path = folder / spec.graph
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"cannot read stage {spec.index}, {path}: {error.strerror}; rebuild or fetch the bundle again"
        ) from error
    return verify_stage(data, spec, f"file {path}")
