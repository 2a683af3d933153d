"""Data sets for fine-tuning: readers, checks, views and mixing."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
import re

from bag_fixtures import image, write_bag
import cv2
import numpy as np
from pydantic import ValidationError
import pytest
import torch

from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.mistakes import describe_mistakes
from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.training import batches as batching
from marigold_ros.training.batches import (
    MixedBatches,
    open_frame_set,
    open_frame_sets,
    view_loader,
)
from marigold_ros.training.config import (
    AugmentationConfig,
    FinetuneConfig,
    FrameSetConfig,
    HardwareConfig,
    ScheduleConfig,
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


def shards(path, size=(16, 24)):
    return FrameSetConfig(reader='shards', path=path, size=size)


def rng(seed=0):
    return np.random.default_rng(seed)


# --- data sets -----------------------------------------------------------------------------

def test_a_recipe_opens_a_bag_and_a_folder_of_shards(tmp_path):
    given = frame()
    raw = 'sensor_msgs/msg/Image'
    bag = write_bag(tmp_path / 'bag', {'/rgb': raw, '/depth': raw}, [
        ('/rgb', 0, image(given.rgb, 'rgb8', 0)), ('/depth', 0, image(given.depth_m, '32FC1', 0))])
    config = FrameSetConfig(reader='bag', path=str(bag), size=(16, 24), image_topic='/rgb',
                            depth_topic='/depth')
    assert len(open_frame_sets([config], tmp_path)) == 1
    # What was taken out of the bag is a folder of shards.
    assert len(open_frame_set(shards(str(tmp_path / '0')), tmp_path)) == 1


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
    ({'size': (30, 32)}, r'size\.0: Input should be a multiple of 8, got 30'),
    ({'size': (32, 0)}, r'size\.1: Input should be greater than 0, got 0'),
    ({'weight': 0.0}, 'weight: Input should be greater than 0, got 0.0'),
    ({'reader': 'hypersim'}, '`file_list` must be given for the reader hypersim; got None'),
    ({'reader': 'bag', 'image_topic': '/a'}, '`depth_topic` must be given for the reader bag')])
def test_a_set_that_cannot_be_described_so_is_named(fields, rule):
    with pytest.raises(ValidationError) as caught:
        FrameSetConfig(**{'reader': 'shards', 'path': 'x', 'size': (32, 32)} | fields)
    assert re.search(rule, describe_mistakes(caught.value))


# --- frames on the device ------------------------------------------------------------------

def numbered_frames(count):
    """Frames of which each has a depth of its own."""
    return [replace(frame(depth=1.0 + index), name=f'frame {index}') for index in range(count)]


def recipe(**settings):
    plain = {'run_folder': 'run', 'seed': 3, 'vae': 'vae', 'initial_checkpoint': 'tiny',
             'train': (shards('a'),),
             'validation': (shards('a'),),
             'augmentation': PLAIN,
             'schedule': ScheduleConfig(batch_size=6, device_batch_size=6)}
    return FinetuneConfig(**plain | settings)


@pytest.fixture
def small_parts(monkeypatch):
    """Let a batch be several groups of views, and a set several chunks of frames."""
    monkeypatch.setattr(batching, 'GROUP', 4)
    monkeypatch.setattr(batching, 'CHUNK', 3)


def test_frames_on_the_device_come_as_from_the_loader(small_parts):
    frames = [numbered_frames(8), numbered_frames(5)]
    two = recipe(train=(shards('a'),
                        shards('b', (32, 48))),
                 hardware=HardwareConfig(device='cpu', workers=0))
    ours = batching.resident_batches(frames, two, torch.device('cpu'), first=1, stride=2)
    theirs = view_loader(frames, two, first=1, stride=2)
    sizes = set()
    for own, loaded in islice(zip(ours, theirs), 8):
        sizes.add(own.image.shape[2:])
        for name in ('image', 'depth_m', 'valid'):
            assert torch.equal(getattr(own, name), getattr(loaded, name))
    assert sizes == {(16, 24), (32, 48)}


def test_views_on_the_device_have_places_of_their_own(
        small_parts):
    ramp = np.tile(np.linspace(1, 9, 48, dtype=np.float32), (32, 1))
    frames = [[DepthFrame(str(index), np.zeros((32, 48, 3), np.uint8), ramp, ramp > 0)
               for index in range(4)]]
    wild = recipe(augmentation=AugmentationConfig(
        min_crop=0.5, max_crop=0.5, jitter_probability=0.5, blur_probability=0.5,
        motion_blur_probability=0.5, noise=0.1))
    device = torch.device('cpu')
    drawn = list(islice(batching.resident_batches(frames, wild, device), 3))
    corners = drawn[0].depth_m[:, 0, 0]
    assert len(set(corners.tolist())) > 2
    # Mirrored or not, 24 of 48 columns are seen, one beside the other.
    steps = drawn[0].depth_m.diff(dim=2)[:, 0]
    assert torch.allclose(steps.abs(), torch.full_like(steps, 8 / 47), atol=1e-5)
    assert {True, False} == set((steps[:, 0] > 0).tolist())
    again = next(batching.resident_batches(frames, wild, device, first=2))
    assert torch.equal(again.image, drawn[2].image)
    assert -1 <= again.image.min() < again.image.max() <= 1


def test_frames_that_do_not_fit_on_the_device_are_named(monkeypatch):
    frames = [[*numbered_frames(2), replace(frame(24, 24), name='the odd one')]]
    with pytest.raises(InputError, match=r'the odd one: with `frames_on_device` .* \[24, 24\] af'):
        batching.resident_batches(frames, recipe(), torch.device('cpu'))

    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory (simulated)")

    monkeypatch.setattr(torch, 'empty', full)
    with pytest.raises(ConfigError, match='memory of cpu; got one of 3 frames, 0.0 GiB'):
        batching.resident_batches(frames, recipe(), torch.device('cpu'))


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
