import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from samples import COLOUR, GREY, PICTURE, npy, picture

from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.frames import (
    CBOR,
    JPEG,
    MAX_FRAME_BYTES,
    NPY,
    PNG,
    Frame,
    decode_frame,
    decode_npy,
    encode_png,
    sniff,
)
from mqtt_mdi.wire.inputs import InputSpec
from mqtt_mdi.wire.tensors import encode_tensor


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (picture("RGB", "JPEG"), JPEG),
        (picture("RGB", "PNG"), PNG),
        (npy(PICTURE), NPY),
        (encode_tensor(PICTURE), CBOR),
    ],
)
def test_the_format_is_told_from_the_first_bytes(data: bytes, kind: str) -> None:
    for named in (None, "", "application/octet-stream", kind, kind.upper() + "; charset=x"):
        assert sniff(data, named) == Frame(kind, data)


@pytest.mark.parametrize(("alias", "kind"), [("image/jpg", JPEG), ("application/x-numpy", NPY)])
def test_common_misnomers_are_understood(alias: str, kind: str) -> None:
    assert sniff(b"x", alias).content_type == kind


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", None),
        (b"GIF89a", None),
        (b"x", "image/gif"),
        (b"x", "a" * 1000),
        (bytes(MAX_FRAME_BYTES + 1), PNG),
    ],
    ids=["empty", "gif", "other type", "long type", "too large"],
)
def test_what_is_no_frame_is_refused_before_decoding(data: bytes, named: str | None) -> None:
    with pytest.raises(ProtocolError) as raised:
        sniff(data, named)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "frame",
    [encode_png(PICTURE), Frame(NPY, npy(PICTURE)), Frame(CBOR, encode_tensor(PICTURE))],
    ids=["png", "npy", "cbor"],
)
def test_a_picture_of_the_right_size_is_normalised_and_not_resampled(frame: Frame) -> None:
    out = decode_frame(frame, COLOUR)
    assert out.shape == (1, 3, 8, 6)
    assert out.dtype == np.float32
    expected = (PICTURE / 255 - COLOUR.mean) / COLOUR.std
    assert np.allclose(out[0], expected.transpose(2, 0, 1), atol=1e-6)


def test_jpeg_comes_close() -> None:
    out = decode_frame(Frame(JPEG, picture("L", "JPEG", quality=95)), GREY)
    assert np.abs(out - decode_frame(Frame(PNG, picture("L", "PNG")), GREY)).max() < 0.1


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)))
def test_pictures_of_any_size_are_fitted(pixels: NDArray[np.uint8]) -> None:
    out = decode_frame(encode_png(pixels), GREY)
    assert out.shape == (1, 1, 8, 6)
    assert pixels.min() / 255 - 1e-2 <= out.min() <= out.max() <= pixels.max() / 255 + 1e-2


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u4", "<u8", "|i1", "<i2", ">i4", "<i8"])
@pytest.mark.parametrize("pack", [lambda a: Frame(NPY, npy(a)), lambda a: Frame(CBOR, encode_tensor(a))])
def test_integers_of_any_kind_are_pixels(dtype: str, pack: Callable[[NDArray[Any]], Frame]) -> None:
    pixels = (np.arange(48) % 128).reshape(8, 6)
    assert np.allclose(decode_frame(pack(pixels.astype(dtype)), GREY)[0, 0] * 255, pixels, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (1, 8, 6)])
def test_axes_of_grey_arrays_may_stand_in_either_order(shape: tuple[int, ...]) -> None:
    pixels = (np.arange(48) % 256).astype(np.uint8)
    expected = decode_frame(Frame(NPY, npy(pixels.reshape(8, 6))), GREY)
    assert np.array_equal(decode_frame(Frame(NPY, npy(pixels.reshape(shape))), GREY), expected)


def test_axes_of_coloured_arrays_may_stand_in_either_order() -> None:
    turned = np.ascontiguousarray(PICTURE.transpose(2, 0, 1))
    expected = decode_frame(Frame(NPY, npy(PICTURE)), COLOUR)
    assert np.array_equal(decode_frame(Frame(NPY, npy(turned)), COLOUR), expected)
    assert np.array_equal(decode_frame(Frame(NPY, npy(np.asfortranarray(PICTURE))), COLOUR), expected)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_floats_are_taken_as_they_are(dtype: str) -> None:
    values = np.linspace(-2, 2, 48).reshape(1, 8, 6).astype(dtype)
    for frame in (Frame(NPY, npy(values)), Frame(CBOR, encode_tensor(values))):
        out = decode_frame(frame, GREY)
        assert out.dtype == np.float32
        assert out.dtype.isnative
        assert np.array_equal(out[0], values.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_floats_that_are_no_numbers_are_refused(value: float) -> None:
    values = np.zeros((1, 8, 6))
    values[0, 3, 3] = value
    with pytest.raises(ProtocolError, match="NaN"):
        decode_frame(Frame(NPY, npy(values)), GREY)


@pytest.mark.parametrize("shape", [(8, 6), (1, 6, 8), (1, 1, 8, 6), (48,), (), (0, 8, 6)])
def test_floats_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError, match="shape"):
        decode_frame(Frame(CBOR, encode_tensor(np.zeros(shape, np.float32))), GREY)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 4, 3), np.uint8),
        np.full((4, 4), 256, np.uint16),
        np.full((4, 4), -1, np.int8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_integers_that_are_no_picture_are_refused(array: NDArray[Any]) -> None:
    for frame in (Frame(NPY, npy(array)), Frame(CBOR, encode_tensor(array))):
        with pytest.raises(ProtocolError):
            decode_frame(frame, GREY)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_every_mode_of_png_is_converted(mode: str, spec: InputSpec) -> None:
    assert decode_frame(Frame(PNG, picture(mode, "PNG")), spec).shape == (1, *spec.shape)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_every_mode_of_jpeg_is_converted(mode: str, spec: InputSpec) -> None:
    assert decode_frame(Frame(JPEG, picture(mode, "JPEG", progressive=True)), spec).shape == (1, *spec.shape)


def test_a_palette_with_transparency_is_read_as_its_colours() -> None:
    data = picture("P", "PNG", transparency=bytes(range(256)))
    assert np.array_equal(
        decode_frame(Frame(PNG, data), COLOUR), decode_frame(Frame(PNG, picture("P", "PNG")), COLOUR)
    )


def test_16_bit_grey_keeps_its_range() -> None:
    deep = np.linspace(0, 65535, 48).astype(np.uint16).reshape(8, 6)
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "PNG")
    out = decode_frame(Frame(PNG, stream.getvalue()), GREY)
    assert np.allclose(out[0, 0], deep / 65535, atol=1 / 255)


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(
        st.sampled_from(["|u1", "<i2", ">u4", "<i8", "<f2", ">f4", "<f8"]).map(np.dtype),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.sampled_from("CF"),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_every_npy_comes_back_as_it_was(array: NDArray[Any], order: str, version: tuple[int, int]) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array(array, order=order), version)
    back = decode_npy(stream.getvalue())
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 0},
        {"width": 5000},
        {"channels": 2},
        {"mean": (0.1, 0.2)},
        {"std": ()},
        {"std": (0.0,)},
        {"mean": (float("nan"),)},
        {"colour": 1},
    ],
)
def test_an_input_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InputSpec(**({"height": 8, "width": 6, "channels": 1, "mean": (0.0,), "std": (1.0,)} | changes))
