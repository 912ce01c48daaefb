"""Signatures of manifests: the very bytes that were signed pass, with the key that signed them alone."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sealed import (
    SIGNATURE_FILE,
    SIGNATURE_PROPERTY,
    Sealed,
    read_sealed,
    signature_from_text,
    signature_to_text,
)
from mqtt_mdi.bundle.signature import (
    PURPOSE,
    new_key,
    private_pem,
    public_pem,
    read_private_key,
    read_public_key,
    seal,
    sign,
    verify,
)
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.wire.asyncapi import document

KEY = new_key()
PUBLIC = KEY.public_key()
MANIFEST = (SHIPPED_BUNDLE / "manifest.json").read_bytes()
SEALED = Sealed(MANIFEST, sign(MANIFEST, KEY), "here")


def changed(data: bytes, place: int, by: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ by]) + data[place + 1 :]


places, differences = st.integers(0, 2**16), st.integers(1, 255)


def test_what_was_signed_passes() -> None:
    verify(SEALED, PUBLIC)


@given(places, differences)
def test_any_changed_byte_of_a_manifest_is_refused(place: int, by: int) -> None:
    with pytest.raises(BundleError, match="wrong signature: here was changed, or signed with another key"):
        verify(replace(SEALED, manifest=changed(MANIFEST, place, by)), PUBLIC)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_a_signature_is_good_for_one_manifest_alone(one: bytes, other: bytes) -> None:
    sealed = Sealed(other, sign(one, KEY), "here")
    if one == other:
        verify(sealed, PUBLIC)
    else:
        with pytest.raises(BundleError, match="wrong signature"):
            verify(sealed, PUBLIC)


@given(places, differences)
def test_any_changed_byte_of_a_signature_is_refused(place: int, by: int) -> None:
    assert SEALED.signature is not None
    with pytest.raises(BundleError, match="wrong signature"):
        verify(replace(SEALED, signature=changed(SEALED.signature, place, by)), PUBLIC)


def test_another_key_is_refused() -> None:
    with pytest.raises(BundleError, match="wrong signature"):
        verify(SEALED, new_key().public_key())


def test_what_the_key_signed_for_another_purpose_is_refused() -> None:
    for other in (b"", PURPOSE.replace(b"manifest", b"policy")):
        with pytest.raises(BundleError, match="wrong signature"):
            verify(replace(SEALED, signature=KEY.sign(other + MANIFEST)), PUBLIC)


def test_no_signature_is_told_from_a_wrong_one() -> None:
    with pytest.raises(BundleError, match="here is not signed: sign its bundle with `mqtt-mdi sign`"):
        verify(replace(SEALED, signature=None), PUBLIC)


@given(st.binary(min_size=64, max_size=64))
def test_text_gives_the_signature_back(signature: bytes) -> None:
    assert signature_from_text(signature_to_text(signature), "there") == signature


@given(st.binary(min_size=64, max_size=64))
def test_it_travels_as_described(signature: bytes) -> None:
    described = document()["components"]["messages"]["manifest"]["headers"]["properties"]
    assert set(described) == {SIGNATURE_PROPERTY}
    assert re.search(described[SIGNATURE_PROPERTY]["pattern"], signature_to_text(signature))


@given(st.text(max_size=90))
def test_other_text_is_no_signature(text: str) -> None:
    with pytest.raises(BundleError, match="there is none: expected 64 bytes in base64"):
        signature_from_text(text, "there")


def test_openssl_agrees(tmp_path: Path) -> None:
    (tmp_path / "model.pub").write_bytes(public_pem(KEY))
    (tmp_path / "signed").write_bytes(PURPOSE + MANIFEST)
    (tmp_path / "signature").write_bytes(sign(MANIFEST, KEY))
    arguments = ("-pubin", "-inkey", "model.pub", "-rawin", "-in", "signed", "-sigfile", "signature")
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", *arguments],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "Signature Verified Successfully\n"), done.stderr


def test_keys_come_back_from_their_files(tmp_path: Path) -> None:
    private, public = tmp_path / "model.key", tmp_path / "model.pub"
    private.write_bytes(private_pem(KEY))
    public.write_bytes(public_pem(KEY))
    verify(replace(SEALED, signature=sign(MANIFEST, read_private_key(private))), read_public_key(public))


def pem_of(
    key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey,
) -> tuple[bytes, bytes]:
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.mark.parametrize(
    ("private", "public", "fault"),
    [
        (*pem_of(ec.generate_private_key(ec.SECP256R1())), "a key of another kind"),
        (*pem_of(x25519.X25519PrivateKey.generate()), "a key of another kind"),
        (*reversed(pem_of(KEY)), "PEM"),
        (b"no key", b"no key", "PEM"),
        (b"", b"", "PEM"),
    ],
    ids=["P-256", "X25519", "swapped", "text", "empty"],
)
def test_what_is_no_such_key_is_refused(tmp_path: Path, private: bytes, public: bytes, fault: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(private)
    with pytest.raises(
        ConfigError, match=f"key is no private Ed25519 key in PEM format: .*{fault}.*model.key"
    ):
        read_private_key(file)
    file.write_bytes(public)
    with pytest.raises(
        ConfigError, match=f"key is no public Ed25519 key in PEM format: .*{fault}.*model.pub"
    ):
        read_public_key(file)


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere is no public Ed25519 key .*No such file"):
        read_public_key(tmp_path / "nowhere")
    locked = tmp_path / "locked"
    encryption = BestAvailableEncryption(b"secret")
    locked.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(ConfigError, match=r"locked is no private Ed25519 key .*[Pp]assword"):
        read_private_key(locked)


def test_a_folder_holds_both(tmp_path: Path) -> None:
    key = tmp_path / "model.key"
    key.write_bytes(private_pem(KEY))
    shutil.copy(SHIPPED_BUNDLE / "manifest.json", tmp_path)
    assert read_sealed(tmp_path).signature is None
    sealed = seal(tmp_path, key)
    assert sealed.signature is not None
    (tmp_path / SIGNATURE_FILE).write_text(signature_to_text(sealed.signature) + "\n")
    assert read_sealed(tmp_path) == sealed
    verify(sealed, PUBLIC)


@pytest.mark.parametrize("data", [b"", b"\xff", b"no signature"])
def test_a_damaged_signature_file_is_named(tmp_path: Path, data: bytes) -> None:
    shutil.copy(SHIPPED_BUNDLE / "manifest.json", tmp_path)
    (tmp_path / SIGNATURE_FILE).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{SIGNATURE_FILE}.*mqtt-mdi sign"):
        read_sealed(tmp_path)
