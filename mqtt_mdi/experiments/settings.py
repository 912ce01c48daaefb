"""What every experiment is told."""

from dataclasses import dataclass
from pathlib import Path

from mqtt_mdi.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """`frames` a simulation, or the experiment's own number; `seeds` say how often each is repeated.

    A `quick` experiment tunes and repeats hardly anything: for trying it out, not for its figures.
    """

    bundle: Path
    out: Path
    frames: int | None = None
    seed: int = 1
    quick: bool = False
    jobs: int = 1

    @property
    def seeds(self) -> range:
        """Three in a row, or one if quick."""
        return range(self.seed, self.seed + (1 if self.quick else 3))

    def frames_or(self, usual: int, quick: int = 600) -> int:
        """The number of frames asked for, else the usual."""
        return self.frames or (quick if self.quick else usual)


def writable(folder: Path) -> Path:
    """Make a folder, and see before an hour's work that files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write to --out {folder}: {error.strerror}; name another folder") from error
    return folder
