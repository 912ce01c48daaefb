"""A manifest as it travels: its exact bytes, and beside them the signature of these bytes."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path

from mqtt_mdi.bundle.manifest import Manifest, manifest_bytes, manifest_file, parse_manifest
from mqtt_mdi.errors import BundleError

SIGNATURE_FILE = "manifest.sig"
SIGNATURE_PROPERTY = "signature"
"""The user property of MQTT 5 that holds the same text as SIGNATURE_FILE."""

SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Sealed:
    """A manifest that nobody has looked into yet, its signature if there is one, and where both are from."""

    manifest: bytes
    signature: bytes | None
    where: str

    def open(self) -> Manifest:
        """The manifest, whoever made it; raises BundleError."""
        return parse_manifest(self.manifest, self.where)


def read_sealed(folder: Path) -> Sealed:
    """Read manifest and signature of a bundle folder; raises BundleError."""
    file = folder / SIGNATURE_FILE
    try:
        text = file.read_text("ascii").strip()
    except FileNotFoundError:
        text = None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot read {file}: {error}; write it anew with `mqtt-mdi sign`") from error
    signature = None if text is None else signature_from_text(text, f"the signature in {file}")
    return Sealed(manifest_bytes(folder), signature, str(manifest_file(folder)))


def signature_to_text(signature: bytes) -> str:
    """A signature as it stands in SIGNATURE_FILE and SIGNATURE_PROPERTY: in base64."""
    return b64encode(signature).decode()


def signature_from_text(text: str, where: str) -> bytes:
    """The signature of 64 bytes in base64; raises BundleError."""
    try:
        signature = b64decode(text, validate=True)
    except ValueError:
        signature = b""
    if len(signature) != SIGNATURE_BYTES:
        raise BundleError(
            f"{where} is none: expected {SIGNATURE_BYTES} bytes in base64, as `mqtt-mdi sign` writes them"
        )
    return signature
