"""Summary and contact sheet of a recording, from handwritten messages."""

from __future__ import annotations

from dataclasses import replace

from bag_fixtures import header, image, serialize, START_NS, TYPES, write_bag
import cv2
import numpy as np
import pytest

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.bags.stamp_matching import match_by_stamp
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.recording import (
    empty_topics,
    format_summary,
    save_contact_sheet,
    summarize_recording,
)
from marigold_ros.evaluation.report.contact_sheet import draw_contact_sheet, SheetFrame

IMAGE = 'sensor_msgs/msg/Image'
ARRAY = 'diagnostic_msgs/msg/DiagnosticArray'
TOPICS = {'/camera/image_raw': IMAGE, '/camera/rgb/image_rect': IMAGE,
          '/camera/depth_relative/image': IMAGE, '/camera/depth_gt/image_rect': IMAGE,
          '/depth_node/status': ARRAY, '/diagnostics': ARRAY}
RGB = np.full((4, 6, 3), (200, 30, 30), np.uint8)
# Relative depth, and 2 + 4 times as many metres, with one pixel unknown.
RELATIVE = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
TRUTH_MM = (2000 + 4000 * RELATIVE).round().astype(np.uint16)
TRUTH_MM[0, 0] = 0


def diagnostics(stamp_ns: int, name: str, message: str, **values: object) -> bytes:
    """Serialize a DiagnosticArray with one status."""
    pairs = [TYPES['diagnostic_msgs/msg/KeyValue'](key=key, value=str(value))
             for key, value in values.items()]
    status = TYPES['diagnostic_msgs/msg/DiagnosticStatus'](
        level=0, name=name, message=message, hardware_id='', values=pairs)
    return serialize(ARRAY, header=header(stamp_ns), status=[status])


def processed(stamp_ns: int, steps: int, latency_ms: float) -> bytes:
    """Serialize the status of a processed frame."""
    return diagnostics(stamp_ns, 'depth_node: camera', 'processed', camera='camera',
                       outcome='processed', reason='', complexity=0.01 * steps,
                       num_inference_steps=steps, latency_ms=latency_ms)


def dropped(stamp_ns: int, reason: str, camera: str = 'camera') -> bytes:
    """Serialize the status of a dropped frame."""
    return diagnostics(stamp_ns, f'depth_node: {camera}', reason, camera=camera,
                       outcome='dropped', reason=reason)


@pytest.fixture
def recording(tmp_path):
    """Write five frames of the camera (three processed, two dropped) and one of another camera."""
    messages = []
    for number in range(5):
        stamp_ns = START_NS + number * 10 ** 8
        messages += [('/camera/image_raw', number * 10 ** 8, image(RGB, 'rgb8', stamp_ns)),
                     ('/camera/depth_gt/image_rect', number * 10 ** 8,
                      image(TRUTH_MM, '16UC1', stamp_ns))]
    for number, steps, latency_ms in ((0, 1, 100.0), (2, 4, 300.0), (4, 1, 110.0)):
        stamp_ns, later_ns = START_NS + number * 10 ** 8, 10 ** 9 + number * 10 ** 8
        messages += [
            ('/camera/rgb/image_rect', later_ns, image(RGB, 'rgb8', stamp_ns)),
            ('/camera/depth_relative/image', later_ns, image(RELATIVE, '32FC1', stamp_ns)),
            ('/depth_node/status', later_ns, processed(stamp_ns, steps, latency_ms))]
    messages += [
        ('/depth_node/status', 0, dropped(START_NS + 10 ** 8, 'superseded')),
        ('/depth_node/status', 0, dropped(START_NS + 3 * 10 ** 8, 'bad_image')),
        ('/depth_node/status', 0, dropped(START_NS, 'superseded', 'rear')),
        ('/diagnostics', 10 ** 9, diagnostics(START_NS, 'depth_node', 'no metres: set scale',
                                              latency_cap_ms=200.0,
                                              last_error='rear: bad_image'))]
    return write_bag(tmp_path / 'recording', TOPICS, sorted(messages, key=lambda each: each[1]))


def test_frames_are_counted_by_outcome(recording):
    with open_bag(recording) as bag:
        summary = summarize_recording(bag)
    assert [frame.num_inference_steps for frame in summary.processed] == [1, 4, 1]
    assert summary.dropped == {'superseded': 1, 'bad_image': 1}
    assert summary.latency_cap_ms == 200.0


def test_depth_is_compared_after_least_squares(recording):
    with open_bag(recording) as bag:
        errors = summarize_recording(bag).errors
    assert [error.stamp_ns - START_NS for error in errors] == [0, 2 * 10 ** 8, 4 * 10 ** 8]
    # Linear in the relative depth, apart from rounding to mm.
    assert max(error.abs_rel for error in errors) < 2e-4
    # Far is at the bottom here and at the top of the ramp, so the fitted ramp has large errors.
    assert min(error.ramp_abs_rel for error in errors) > 0.01


def test_the_summary_says_how_many_runs_were_saved(recording):
    with open_bag(recording) as bag:
        summary = summarize_recording(bag)
    carried = [replace(frame, num_inference_steps=0) if frame.num_inference_steps == 1 else frame
               for frame in summary.frames]
    lines = format_summary(replace(summary, frames=carried)).splitlines()
    assert lines[3] == '  steps      T=0: 2 frames, T=4: 1 frames; 67% of the runs saved'


def test_the_summary_is_formatted(recording):
    with open_bag(recording) as bag:
        lines = format_summary(summarize_recording(bag)).splitlines()
    assert lines[:5] == [
        '  frames in  5 of 5 sent',
        '  processed  3',
        '  dropped    2 (superseded 1, bad_image 1)',
        '  steps      T=1: 2 frames, T=4: 1 frames',
        # Of 100, 110 and 300 ms.
        '  latency    p50 110 ms, p95 281 ms, p99 296 ms; cap 200 ms, exceeded by 1 frames']
    assert lines[5].startswith('  AbsRel     0.000 by protocol A (least squares in depth), 0.1 to '
                               '20 m, mean of 3 frames; baseline (vertical ramp): 0.')


def test_an_empty_topic_is_explained_by_the_last_problems(recording):
    with open_bag(recording) as bag:
        empty = empty_topics(summarize_recording(bag),
                             ['/camera/points', '/camera/depth_relative/image'])
    assert list(empty) == ['/camera/points']
    assert empty['/camera/points'].endswith(
        'the node reports: no metres: set scale; rear: bad_image')


def test_a_recording_without_frames_is_explained(tmp_path):
    path = write_bag(tmp_path / 'recording', TOPICS, [])
    with open_bag(path) as bag:
        summary = summarize_recording(bag)
        assert empty_topics(summary, ['/camera/points']) == {
            '/camera/points': 'no frame reached the node'}
        with pytest.raises(MarigoldError, match='no frame to draw'):
            save_contact_sheet(bag, summary, tmp_path / 'sheet.png')
    assert format_summary(summary).splitlines()[0] == '  frames in  0'


def test_a_recording_of_dropped_frames_is_explained(tmp_path):
    path = write_bag(tmp_path / 'recording', TOPICS,
                     [('/depth_node/status', 0, dropped(START_NS, 'too_old'))])
    with open_bag(path) as bag:
        empty = empty_topics(summarize_recording(bag), ['/camera/points'])
    assert empty['/camera/points'] == 'every frame was dropped (too_old 1)'


def test_the_frames_are_drawn(recording, tmp_path):
    with open_bag(recording) as bag:
        save_contact_sheet(bag, summarize_recording(bag), tmp_path / 'sheet.png')
    pixels = cv2.imread(str(tmp_path / 'sheet.png'))
    # The red of the images, in OpenCV's order.
    assert (np.abs(pixels.astype(int) - (30, 30, 200)).sum(axis=2) == 0).mean() > 0.05


def test_metric_depth_and_truth_share_a_colour_scale(tmp_path):
    truth_m = np.where(TRUTH_MM == 0, np.nan, TRUTH_MM / 1000).astype(np.float32)
    frame = SheetFrame(0.0, RGB, np.full_like(RELATIVE, np.nan), 2 + 4 * RELATIVE, truth_m, None,
                       0.01, 2, 'AbsRel: 0.0')
    draw_contact_sheet([frame, frame], tmp_path / 'sheet.png')
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    _, counts = np.unique(sheet.reshape(-1, 3), axis=0, return_counts=True)
    # Each of 23 known depths is drawn as a block of one colour in both rows of both columns.
    assert (counts > 1000).sum() >= 23


@pytest.mark.parametrize('depth_m', [None, np.full_like(RELATIVE, np.nan)], ids=['no', 'unknown'])
def test_without_known_metres_depth_stays_relative(tmp_path, depth_m):
    draw_contact_sheet([SheetFrame(0.0, RGB, RELATIVE, depth_m, None, None, 0.01, 2, '')],
                       tmp_path / 'sheet.png')
    assert cv2.imread(str(tmp_path / 'sheet.png')) is not None


def test_a_costmap_is_drawn_below_the_frames_that_have_one(tmp_path):
    costmap = np.full((8, 8, 3), (10, 20, 230), np.uint8)
    frames = [SheetFrame(0.0, RGB, RELATIVE, None, None, each, 0.01, 2, '')
              for each in (costmap, None)]
    draw_contact_sheet(frames, tmp_path / 'sheet.png')
    draw_contact_sheet(frames[1:], tmp_path / 'without.png')
    drawn, without = ((cv2.imread(str(tmp_path / name)) == (230, 20, 10)).all(axis=2)
                      for name in ('sheet.png', 'without.png'))
    assert drawn.mean() > 0.05 and not without.any()


def test_metric_depth_is_compared_without_alignment(recording, tmp_path):
    """It is 10 % too far in the first frame, and there is none in the others."""
    depth_m = np.where(TRUTH_MM == 0, np.nan, 1.1e-3 * TRUTH_MM).astype(np.float32)
    with open_bag(recording) as bag:
        messages = [(message.topic, message.log_time_ns - START_NS, bytes(message.data))
                    for message in bag.messages(list(TOPICS))]
        assert all(np.isnan(each.metric_abs_rel) for each in summarize_recording(bag).errors)
    messages.append(('/camera/depth/image_rect', 2 * 10 ** 9, image(depth_m, '32FC1', START_NS)))
    path = write_bag(tmp_path / 'metric', {**TOPICS, '/camera/depth/image_rect': IMAGE}, messages)
    with open_bag(path) as bag:
        summary = summarize_recording(bag)
    assert [each.metric_abs_rel for each in summary.errors] == pytest.approx(
        [0.1, np.nan, np.nan], abs=1e-4, nan_ok=True)
    assert format_summary(summary).splitlines()[-1] == (
        '  in metres  AbsRel (metric, 0.1 to 20 m) 0.100, mean of 1 frames')


@pytest.mark.parametrize('stamp', [0, START_NS])
def test_nothing_is_matched_by_stamps_that_carry_no_time(tmp_path, stamp):
    messages = [(topic, number, image(RGB, 'rgb8', stamp)) for number in range(3)
                for topic in ('/a', '/b')]
    path = write_bag(tmp_path / 'bag', {'/a': IMAGE, '/b': IMAGE}, messages)
    with open_bag(path) as bag:
        assert list(match_by_stamp(bag, ['/a', '/b'])) == []


def test_messages_are_matched_by_stamp_in_bounded_memory(tmp_path):
    messages = [('/a', number, image(RGB, 'rgb8', START_NS + number)) for number in range(100)]
    messages += [('/b', 100 + number, image(RGB, 'rgb8', START_NS + number))
                 for number in (0, 50, 99)]
    path = write_bag(tmp_path / 'bag', {'/a': IMAGE, '/b': IMAGE}, messages)
    with open_bag(path) as bag:
        matched = [stamp - START_NS for stamp, _ in match_by_stamp(bag, ['/a', '/b'])]
        chosen = [stamp - START_NS for stamp, _ in match_by_stamp(
            bag, ['/a', '/b'], stamps_ns={START_NS, START_NS + 50})]
    # The match of stamp 0 is discarded after 64 later stamps, unless only few stamps are read.
    assert matched == [50, 99]
    assert chosen == [0, 50]
