"""Batches of views of mixed data sets."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from bag_fixtures import (
    camera_info,
    compressed_depth,
    compressed_image,
    image,
    START_NS,
    write_bag,
)
import numpy as np
import pytest
import torch
from training_fixtures import frame

from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import BagError, ConfigError, InputError
from marigold_ros.training import batches as batching
from marigold_ros.training.batches import (
    make_view_loader,
    MixedBatchSampler,
    open_frame_set,
    open_frame_sets,
)
from marigold_ros.training.config import (
    AugmentationConfig,
    FinetuneConfig,
    FrameSetConfig,
    HardwareConfig,
    ScheduleConfig,
)

PLAIN = AugmentationConfig(flip_probability=0.0)


def shards(path, size=(16, 24)):
    return FrameSetConfig(reader='shards', path=path, size=size)


def test_data_sets_are_bags_and_folders_of_shards(tmp_path):
    given = frame()
    raw = 'sensor_msgs/msg/Image'
    bag = write_bag(tmp_path / 'bag', {'/rgb': raw, '/depth': raw}, [
        ('/rgb', 0, image(given.rgb, 'rgb8', 0)), ('/depth', 0, image(given.depth_m, '32FC1', 0))])
    config = FrameSetConfig(reader='bag', path=str(bag), size=(16, 24), image_topic='/rgb',
                            depth_topic='/depth')
    assert len(open_frame_sets([config], tmp_path)) == 1
    # The frames of the bag have been converted to a folder of shards.
    assert len(open_frame_set(shards(str(tmp_path / '0')), tmp_path)) == 1


def test_the_tolerance_between_image_and_depth_of_a_bag_can_be_set(tmp_path):
    given, late_ns = frame(), 20_000_000
    raw = 'sensor_msgs/msg/Image'
    bag = write_bag(tmp_path / 'bag', {'/rgb': raw, '/depth': raw}, [
        ('/rgb', 0, image(given.rgb, 'rgb8', START_NS)),
        ('/depth', late_ns, image(given.depth_m, '32FC1', START_NS + late_ns))])
    keys = {'reader': 'bag', 'path': str(bag), 'size': (16, 24), 'image_topic': '/rgb',
            'depth_topic': '/depth'}
    with pytest.raises(BagError, match=r'within 15 ms: .* closest \+20.000 ms, .*; if it shows '
                       'the same moment, set `tolerance_ms` above that'):
        open_frame_set(FrameSetConfig(**keys), tmp_path / 'cache')
    assert len(open_frame_set(FrameSetConfig(**keys, tolerance_ms=20), tmp_path / 'cache')) == 1


def test_stamps_that_carry_no_time_are_logged_by_the_conversion_of_a_bag(tmp_path, caplog):
    given = [frame(depth=1.0 + number) for number in range(3)]
    raw = 'sensor_msgs/msg/Image'
    messages = [message for number, each in enumerate(given) for message in (
        ('/rgb', number * 10 ** 8, image(each.rgb, 'rgb8', 0)),
        ('/depth', number * 10 ** 8 + 1, image(each.depth_m, '32FC1', 0)))]
    bag = write_bag(tmp_path / 'bag', {'/rgb': raw, '/depth': raw},
                    [message for number, message in enumerate(messages) if number != 3])
    config = FrameSetConfig(reader='bag', path=str(bag), size=(16, 24), image_topic='/rgb',
                            depth_topic='/depth')
    frames = open_frame_set(config, tmp_path / 'cache')
    assert [frames[index].depth_m.max() for index in range(len(frames))] == [1.0, 3.0]
    assert ('the stamps on /rgb and /depth carry no time (0, or repeated); log times are used '
            'instead') in caplog.messages


def test_a_bag_of_compressed_mosaics_and_depth_gives_the_frames_of_a_raw_one(tmp_path):
    packed = 'sensor_msgs/msg/CompressedImage'
    depth_mm = np.full((16, 24), 1500, np.uint16)
    mosaic = np.tile(np.array([[30, 120], [120, 200]], np.uint8), (8, 12))  # RG over GB
    bag = write_bag(tmp_path / 'bag', {'/rgb/compressed': packed,
                                       '/depth/compressedDepth': packed}, [
        ('/rgb/compressed', 0,
         compressed_image(mosaic, '.png', 'bayer_rggb8; png compressed ', START_NS)),
        ('/depth/compressedDepth', 0, compressed_depth(depth_mm, START_NS, 'rvl', 'mono16'))])
    config = FrameSetConfig(reader='bag', path=str(bag), size=(16, 24), image_topic='/rgb',
                            depth_topic='/depth')
    read = open_frame_sets([config], tmp_path)[0][0]
    np.testing.assert_allclose(read.rgb, np.broadcast_to([30, 120, 200], read.rgb.shape), atol=1)
    np.testing.assert_allclose(read.depth_m, 1.5, rtol=1e-3)


def test_a_bag_is_trained_on_without_calibration_and_with_the_pixels_that_the_config_names(
        tmp_path, caplog):
    distorted = camera_info((0.5, 0.0, 0.0, 0.0, 0.0))
    topics = {'/rgb/image_rect': 'sensor_msgs/msg/Image', '/depth/image_raw': (
        'sensor_msgs/msg/Image'), '/rgb/camera_info': 'sensor_msgs/msg/CameraInfo'}
    rgb, depth_m = np.full((16, 24, 3), 90, np.uint8), np.full((16, 24), 2.0, np.float32)

    def valid_pixels(name, info, **keys):
        bag = write_bag(tmp_path / name, topics, [
            ('/rgb/camera_info', 0, info), ('/rgb/image_rect', 0, image(rgb, 'rgb8', START_NS)),
            ('/depth/image_raw', 0, image(depth_m, '32FC1', START_NS))])
        config = FrameSetConfig(reader='bag', path=str(bag), size=(16, 24),
                                image_topic='/rgb/image_rect', depth_topic='/depth/image_raw',
                                **keys)
        frames, = open_frame_sets([config], tmp_path / f'{name}_cache')
        return frames[0].valid.mean()

    assert valid_pixels('raw', distorted, input_rectified=False) < 1
    assert valid_pixels('rectified', distorted, input_rectified=True) == 1
    with pytest.raises(BagError, match='or set `input_rectified` if both are raw'):
        valid_pixels('unsaid', distorted)
    assert not caplog.messages
    assert valid_pixels('zero', camera_info(width=0, height=0, k=np.zeros(9))) == 1
    assert caplog.messages == [
        '/rgb/camera_info has no valid calibration: camera_info is uncalibrated: K[0] is 0; '
        'images are used as they are, and there are no metric depth and clouds']


def batches(count, first=0, stride=1, seed=3):
    mixed = MixedBatchSampler([5, 7], [0.9, 0.1], 2, seed, first=first, stride=stride)
    return list(islice(mixed, count))


def test_a_batch_is_from_one_set_and_sets_are_drawn_by_weight():
    drawn = batches(2000)
    assert all(len({key.frame_set for key in batch}) == 1 for batch in drawn)
    assert np.mean([batch[0].frame_set for batch in drawn]) == pytest.approx(0.1, abs=0.03)


def test_every_frame_of_a_set_is_used_before_one_is_repeated():
    first = [key.frame for batch in batches(400) for key in batch if key.frame_set == 0]
    rounds = [first[start:start + 5] for start in range(0, 100, 5)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 10


def test_batches_can_start_anywhere_and_are_split_among_processes():
    drawn = batches(20)
    assert batches(5, first=15) == drawn[15:]
    assert batches(5, first=1, stride=4) == drawn[1::4]
    assert batches(20, seed=4) != drawn
    numbers = [key.number for batch in drawn for key in batch]
    assert numbers == list(range(40))


def numbered_frames(count):
    """Return frames of different depths."""
    return [replace(frame(depth=1.0 + index), name=f'frame {index}') for index in range(count)]


def tiny_config(**settings):
    plain = {'run_folder': 'run', 'seed': 3, 'vae': 'vae', 'initial_checkpoint': 'tiny',
             'train': (shards('a'),),
             'validation': (shards('a'),),
             'augmentation': PLAIN,
             'schedule': ScheduleConfig(batch_size=6, device_batch_size=6)}
    return FinetuneConfig(**plain | settings)


@pytest.fixture
def small_parts(monkeypatch):
    """Split a batch into several groups of views, and a set into several chunks of frames."""
    monkeypatch.setattr(batching, 'CROP_GROUP', 4)
    monkeypatch.setattr(batching, 'COPY_CHUNK', 3)


def test_batches_on_the_device_are_those_of_the_loader(small_parts):
    frames = [numbered_frames(8), numbered_frames(5)]
    two = tiny_config(train=(shards('a'),
                             shards('b', (32, 48))),
                      hardware=HardwareConfig(device='cpu', workers=0))
    ours = batching.load_resident_batches(frames, two, torch.device('cpu'), first=1, stride=2)
    theirs = make_view_loader(frames, two, first=1, stride=2)
    sizes = set()
    for own, loaded in islice(zip(ours, theirs), 8):
        sizes.add(own.image.shape[2:])
        for name in ('image', 'depth_m', 'valid'):
            assert torch.equal(getattr(own, name), getattr(loaded, name))
    assert sizes == {(16, 24), (32, 48)}


def test_views_on_the_device_have_different_positions(small_parts):
    ramp = np.tile(np.linspace(1, 9, 48, dtype=np.float32), (32, 1))
    frames = [[DepthFrame(str(index), np.zeros((32, 48, 3), np.uint8), ramp, ramp > 0)
               for index in range(4)]]
    wild = tiny_config(augmentation=AugmentationConfig(
        min_crop=0.5, max_crop=0.5, jitter_probability=0.5, blur_probability=0.5,
        motion_blur_probability=0.5, noise=0.1))
    device = torch.device('cpu')
    drawn = list(islice(batching.load_resident_batches(frames, wild, device), 3))
    corners = drawn[0].depth_m[:, 0, 0]
    assert len(set(corners.tolist())) > 2
    # Mirrored or not, 24 of 48 columns are seen, one beside the other.
    steps = drawn[0].depth_m.diff(dim=2)[:, 0]
    assert torch.allclose(steps.abs(), torch.full_like(steps, 8 / 47), atol=1e-5)
    assert {True, False} == set((steps[:, 0] > 0).tolist())
    again = next(batching.load_resident_batches(frames, wild, device, first=2))
    assert torch.equal(again.image, drawn[2].image)
    assert -1 <= again.image.min() < again.image.max() <= 1


def test_sets_that_differ_only_in_their_views_share_frames_on_the_device(monkeypatch):
    loads = []
    monkeypatch.setattr(batching, 'load_stack', lambda frames, device: loads.append(frames))
    frames = [numbered_frames(2) for _ in range(3)]
    mixed = tiny_config(train=(shards('a'), shards('a', (32, 48)), shards('b')))
    batching.load_resident_batches(frames, mixed, torch.device('cpu'))
    assert loads == [frames[0], frames[2]]


def test_frames_that_do_not_fit_on_the_device_are_named(monkeypatch):
    frames = [[*numbered_frames(2), replace(frame(24, 24), name='the odd one')]]
    with pytest.raises(InputError, match=r'the odd one: with `frames_on_device` .* \[24, 24\] af'):
        batching.load_resident_batches(frames, tiny_config(), torch.device('cpu'))

    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory (simulated)")

    monkeypatch.setattr(torch, 'empty', full)
    with pytest.raises(ConfigError, match='memory of cpu; got one of 3 frames, 0.0 GiB'):
        batching.load_resident_batches(frames, tiny_config(), torch.device('cpu'))
