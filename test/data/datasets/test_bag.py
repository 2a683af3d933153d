"""Bags as data sets: read directly for evaluation, as shards for training."""

from __future__ import annotations

from pathlib import Path

from bag_fixtures import (
    camera_info,
    compressed_image,
    image,
    START_NS,
    write_bag,
    write_mcap,
)
import numpy as np
import pytest

from marigold_ros.data.bags.bag_frames import BagTopics
from marigold_ros.data.datasets.bag import bag_data_set, open_bag_as_shards
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.evaluation.metrics.protocol_a import vertical_ramp
from marigold_ros.evaluation.metrics.protocols import score

ROOT = Path(__file__).parents[3]
IMAGE, DEPTH, INFO = '/cam/image_raw', '/cam/depth/image_raw', '/cam/camera_info'


def record(folder, depths, d=(0.0,) * 5, image_topic=IMAGE, depth_topic=DEPTH):
    """Write a bag of images 33 ms apart; `depths` are [16, 24] maps and their delays in ms."""
    image_type = 'CompressedImage' if image_topic.endswith('compressed') else 'Image'
    messages = [(INFO, 0, camera_info(d, stamp_ns=0))]
    for number, (depth, delay_ms) in enumerate(depths):
        stamp = (number + 1) * 33_000_000
        pixels = np.full((16, 24, 3), 10 * number, np.uint8)
        messages.append((image_topic, stamp, compressed_image(pixels, '.png', 'png', stamp)
                         if image_type == 'CompressedImage' else image(pixels, 'bgr8', stamp)))
        if depth is not None:
            stamp += delay_ms * 1_000_000
            encoding = '16UC1' if depth.dtype == np.uint16 else '32FC1'
            messages.append((depth_topic, stamp, image(depth, encoding, stamp)))
    return write_bag(folder / 'bag', {
        INFO: 'sensor_msgs/msg/CameraInfo', image_topic: f'sensor_msgs/msg/{image_type}',
        depth_topic: 'sensor_msgs/msg/Image'}, messages)


def millimetres(value):
    return np.full((16, 24), value, np.uint16)


def test_the_sample_bag_has_images_depth_and_poses_in_blocks_of_a_second():
    data_set = bag_data_set(ROOT / 'sample' / 'living_room')
    frames = list(data_set.frames())
    assert data_set.count == len(frames) == 80    # 8 s at 10 Hz
    assert [frame.block for frame in frames[::10]] == [f'second {i}' for i in range(8)]
    assert frames[0].rgb.shape == (480, 640, 3)
    assert frames[0].depth_m.shape == (480, 640)
    assert frames[0].K.shape == (3, 3)
    assert frames[0].world_from_camera.shape == (4, 4)
    assert data_set.notes == []
    abs_rel = np.mean([score(vertical_ramp(480, 640), frame)['abs_rel'] for frame in frames[::8]])
    assert abs_rel == pytest.approx(0.293, abs=0.01)    # the ramp's on the whole bag


def test_a_missing_bag_is_rejected(tmp_path):
    with pytest.raises(BagError, match='does not exist'):
        bag_data_set(tmp_path / 'away')


def test_images_are_matched_with_the_depth_of_the_nearest_stamp(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 4), (None, 0), (millimetres(0), 0),
                            (millimetres(3000), -2)])
    frames = open_bag_as_shards(bag, BagTopics(IMAGE, DEPTH), tmp_path / 'cache')
    # The second image has no depth within 15 ms, the third has depth without a measurement.
    assert [int(frames[index].rgb[0, 0, 0]) for index in range(len(frames))] == [0, 30]
    assert [float(frames[index].depth_m[0, 0]) for index in range(2)] == pytest.approx([1, 3])


def test_training_reads_ros1_in_mcap_beside_topics_of_another_world(tmp_path, caplog):
    messages = [(IMAGE, 'sensor_msgs/msg/Image', 0,
                 image(np.full((16, 24, 3), 10, np.uint8), 'bgr8', START_NS)),
                (DEPTH, 'sensor_msgs/msg/Image', 0, image(millimetres(1000), '16UC1', START_NS))]
    bag = write_mcap(tmp_path / 'drive', messages, ros1=True, foreign=True, profile='')
    frame, = open_bag_as_shards(bag, BagTopics(IMAGE, DEPTH), tmp_path / 'cache')
    assert float(frame.depth_m[0, 0]) == pytest.approx(1.0)
    assert '5 topics cannot be read: /incomplete (my_msgs/msg/Pair, 1 messages: ' in caplog.text


def test_the_frames_of_a_bag_are_written_to_shards_once(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 0)], image_topic=f'{IMAGE}/compressed')
    topics = BagTopics(f'{IMAGE}/compressed', DEPTH)
    assert topics.camera_info_topic == INFO
    open_bag_as_shards(bag, topics, tmp_path / 'cache')
    written = (tmp_path / 'cache/rgb_00000.npy').stat().st_mtime_ns
    assert len(open_bag_as_shards(bag, topics, tmp_path / 'cache')) == 1
    assert (tmp_path / 'cache/rgb_00000.npy').stat().st_mtime_ns == written


def test_image_and_depth_are_rectified_together(tmp_path):
    depth_m = np.full((16, 24), 2.0, np.float32)
    depth_m[:, 12:] = 4.0
    bag = record(tmp_path, [(depth_m, 0)], d=(0.5, 0.0, 0.0, 0.0, 0.0))
    only = open_bag_as_shards(bag, BagTopics(IMAGE, DEPTH), tmp_path / 'cache')[0]
    # The rectified corners lie outside the raw image; depth is never averaged.
    assert not only.valid[0, 0] and only.valid[8, 12]
    assert set(np.unique(only.depth_m[only.valid])) == {2.0, 4.0}
    assert only.rgb.shape == (16, 24, 3)


def test_raw_depth_with_a_rectified_image_is_rejected(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 0)], d=(0.5, 0.0, 0.0, 0.0, 0.0),
                 image_topic='/cam/image_rect')
    with pytest.raises(BagError, match='their pixels do not match; choose two raw or'):
        open_bag_as_shards(bag, BagTopics('/cam/image_rect', DEPTH), tmp_path / 'cache')


def test_a_bag_that_is_unusable_for_training_is_rejected(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 0)])
    with pytest.raises(BagError, match='no topic /cam/depth '):
        open_bag_as_shards(bag, BagTopics(IMAGE, '/cam/depth'), tmp_path / 'a')
    with pytest.raises(BagError, match=r'no topic /other/camera_info \(sensor_msgs'):
        open_bag_as_shards(bag, BagTopics(IMAGE, DEPTH, '/other/camera_info'), tmp_path / 'b')
    late = record(tmp_path / 'late', [(millimetres(1000), 16)])
    with pytest.raises(BagError, match='no image on /cam/image_raw has depth'):
        open_bag_as_shards(late, BagTopics(IMAGE, DEPTH), tmp_path / 'c')
    small = record(tmp_path / 'small', [(np.full((8, 12), 1000, np.uint16), 0)])
    with pytest.raises(InputError, match='/cam/image_raw at 33000000 ns: image, depth and'):
        open_bag_as_shards(small, BagTopics(IMAGE, DEPTH), tmp_path / 'd')
    cm = record(tmp_path / 'cm', [(np.full((16, 24), 300.0, np.float32), 0)])
    with pytest.raises(InputError, match='/cam/image_raw at 33000000 ns: the median depth must'):
        open_bag_as_shards(cm, BagTopics(IMAGE, DEPTH), tmp_path / 'e')
