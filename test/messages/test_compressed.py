"""Decompression of images: too large, truncated, damaged and unsupported streams are rejected."""

from __future__ import annotations

import struct

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import simplejpeg

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.compressed import decompress_image
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb, ImageFields
from marigold_ros.messages.image_stream import read_image_size
from marigold_ros.messages.jpeg import drop_stray_bytes_in_header

LIMIT = 1_000_000


def make_rgb():
    """Draw a smooth 30 x 20 image: red grows to the right, green downwards."""
    v, u = np.mgrid[:20, :30]
    return np.stack([u * 8, v * 12, np.full_like(u, 40)], axis=-1).astype(np.uint8)


def encode(image, suffix='.jpg', **flags):
    """Encode an RGB or grey image with OpenCV."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    parameters = [value for pair in flags.items() for value in (getattr(cv2, pair[0]), pair[1])]
    return cv2.imencode(suffix, np.ascontiguousarray(bgr), parameters)[1].tobytes()


def decode(stream, *, max_pixels):
    """Decode a stream to RGB."""
    return decode_rgb(decompress_image(stream, 'jpeg', max_pixels=max_pixels))


def with_segment(jpeg, payload):
    """Insert an APP1 segment after SOI."""
    return jpeg[:2] + b'\xff\xe1' + (len(payload) + 2).to_bytes(2, 'big') + payload + jpeg[2:]


def test_png_is_decoded_exactly():
    rgb = make_rgb()
    decoded = decode(encode(rgb, '.png'), max_pixels=600)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, rgb)


@pytest.mark.parametrize('flags', [{}, {'IMWRITE_JPEG_PROGRESSIVE': 1},
                                   {'IMWRITE_JPEG_RST_INTERVAL': 2}])
def test_jpeg_is_decoded_approximately(flags):
    rgb = make_rgb()
    decoded = decode(encode(rgb, IMWRITE_JPEG_QUALITY=98, **flags), max_pixels=600)
    assert np.abs(decoded.astype(int) - rgb).max() < 20
    assert np.abs(decoded.astype(int) - rgb).mean() < 3


def test_arrays_and_bytes_are_decoded_equally():
    stream = encode(make_rgb())
    np.testing.assert_array_equal(
        decode(np.frombuffer(stream, np.uint8), max_pixels=LIMIT),
        decode(stream, max_pixels=LIMIT))


def test_grey_streams_become_three_equal_channels():
    grey = make_rgb()[..., 0]
    for suffix in ('.jpg', '.png'):
        decoded = decode(encode(grey, suffix), max_pixels=LIMIT)
        assert decoded.shape == (20, 30, 3)
        assert (decoded == decoded[..., :1]).all()
        assert np.abs(decoded[..., 0].astype(int) - grey).max() < 12


def test_16_bit_png_is_scaled_as_mono16():
    grey = np.array([[1285, 65535, 128, 129]], np.uint16)
    decoded = decode(encode(grey, '.png'), max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded[0, :, 0], [5, 255, 0, 1])


def test_alpha_is_dropped():
    bgra = np.dstack([make_rgb()[..., ::-1], np.full((20, 30), 9, np.uint8)])
    stream = cv2.imencode('.png', bgra)[1].tobytes()
    np.testing.assert_array_equal(decode(stream, max_pixels=LIMIT), make_rgb())


def test_an_exif_orientation_is_ignored():
    # Big-endian TIFF with one entry: tag 0x0112, SHORT, one value, 6 (rotate by 90 degrees).
    exif = (b'Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0')
    stream = encode(make_rgb())
    turned = with_segment(stream, exif)
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (30, 20, 3)
    np.testing.assert_array_equal(decode(turned, max_pixels=LIMIT),
                                  decode(stream, max_pixels=LIMIT))


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_a_decompression_bomb_is_rejected_before_decoding(suffix, monkeypatch):
    stream = bytearray(encode(make_rgb(), suffix))
    if suffix == '.png':
        stream[16:24] = (50_000).to_bytes(4, 'big') * 2
    else:
        frame = stream.index(b'\xff\xc0')
        stream[frame + 5:frame + 9] = (50_000).to_bytes(2, 'big') * 2
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    monkeypatch.setattr(simplejpeg, 'decode_jpeg', lambda *_, **__: pytest.fail('decoded'))
    with pytest.raises(MessageError, match='at most 16000000 pixels; its header declares 50000 x'):
        decode(bytes(stream), max_pixels=16_000_000)


def test_the_limit_is_inclusive():
    stream = encode(make_rgb())
    assert decode(stream, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(MessageError, match='at most 599 pixels; its header declares 30 x 20'):
        decode(stream, max_pixels=599)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_a_truncated_stream_is_rejected(suffix):
    stream = encode(make_rgb(), suffix)
    for length in range(0, len(stream) - 3, 7):
        with pytest.raises(MessageError):
            decode(stream[:length], max_pixels=LIMIT)
    with pytest.raises(MessageError, match='must be a valid (JPEG; Premature end|PNG)'):
        decode(stream[:-4], max_pixels=LIMIT)


def remove_bytes(stream, at):
    """Remove 200 bytes in the middle."""
    return stream[:at] + stream[at + 200:]


def overwrite_bytes(stream, at):
    """Overwrite 200 bytes with noise."""
    return stream[:at] + np.random.default_rng(at).bytes(200) + stream[at + 200:]


@pytest.mark.parametrize('damage', [remove_bytes, overwrite_bytes])
@pytest.mark.parametrize(('suffix', 'flags', 'min_rejected'), [
    ('.png', {}, 100), ('.jpg', {}, 97), ('.jpg', {'IMWRITE_JPEG_PROGRESSIVE': 1}, 90)])
def test_damaged_streams_are_rejected(
        damage, suffix, flags, min_rejected):
    """All PNG and nearly all JPEG streams: some damage yields another valid JPEG."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    stream = encode(cv2.resize(noise, (320, 240)), suffix, **flags)
    data = stream.index(b'IDAT' if suffix == '.png' else b'\xff\xda')
    damaged = [damage(stream, int(at)) for at in rng.integers(data + 20, len(stream) - 220, 100)]
    if suffix == '.jpg':
        assert cv2.imdecode(np.frombuffer(damaged[0], np.uint8), cv2.IMREAD_COLOR) is not None
    rejected = 0
    for each in damaged:
        try:
            decode(each, max_pixels=LIMIT)
        except MessageError:
            rejected += 1
    assert rejected >= min_rejected


def test_valid_jpeg_is_decoded_as_by_opencv():
    rgb = cv2.resize(np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype(np.uint8),
                     (321, 239))
    for flags in ({}, {'IMWRITE_JPEG_PROGRESSIVE': 1}, {'IMWRITE_JPEG_QUALITY': 30}):
        stream = encode(rgb, **flags)
        bgr = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(decode(stream, max_pixels=LIMIT),
                                      bgr[..., ::-1])


def test_a_thumbnails_end_marker_does_not_complete_a_truncated_jpeg():
    stream = with_segment(encode(make_rgb()), b'Exif\0\0' + encode(make_rgb()))
    assert decode(stream, max_pixels=LIMIT).shape == (20, 30, 3)
    with pytest.raises(MessageError, match='must be a valid JPEG; '):
        decode(stream[:-20], max_pixels=LIMIT)


def test_bytes_after_the_end_marker_are_ignored():
    stream = encode(make_rgb()) + bytes(64)
    assert decode(stream, max_pixels=LIMIT).shape == (20, 30, 3)


@pytest.mark.parametrize('stream, match', [
    (b'', "it starts with b''"),
    (b'GIF89a' + bytes(30), "must be a JPEG or PNG stream; it starts with b'GIF89a"),
    (b'\xff\xd8\xff\xd9', 'must be a valid JPEG; its header is not'),
    (b'\x89PNG\r\n\x1a\n' + bytes(40), 'its 48 bytes do not begin with IHDR'),
])
def test_other_formats_are_rejected(stream, match):
    with pytest.raises(MessageError, match=match):
        decode(stream, max_pixels=LIMIT)


@pytest.mark.parametrize('suffix, mark, offset, match', [
    ('.jpg', b'\xff\xc0', 5, 'must be a valid JPEG; its header is not'),
    ('.png', b'IHDR', 8, 'must contain an image; its header declares 30 x 0')])
def test_a_header_without_a_size_is_rejected(suffix, mark, offset, match):
    stream = bytearray(encode(make_rgb(), suffix))
    at = stream.index(mark) + offset
    stream[at:at + 4] = bytes(4)
    with pytest.raises(MessageError, match=match):
        read_image_size(bytes(stream))


def test_a_png_with_a_wrong_checksum_is_rejected():
    stream = bytearray(encode(make_rgb(), '.png'))
    stream[60] ^= 0x55
    with pytest.raises(MessageError, match='its content is damaged'):
        decode(bytes(stream), max_pixels=LIMIT)


def test_an_opencv_error_becomes_a_message_error(monkeypatch):
    def fail(*_):
        raise cv2.error('boom')

    monkeypatch.setattr(cv2, 'imdecode', fail)
    with pytest.raises(MessageError, match='must be a valid PNG; got boom'):
        decode(encode(make_rgb(), '.png'), max_pixels=LIMIT)


@pytest.mark.parametrize('image_format', ['16UC1; png compressed', '16UC1; png compressed '])
def test_16uc1_is_decompressed_unchanged(image_format):
    depth_mm = np.array([[0, 1, 1500], [65535, 256, 255]], np.uint16)
    fields = decompress_image(encode(depth_mm, '.png'), image_format, max_pixels=6)
    assert (fields.encoding, fields.height, fields.width) == ('16UC1', 2, 3)
    assert fields.data.view('<u2').tolist() == [0, 1, 1500, 65535, 256, 255]


def with_depth_header(samples, a=0.0, b=0.0):
    """Encode as compressed_depth_image_transport: 12 bytes, then a PNG."""
    return struct.pack('<iff', 0, a, b) + encode(np.array(samples, np.uint16), '.png')


@pytest.mark.parametrize('transport', ['compressedDepth', 'compressedDepth png'])
def test_compressed_depth_in_16uc1_is_decompressed_unchanged(transport):
    fields = decompress_image(with_depth_header([[0, 1500]]), f'16UC1; {transport}', max_pixels=2)
    assert (fields.encoding, fields.data.view('<u2').tolist()) == ('16UC1', [0, 1500])


def test_compressed_depth_in_32fc1_is_dequantized():
    # depth_quantization 100, depth_max 10: a = 100 x 101, b = 1 - a / 10 = -1009.
    stream = with_depth_header([[0, 4041, 9091]], 10100.0, -1009.0)
    fields = decompress_image(stream, '32FC1; compressedDepth png', max_pixels=3)
    depth_m = fields.data.view('<f4')
    assert fields.encoding == '32FC1' and np.isnan(depth_m[0])
    assert depth_m[1:].tolist() == pytest.approx([2.0, 1.0])


def test_compressed_depth_may_be_mono16_and_its_format_only_an_encoding():
    stream = with_depth_header([[0, 1500]])
    for image_format, encoding in (('mono16; compressedDepth png', 'mono16'), ('16UC1', '16UC1')):
        fields = decompress_image(stream, image_format, max_pixels=2)
        assert (fields.encoding, unpack_depth(fields)[0, 1]) == (encoding, 1.5)


def test_rvl_is_decompressed_as_png_is():
    # RVL of [[0, 4041, 9091]]: 1 zero, 2 others, 2 * 4041 and 2 * 5050 in octal digits, the least
    # significant first: 2 2 6 7 1 and 4 6 5 3 2; no further runs.
    words = struct.pack('<4I', 3, 1, 0x12aaef1c, 0xedb20000)
    for encoding, a, b, expected_m in (('16UC1', 0.0, 0.0, [4.041, 9.091]),
                                       ('mono16', 0.0, 0.0, [4.041, 9.091]),
                                       ('32FC1', 10100.0, -1009.0, [2.0, 1.0])):
        for separator in ('; ', ';'):
            fields = decompress_image(struct.pack('<iff', 0, a, b) + words,
                                      f'{encoding}{separator}compressedDepth rvl', max_pixels=3)
            depth_m = unpack_depth(fields)
            assert fields.encoding == encoding and np.isnan(depth_m[0, 0])
            assert depth_m[0, 1:].tolist() == pytest.approx(expected_m)


def test_invalid_compressed_depth_is_rejected():
    stream = with_depth_header([[1]])
    for wrong in ('32FC1; compressedDepth jxl', 'mono8; compressedDepth png'):
        with pytest.raises(MessageError, match='must be 32FC1 or 16UC1 or mono16 in png or rvl '
                                               f'.* got {wrong!r}'):
            decompress_image(stream, wrong, max_pixels=1)
    with pytest.raises(MessageError, match='begin with a header of 12 bytes .* got 5'):
        decompress_image(stream[:5], '16UC1; compressedDepth', max_pixels=1)
    with pytest.raises(MessageError, match='8 bytes of size and words of 4 bytes in RVL; got 3'):
        decompress_image(stream[:15], '16UC1; compressedDepth rvl', max_pixels=1)


@pytest.mark.parametrize('image_format', [
    'rgb8; png compressed bgr8', 'bgr8; png compressed', 'rgb8; png compressed rgb8', 'png', ''])
def test_colours_have_the_order_of_the_stream_whatever_the_format_says(image_format):
    fields = decompress_image(encode(make_rgb(), '.png'), image_format, max_pixels=600)
    assert (fields.encoding, fields.step) == ('rgb8', 90)
    np.testing.assert_array_equal(fields.data, make_rgb().reshape(-1))


@pytest.mark.parametrize('dtype, bits', [(np.uint8, 8), (np.uint16, 16)])
@pytest.mark.parametrize('image_format, layout, shape', [
    ('bgr{bits}; png compressed bgr{bits}', 'rgb', (20, 30, 3)), ('png', 'rgb', (20, 30, 3)),
    ('mono{bits}; png compressed ', 'mono', (20, 30)), ('png', 'mono', (20, 30)),
    ('bayer_rggb{bits}; png compressed mono{bits}', 'mono', (20, 30)),
    ('8UC1; png compressed ', 'mono', (20, 30))])
def test_bits_and_channels_of_the_stream_are_kept(image_format, layout, shape, dtype, bits):
    samples = np.random.default_rng(0).integers(0, 2 ** bits, shape).astype(dtype)
    fields = decompress_image(encode(samples, '.png'), image_format.format(bits=bits),
                              max_pixels=600)
    assert fields.encoding == f'{layout}{bits}'
    np.testing.assert_array_equal(fields.data.view(dtype), samples.reshape(-1))


@pytest.mark.parametrize('dtype, bits', [(np.uint8, 8), (np.uint16, 16)])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_compressed_mosaic_is_demosaiced_like_a_raw_one(pattern, dtype, bits):
    rgb = np.array([200, 90, 30]) * 2 ** (bits - 8)
    mosaic = np.empty((20, 30), dtype)
    for site, color in enumerate(pattern):
        mosaic[site // 2::2, site % 2::2] = rgb['rgb'.index(color)]
    name = f'bayer_{pattern}{bits}'
    raw = decode_rgb(ImageFields(20, 30, name, False, 30 * bits // 8,
                                 mosaic.reshape(-1).view(np.uint8)))
    np.testing.assert_allclose(raw, np.broadcast_to([200, 90, 30], raw.shape), atol=1)
    for image_format in (f'{name}; png compressed ', f'{name}; png compressed {name}', name):
        fields = decompress_image(encode(mosaic, '.png'), image_format, max_pixels=600)
        assert fields.encoding == name
        np.testing.assert_array_equal(decode_rgb(fields), raw)


def test_a_mosaic_in_jpeg_is_demosaiced_and_colours_in_its_place_are_kept():
    rgb = decode(encode(np.full((20, 30, 3), (200, 90, 30), np.uint8), '.png'), max_pixels=600)
    mosaic = np.where(np.indices((20, 30)).sum(axis=0) % 2, rgb[..., 1], rgb[..., 0])
    mosaic[1::2, 1::2] = 30
    for bits in (8, 16):  # JPEG has 8 bits in any case
        image_format = f'bayer_rggb{bits}; jpeg compressed '
        fields = decompress_image(encode(mosaic, IMWRITE_JPEG_QUALITY=98), image_format,
                                  max_pixels=600)
        np.testing.assert_allclose(decode_rgb(fields), rgb, atol=6)
        colors = decompress_image(encode(rgb), image_format + 'bgr8', max_pixels=600)
        np.testing.assert_allclose(decode_rgb(colors), rgb, atol=3)


def test_an_unknown_bayer_pattern_is_rejected():
    with pytest.raises(MessageError, match="must name a Bayer pattern .* got 'bayer_rgbw8; png"):
        decompress_image(encode(make_rgb()[..., 0], '.png'), 'bayer_rgbw8; png compressed ',
                         max_pixels=600)


@pytest.mark.parametrize('image_format', ['mono16; png compressed ', 'png'])
def test_a_16_bit_png_is_grey_in_an_image_and_millimetres_in_depth(image_format):
    stream = encode(np.array([[0, 2570, 65535]], np.uint16), '.png')
    fields = decompress_image(stream, image_format, max_pixels=3)
    assert decode_rgb(fields)[0, :, 0].tolist() == [0, 10, 255]
    np.testing.assert_allclose(unpack_depth(fields)[0], [np.nan, 2.57, 65.535], rtol=1e-6)


def test_decompression_checks_the_format_and_the_limit():
    for dtype in (np.uint8, np.uint16):
        stream = encode(make_rgb().astype(dtype), '.png')
        with pytest.raises(MessageError, match=rf'got {dtype.__name__} \[20, 30, 3\]'):
            decompress_image(stream, '16UC1; png compressed', max_pixels=LIMIT)
    with pytest.raises(MessageError, match='at most 5 pixels'):
        decompress_image(encode(np.ones((2, 3), np.uint16), '.png'), '16UC1; png', max_pixels=5)


VALID = {suffix: encode(make_rgb(), suffix) for suffix in ('.jpg', '.png')}


@settings(derandomize=True, deadline=None, max_examples=300)
@given(suffix=st.sampled_from(sorted(VALID)), length=st.integers(0, 2000),
       flips=st.lists(st.tuples(st.integers(0, 1999), st.integers(0, 255)), max_size=4),
       tail=st.binary(max_size=8))
def test_any_damaged_stream_yields_an_image_of_its_size_or_an_error(
        suffix, length, flips, tail):
    damaged = bytearray(VALID[suffix][:length])
    for position, value in flips:
        if position < len(damaged):
            damaged[position] = value
    stream = bytes(damaged) + tail
    try:
        rgb = decode(stream, max_pixels=LIMIT)
    except MessageError:
        return
    # What lies between a header's segments is skipped, as libjpeg skips it.
    whole = drop_stray_bytes_in_header(stream) if suffix == '.jpg' else stream
    assert rgb.shape == (*read_image_size(whole), 3) and rgb.dtype == np.uint8
    if suffix == '.png':
        np.testing.assert_array_equal(rgb, make_rgb())


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.binary(max_size=64), start=st.sampled_from(
    [b'', b'\xff\xd8', b'\xff\xd8\xff\xc0\0\x11\x08', b'\x89PNG\r\n\x1a\n',
     b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR']), image_format=st.sampled_from(
    ['jpeg', 'bayer_rggb8', '16UC1; png compressed', '16UC1; compressedDepth png',
     '32FC1; compressedDepth']))
def test_random_bytes_are_rejected_in_any_format(data, start, image_format):
    for stream in (start + data, b'\0' * 12 + start + data):
        with pytest.raises(MessageError):
            decompress_image(stream, image_format, max_pixels=LIMIT)
