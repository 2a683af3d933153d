"""The demo with recorder, node and player as real processes."""

from __future__ import annotations

import os
from pathlib import Path
import re
import sys

from bag_fixtures import compressed_image, header, serialize, START_NS, TYPES, write_bag
from checkpoints import make_checkpoint
import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import yaml

from marigold_ros.data.bags.messages import serialize_cloud
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.messages.cloud import pack_cloud
from marigold_ros.ros.tools.demo import report
from marigold_ros.ros.tools.processes import LoggedProcess

FRAMES = 20
PARAMETERS = yaml.safe_load((Path(__file__).parents[3] / 'config' / 'demo.yaml').read_text())


@pytest.fixture
def drive(tmp_path):
    """Two seconds at 10 Hz of 96 x 64 pixels, with camera_info, true depth and a lidar's cloud."""
    pixels = np.random.default_rng(2).integers(0, 256, (8, 12, 3), np.uint8)
    depth_mm = np.tile(np.linspace(2500, 2000, 64).astype(np.uint16)[:, None], (1, 96))
    topics = {'/camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
              '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
              '/camera/depth_gt/image_rect/compressed': 'sensor_msgs/msg/CompressedImage',
              '/lidar/points': 'sensor_msgs/msg/PointCloud2'}
    messages = []
    for number in range(FRAMES):
        stamp_ns = START_NS + number * 10 ** 8
        image = cv2.resize(np.roll(pixels, number, axis=1), (96, 64))
        contents = [
            compressed_image(image, '.jpg', 'jpeg', stamp_ns), camera_info(stamp_ns),
            compressed_image(depth_mm, '.png', '16UC1; png compressed ', stamp_ns),
            serialize_cloud(stamp_ns, 'lidar', pack_cloud(lidar_points(depth_mm, number), None))]
        messages += [(topic, number * 10 ** 8, data) for topic, data in zip(topics, contents)]
    return write_bag(tmp_path / 'drive', topics, messages)


def lidar_points(depth_mm: np.ndarray, number: int) -> np.ndarray:
    """Return what the demo's lidar measures of the depth, in its frame; no two are the same."""
    rows, columns = np.mgrid[2:64:4, 2:96:4]
    z = depth_mm[rows, columns] / 1000 + 1e-4 * number
    in_body = np.stack([z, -(columns - 48) / 80 * z, -(rows - 32) / 80 * z], axis=-1)
    x, y, z, *angles = map(float, PARAMETERS['/**']['ros__parameters']['scale']['cloud'][
        'extrinsics'].split())
    rotation = Rotation.from_euler('xyz', angles).as_matrix()
    return ((in_body - (x, y, z)) @ rotation).astype(np.float32)


def camera_info(stamp_ns: int) -> bytes:
    """Serialize the calibration of an ideal camera of 80 px focal length."""
    region = {'x_offset': 0, 'y_offset': 0, 'height': 0, 'width': 0, 'do_rectify': False}
    return serialize(
        'sensor_msgs/msg/CameraInfo', header=header(stamp_ns), height=64, width=96,
        distortion_model='plumb_bob', d=np.zeros(5),
        k=np.array([80.0, 0, 48, 0, 80, 32, 0, 0, 1]), r=np.eye(3).ravel(),
        p=np.array([80.0, 0, 48, 0, 0, 80, 32, 0, 0, 0, 1, 0]), binning_x=0, binning_y=0,
        roi=TYPES['sensor_msgs/msg/RegionOfInterest'](**region))


def run_demo(tmp_path: Path, drive: Path, checkpoint: Path) -> tuple[int, str]:
    """Run the demo with its own parameters but another checkpoint; return exit code and output."""
    parameters = PARAMETERS['/**']['ros__parameters']
    path = tmp_path / 'params.yaml'
    path.write_text(yaml.safe_dump(
        {'/**': {'ros__parameters': {**parameters, 'checkpoint': str(checkpoint)}}}))
    demo = LoggedProcess('demo', [
        sys.executable, '-m', 'marigold_ros.ros.tools.demo', '--bag', str(drive), '--params-file',
        str(path), '--out', str(tmp_path / 'out')], tmp_path, os.environ)
    return demo.wait(280), demo.log.read_text()


@pytest.mark.node
def test_the_demo_records_every_output_and_prints_a_summary(tmp_path, drive):
    code, printed = run_demo(tmp_path, drive, make_checkpoint(tmp_path / 'checkpoint'))
    assert code == 0, printed
    for text in ('frames in', 'processed', 'steps      T=', 'latency    p50', 'cap 200 ms',
                 'by protocol A (least squares in depth), 0.1 to 20 m, mean of'):
        assert text in printed
    with open_bag(tmp_path / 'out' / 'recording') as bag:
        counts = {topic.name: topic.message_count for topic in bag.topics}
    for topic in ('depth/image_rect', 'depth/camera_info', 'depth/sigma', 'depth/image_color',
                  'points', 'confidence',
                  'depth_relative/image', 'depth_relative/camera_info', 'rgb/image_rect',
                  'rgb/camera_info', 'image_raw', 'depth_gt/image_rect'):
        assert counts[f'/camera/{topic}'] > 0, topic
    assert counts['/camera/image_raw'] == FRAMES
    assert counts['/depth_node/status'] > 0
    # The error of metric depth, by the cloud.
    assert 'in metres  AbsRel (metric, 0.1 to 20 m) 0.0' in printed
    assert cv2.imread(str(tmp_path / 'out' / 'contact_sheet.png')).std() > 10
    page = tmp_path / 'out' / 'report.html'
    assert f'{page}: frame by frame, clouds to turn' in printed
    shown = re.search(r'(\d+) of \d+ frames are shown', page.read_text())
    assert FRAMES - 2 <= int(shown[1]) <= FRAMES  # the first may be lost under load


@pytest.mark.node
def test_the_demo_prints_the_error_of_a_failed_configure(tmp_path, drive):
    code, printed = run_demo(tmp_path, drive, tmp_path / 'no_such_checkpoint')
    assert code == 1
    assert 'configure failed' in printed
    assert 'no_such_checkpoint' in printed
    assert 'Traceback' not in printed


def test_the_report_fails_and_names_the_empty_topics(drive, tmp_path, capsys):
    """A recording without the node: every output is missing, with a reason."""
    assert not report(drive, drive, tmp_path)
    assert '/camera/points is empty: no frame reached the node' in capsys.readouterr().err
    assert not (tmp_path / 'contact_sheet.png').exists()
    assert not (tmp_path / 'report.html').exists()
