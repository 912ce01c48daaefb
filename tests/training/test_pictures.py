import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mqtt_mdi.datasets.cifar10 import CLASSES
from mqtt_mdi.datasets.labelled import Dataset
from mqtt_mdi.datasets.registry import read_dataset
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.wire.frames import Frame, InputSpec, decode_frame, encode_png


def encoded(colour: tuple[int, int, int], size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


RED, BLUE = (250, 0, 0), (0, 0, 250)
FILES = {
    "train/red/2.png": encoded(RED),
    "train/red/1.png": encoded((200, 0, 0)),
    "train/blue/1.png": encoded(BLUE),
    "test/red/1.png": encoded(RED),
    "test/blue/1.png": encoded(BLUE),
    "test/blue/notes.txt": b"not a picture",
}


def in_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "set" / name).write_bytes(data)
    return path / "set"


def in_tar(path: Path, files: dict[str, bytes], kind: str = "xz") -> Path:
    with tarfile.open(path / "set.tar", f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(f"some-folder/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path / "set.tar"


def in_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path / "set.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path / "set.zip"


@pytest.mark.parametrize("store", [in_folder, in_tar, in_zip])
def test_pictures_by_class(store: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path) -> None:
    dataset = read_dataset("pictures", store(tmp_path, FILES), None)
    assert dataset.class_names == ("blue", "red")
    assert dataset.train.labels.tolist() == [0, 1, 1]
    assert dataset.train.pictures[:, :, 0, 0].tolist() == [[0, 0, 250], [200, 0, 0], [250, 0, 0]]
    assert dataset.test.pictures.shape == (2, 3, 8, 8)


def test_pictures_of_several_sizes_are_scaled_when_asked(tmp_path: Path) -> None:
    files = FILES | {"train/red/3.jpg": encoded(RED, (40, 20), "JPEG")}
    path = in_folder(tmp_path, files)
    with pytest.raises(ConfigError, match=r"red/3\.jpg has 40x20 pixels and .*blue/1\.png 8x8.*--size"):
        read_dataset("pictures", path, None)
    dataset = read_dataset("pictures", path, 12)
    assert dataset.train.pictures.shape == (4, 3, 12, 12)
    assert dataset.train.pictures[3, 0].min() > 240


@pytest.mark.parametrize("size", [(40, 20), (9, 31), (12, 12), (1, 5)])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "RGBA", "P"])
def test_pictures_are_read_as_frames_are(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    """What a network is measured on is what a device makes of the same file."""
    pixels = np.random.default_rng(1).integers(0, 256, (*reversed(size), 3), np.uint8)
    picture = Image.fromarray(pixels)
    if mode == "I;16":
        picture = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    stream = io.BytesIO()
    (picture if mode == "I;16" else picture.convert(mode)).save(stream, "PNG")
    dataset = read_dataset(
        "pictures", in_folder(tmp_path, {**FILES, "train/red/9.png": stream.getvalue()}), 12
    )
    spec = InputSpec(height=12, width=12, channels=3, mean=(0, 0, 0), std=(1, 1, 1))
    frame = decode_frame(Frame("image/png", stream.getvalue()), spec)
    np.testing.assert_allclose(dataset.train.pictures[-1], 255 * frame[0], atol=1e-3)


def test_things_keep_their_shape() -> None:
    """Of a picture that is wider than the model's input its middle is taken."""
    pixels = np.zeros((10, 40), np.uint8)
    pixels[:, 15:25] = 200
    spec = InputSpec(height=5, width=5, channels=1, mean=(0,), std=(1,))
    taken = decode_frame(encode_png(pixels), spec)[0, 0] * 255
    assert taken[:, 1:4].min() == pytest.approx(200)
    assert taken.min() > 150, "the edge mixes with what lies beside it"


def test_only_pictures_by_class_are_scaled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cifar10 has pictures of 32x32, which are not scaled to 48"):
        read_dataset("cifar10", in_tar(tmp_path, BINARY), 48)
    read_dataset("cifar10", in_tar(tmp_path, BINARY), 32)


def test_an_archive_with_a_password_or_another_way_to_pack(tmp_path: Path) -> None:
    whole = in_zip(tmp_path, FILES).read_bytes()
    directory = whole.rindex(b"PK\x01\x02")
    for place, value, message in ((8, 1, "is encrypted, password required"), (10, 99, "not supported")):
        data = bytearray(whole)
        data[directory + place] = value
        (tmp_path / "set.zip").write_bytes(data)
        with pytest.raises(ConfigError, match=rf"cannot read .*set\.zip: .*{message}"):
            read_dataset("pictures", tmp_path / "set.zip", None)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["nowhere.png", "link.png"])
def test_links_that_lead_nowhere(kind: bytes, target: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        info = tarfile.TarInfo("train/red/link.png")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    with pytest.raises(ConfigError, match=r"train/red/link\.png is a link to .*, which leads nowhere"):
        read_dataset("pictures", tmp_path / "set.tar", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/red/9.png": b"\x89PNG nothing"}, r"red/9\.png cannot be decoded"),
        ({"train/red/9.png": encoded(RED)[:40]}, r"red/9\.png cannot be decoded"),
        ({"train/red/9.png": b""}, r"red/9\.png cannot be decoded: it is no picture"),
        ({f"train/{'a' * 201}/9.png": encoded(RED)}, r"'a+' names no class"),
        ({"train/\x1b[2J/9.png": encoded(RED)}, r"names no class"),
        ({"red/9.png": encoded(RED)}, r"'red/9\.png' lies outside train/ and test/"),
        ({"test/red/9.tif": encoded(RED)}, r"red/9\.tif is no JPEG, PNG, BMP or WebP by its name"),
        ({"train/green/1.png": encoded(RED)}, r"no pictures in test/green"),
        ({"train/blue/0.png": encoded(RED, (4097, 2))}, r"blue/0\.png has 4097x2 pixels, more than 4096"),
    ],
)
def test_pictures_that_do_not_fit(change: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_dataset("pictures", in_folder(tmp_path, FILES | change), None)


@pytest.mark.parametrize("store", [in_folder, in_tar, in_zip])
def test_a_file_beyond_the_limit(
    store: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_mdi.datasets.pictures.MAX_FILE_BYTES", 1000)
    path = store(tmp_path, FILES | {"train/red/big.png": bytes(1001)})
    with pytest.raises(ConfigError, match=r"big\.png has more than 1,000 bytes"):
        read_dataset("pictures", path, None)


@pytest.mark.parametrize("kind", ["xz", "gz", "bz2"])
def test_a_truncated_archive(kind: str, tmp_path: Path) -> None:
    path = in_tar(tmp_path, FILES, kind)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ConfigError, match=r"cannot read .*set\.tar.*fetched again"):
        read_dataset("pictures", path, None)


@pytest.mark.parametrize("kind", ["", "gz"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_an_archive_that_is_damaged_where_a_file_begins(kind: str, damage: str, tmp_path: Path) -> None:
    """Python's reader takes that for the end."""
    whole = in_tar(tmp_path, FILES, "").read_bytes()
    with tarfile.open(tmp_path / "set.tar") as archive:
        last = archive.getmembers()[-1].offset
    data = whole[:last] if damage == "cut" else whole[: last + 1] + b"\xff" + whole[last + 2 :]
    (tmp_path / "set.tar").write_bytes(gzip.compress(data) if kind else data)
    with pytest.raises(ConfigError, match=rf"breaks off or is damaged at byte {last:,}; .*fetched again"):
        read_dataset("pictures", tmp_path / "set.tar", None)


def test_no_archive_at_all(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(b"hello")
    with pytest.raises(ConfigError, match="expected a folder, a tar or a zip file"):
        read_dataset("pictures", tmp_path / "set.tar", None)


def test_a_missing_path_and_a_wrong_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no .*nowhere: pass --data with the official archive"):
        read_dataset("cifar10", tmp_path / "nowhere", None)
    with pytest.raises(ConfigError, match="--data is missing"):
        read_dataset("cifar10", None, None)
    with pytest.raises(ConfigError, match=r"no data set 'mnist'; known: cifar10"):
        read_dataset("mnist", tmp_path, None)


ROWS = np.random.default_rng(1).integers(0, 256, (3, 3072), np.uint8)
LABELS = [3, 0, 9]
NAMES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")


def binary(labels: list[int]) -> bytes:
    return np.hstack([np.array(labels, np.uint8)[:, None], ROWS]).tobytes()


def pickled(labels: list[int]) -> bytes:
    return pickle.dumps({b"data": ROWS, b"labels": labels, b"batch_label": b"batch"}, protocol=2)


BINARY = {f"{name}.bin": binary(LABELS) for name in NAMES} | {"batches.meta.txt": b"airplane"}
PICKLED = {name: pickled(LABELS) for name in NAMES} | {"batches.meta": b"\x80\x02}q\x01."}


@pytest.mark.parametrize("files", [BINARY, PICKLED], ids=["binary", "python"])
@pytest.mark.parametrize("store", [in_folder, in_tar])
def test_the_official_archives(
    store: Callable[[Path, dict[str, bytes]], Path], files: dict[str, bytes], tmp_path: Path
) -> None:
    dataset: Dataset = read_dataset("cifar10", store(tmp_path, files), None)
    assert dataset.class_names == CLASSES
    assert dataset.train.labels.tolist() == LABELS * 5
    np.testing.assert_array_equal(dataset.test.pictures, ROWS.reshape(3, 3, 32, 32))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (BINARY | {"data_batch_2.bin": binary(LABELS)[:-1]}, r"data_batch_2\.bin has 9218 bytes"),
        (BINARY | {"data_batch_2.bin": binary([0, 10, 1])}, "has label 10, outside the 10 classes"),
        (PICKLED | {"test_batch": pickled(LABELS)[:-40]}, "test_batch is no batch of CIFAR-10"),
        (PICKLED | {"test_batch": pickled([0, -1, 9])}, "has label -1, outside the 10 classes"),
        (PICKLED | {"test_batch": pickled([0, 1])}, "has 3 pictures and 2 labels"),
        (PICKLED | {"test_batch": pickle.dumps(print, 2)}, r"it names __builtin__\.print"),
        ({"data_batch_1.bin": binary(LABELS)}, "lacks data_batch_2"),
    ],
)
def test_official_archives_that_are_damaged(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_dataset("cifar10", in_tar(tmp_path, files, "gz"), None)


def test_cifar10_by_class(tmp_path: Path) -> None:
    files = {
        f"{part}/{name}/1.jpg": encoded(RED, kind="JPEG") for part in ("train", "test") for name in CLASSES
    }
    assert read_dataset("cifar10", in_tar(tmp_path, files), None).class_names == CLASSES
