"""What is rectified in the running node: decided by camera_info and name, or by the parameter."""

from __future__ import annotations

import time

from checkpoints import make_checkpoint
import cv2
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import camera_info, image, node_in_process
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image

pytestmark = pytest.mark.node
RGB = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8), (160, 120))
K = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
D = np.array([-0.3, 0.1, 0, 0, 0])
# Raw images of a distorted camera, as a D405 calls them, and of a fisheye without coefficients.
INFOS = {'d405': {'d': tuple(D)}, 'fisheye': {'model': 'fisheye', 'd': (0.0,) * 4}}
EXPECTED = {'d405': cv2.undistort(RGB, K, D),
            'fisheye': cv2.fisheye.undistortImage(RGB, K, np.zeros(4), Knew=K)}


@pytest.mark.parametrize('option', ['auto', 'true'])
def test_what_is_rectified_is_decided_by_the_parameter_else_by_camera_info_and_name(
        tmp_path, option):
    checkpoint = make_checkpoint(tmp_path / 'random')
    arguments = ['-p', f'checkpoint:={checkpoint}', '-p', 'latency_cap_ms:=0', '-p',
                 'max_age_s:=60', '-p', f'cameras:=[{", ".join(INFOS)}]', '-p',
                 f'input_rectified:={option}']
    for camera in INFOS:
        arguments += ['-r', f'{camera}/image_raw:=/{camera}/image_rect_raw']
    with node_in_process(*arguments) as (_, robot):
        robot.listen('/depth_node/status', DiagnosticArray)
        for camera, fields in INFOS.items():
            robot.listen(f'/{camera}/rgb/image_rect', Image)
            robot.advertise(f'/{camera}/camera_info', CameraInfo)
            robot.advertise(f'/{camera}/image_rect_raw', Image)
            stamp_ns = time.time_ns()
            robot.publish(f'/{camera}/camera_info', camera_info(stamp_ns, **fields))
            robot.publish(f'/{camera}/image_rect_raw', image(RGB, stamp_ns))
            seen = robot.find(f'/{camera}/rgb/image_rect', stamp_ns)
            seen = np.frombuffer(seen.data, np.uint8).reshape(RGB.shape)
            expected = EXPECTED[camera] if option == 'auto' else RGB
            assert np.abs(EXPECTED[camera].astype(int) - RGB).mean() > 5
            assert np.abs(seen.astype(int) - expected).mean() < 1
