"""The node benchmark: its values, and a short run of the real node."""

from __future__ import annotations

import json

import pytest

from benchmarks import node as bench_node
from benchmarks.node import (
    Case,
    find_worst_second,
    frame_topics,
    memory_growth,
    output_ages_ms,
    outputs_received_share,
    processed_frames,
    quantiles,
    received_share,
    share_above,
    summarize,
    time_row,
)
from benchmarks.node_rig import NodeUnderTest, Observation


def status_line(outcome='processed', stamp_ns=0, **values):
    return {'topic': '/depth_node/status', 'stamp_ns': stamp_ns, 'received_ns': stamp_ns + 10,
            'statuses': [{'name': 'x', 'message': '', 'outcome': outcome, 'camera': 'camera',
                          **{key: str(value) for key, value in values.items()}}]}


FRAME = {'latency_ms': 60.0, 'age_ms': 4.0, 'stamp_age_ms': 9.0, 'preprocess_ms': 1.0,
         'encode_ms': 2.0, 'denoise_ms': 30.0, 'decode_depth_ms': 8.0, 'postprocess_ms': 3.0,
         'read_image_ms': 1.5, 'rectify_ms': 2.5, 'complexity_ms': 0.5, 'fit_scale_ms': 0.1,
         'pack_ms': 3.5, 'publish_ms': 6.0, 'num_inference_steps': 2, 'carried_s': 0.0}


def test_the_overhead_is_the_latency_without_the_engine():
    """60 ms of which 1 + 2 + 30 + 8 + 3 = 44 are the engine's, if the frame waited for it."""
    carried, = processed_frames([status_line(**{**FRAME, 'carried_s': 0.1})])
    assert carried['overhead_ms'] == 60.0
    frames = processed_frames([status_line(**FRAME), status_line('dropped', age_ms=1.0),
                               {'topic': '/camera/points', 'stamp_ns': 0, 'received_ns': 1}])
    assert len(frames) == 1
    assert frames[0]['engine_ms'] == 44.0
    assert frames[0]['overhead_ms'] == 16.0
    assert frames[0]['num_inference_steps'] == 2.0


def test_columns_name_the_stages_of_the_status():
    times_ms = {key: {'p50': value, 'p95': value}
                for key, value in processed_frames([status_line(**FRAME)])[0].items()}
    row = time_row({'times_ms': times_ms, 'frames_out_per_s': 5.0, 'stamp_to_receipt_ms': None,
                    'reply_ms': None})
    assert list(row.items())[2:11] == [
        ('age at start', '9.0, 9.0'), ('read image', '1.5, 1.5'), ('rectify', '2.5, 2.5'),
        ('complexity', '0.5, 0.5'), ('engine', '44.0, 44.0'), ('fit scale', '0.1, 0.1'),
        ('pack', '3.5, 3.5'), ('publish', '6.0, 6.0'), ('overhead', '16.0, 16.0')]


def test_quantiles_of_nothing_are_nothing():
    assert quantiles([]) is None
    assert quantiles([1.0, 2.0, 9.0]) == {
        'p50': 2.0, 'p95': pytest.approx(8.3), 'p99': pytest.approx(8.86), 'max': 9.0, 'count': 3}


def test_the_worst_second_is_a_whole_one_by_the_stamps():
    """3, 1 and 2 messages of 3, 2 and 3 in three seconds, and none in the half after them."""
    observation = Observation(10 ** 9, 4_500_000_000, 0.0, [], [])
    lines = [{'topic': '/a', 'stamp_ns': 10 ** 9 + ms * 10 ** 6}
             for ms in (-1, 0, 500, 999, 1000, 2100, 2900)]
    lines.append({'topic': '/b', 'stamp_ns': 2_100_000_000})
    sent_ns = [10 ** 9 + ms * 10 ** 6 for ms in (0, 500, 999, 1000, 1500, 2100, 2500, 2900, 3100)]
    assert find_worst_second(observation, '/a', lines, sent_ns) == (1, 2)
    assert find_worst_second(observation, '/c', lines, sent_ns) == (0, 2)


def test_frames_of_every_camera_are_counted():
    """In two seconds one camera publishes 4 frames, the other 2, all in the first second."""
    case = Case('frames', 'two', (64, 48), 2.0, cameras=('left', 'right'))
    topics = frame_topics(case, NodeUnderTest('/x', (), ('/left/depth:Image', '/left/points:y')))
    assert topics == ['/left/depth', '/right/depth']
    second = 10 ** 9
    lines = [{'topic': topic, 'stamp_ns': stamp_ns, 'received_ns': stamp_ns + 10 ** 6}
             for topic, stamps_ns in zip(topics, ((0, 1, second, second + 1), (0, 1)))
             for stamp_ns in stamps_ns]
    tick = {'frames': 0, 'memory_bytes': 1}
    found = summarize(topics, Observation(0, 2 * second, 1.0, [], [tick]), lines,
                      {'left': [0, 1, second, second + 1], 'right': [0, 1, second]})
    assert (found['frames_out_per_s'], found['worst_second']) == (1.5, (0, 1))
    assert found['sent'] == {'left': 4, 'right': 3}
    assert found['stamp_to_receipt_ms']['count'] == 6


def test_the_share_of_late_frames():
    assert share_above(100.0, [99.0, 100.0, 101.0, 250.0]) == 0.5
    assert share_above(100.0, []) is None


def test_ages_count_from_the_stamp_of_images_only():
    lines = [{'topic': '/a', 'stamp_ns': 10 ** 6, 'received_ns': 4 * 10 ** 6},
             {'topic': '/a', 'stamp_ns': 0, 'received_ns': 10 ** 6}, status_line(**FRAME)]
    assert output_ages_ms(lines) == {'/a': [3.0, 1.0]}


def test_shares_compare_what_was_sent_with_what_arrived():
    counters = {'camera': {'frames_in': 30, 'frames_processed': 20}}
    assert received_share({'camera': 40}, counters) == 0.75
    assert received_share({'camera': 40}, {}) is None  # a node that does not count
    lines = 15 * [{'topic': '/camera/points'}]
    assert outputs_received_share('/camera/points', lines, counters) == 0.75


def test_memory_is_compared_after_equal_work():
    """100 MB around frame 500, 103 at frame 5000; what lies before and between is no matter."""
    ticks = [{'frames': frames, 'memory_bytes': megabytes} for frames, megabytes in
             ((10, 50), (500, 100), (520, 100), (540, 100), (3000, 180), (4990, 103), (5000, 103))]
    ticks[3:3] = [{'frames': 541, 'memory_bytes': 100}] * 7
    found = memory_growth(ticks)
    assert found['early_bytes'] == 100
    assert found['growth'] == pytest.approx(0.03)
    assert memory_growth(ticks[:-1]) is None


@pytest.mark.parametrize('words, message', [
    (['nonsense'], 'unknown section nonsense'),
    (['overhead', '--command', 'x'], '--command needs --output')])
def test_the_command_line_says_what_is_wrong(words, message, capsys):
    with pytest.raises(SystemExit):
        bench_node.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.node
@pytest.mark.slow
def test_a_short_run_measures_the_real_node(tmp_path, capsys):
    """The smallest cases, for two seconds; their figures are not judged."""
    assert bench_node.main(['overhead', '--only', 'VGA, depth', '--seconds', '2',
                            '--out', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'node_overhead.json').read_text())
    assert report['environment']['rclpy']
    moving, case = report['results']
    assert moving['runs_per_s'] < moving['frames_out_per_s']
    assert case['frames_out_per_s'] > 1
    assert 0 < case['times_ms']['engine_ms']['p50'] < case['times_ms']['latency_ms']['p50']
    assert {f'{stage}_ms' for stage in ('read_image', 'rectify', 'complexity', 'fit_scale', 'pack',
                                        'publish')} <= set(case['times_ms'])
    assert case['reply_ms']['count'] > 3
    assert case['cpu_share'] > 0
    assert case['counters']['camera']['frames_in'] <= case['sent']['camera']
    assert 'VGA, depth and cloud' in capsys.readouterr().out
