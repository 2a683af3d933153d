"""
Numbers equal those of the published evaluation code on the same predictions.

Where each value is from:

- `SETS`, A: `script/depth/eval.py` of prs-eth/Marigold (b1dffaa), run on the made-up files of
  `published_fixtures` and their predictions, from a folder and from a tar file, as its shell
  scripts do.  Only the fixed size of ETH3D (6048 x 4032) was changed to that of the made-up file,
  and its `--alignment_max_res` from 1024 to 16.
- `SETS`, B: the functions of `evaluation/depth/eval.py` of huawei-bayerlab/marigold-v2 with
  scikit-learn 1.9.1, on the depth and masks of Marigold's dataset classes.  Only ETH3D's size of
  comparison was changed, from 2048 x 1360 to 11 x 7.
- `RANDOM`, `RAMP`: `src/util/metric.py` and `alignment.py` of prs-eth/Marigold.
- TAE: `tae_torch` of DepthAnything/Video-Depth-Anything, `benchmark/eval/eval_tae.py`, both ways.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from published_fixtures import SIZES, synthetic_prediction, write_layout
import pytest

from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.datasets.published import PUBLISHED_SETS
from marigold_ros.evaluation.metrics.protocol_a import depth_metrics, vertical_ramp
from marigold_ros.evaluation.metrics.protocols import score
from marigold_ros.evaluation.metrics.temporal import temporal_alignment_error

METRICS = ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'log10', 'silog', 'delta1', 'delta2', 'delta3')
SETS = {
    ('nyu', 'A'): (
        0.064636037, 0.029589333, 0.37670168, 0.081787318, 0.027815109, 8.170927, 0.98972785,
        1, 1),
    ('nyu', 'A-disparity'): (
        0.11026507, 0.099970706, 0.77391732, 0.13375886, 0.047089051, 13.373666, 0.91430551,
        0.99847627, 1),
    ('kitti', 'A'): (
        0.066607155, 0.24215269, 2.9855723, 0.082247622, 0.028705422, 8.2174559, 0.99651456, 1, 1),
    ('kitti', 'A-disparity'): (
        0.083459392, 0.41702196, 4.1568184, 0.10285746, 0.036042191, 10.284476, 0.9755035, 1, 1),
    ('eth3d', 'A'): (
        0.24418497, 2.1943192, 10.808632, 0.40309688, 0.0966589, 38.798435, 0.72694397,
        0.88788426, 0.92947561),
    ('eth3d', 'A-disparity'): (
        2.0973706, 1555.4109, 198.46454, 0.96092021, 0.23415402, 95.194275, 0.36347198,
        0.73598552, 0.82640147),
    ('scannet', 'A'): (
        0.079689316, 0.038603712, 0.40544298, 0.1021518, 0.034002963, 10.195521, 0.96433878,
        0.99851412, 1),
    ('scannet', 'A-disparity'): (
        0.16828854, 0.20571074, 1.0851386, 0.19999395, 0.071308173, 19.967468, 0.71025258,
        0.98365527, 0.99702823),
    ('diode', 'A'): (
        8.9917431, 187.19693, 28.24159, 2.1063871, 0.75983965, 177.06468, 0, 0.039548021,
        0.37288135),
    ('diode', 'A-disparity'): (
        0.94676656, 19.90889, 34.578007, 2.0593593, 0.7498818, 174.61513, 0.0028248588,
        0.13841808, 0.29096046),
    ('nyu', 'B'): (
        0.081997186, 0.048456695, 0.43658307, 0.10907777, 0.033765599, 10.579397, 0.94524533,
        0.99556172, 1),
    ('kitti', 'B'): (
        0.072344847, 0.27823132, 3.1285052, 0.089302361, 0.030808635, 8.8369436, 0.9846651, 1, 1),
    ('eth3d', 'B'): (
        0.2655918, 2.3132331, 11.134793, 0.47233665, 0.10158917, 47.20705, 0.75342464, 0.9041096,
        0.91780823),
    ('scannet', 'B'): (
        0.10903844, 0.07306771, 0.49200958, 0.1480981, 0.043810252, 14.571239, 0.9153046,
        0.97473997, 0.99702823),
    ('diode', 'B'): (
        16.58218, 663.78748, 27.873484, 2.4782913, 0.74935812, 177.91182, 0.5151515, 0.5151515,
        0.5151515),
}
# Uniform noise fitted to uniform noise, and the same plus 0.5 taken for metres.
RANDOM = {
    'least_square': (
        1.0981475, 4.2242408, 2.8148644, 0.79141867, 0.25308433, 76.055634, 0.23220974, 0.5,
        0.76404494),
    'least_square_disparity': (
        0.73475689, 2.3379793, 3.6597764, 0.84669578, 0.31983089, 76.048676, 0.14419475,
        0.28089887, 0.44382024),
    None: (
        0.75727212, 3.6071451, 5.0951262, 1.68985, 0.67108303, 82.025948, 0.028089888,
        0.071161046, 0.13483146),
}
# The vertical ramp on the first frame of the sample bag.
RAMP = (0.28261012, 0.29079428, 0.77088803, 0.32338065, 0.10870045, 31.813717, 0.50708759,
        0.86775666, 0.95309609)


def values(found):
    return [found[metric] for metric in METRICS]


@pytest.mark.parametrize('as_tar', [False, True])
@pytest.mark.parametrize('name', SIZES)
def test_five_sets_equal_the_published_code(tmp_path, name, as_tar):
    data_set = PUBLISHED_SETS[name].data_set(*write_layout(name, tmp_path, as_tar=as_tar))
    rules = replace(data_set.rules, alignment_max_res=16, b_size=(7, 11)) \
        if name == 'eth3d' else data_set.rules
    frame, = data_set.frames()
    for protocol in ('A', 'A-disparity', 'B'):
        found = score(synthetic_prediction(name), frame, rules, protocol)
        assert values(found) == pytest.approx(SETS[name, protocol], rel=1e-5)


def test_the_rules_of_eth3d_are_the_published_ones():
    assert PUBLISHED_SETS['eth3d'].rules.alignment_max_res == 1024
    assert PUBLISHED_SETS['eth3d'].rules.b_size == (1360, 2048)


@pytest.mark.parametrize('alignment', RANDOM)
def test_random_maps_equal_the_published_code(alignment):
    rng = np.random.default_rng(7)
    target_m = rng.uniform(0.3, 12, (24, 32)).astype(np.float32)
    prediction = rng.random((24, 32)).astype(np.float32)
    valid = rng.random((24, 32)) > 0.2
    found = depth_metrics(
        prediction + np.float32(0.5 if alignment is None else 0.0), target_m, valid,
        alignment=alignment, min_depth_m=1e-3, max_depth_m=10.0)
    assert values(found) == pytest.approx(RANDOM[alignment], rel=1e-5)


def test_a_ramp_in_a_room_equals_the_published_code():
    frame = next(bag_data_set(Path(__file__).parents[3] / 'sample' / 'living_room').frames())
    assert values(score(vertical_ramp(480, 640), frame)) == pytest.approx(RAMP, rel=1e-5)


def test_tae_equals_the_published_code():
    rng = np.random.default_rng(11)
    previous_m, map_m = rng.uniform(2, 3, (12, 16)), rng.uniform(2, 3, (12, 16))
    K = np.array([[15.0, 0.0, 7.5], [0.0, 15.0, 5.5], [0.0, 0.0, 1.0]])
    angle = np.radians(4)
    current_from_previous = np.eye(4)
    current_from_previous[0, 0] = current_from_previous[2, 2] = np.cos(angle)
    current_from_previous[0, 2], current_from_previous[2, 0] = np.sin(angle), -np.sin(angle)
    current_from_previous[:3, 3] = 0.2, -0.1, 0.15
    found = temporal_alignment_error(map_m, previous_m, K, np.linalg.inv(current_from_previous))
    assert found == pytest.approx((0.16133812191921876 + 0.1541256948948305) / 2, rel=1e-5)
