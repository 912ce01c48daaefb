import gzip
from pathlib import Path

import numpy as np
import pytest

from mqtt_mdi.datasets.fashion_mnist import fashion_mnist, read_idx
from mqtt_mdi.datasets.labelled import hold_out
from mqtt_mdi.errors import ConfigError


def idx(array: np.ndarray) -> bytes:
    magic = {1: 2049, 3: 2051}[array.ndim]
    header = b"".join(n.to_bytes(4, "big") for n in (magic, *array.shape))
    return header + array.astype(np.uint8).tobytes()


PICTURES = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([0, 9, 3, 3], np.uint8)


def write_set(folder: Path, part: str, pictures: bytes, labels: bytes) -> None:
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pictures))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_reading_the_four_files(tmp_path: Path) -> None:
    write_set(tmp_path, "train", idx(PICTURES), idx(LABELS))
    write_set(tmp_path, "t10k", idx(PICTURES[:2]), idx(LABELS[:2]))
    dataset = fashion_mnist(tmp_path)
    np.testing.assert_array_equal(dataset.train.pictures, PICTURES[:, None])
    assert dataset.train.labels.tolist() == [0, 9, 3, 3]
    assert dataset.test.pictures.shape == (2, 1, 2, 3)
    assert len(dataset.class_names) == 10


def test_files_need_not_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx(LABELS))
    assert read_idx(path).tolist() == LABELS.tolist()


@pytest.mark.parametrize("kept", [0, 3, 4, 10, 15, 16, 20, 39])
def test_truncated_anywhere(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx(PICTURES)[:kept])
    with pytest.raises(ConfigError, match=r"images (begins with|holds)"):
        read_idx(path)


def test_more_than_the_header_promises(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx(PICTURES) + b"\0")
    with pytest.raises(ConfigError, match=r"holds 25 values, its header promises \(4, 2, 3\)"):
        read_idx(path)


@pytest.mark.parametrize("damage", ["cut", "flip", "plain"])
def test_damaged_compression(damage: str, tmp_path: Path) -> None:
    data = bytearray(gzip.compress(idx(PICTURES)))
    if damage == "cut":
        data = data[:-9]
    elif damage == "flip":
        data[12] ^= 0xFF
    else:
        data = bytearray(idx(PICTURES))
    path = tmp_path / "images.gz"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"cannot read .*images\.gz.*expected a file of the IDX format"):
        read_idx(path)


def test_a_file_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_mdi.datasets.fashion_mnist.MAX_BYTES", 30)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(PICTURES)))
    with pytest.raises(ConfigError, match=r"images\.gz unpacks to more than 30 bytes"):
        read_idx(path)


def test_a_missing_folder_or_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*pass --data"):
        fashion_mnist(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"cannot read .*train-images"):
        fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("pictures", "labels", "message"),
    [
        (PICTURES, LABELS[:3], "train has 4 pictures and 3 labels"),
        (PICTURES[:0], LABELS[:0], "train has 0 pictures and 0 labels"),
        (PICTURES, np.array([0, 1, 2, 10], np.uint8), "train has label 10, outside the 10 classes"),
        (LABELS, LABELS, "pictures and labels of train are exchanged"),
    ],
)
def test_files_that_do_not_fit(
    pictures: np.ndarray, labels: np.ndarray, message: str, tmp_path: Path
) -> None:
    write_set(tmp_path, "train", idx(pictures), idx(labels))
    with pytest.raises(ConfigError, match=message):
        fashion_mnist(tmp_path)


def test_holding_out_is_seeded() -> None:
    labels = np.zeros(100, np.int64)
    mask = hold_out(labels, 20, 1)
    assert mask.sum() == 20
    np.testing.assert_array_equal(mask, hold_out(labels, 20, 1))
    assert (mask != hold_out(labels, 20, 2)).any()
