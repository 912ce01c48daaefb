"""A bundle folder that is written whole, or left as it was."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mqtt_mdi.bundle.manifest import MANIFEST_FILE
from mqtt_mdi.bundle.sample import SAMPLE_FILE
from mqtt_mdi.bundle.sealed import SIGNATURE_FILE
from mqtt_mdi.bundle.trace import HELD_OUT_FILE, TRACE_FILE
from mqtt_mdi.errors import ConfigError

WEIGHTS_FILE = "weights.safetensors"
_REPLACED = (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    TRACE_FILE,
    HELD_OUT_FILE,
    SAMPLE_FILE,
    WEIGHTS_FILE,
    "stage-*.onnx",
)


def fingerprint(path: Path) -> str:
    """Twelve hexadecimal digits of a file's SHA-256: what a recipe tells weights apart by."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder to write a bundle into, whose files take the place of the bundle in `out` at the end.

    Until then, and when writing fails, the bundle that is there stays as it is. What else lies in `out`, like
    a checkpoint or a licence, is kept. Raises ConfigError when `out` cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".partial-", dir=out) as partial:
            yield Path(partial)
            for pattern in _REPLACED:
                for old in out.glob(pattern):
                    old.unlink()
            # The manifest comes last, so that a folder with a manifest is a whole bundle.
            for new in sorted(Path(partial).iterdir(), key=lambda file: file.name == MANIFEST_FILE):
                new.replace(out / new.name)
    except OSError as error:
        raise ConfigError(
            f"cannot write the bundle to {out}: {error.strerror or error}; make room or choose another --out"
        ) from error
