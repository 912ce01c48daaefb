"""Certificates as `mqtt-mdi certs` makes them, held against OpenSSL and a real handshake."""

import shutil
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from live import mqtt_mdi

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sealed import Sealed
from mqtt_mdi.bundle.signature import (
    new_key,
    private_pem,
    read_private_key,
    read_public_key,
    sign,
    verify,
)
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.certificates import issue, make_authority, open_authority


def certs(folder: Path, *arguments: str) -> str:
    done = mqtt_mdi("certs", "--out", str(folder), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def alternatives(file: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs") / "new"
    said = certs(folder, "--host", "broker.local", "--host", "10.0.0.2", "--client", "pi-1")
    assert f"--ca {folder}/ca.crt" in said
    assert f"--cert {folder}/pi-1.crt --key {folder}/pi-1.key" in said
    return folder


def test_openssl_takes_them_at_its_strictest(made: Path) -> None:
    for purpose, name in (("sslserver", "server"), ("sslclient", "pi-1")):
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.crt", f"{name}.crt"],
            cwd=made,
            check=True,
            capture_output=True,
        )
    wrong = subprocess.run(
        ["openssl", "verify", "-purpose", "sslserver", "-CAfile", "ca.crt", "pi-1.crt"],
        cwd=made,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "unsuitable certificate purpose" in wrong.stderr


def test_keys_are_for_their_owner_alone(made: Path) -> None:
    names = {"ca.key", "server.key", "page.key", "pi-1.key", "model.key"}
    assert {file.name for file in made.glob("*.key")} == names
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.glob("*.key")} == {0o600}


def test_the_broker_and_the_page_have_all_their_names(made: Path) -> None:
    for name in ("server.crt", "page.crt"):
        assert alternatives(made / name) == ["broker.local", "10.0.0.2", "localhost", "127.0.0.1", "::1"]
    assert (made / "server.key").read_bytes() != (made / "page.key").read_bytes()


def test_an_authority_is_used_again_and_never_overwritten(tmp_path: Path) -> None:
    assert "new authority" in certs(tmp_path, "--host", "gateway")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert "kept" in certs(tmp_path, "--client", "pi-2")
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"pi-2.crt", "pi-2.key"}
    certs(tmp_path, "--host", "gateway")
    assert (tmp_path / "ca.key").read_bytes() == before["ca.key"]
    assert (tmp_path / "server.crt").read_bytes() != before["server.crt"]


def test_the_key_for_models_is_a_pair_and_may_be_moved_away(made: Path, tmp_path: Path) -> None:
    manifest = (SHIPPED_BUNDLE / "manifest.json").read_bytes()
    private, public = tmp_path / "model.key", tmp_path / "model.pub"
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    pair = private.read_bytes(), public.read_bytes()
    verify(Sealed(manifest, sign(manifest, read_private_key(private)), "here"), read_public_key(public))
    public.unlink()
    certs(tmp_path)
    assert (private.read_bytes(), public.read_bytes()) == pair
    private.unlink()
    certs(tmp_path)
    assert public.read_bytes() == pair[1]
    assert not private.exists()
    private.write_bytes(private_pem(new_key()))
    done = mqtt_mdi("certs", "--out", str(tmp_path))
    assert f"error: {private} is not the key of {public}" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("lost", ["ca.crt", "ca.key"])
def test_half_an_authority_is_left_alone(tmp_path: Path, lost: str) -> None:
    open_authority(tmp_path)
    (tmp_path / lost).unlink()
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    done = mqtt_mdi("certs", "--out", str(tmp_path))
    assert "are no authority to sign with" in done.stderr
    assert done.returncode == 2
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == left


def test_an_authority_with_a_strange_key_or_past_its_end_signs_nothing(tmp_path: Path) -> None:
    open_authority(tmp_path)
    make_authority().write(tmp_path, "other")
    (tmp_path / "other.key").replace(tmp_path / "ca.key")
    with pytest.raises(ConfigError, match="is not the key of"):
        open_authority(tmp_path)
    make_authority(days=-1).write(tmp_path, "ca")
    with pytest.raises(ConfigError, match="has expired"):
        open_authority(tmp_path)


@pytest.mark.parametrize("name", ["ca", "server", "model", "a/b", "../a", ""])
def test_a_client_cannot_have_every_name(tmp_path: Path, name: str) -> None:
    done = mqtt_mdi("certs", "--out", str(tmp_path / "new"), "--client", name)
    assert done.returncode == 2
    assert "--client" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_long_name_is_an_alternative_name() -> None:
    long = f"{'a' * 60}.{'b' * 60}.example"
    certificate = issue(make_authority(), "server", long, [long]).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [long]


def test_what_is_no_host_is_refused() -> None:
    with pytest.raises(ConfigError, match="is neither a name nor an address"):
        issue(make_authority(), "server", "broker", ["a" * 64])


@given(st.integers(1, 5000))
def test_none_outlives_its_authority(days: int) -> None:
    authority = make_authority(days=400)
    certificate = issue(authority, "client", "pi-1", days=days).certificate
    assert certificate.not_valid_after_utc <= authority.certificate.not_valid_after_utc
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert abs(left - timedelta(days=min(days, 400))) < timedelta(minutes=1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_sides_shake_hands(made: Path, version: ssl.TLSVersion) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made / "ca.crt")
    server.load_cert_chain(made / "server.crt", made / "server.key")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=made / "ca.crt")
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    client.load_cert_chain(made / "pi-1.crt", made / "pi-1.key")
    client.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="broker.local")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for side in waiting * 4:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ours.version() == theirs.version() == version.name.replace("_", ".")
    certificate = theirs.getpeercert()
    assert certificate is not None
    assert certificate["subject"] == ((("commonName", "pi-1"),),)


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')")
    done = mqtt_mdi("certs", "--out", str(tmp_path / "new"), env={"PYTHONPATH": str(tmp_path)})
    assert "pip install 'mqtt-mdi[secure]'" in done.stderr
    assert done.returncode == 2
