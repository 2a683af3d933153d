"""The sample drive when one of several scale sources is wrong or sees little."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.evaluation.metrics.metric_depth import MetricDepthEvaluator
from marigold_ros.evaluation.references import BagReferences
from marigold_ros.metric.config import ScaleConfig

BAG = Path(__file__).parents[2] / 'sample' / 'living_room'
TOPICS = {'cloud': '/lidar/points', 'scan': '/scan'}
FRAMES = 8
# Of the lidar in the body frame of the camera; and 1 m in front of that, along x.
MOUNT, WRONG_MOUNT = ('-0.1298 0 0.0869 0 -0.10472 0', '0.8702 0 0.0869 0 -0.10472 0')


@pytest.fixture(scope='module')
def drive():
    engine = DepthEngine.load('tiny')
    return [(frame, engine.infer(frame.rgb, num_inference_steps=1))
            for frame in islice(bag_data_set(BAG).frames(), FRAMES)]


def evaluate(drive, *sources: str, mount: str = MOUNT):
    """Evaluate a drive from some sources; return the summary."""
    config = ScaleConfig(sources, camera_height_m=0.35,
                         extrinsics={'cloud': mount} if 'cloud' in sources else {})
    evaluator = MetricDepthEvaluator(config)
    with open_bag(BAG) as bag:
        references = BagReferences(bag, SAMPLE_TOPICS, config,
                                   {each: TOPICS[each] for each in config.reference_sources})
        for frame, prediction in drive:
            evaluator.add(frame, prediction, references.lookup(frame))
    return evaluator.summary()


@pytest.mark.parametrize('sources', [
    ('cloud', 'ground_plane'), ('ground_plane', 'cloud'), ('cloud', 'motion', 'ground_plane')])
def test_a_lidar_1_m_off_in_x_is_refused_and_the_others_go_on(drive, sources):
    others = [source for source in sources if source != 'cloud']
    found, without = evaluate(drive, *sources, mount=WRONG_MOUNT), evaluate(drive, *others)
    states = found['source_states']
    assert states['cloud'] == {'rejected': FRAMES}
    assert states['ground_plane'] == {'used': FRAMES}
    assert 'cloud contradicts ' in found['most_frequent_problem']
    assert found['abs_rel'] == pytest.approx(without['abs_rel'], rel=0.01)


def test_a_lidar_where_it_is_said_to_be_is_used(drive):
    found = evaluate(drive, 'cloud', 'ground_plane')
    assert found['source_states'] == {'cloud': {'used': FRAMES}, 'ground_plane': {'used': FRAMES}}
    assert found['abs_rel'] < 0.9 * evaluate(drive, 'ground_plane')['abs_rel']


def test_a_scan_does_not_spoil_the_floor(drive):
    assert evaluate(drive, 'scan', 'ground_plane')['floor_error'] < 0.01
