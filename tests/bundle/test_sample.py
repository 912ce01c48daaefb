from pathlib import Path

import numpy as np
import pytest

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import SAMPLE_FILE, draw_sample, read_sample, write_sample
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.datasets.labelled import Labelled, usual_sample
from mqtt_mdi.errors import BundleError, ConfigError

PICTURES = np.arange(60 * 4, dtype=np.uint8).reshape(60, 1, 2, 2)
LABELS = np.repeat(np.arange(3), 20)


def test_the_shipped_sample_is_even_and_belongs_to_the_trace() -> None:
    sample = read_sample(SHIPPED_BUNDLE)
    assert sample.pictures.shape == (1000, 28, 28)
    assert np.bincount(sample.labels).tolist() == [100] * 10
    assert len(set(sample.indices.tolist())) == 1000
    np.testing.assert_array_equal(read_trace(SHIPPED_BUNDLE).truth[sample.indices], sample.labels)


def test_drawing_is_seeded_even_and_without_repeats(tmp_path: Path) -> None:
    first, again, other = (draw_sample(PICTURES, LABELS, 30, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.indices, again.indices)
    assert first.indices.tolist() != other.indices.tolist()
    assert np.bincount(first.labels).tolist() == [10, 10, 10]
    assert len(set(first.indices.tolist())) == 30
    write_sample(first, tmp_path)
    read = read_sample(tmp_path)
    np.testing.assert_array_equal(read.pictures, PICTURES[first.indices, 0])
    np.testing.assert_array_equal(read.labels, LABELS[read.indices])


def test_colour_pictures_have_their_channels_last() -> None:
    colour = np.repeat(PICTURES, 3, axis=1)
    assert draw_sample(colour, LABELS, 3, 1).pictures.shape == (3, 2, 2, 3)


@pytest.mark.parametrize("size", [1, 63, 61])
def test_sizes_that_cannot_be_drawn_evenly(size: int) -> None:
    with pytest.raises(ConfigError, match="choose a multiple of 3 up to 60"):
        draw_sample(PICTURES, LABELS, size, 1)


def test_no_sample_is_larger_than_what_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    large = rng.integers(0, 256, (12, 3, 1600, 1600), np.uint8)
    labels = np.arange(12) % 2
    assert usual_sample(Labelled(large, labels)) == 8
    with pytest.raises(ConfigError, match="a sample takes 8; choose fewer"):
        draw_sample(large, labels, 10, 1)
    write_sample(draw_sample(large, labels, 8, 1), tmp_path)
    assert len(read_sample(tmp_path).labels) == 8


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*sample\.npz"):
        read_sample(tmp_path)
    (tmp_path / SAMPLE_FILE).write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(BundleError, match=r"cannot read .*sample\.npz"):
        read_sample(tmp_path)
    np.savez(tmp_path / SAMPLE_FILE, pictures=PICTURES[:, 0], labels=LABELS[:9], indices=LABELS)
    with pytest.raises(BundleError, match="do not belong together"):
        read_sample(tmp_path)
    np.savez(tmp_path / SAMPLE_FILE, pictures=PICTURES[:, 0] / 2, labels=LABELS, indices=LABELS)
    with pytest.raises(BundleError, match="expected uint8 and integers"):
        read_sample(tmp_path)
