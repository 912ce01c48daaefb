"""Pictures by class: `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, in a folder, a tar or a zip file."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mqtt_mdi.bundle.manifest import MAX_NAME
from mqtt_mdi.datasets.labelled import Dataset, Labelled
from mqtt_mdi.errors import ConfigError, first_line
from mqtt_mdi.wire.inputs import MAX_SIDE
from mqtt_mdi.wire.pictures import fitted

MAX_FILE_BYTES = 2**26
"""Of one file in a folder or archive; an official batch of CIFAR-10 has 31 MB."""

PARTS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_OTHERS = (".tif", ".tiff", ".gif", ".jfif", ".jp2", ".avif", ".heic", ".ppm", ".pgm")
_LAYOUT = "expected train/CLASS/*.jpg and test/CLASS/*.jpg, one folder a class"

# What Pillow raises for damaged pictures, and for some that would fill the memory.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

Members = Iterator[tuple[PurePosixPath, bytes]]
"""Files: their path inside the folder or archive, and their bytes."""


def pictures(path: Path, size: int | None = None) -> Dataset:
    """Read the pictures by class in `path`; classes are named by their folders, in alphabetical order.

    All pictures become RGB. With `size` each is scaled as frames are: the middle square, at `size` pixels;
    without, all must be of one size. Raises ConfigError that names the file.
    """
    found: dict[tuple[str, str], dict[str, NDArray[np.uint8]]] = {}
    with reading(path) as members:
        for name, data in members:
            kind = "" if name.name.startswith(".") else name.suffix.lower()
            part, label = name.parts[-3:-1] if len(name.parts) > 2 else ("", "")  # noqa: PLR2004
            if kind in _OTHERS and part in PARTS:
                raise ConfigError(
                    f"{path}: {name} is no JPEG, PNG, BMP or WebP by its name; convert it, or remove it"
                )
            if kind not in SUFFIXES:
                continue
            if part not in PARTS:
                raise ConfigError(f"{path}: {str(name)!r} lies outside train/ and test/; {_LAYOUT}")
            if label == ".." or len(label) > MAX_NAME or not label.isprintable():
                raise ConfigError(
                    f"{path}: {label[:50]!r} names no class; expected a folder of at most {MAX_NAME} letters "
                    "that can be shown"
                )
            found.setdefault((part, label), {})[str(name)] = _decode(data, size, f"{path}: {name}")
    classes = tuple(sorted({label for _, label in found}))
    if len(classes) < 2:  # noqa: PLR2004 -- nothing to tell apart
        raise ConfigError(f"{path} has pictures of {len(classes)} classes; {_LAYOUT}, two classes at least")
    missing = [f"{part}/{label}" for part in PARTS for label in classes if (part, label) not in found]
    if missing:
        raise ConfigError(f"{path} has no pictures in {', '.join(missing[:5])}; {_LAYOUT}")
    train, test = (_labelled([found[part, label] for label in classes], path) for part in PARTS)
    return Dataset(train, test, classes)


@contextmanager
def reading(path: Path) -> Iterator[Members]:
    """Every file in a folder, a tar or a zip file; raises ConfigError for what cannot be read."""
    try:
        if path.is_dir():
            yield _folder(path)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _zip(archive)
        else:
            with tarfile.open(path) as tar:
                yield _tar(tar)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError) as error:
        raise ConfigError(
            f"cannot read {path}: {first_line(error)}; expected a folder, a tar or a zip file. A damaged one "
            "must be fetched again"
        ) from error


def _folder(path: Path) -> Members:
    for file in sorted(path.rglob("*")):
        if file.is_file():
            name = PurePosixPath(file.relative_to(path).as_posix())
            with file.open("rb") as opened:
                yield name, _read(opened, name)


def _zip(archive: zipfile.ZipFile) -> Members:
    for info in archive.infolist():
        if not info.is_dir():
            try:
                with archive.open(info) as opened:
                    data = _read(opened, info.filename)
            except RuntimeError as error:  # a password, or another way to pack
                raise OSError(str(error)) from error
            yield PurePosixPath(info.filename), data


def _tar(archive: tarfile.TarFile) -> Members:
    for info in archive:
        try:
            file = archive.extractfile(info)
        except (KeyError, RecursionError) as error:
            raise OSError(f"{info.name} is a link to {info.linkname}, which leads nowhere") from error
        if file is not None:
            yield PurePosixPath(info.name), _read(file, info.name)
    # A damaged header ends the archive for Python's reader, but zeros alone do.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise OSError(f"it breaks off or is damaged at byte {archive.offset:,}")
    while archive.fileobj.read(MAX_FILE_BYTES):  # the checksum of what is packed comes last
        pass


def _read(file: IO[bytes], name: object) -> bytes:
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(f"{name} has more than {MAX_FILE_BYTES:,} bytes")
    return data


def _decode(data: bytes, size: int | None, where: str) -> NDArray[np.uint8]:
    try:
        picture = Image.open(io.BytesIO(data))
        pixels = fitted(picture, 3, (size, size) if size else picture.size)
    except _UNREADABLE as error:
        said = "it is no picture" if isinstance(error, UnidentifiedImageError) else error
        raise ConfigError(f"{where} cannot be decoded: {said}; mend or remove it") from error
    return pixels.transpose(2, 0, 1)


def _labelled(by_class: list[dict[str, NDArray[np.uint8]]], path: Path) -> Labelled:
    named = [(name, picture) for files in by_class for name, picture in sorted(files.items())]
    first, example = named[0]
    if max(example.shape) > MAX_SIDE:
        raise ConfigError(
            f"{path}: {first} has {_size(example)} pixels, more than {MAX_SIDE} a side; choose --size"
        )
    for name, picture in named:
        if picture.shape != example.shape:
            raise ConfigError(
                f"{path}: {name} has {_size(picture)} pixels and {first} {_size(example)}; "
                "choose one size for all with --size"
            )
    labels = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class])
    return Labelled(np.stack([picture for _, picture in named]), labels)


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[2]}x{picture.shape[1]}"
