"""Data sets for fine-tuning: readers, checks, views and mixing."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
import json

from bag_fixtures import compressed_image, header, image, serialize, TYPES, write_bag
import cv2
import numpy as np
import pytest
import torch

from marigold_ros.data.bags.stream import BagTopics
from marigold_ros.data.datasets.bag_frames import open_bag_frames
from marigold_ros.data.datasets.hypersim import open_hypersim
from marigold_ros.data.datasets.rgbd_frames import RgbdFrames
from marigold_ros.data.datasets.shard_frames import ShardFrames
from marigold_ros.data.datasets.virtual_kitti import open_virtual_kitti
from marigold_ros.data.frames import check_frame, check_frame_set, DepthFrame, spread
from marigold_ros.data.shards import write_shard
from marigold_ros.depth.errors import BagError, ConfigError, InputError
from marigold_ros.training import resident
from marigold_ros.training.config import FinetuneConfig, HardwareConfig, ScheduleConfig
from marigold_ros.training.data_config import AugmentationConfig, FrameSetConfig
from marigold_ros.training.dataset import (
    MixedBatches,
    open_frame_set,
    open_frame_sets,
    view_loader,
)
from marigold_ros.training.views import (
    filter_each,
    gaussian_profile,
    motion_kernel,
    random_view,
)

PLAIN = AugmentationConfig(flip_probability=0.0)


def frame(height=16, width=24, depth=2.0):
    random = np.random.default_rng(0)
    depth_m = np.full((height, width), depth, np.float32)
    return DepthFrame('a.png', random.integers(0, 256, (height, width, 3), dtype=np.uint8),
                      depth_m, depth_m > 0)


def rng(seed=0):
    return np.random.default_rng(seed)


# --- what no set may break -----------------------------------------------------------------

@pytest.mark.parametrize(('depth', 'rule'), [
    (2000.0, r'a\.png: the median depth must lie between 0\.05 and 200\.0 m; got 2000 m: is the '
             'unit wrong'),
    (0.002, r'got 0\.002 m'),
    (np.nan, 'at least one pixel must have a valid depth; got none')])
def test_depth_in_a_wrong_unit_or_missing_is_named(depth, rule):
    with pytest.raises(InputError, match=rule):
        check_frame(frame(depth=depth))


def test_shapes_that_differ_and_nan_where_valid_are_named():
    good = frame()
    with pytest.raises(InputError, match=r'a\.png: image, depth and mask must have one height'):
        check_frame(DepthFrame('a.png', good.rgb, good.depth_m[:8], good.valid[:8]))
    with pytest.raises(InputError, match=r'a\.png: the image must be uint8'):
        check_frame(DepthFrame('a.png', good.rgb / 2, good.depth_m, good.valid))
    good.depth_m[3, 3] = np.nan
    with pytest.raises(InputError, match=r'a\.png: valid depth must be above 0 and not NaN'):
        check_frame(good)


def test_a_set_is_checked_at_even_distances_and_must_not_be_empty():
    assert spread(5, 3) == [0, 2, 4]
    assert spread(2, 9) == [0, 1]
    with pytest.raises(InputError, match='desk must hold at least one frame; got none'):
        check_frame_set('desk', [], 3)
    with pytest.raises(InputError, match='median'):
        check_frame_set('desk', [frame(), frame(depth=5000.0)], 2)


# --- file lists ----------------------------------------------------------------------------

def write_pair(folder, rgb, rgb_name, stored, depth_name):
    for name, pixels in ((rgb_name, rgb[..., ::-1]), (depth_name, stored)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), pixels)
    return f'{rgb_name} {depth_name}\n'


def test_hypersim_is_in_millimetres_and_valid_below_65_m(tmp_path):
    rgb = frame(4, 6).rgb
    stored = np.full((4, 6), 1500, np.uint16)
    stored[0, :3] = 0, 65000, 64999
    line = write_pair(tmp_path, rgb, 'ai_001_001/rgb_cam_00_fr0000.png',
                      stored, 'ai_001_001/depth_plane_cam_00_fr0000.png')
    (tmp_path / 'list.txt').write_text(line + '\n')
    frames = open_hypersim(tmp_path, tmp_path / 'list.txt')
    assert len(frames) == 1
    assert np.array_equal(frames[0].rgb, rgb)
    assert frames[0].depth_m[1, 1] == pytest.approx(1.5)
    assert frames[0].valid[0].tolist() == [False, False, True, True, True, True]


def test_virtual_kitti_is_in_centimetres_valid_below_80_m_and_cropped(tmp_path):
    rgb = np.zeros((375, 1242, 3), np.uint8)
    rgb[23, 13] = 255                                  # becomes the corner: 375 - 352, 26 / 2
    stored = np.full((375, 1242), 1000, np.uint16)
    stored[374, 1228] = 65535                          # sky, in the last corner
    line = write_pair(tmp_path, rgb, 'rgb/Scene01/rgb_00000.png',
                      stored, 'depth/Scene01/depth_00000.png')
    (tmp_path / 'list.txt').write_text(line + 'rgb/Scene01/rgb_00000.png None\n')
    frames = open_virtual_kitti(tmp_path, tmp_path / 'list.txt')
    assert len(frames) == 1
    assert frames[0].rgb.shape == (352, 1216, 3)
    assert frames[0].rgb[0, 0].tolist() == [255] * 3
    assert frames[0].depth_m[0, 0] == pytest.approx(10.0)
    assert not frames[0].valid[-1, -1] and frames[0].valid.sum() == 352 * 1216 - 1


@pytest.mark.parametrize(('text', 'rule'), [
    ('', 'must list at least one image with depth; got none'),
    ('a.png\n', 'line 1 must name an image and its depth'),
    ('a.png b.png\n', r'must name files below .*; .*a\.png does not exist')])
def test_a_wrong_file_list_is_named(tmp_path, text, rule):
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(InputError, match=rule):
        open_hypersim(tmp_path, tmp_path / 'list.txt')


def test_depth_of_eight_bits_and_small_images_are_named(tmp_path):
    rgb = frame(4, 6).rgb
    line = write_pair(tmp_path, rgb, 'rgb.png', rgb[..., 0], 'depth.png')
    (tmp_path / 'list.txt').write_text(line)
    with pytest.raises(InputError, match=r'depth\.png must be a 16-bit image'):
        open_hypersim(tmp_path, tmp_path / 'list.txt')[0]
    with pytest.raises(InputError, match=r'rgb\.png must be at least 1216 x 352 px; it is 6 x 4'):
        open_virtual_kitti(tmp_path, tmp_path / 'list.txt')[0]


def test_an_rgbd_folder_is_a_set(tmp_path):
    stored = np.full((4, 6), 2500, np.uint16)
    stored[0, 0] = 0
    write_pair(tmp_path, frame(4, 6).rgb, 'desk/0_rgb.png', stored, 'desk/0_depth.png')
    (tmp_path / 'frames.json').write_text(json.dumps({'desk': [{
        'name': '0', 'rgb': '0_rgb.png', 'depth': '0_depth.png', 'depth_unit_m': 0.001,
        'rgb_size': [6, 4], 'depth_size': [6, 4], 'K': None}]}))
    only = RgbdFrames(tmp_path)[0]
    check_frame(only)
    assert only.depth_m[1, 1] == pytest.approx(2.5)
    assert not only.valid[0, 0] and only.valid.sum() == 23


def test_indices_cross_shards_and_sky_is_valid(tmp_path):
    for number in range(2):
        depth_m = np.full((3, 4, 6), number + 1, np.float32)
        depth_m[:, 0, :2] = np.inf, np.nan
        write_shard(tmp_path, number, np.full((3, 4, 6, 3), number, np.uint8), depth_m,
                    np.zeros((3, 3, 3)), ['room'] * 3, 3 * number)
    frames = ShardFrames(tmp_path)
    assert len(frames) == 6
    assert [int(frames[index].rgb[0, 0, 0]) for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert frames[5].valid[0].tolist() == [True, False, True, True, True, True]


# --- bags ----------------------------------------------------------------------------------

K = (20.0, 0.0, 12.0, 0.0, 20.0, 8.0, 0.0, 0.0, 1.0)
IMAGE, DEPTH, INFO = '/cam/image_raw', '/cam/depth/image_raw', '/cam/camera_info'


def camera_info(d=(0.0,) * 5, stamp_ns=0):
    roi = {'x_offset': 0, 'y_offset': 0, 'height': 0, 'width': 0, 'do_rectify': False}
    return serialize(
        'sensor_msgs/msg/CameraInfo', header=header(stamp_ns), height=16, width=24,
        distortion_model='plumb_bob', d=np.array(d), k=np.array(K),
        r=np.eye(3).ravel(), p=np.hstack([np.reshape(K, (3, 3)), np.zeros((3, 1))]).ravel(),
        binning_x=0, binning_y=0, roi=TYPES['sensor_msgs/msg/RegionOfInterest'](**roi))


def record(folder, depths, d=(0.0,) * 5, image_topic=IMAGE, depth_topic=DEPTH):
    """Write a bag of images 33 ms apart; `depths` are [16, 24] maps and their delays in ms."""
    image_type = 'CompressedImage' if image_topic.endswith('compressed') else 'Image'
    messages = [(INFO, 0, camera_info(d))]
    for number, (depth, delay_ms) in enumerate(depths):
        stamp = number * 33_000_000
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


def test_a_bag_gives_images_with_the_depth_of_the_nearest_stamp(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 4), (None, 0), (millimetres(0), 0),
                            (millimetres(3000), -2)])
    frames = open_bag_frames(bag, BagTopics(IMAGE, DEPTH), tmp_path / 'cache')
    # The second image has no depth within 15 ms, the third one without a measurement.
    assert [int(frames[index].rgb[0, 0, 0]) for index in range(len(frames))] == [0, 30]
    assert [float(frames[index].depth_m[0, 0]) for index in range(2)] == pytest.approx([1, 3])


def test_the_frames_of_a_bag_are_taken_out_once(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 0)], image_topic=f'{IMAGE}/compressed')
    topics = BagTopics(f'{IMAGE}/compressed', DEPTH)
    assert topics.calibration == INFO
    open_bag_frames(bag, topics, tmp_path / 'cache')
    written = (tmp_path / 'cache/rgb_00000.npy').stat().st_mtime_ns
    assert len(open_bag_frames(bag, topics, tmp_path / 'cache')) == 1
    assert (tmp_path / 'cache/rgb_00000.npy').stat().st_mtime_ns == written


def test_image_and_depth_of_a_distorting_lens_are_rectified_together(tmp_path):
    depth_m = np.full((16, 24), 2.0, np.float32)
    depth_m[:, 12:] = 4.0
    bag = record(tmp_path, [(depth_m, 0)], d=(0.5, 0.0, 0.0, 0.0, 0.0))
    only = open_bag_frames(bag, BagTopics(IMAGE, DEPTH), tmp_path / 'cache')[0]
    # The rectified corners look where the raw image has no pixel; depth is never a mean.
    assert not only.valid[0, 0] and only.valid[8, 12]
    assert set(np.unique(only.depth_m[only.valid])) == {2.0, 4.0}
    assert only.rgb.shape == (16, 24, 3)


def test_raw_depth_does_not_fit_a_rectified_image(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 0)], d=(0.5, 0.0, 0.0, 0.0, 0.0),
                 image_topic='/cam/image_rect')
    with pytest.raises(BagError, match='their pixels do not match; choose two of a kind'):
        open_bag_frames(bag, BagTopics('/cam/image_rect', DEPTH), tmp_path / 'cache')


def test_a_bag_that_cannot_be_learned_from_is_named(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 0)])
    with pytest.raises(BagError, match='no topic /cam/depth '):
        open_bag_frames(bag, BagTopics(IMAGE, '/cam/depth'), tmp_path / 'a')
    with pytest.raises(BagError, match=r'no topic /other/camera_info \(sensor_msgs'):
        open_bag_frames(bag, BagTopics(IMAGE, DEPTH, '/other/camera_info'), tmp_path / 'b')
    late = record(tmp_path / 'late', [(millimetres(1000), 16)])
    with pytest.raises(BagError, match='has no image of /cam/image_raw with a depth'):
        open_bag_frames(late, BagTopics(IMAGE, DEPTH), tmp_path / 'c')
    small = record(tmp_path / 'small', [(np.full((8, 12), 1000, np.uint16), 0)])
    with pytest.raises(InputError, match='/cam/image_raw at 0 ns: image, depth and mask must'):
        open_bag_frames(small, BagTopics(IMAGE, DEPTH), tmp_path / 'd')
    cm = record(tmp_path / 'cm', [(np.full((16, 24), 300.0, np.float32), 0)])
    with pytest.raises(InputError, match='/cam/image_raw at 0 ns: the median depth must'):
        open_bag_frames(cm, BagTopics(IMAGE, DEPTH), tmp_path / 'e')


def test_a_recipe_opens_a_bag_and_a_folder_of_shards(tmp_path):
    bag = record(tmp_path, [(millimetres(1000), 0)])
    config = FrameSetConfig('bag', str(bag), (16, 24), image_topic=IMAGE, depth_topic=DEPTH)
    assert len(open_frame_sets([config], tmp_path)) == 1
    # What was taken out of the bag is a folder of shards.
    assert len(open_frame_set(FrameSetConfig('shards', str(tmp_path / '0'), (16, 24)),
                              tmp_path)) == 1


# --- views ---------------------------------------------------------------------------------

def test_a_view_without_changes_is_the_frame():
    given = frame()
    given.valid[0, 0] = False
    view = random_view(given, (16, 24), PLAIN, rng())
    assert np.array_equal(view.depth_m[0], given.depth_m)
    assert np.array_equal(view.valid[0], given.valid)
    assert np.allclose(view.image[0].permute(1, 2, 0), given.rgb / 127.5 - 1, atol=1e-5)


def test_a_flip_mirrors_image_depth_and_mask_together():
    given = frame()
    given.depth_m[2, 3], given.valid[4, 5] = 3.0, False
    view = random_view(given, (16, 24), AugmentationConfig(flip_probability=1.0), rng())
    assert np.array_equal(view.depth_m[0], given.depth_m[:, ::-1])
    assert np.array_equal(view.valid[0], given.valid[:, ::-1])
    assert np.allclose(view.image[0].permute(1, 2, 0), given.rgb[:, ::-1] / 127.5 - 1, atol=1e-5)


def test_a_crop_shows_image_and_depth_of_the_same_place():
    grey = np.repeat(np.linspace(1, 200, 96, dtype=np.float32)[None], 48, axis=0)
    ramp = DepthFrame('a', np.repeat(grey[..., None].round().astype(np.uint8), 3, 2), grey,
                      grey > 0)
    crop = AugmentationConfig(flip_probability=0.0, min_crop=0.5, max_crop=0.9)
    views = [random_view(ramp, (24, 32), crop, rng(seed)) for seed in range(4)]
    for view in views:
        shown = (view.image[0].mean(dim=0) + 1) * 127.5
        # Depth is the nearest pixel's, the image a mean over at most 1.8 x 2 pixels.
        assert (shown - view.depth_m[0]).abs().max() < 2 * 200 / 96 + 1
        # 4:3 out of 2:1: at most 64 of 96 columns are seen, 0.9 of them.
        assert view.depth_m[0].max() - view.depth_m[0].min() < 200 * 0.9 * 64 / 96
    assert len({view.depth_m[0, 0, 0].item() for view in views}) == 4


@pytest.mark.parametrize('change', [
    {'jitter_probability': 1.0}, {'blur_probability': 1.0}, {'motion_blur_probability': 1.0},
    {'noise': 0.1}])
def test_disturbances_change_the_image_alone_and_stay_in_range(change):
    given = frame()
    view = random_view(given, (16, 24), AugmentationConfig(flip_probability=0.0, **change), rng(1))
    assert view.image.min() >= -1 and view.image.max() <= 1
    assert np.abs(view.image[0].permute(1, 2, 0).numpy() - (given.rgb / 127.5 - 1)).mean() > 0.01
    assert np.array_equal(view.depth_m[0], given.depth_m)


def test_motion_blurs_along_its_direction_alone():
    kernel = motion_kernel(5.0, 0.0)
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel[len(kernel) // 2].sum() == pytest.approx(1.0, abs=0.02)
    assert np.allclose(motion_kernel(5.0, np.pi / 2), kernel.T, atol=0.02)


# --- mixing --------------------------------------------------------------------------------

def batches(count, first=0, stride=1, seed=3):
    mixed = MixedBatches([5, 7], [0.9, 0.1], 2, seed, first=first, stride=stride)
    return list(islice(mixed, count))


def test_a_batch_is_from_one_set_and_sets_come_by_weight():
    drawn = batches(2000)
    assert all(len({key.frame_set for key in batch}) == 1 for batch in drawn)
    assert np.mean([batch[0].frame_set for batch in drawn]) == pytest.approx(0.1, abs=0.03)


def test_every_set_is_gone_through_before_a_frame_comes_again():
    first = [key.frame for batch in batches(400) for key in batch if key.frame_set == 0]
    rounds = [first[start:start + 5] for start in range(0, 100, 5)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 10


def test_batches_go_on_anywhere_and_are_dealt_to_processes():
    drawn = batches(20)
    assert batches(5, first=15) == drawn[15:]
    assert batches(5, first=1, stride=4) == drawn[1::4]
    assert batches(20, seed=4) != drawn
    numbers = [key.number for batch in drawn for key in batch]
    assert numbers == list(range(40))


@pytest.mark.parametrize(('fields', 'rule'), [
    ({'size': (30, 32)}, r'`size` must be multiples of 8; got \(30, 32\)'),
    ({'weight': 0.0}, '`weight` must be positive'),
    ({'reader': 'hypersim'}, '`file_list` must be given for the reader hypersim'),
    ({'reader': 'bag', 'image_topic': '/a'}, 'must be given for the reader bag')])
def test_a_set_that_cannot_be_described_so_is_named(fields, rule):
    with pytest.raises(ConfigError, match=rule):
        FrameSetConfig(**{'reader': 'shards', 'path': 'x', 'size': (32, 32)} | fields)


# --- frames on the device ------------------------------------------------------------------

def numbered_frames(count):
    """Frames of which each has a depth of its own."""
    return [replace(frame(depth=1.0 + index), name=f'frame {index}') for index in range(count)]


def recipe(**settings):
    plain = {'run_folder': 'run', 'seed': 3, 'vae': 'vae', 'initial_checkpoint': 'tiny',
             'train': (FrameSetConfig('shards', 'a', (16, 24)),),
             'validation': (FrameSetConfig('shards', 'a', (16, 24)),),
             'augmentation': PLAIN,
             'schedule': ScheduleConfig(batch_size=6, device_batch_size=6)}
    return FinetuneConfig(**plain | settings)


@pytest.fixture
def small_parts(monkeypatch):
    """Let a batch be several groups of views, and a set several chunks of frames."""
    monkeypatch.setattr(resident, 'GROUP', 4)
    monkeypatch.setattr(resident, 'CHUNK', 3)


def test_frames_on_the_device_come_as_from_the_loader(small_parts):
    frames = [numbered_frames(8), numbered_frames(5)]
    two = recipe(train=(FrameSetConfig('shards', 'a', (16, 24)),
                        FrameSetConfig('shards', 'b', (32, 48))),
                 hardware=HardwareConfig(device='cpu', workers=0))
    ours = resident.resident_batches(frames, two, torch.device('cpu'), first=1, stride=2)
    theirs = view_loader(frames, two, first=1, stride=2)
    sizes = set()
    for own, loaded in islice(zip(ours, theirs), 8):
        sizes.add(own.image.shape[2:])
        for name in ('image', 'depth_m', 'valid'):
            assert torch.equal(getattr(own, name), getattr(loaded, name))
    assert sizes == {(16, 24), (32, 48)}


def test_views_on_the_device_are_cropped_each_at_a_place_of_its_own_and_go_on_anywhere(
        small_parts):
    ramp = np.tile(np.linspace(1, 9, 48, dtype=np.float32), (32, 1))
    frames = [[DepthFrame(str(index), np.zeros((32, 48, 3), np.uint8), ramp, ramp > 0)
               for index in range(4)]]
    wild = recipe(augmentation=AugmentationConfig(
        min_crop=0.5, max_crop=0.5, jitter_probability=0.5, blur_probability=0.5,
        motion_blur_probability=0.5, noise=0.1))
    device = torch.device('cpu')
    drawn = list(islice(resident.resident_batches(frames, wild, device), 3))
    corners = drawn[0].depth_m[:, 0, 0]
    assert len(set(corners.tolist())) > 2
    # Mirrored or not, 24 of 48 columns are seen, one beside the other.
    steps = drawn[0].depth_m.diff(dim=2)[:, 0]
    assert torch.allclose(steps.abs(), torch.full_like(steps, 8 / 47), atol=1e-5)
    assert {True, False} == set((steps[:, 0] > 0).tolist())
    again = next(resident.resident_batches(frames, wild, device, first=2))
    assert torch.equal(again.image, drawn[2].image)
    assert -1 <= again.image.min() < again.image.max() <= 1


def test_frames_that_cannot_stay_on_the_device_together_are_named(monkeypatch):
    frames = [[*numbered_frames(2), replace(frame(24, 24), name='the odd one')]]
    with pytest.raises(InputError, match=r'the odd one: with `frames_on_device` .* \[24, 24\] af'):
        resident.resident_batches(frames, recipe(), torch.device('cpu'))

    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory (simulated)")

    monkeypatch.setattr(torch, 'empty', full)
    with pytest.raises(ConfigError, match='memory of cpu; got one of 3 frames, 0.0 GiB'):
        resident.resident_batches(frames, recipe(), torch.device('cpu'))


def test_every_image_is_filtered_with_a_kernel_of_its_own():
    pair = torch.full((2, 3, 9, 9), 0.5)
    pair[0, :, 4, 4] = 1.5
    wide, narrow = gaussian_profile(1.0), gaussian_profile(0.5)
    assert wide.shape == (9, 1) and narrow.shape == (5, 1)
    blurred = filter_each(filter_each(pair, [wide, narrow]), [wide.T, narrow.T])
    impulse = (pair[0, 0] - 0.5).numpy()
    assert np.allclose(blurred[0] - 0.5, cv2.GaussianBlur(
        impulse, (9, 9), 1.0, borderType=cv2.BORDER_REPLICATE), atol=1e-5)
    # What is even stays so up to the edges, which are repeated.
    assert torch.allclose(blurred[1], pair[1])
