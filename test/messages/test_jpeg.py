"""JPEG streams that webcams write wrong without losing a pixel, and those that have lost some."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
import simplejpeg

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.image_stream import decode_stream
from marigold_ros.messages.jpeg import decode_jpeg

SCENE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8),
                         (0, 0), 2)
SAMPLINGS = {'4:4:4': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
             '4:2:2': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
             '4:2:0': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420}


def encode(pixels=SCENE, *, interval=16, quality=85, sampling='4:2:2'):
    """Encode with a restart marker after every `interval` coded units; 0 for none."""
    return cv2.imencode('.jpg', pixels, [
        cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL, interval,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]])[1].tobytes()


def coded_data_start(stream):
    """Return the position of the first byte after the header of the scan."""
    at = stream.index(b'\xff\xda')
    return at + 2 + int.from_bytes(stream[at + 2:at + 4], 'big')


def with_stray_bytes(stream, make_stray):
    """Insert bytes before each restart marker and the end marker."""
    start = coded_data_start(stream)
    return stream[:start] + re.sub(rb'\xff[\xd0-\xd9]', lambda marker: make_stray() + marker[0],
                                   stream[start:])


def lenient(stream):
    """Decode as a decoder that only warns."""
    return cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize('sampling', SAMPLINGS)
@pytest.mark.parametrize('interval', [0, 1, 7, 16, 40])
@pytest.mark.parametrize('count', [1, 3, 10])
def test_stray_bytes_before_markers_are_skipped(sampling, interval, count):
    good = encode(interval=interval, sampling=sampling)
    rng = np.random.default_rng(count)
    stray = with_stray_bytes(good, lambda: rng.integers(0, 255, count).astype(np.uint8).tobytes())
    if interval or count > 8:  # libjpeg has read the last 8 bytes before it looks for a marker
        with pytest.raises(ValueError, match='extraneous bytes'):
            simplejpeg.decode_jpeg(stray)
    np.testing.assert_array_equal(decode_jpeg(stray), decode_jpeg(good))


def test_stray_bytes_are_skipped_in_grey_images_of_any_size():
    for height, width in ((240, 320), (17, 33), (8, 8)):
        good = encode(SCENE[:height, :width, 0], interval=2)
        np.testing.assert_array_equal(decode_jpeg(with_stray_bytes(good, lambda: b'\x3c\x51\0')),
                                      decode_jpeg(good))


def test_stray_bytes_between_the_segments_of_the_header_are_skipped():
    good = encode()
    at = good.index(b'\xff\xdb')
    stray = good[:at] + b'\0' + good[at:]
    with pytest.raises(ValueError, match='1 extraneous bytes before marker 0xdb'):
        simplejpeg.decode_jpeg(stray)
    np.testing.assert_array_equal(decode_stream(stray, max_pixels=SCENE.size), decode_jpeg(good))


def test_a_missing_end_marker_costs_nothing_but_missing_data_do():
    for interval in (0, 16):
        good = encode(interval=interval)
        for missing in (1, 2):
            np.testing.assert_array_equal(decode_jpeg(good[:-missing]), decode_jpeg(good))
        for missing in (4, 10, 100, 1000):
            with pytest.raises(MessageError, match='must be a valid JPEG; Premature end'):
                decode_jpeg(good[:-missing])


def test_many_bytes_before_a_marker_are_rejected():
    for interval in (0, 16):
        stray = with_stray_bytes(encode(interval=interval), lambda: bytes(range(64)))
        with pytest.raises(MessageError, match='extraneous bytes before marker'):
            decode_jpeg(stray)


@pytest.mark.parametrize('change, match', [
    (lambda parts: parts[:3] + parts[5:], 'instead of RST|extraneous|premature'),  # one lost
    (lambda parts: parts[:3] + parts[5:7] + parts[3:5] + parts[7:], 'instead of RST|extraneous'),
    (lambda parts: parts[:-3] + [b'\0'] + parts[-2:], 'premature|extraneous'),  # the last one
    (lambda parts: parts[:3] + [parts[3][:-20]] + parts[4:], 'premature|extraneous')])
def test_lost_data_are_rejected_in_spite_of_stray_bytes_elsewhere(change, match):
    good = encode(interval=16)
    start = coded_data_start(good)
    parts = re.split(rb'(\xff[\xd0-\xd9])', good[start:])
    stray = with_stray_bytes(good[:start] + b''.join(change(parts)), lambda: b'\0\0\0')
    assert (lenient(stray) != lenient(good)).any()
    with pytest.raises(MessageError, match=match):
        decode_jpeg(stray)


@pytest.mark.parametrize('interval', [0, 16])
@pytest.mark.parametrize('lost', [200, 512, 1024])
def test_a_lost_packet_is_rejected(interval, lost):
    good = with_stray_bytes(encode(interval=interval), lambda: b'\0\0')
    start = coded_data_start(good)
    for at in np.random.default_rng(0).integers(start, len(good) - lost - 2, 50):
        damaged = good[:at] + good[at + lost:]
        try:
            rgb = decode_jpeg(damaged)
        except MessageError:
            continue
        np.testing.assert_array_equal(rgb, lenient(damaged))
        assert interval == 0  # without restart markers, some damage leaves a valid stream
