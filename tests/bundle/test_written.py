import errno
import os
import shutil
from pathlib import Path

import pytest

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.written import written_whole
from mqtt_mdi.errors import ConfigError

STATIC = SHIPPED_BUNDLE.with_name("fashion-mnist-static")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED_BUNDLE, tmp_path / "bundle")
    (tmp_path / "bundle" / "manifest.sig").write_text("of this manifest")
    (tmp_path / "bundle" / "checkpoint.pt").write_text("kept")
    return tmp_path / "bundle"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_bundle_takes_the_place_of_another_and_leaves_nothing_of_it(out: Path) -> None:
    with written_whole(out) as partial:
        for name in ("manifest.json", "stage-1.onnx", "trace.npz"):
            shutil.copyfile(STATIC / name, partial / name)
    names = {file.name for file in out.iterdir()}
    assert names == {"manifest.json", "stage-1.onnx", "trace.npz", "checkpoint.pt", "LICENSE"}
    read_stage(out, read_manifest(out).stages[0])


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_is_there_stays_when_writing_fails(out: Path, fault: BaseException) -> None:
    before = contents(out)
    expected = ConfigError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught, written_whole(out) as partial:  # noqa: PT012 -- it fails midway
        (partial / "stage-1.onnx").write_bytes(b"half of")
        raise fault
    assert contents(out) == before
    if isinstance(fault, OSError):
        assert f"cannot write the bundle to {out}: No space left on device; make room" in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = pytest.raises(ConfigError, match=f"cannot write the bundle to .*: {os.strerror(errno.ENOTDIR)}")
    with refused, written_whole(tmp_path / "file" / "bundle"):
        pass
