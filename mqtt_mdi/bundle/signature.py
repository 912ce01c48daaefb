"""Who may say what devices run: manifests signed with Ed25519 (RFC 8032).

The manifest holds the SHA-256 of each graph, so a signature of it stands for the graphs, too. Needs the extra
`secure`; importing this module without it raises ConfigError.
"""

from pathlib import Path

from mqtt_mdi.bundle.manifest import manifest_bytes, manifest_file
from mqtt_mdi.bundle.sealed import Sealed
from mqtt_mdi.errors import BundleError, ConfigError

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )
except ImportError as missing:
    raise ConfigError(
        f"signatures need the package cryptography: pip install 'mqtt-mdi[secure]' ({missing})"
    ) from missing

PURPOSE = b"mqtt-mdi manifest, format 1\0"
"""Begins what is signed, so that no signature made for anything else is good for a manifest."""


def seal(folder: Path, key: Path) -> Sealed:
    """Read the manifest of a bundle folder and sign it with the private key in a file."""
    manifest = manifest_bytes(folder)
    return Sealed(manifest, sign(manifest, read_private_key(key)), str(manifest_file(folder)))


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signature, 64 bytes, of a manifest's exact bytes."""
    return key.sign(PURPOSE + manifest)


def verify(sealed: Sealed, key: Ed25519PublicKey) -> None:
    """Raise BundleError unless the private part of `key` signed just this manifest."""
    if sealed.signature is None:
        raise BundleError(
            f"{sealed.where} is not signed: sign its bundle with `mqtt-mdi sign`, or start the coordinator "
            f"with --sign-with"
        )
    try:
        key.verify(sealed.signature, PURPOSE + sealed.manifest)
    except InvalidSignature as error:
        raise BundleError(
            f"wrong signature: {sealed.where} was changed, or signed with another key than the one that "
            f"--model-key asks for; sign its bundle with that one"
        ) from error


def new_key() -> Ed25519PrivateKey:
    """A key that nobody has used before."""
    return Ed25519PrivateKey.generate()


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """A private key in PEM (PKCS #8), without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public part of a key in PEM (SubjectPublicKeyInfo)."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_private_key(file: Path) -> Ed25519PrivateKey:
    """The key to sign with, from PEM; raises ConfigError."""
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(file, "private", "model.key", str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(file, "private", "model.key", "a key of another kind")
    return key


def read_public_key(file: Path) -> Ed25519PublicKey:
    """The key to verify with, from PEM; raises ConfigError."""
    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(file, "public", "model.pub", str(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(file, "public", "model.pub", "a key of another kind")
    return key


def _no_key(file: Path, part: str, example: str, fault: str) -> ConfigError:
    return ConfigError(
        f"{file} is no {part} Ed25519 key in PEM format: {fault}; expected one such as the {example} that "
        f"`mqtt-mdi certs` makes"
    )
