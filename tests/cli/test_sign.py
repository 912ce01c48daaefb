"""`mqtt-mdi sign`, and the options that take keys, as users meet them."""

import shutil
from pathlib import Path

import pytest
from live import mqtt_mdi

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sealed import SIGNATURE_FILE, read_sealed
from mqtt_mdi.bundle.signature import new_key, private_pem, verify

KEY = new_key()
NOBODY = "mqtt://127.0.0.1:9"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "model.key"
    file.write_bytes(private_pem(KEY))
    return file


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, folder)
    return folder


def test_a_signature_is_written_beside_the_manifest_even_over_a_damaged_one(bundle: Path, key: Path) -> None:
    (bundle / SIGNATURE_FILE).write_bytes(b"damaged")
    done = mqtt_mdi("sign", str(bundle), env={"MDI_SIGN_WITH": str(key)})
    assert done.returncode == 0, done.stderr
    assert f"{bundle}/manifest.sig: signs {bundle}/manifest.json, fashion-mnist of 4 stages" in done.stdout
    verify(read_sealed(bundle), KEY.public_key())


def test_a_bundle_with_a_strange_graph_is_not_signed(bundle: Path, key: Path) -> None:
    with (bundle / "stage-3.onnx").open("ab") as graph:
        graph.write(b"?")
    done = mqtt_mdi("sign", str(bundle), "--key", str(key))
    assert f"error: wrong hash: file {bundle / 'stage-3.onnx'}" in done.stderr
    assert done.returncode == 4
    assert not (bundle / SIGNATURE_FILE).exists()


def test_a_damaged_signature_is_not_published(bundle: Path) -> None:
    (bundle / SIGNATURE_FILE).write_bytes(b"damaged")
    done = mqtt_mdi("coordinator", "--bundle", str(bundle), "--broker", NOBODY, cwd=bundle)
    assert f"error: the signature in {bundle}/manifest.sig is none" in done.stderr
    assert done.returncode == 4


@pytest.mark.parametrize(
    "command",
    [
        ("device", "--model-key", "nowhere"),
        ("source", "--model-key", "nowhere"),
        ("coordinator", "--sign-with", "nowhere"),
        ("sign", str(SHIPPED_BUNDLE), "--key", "nowhere"),
    ],
    ids=lambda command: command[0],
)
def test_keys_need_their_file_and_the_library(command: tuple[str, ...], tmp_path: Path) -> None:
    done = mqtt_mdi(*command, cwd=tmp_path)
    assert "error: nowhere is no" in done.stderr
    assert done.returncode == 2
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')")
    done = mqtt_mdi(*command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert "signatures need the package cryptography: pip install 'mqtt-mdi[secure]'" in done.stderr
    assert done.returncode == 2


def test_without_a_key_nobody_needs_the_library(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')")
    arguments = ("--frames", "8", "--devices", "1", "--broker", "embedded")
    done = mqtt_mdi("demo", *arguments, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
