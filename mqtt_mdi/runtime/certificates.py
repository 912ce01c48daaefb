"""Certificates of one's own: an authority, and what it signs for the broker and its clients.

Keys are ECDSA on P-256: what Mosquitto, OpenSSL, and the TLS libraries of small sensors all take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.private import write_private

AUTHORITY_DAYS = 3650
CLOCKS_MAY_LAG = timedelta(days=1)
MOST_BYTES_OF_NAME = 64
"""RFC 5280, appendix A: ub-common-name."""

Use = Literal["server", "client"]
_USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write `name.crt` and, for its owner's eyes alone, `name.key`; the two paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        write_private(key, self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        certificate.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return certificate, key


def open_authority(folder: Path) -> tuple[Pair, bool]:
    """The authority in `folder`, made there when there is none; and whether it is new.

    Raises:
        ConfigError: when what lies there is half an authority, not ours to use, or has expired.
    """
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists() and not key.exists():
        folder.mkdir(parents=True, exist_ok=True)
        authority = make_authority()
        authority.write(folder, "ca")
        return authority, True
    try:
        found = Pair(x509.load_pem_x509_certificate(certificate.read_bytes()), _read_key(key.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{certificate} and {key} are no authority to sign with ({error}); bring both files back, or "
            f"choose another --out"
        ) from error
    if found.certificate.public_key() != found.key.public_key():
        raise ConfigError(f"{key} is not the key of {certificate}; bring the right one back")
    if found.certificate.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigError(f"{certificate} has expired; make another authority in another --out")
    return found, False


def _read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the key is not on an elliptic curve")
    return key


def make_authority(days: int = AUTHORITY_DAYS) -> Pair:
    """A new authority that may sign certificates for brokers and clients, but no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: with two authorities of one name, errors could not tell which one is wrong.
    name = _name(f"mqtt-mdi authority {token_hex(4)}")
    builder = _builder(name, name, key.public_key(), datetime.now(UTC) + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs=True), critical=True)
    return Pair(builder.sign(key, SHA256()), key)


def issue(authority: Pair, use: Use, name: str, hosts: Sequence[str] = (), days: int = 365) -> Pair:
    """A certificate for a broker or a client, signed by the authority.

    Args:
        authority: who signs; the certificate ends with it at the latest.
        use: what it may be used for.
        name: its common name; of a client, its user name.
        hosts: names and addresses under which clients reach a broker.
        days: how long it is valid from now; it began a day ago, for clocks that lag behind.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(datetime.now(UTC) + timedelta(days=days), authority.certificate.not_valid_after_utc)
    builder = _builder(_name(name), authority.certificate.subject, key.public_key(), end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_USES[use]]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False
        )
    return Pair(builder.sign(authority.key, SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime
) -> x509.CertificateBuilder:
    begin = min(datetime.now(UTC), end) - CLOCKS_MAY_LAG
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    # Longer names are in what they are compared with, the alternative names of a server's certificate.
    short = text.encode()[:MOST_BYTES_OF_NAME].decode(errors="ignore")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short)])


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode())
    except UnicodeError as error:
        raise ConfigError(f"--host {host!r} is neither a name nor an address") from error
