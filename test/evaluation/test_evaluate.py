"""The evaluate command on a random checkpoint: files, numbers, repeatability, errors."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
import json
from pathlib import Path
import re
import signal

from bag_fixtures import camera_info as small_camera_info
from bag_fixtures import image, START_NS, transform, write_bag, write_mcap
from checkpoints import make_checkpoint
import cv2
import numpy as np
from published_fixtures import write_layout
import pytest
from summary_schema import check_summary, described, leaves

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.depth.errors import BagError
from marigold_ros.evaluation.config import SEQUENCE_POLICIES
from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.metrics.protocols import EDGE_SCORES
from marigold_ros.evaluation.options import _read_scale_config, make_parser, read_data_set
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.report.summary import SCHEMA
from marigold_ros.evaluation.runner import EvaluationSession
from marigold_ros.metric.config import ScaleConfig
from scenes.robot_messages import camera_info

COUNT, PERIOD_NS = 14, 10 ** 8
HEIGHT, WIDTH = 48, 64
TOPICS = ('--image', '/camera/image_rect', '--depth', '/camera/depth/image_rect')
IMAGE = 'sensor_msgs/msg/Image'
FEW = ('--policies', 'complexity-gradient_energy,fixed-2')
SAMPLE = Path(__file__).parents[2] / 'sample'
FILES = {'report.html', 'summary.json', 'per_frame.csv', 'tables.md', 'latency_table.json'}


def pictures(count=COUNT):
    """Yield image and depth of a box moving in front of a wall, with increasing texture."""
    rng = np.random.default_rng(3)
    for i in range(count):
        depth_m = np.full((HEIGHT, WIDTH), 4.0, np.float32)
        depth_m[8:30, 5 + i:35 + i] = 1.5
        rgb = 60 * depth_m[..., None] * rng.uniform(1 - i / 20, 1, (HEIGHT, WIDTH, 3))
        yield rgb.astype(np.uint8), depth_m


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return the folder of a checkpoint with random weights."""
    return str(make_checkpoint(tmp_path_factory.mktemp('evaluate') / 'random'))


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """Write a bag of 1.4 s with images, depth and calibration."""
    K = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    messages = []
    for i, (rgb, depth_m) in enumerate(pictures()):
        stamp = START_NS + i * PERIOD_NS
        messages += [('/camera/camera_info', i * PERIOD_NS, camera_info(stamp, WIDTH, HEIGHT, K)),
                     (TOPICS[1], i * PERIOD_NS, image(rgb, 'rgb8', stamp)),
                     (TOPICS[3], i * PERIOD_NS, image(depth_m, '32FC1', stamp))]
    return write_bag(tmp_path_factory.mktemp('evaluate') / 'bag', {
        '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
        TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, messages)


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Write a latency table: carrying takes 3 ms, T = 1 takes 75 ms and T = 4 takes 165 ms."""
    path = tmp_path_factory.mktemp('evaluate') / 'table.json'
    cost = FrameCost(preprocess_s=0.005, encode_s=0.02, step_s=0.03, decode_s=0.015,
                     postprocess_s=0.004, complexity_s=0.001, carry_s=0.002)
    LatencyTable({'made': 'by hand'}, {(48, 64): [cost]}, '2020-01-01').save(path)
    return path


@pytest.fixture(scope='module')
def evaluated(checkpoint, bag, table, tmp_path_factory):
    """Evaluate the bag with every policy, a live run and an output bag; return the folder."""
    out = tmp_path_factory.mktemp('evaluate') / 'out'
    assert main(['bag', str(bag), *TOPICS, '--checkpoint', checkpoint, '--out', str(out),
                 '--latency-table', str(table), '--latency-cap-ms', '130',
                 '--live', '--out-bag', str(out / 'made')]) == 0
    return out


@pytest.fixture(scope='module')
def drive_evaluated(checkpoint, tmp_path_factory):
    """Evaluate metric depth and obstacles on the sample drive; return the folder."""
    out = tmp_path_factory.mktemp('evaluate') / 'drive'
    assert main(['bag', str(SAMPLE / 'living_room'), '--image', '/camera/image_raw', '--depth',
                 '/camera/depth_gt/image_rect', '--checkpoint', checkpoint, '--out', str(out),
                 '--policies', 'novelty,fixed-1', '--max-frames', '6', '--scale-sources',
                 'cloud,ground_plane', '--reference', 'cloud=/lidar/points', '--camera-height-m',
                 '0.35', '--scene', str(SAMPLE / 'scene.json'),
                 '--costmap', str(SAMPLE.parent / 'config' / 'nav2_costmap.yaml')]) == 0
    return out


def read_summary(out):
    """Read summary.json."""
    return json.loads((out / 'summary.json').read_text())


def evaluate_few(checkpoint, bag, out, *more):
    """Run the shortest evaluation."""
    return main(['bag', str(bag), *TOPICS, '--checkpoint', checkpoint, '--out', str(out), *FEW,
                 '--max-frames', '4', *more])


def leaves_once(value, path=''):
    """Yield every leaf with a path of its own."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, (dict, list)):
            yield from leaves_once(item, f'{path}.{key}')
        else:
            yield f'{path}.{key}', item


def test_all_files_are_written(evaluated):
    assert {path.name for path in evaluated.iterdir()} == FILES | {
        'made', 'worst_second_1.jpg', 'worst_second_2.jpg'}


def test_the_summary_matches_its_schema(evaluated):
    seen = check_summary(read_summary(evaluated), SCHEMA)
    elsewhere = {key for key in SCHEMA if key.startswith(('sets.', 'metric.'))}
    assert seen == set(SCHEMA) - elsewhere - {'notes[]'}
    blind = read_summary(evaluated)['blind']
    assert {each['policy'] for each in blind} == {
        *(f'every-{n}' for n in (2, 3, 4, 6, 10, 20)), *(f'fixed-{n}' for n in (1, 2, 3, 4))}
    assert [each['frame_ms'] for each in blind] == sorted(each['frame_ms'] for each in blind)


def test_metric_depth_is_evaluated(drive_evaluated):
    summary = read_summary(drive_evaluated)
    assert {described(f'metric.{path}', SCHEMA) for path, _ in leaves(summary['metric'])} == {
        key for key in SCHEMA if key.startswith('metric.')}
    assert summary['metric']['sources'] == ['cloud', 'ground_plane']
    assert summary['metric']['references'] == {'cloud': '/lidar/points'}
    assert list(summary['metric']['policies']) == ['novelty', 'fixed-1']
    metric, every_frame = summary['metric']['policies'].values()
    with (drive_evaluated / 'per_frame.csv').open() as file:
        errors = [float(row['metric_abs_rel_without_cap']) for row in csv.DictReader(file)
                  if row['policy'] == 'novelty']
    assert np.mean(errors) == pytest.approx(metric['abs_rel'], rel=1e-5)
    assert (metric['frames'], metric['frames_with_metric_depth']) == (6, 6)
    assert metric['states'] == {'tracking': 6}
    assert every_frame['published_share'] >= metric['published_share'] > 0.9
    assert all(sum(counts.values()) == 6 for counts in metric['source_states'].values())
    assert metric['source_states']['cloud'] == {'used': 6}
    assert (metric['obstacles']['frames'], metric['obstacles']['clouds']) == (6, 6)
    # The floor is no sensor.
    assert list(metric['sensors']) == ['cloud']
    alone, both = (metric['sensors']['cloud'][name] for name in ('alone', 'with_cloud'))
    assert alone['distance_m'] is None and both['distance_m'] is not None
    visible = {name: each['visible'] for name, each in metric['obstacles']['found'].items()}
    assert visible and visible == {name: each['visible'] for name, each in alone['found'].items()}
    assert all(each['found'] <= each['visible'] for each in both['found'].values())
    assert metric['floor_error'] is not None
    tables = (drive_evaluated / 'tables.md').read_text()
    report = (drive_evaluated / 'report.html').read_text()
    for shown in (tables, report):
        assert 'AbsRel (metric, 0.1 to 20 m)' in shown
        assert 'visible obstacles marked' in shown
    assert 'tracking 6' in report
    text = ' '.join(summary['verdict']['sentences'])
    assert ('Metric depth from cloud (/lidar/points) and ground_plane: available in 6 of 6 frames'
            in text)
    assert 'cloud, ground_plane (cloud on /lidar/points)' in report
    assert "In Nav2's obstacle layer" in text


def test_options_of_sources_become_the_settings_of_the_node(bag):
    options = make_parser('evaluate', '').parse_args(
        ['bag', str(bag), *TOPICS, '--out', 'out', '--scale-sources', 'scan,motion', '--reference',
         'scan=/scan', '--extrinsics', 'scan=0.1 0 0 0 0 0', '--weight', 'motion=0.5', '--weight',
         'scan=2', '--camera-height-m', '0.4', '--refine-rotation', '--base-frame', 'base'])
    assert _read_scale_config(options) == ScaleConfig(
        ('scan', 'motion'), extrinsics={'scan': '0.1 0 0 0 0 0'},
        weights={'motion': 0.5, 'scan': 2.0}, camera_height_m=0.4, refine_rotation=True,
        base_frame='base')
    assert options.reference == [('scan', '/scan')]


def test_the_verdict_explains_missing_metric_depth(checkpoint, bag, tmp_path):
    """The bag shows no floor for the ground_plane source."""
    assert evaluate_few(checkpoint, bag, tmp_path / 'out', '--scale-sources', 'ground_plane',
                        '--camera-height-m', '0.5') == 0
    summary = read_summary(tmp_path / 'out')
    for row in summary['metric']['policies'].values():
        assert (row['frames_with_metric_depth'], row['abs_rel']) == (0, None)
    assert any(sentence.startswith('Metric depth from ground_plane: available in none of 4 frames')
               for sentence in summary['verdict']['sentences'])


def test_log_times_replace_stamps_that_carry_no_time(checkpoint, tmp_path, capsys):
    """The stamps of the images are 0; depth comes 20 ms later, and the third is lost."""
    messages = []
    for i, (rgb, depth_m) in enumerate(pictures(5)):
        at = i * PERIOD_NS
        messages.append((TOPICS[1], at, image(rgb, 'rgb8', 0)))
        if i != 2:
            at += 20_000_000
            messages.append((TOPICS[3], at, image(depth_m, '32FC1', START_NS + at)))
    bag = write_bag(tmp_path / 'bag', {TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, messages)
    assert evaluate_few(checkpoint, bag, tmp_path / 'none') == 2
    error = capsys.readouterr().err
    assert all(text in error for text in ('within 15 ms', 'log times', '`tolerance_ms`'))
    assert evaluate_few(checkpoint, bag, tmp_path / 'out', '--tolerance-ms', '25') == 0
    assert 'log times are used instead' in capsys.readouterr().out
    summary = read_summary(tmp_path / 'out')
    assert summary['notes'] == [
        'the stamps on /camera/image_rect carry no time (0, or repeated); log times are used '
        'instead', '1 images have no depth within 25 ms (`tolerance_ms`)']
    with (tmp_path / 'out' / 'per_frame.csv').open() as file:
        stamps = {int(row['stamp_ns']) for row in csv.DictReader(file)}
    assert stamps == {START_NS + i * PERIOD_NS for i in (0, 1, 3, 4)}


def test_an_invalid_transform_is_ignored_and_noted(checkpoint, tmp_path):
    """Valid depth and a pose for its camera, which is bolted to a robot that stands still."""
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    depth_m = np.tile(np.linspace(1, 4, WIDTH, dtype=np.float32), (HEIGHT, 1))
    zero = (0.0, 0.0, 0.0, 0.0)
    bag = write_bag(tmp_path / 'bag', {
        TOPICS[1]: IMAGE, TOPICS[3]: IMAGE, '/tf': 'tf2_msgs/msg/TFMessage'}, [
            ('/tf', 0, transform('odom', 'camera_optical_frame', (0.0, 0.0, 0.0))),
            ('/tf', 0, transform('odom', 'camera_optical_frame', (0.0, 0.0, 0.0), zero)),
            (TOPICS[1], 0, image(rgb, 'rgb8', START_NS)),
            (TOPICS[3], 0, image(depth_m, '32FC1', START_NS))])
    assert evaluate_few(checkpoint, bag, tmp_path / 'out') == 0
    assert [note for note in read_summary(tmp_path / 'out')['notes'] if 'ignored' in note] == [
        "transforms ignored on /tf: 1; the first, 'odom' to 'camera_optical_frame' at "
        f'{START_NS} ns: the rotation must be a finite quaternion other than 0; '
        'got (0.0, 0.0, 0.0, 0.0)']


def test_a_fixed_range_is_a_scale_source(checkpoint, bag, tmp_path):
    assert evaluate_few(checkpoint, bag, tmp_path / 'out', '--scale-sources', 'fixed',
                        '--min-depth-m', '1', '--max-depth-m', '5') == 0
    for row in read_summary(tmp_path / 'out')['metric']['policies'].values():
        assert (row['states'], row['jitter']) == ({'assumed': 4}, 0.0)
        assert 'obstacles' not in row


def test_the_simulation_runs_networks_beside_the_frames_by_the_latency_table(evaluated):
    """T = 4 takes 164 ms at 10 Hz, so every other frame begins a run; only the first waits."""
    policies = read_summary(evaluated)['policies']
    for name in ('fixed-1', 'fixed-4', 'novelty'):
        assert policies[name]['simulated']['outcomes']['processed'] == COUNT
    assert policies['fixed-4']['simulated']['over_cap'] == 1  # the cap is 130 ms
    assert policies['fixed-4']['simulated']['mean_steps'] == pytest.approx(2, abs=0.3)
    assert policies['novelty']['simulated']['over_cap'] == 0


def test_times_are_from_the_latency_table(evaluated):
    row = read_summary(evaluated)['policies']['fixed-4']
    assert row['frame_ms'] == pytest.approx(167)
    assert row['network_ms'] == pytest.approx(164)
    saved = read_summary(evaluated)['policies']['fixed-1']['saved']
    assert saved['fixed-4']['share'] == pytest.approx(90 / 164)
    assert saved['fixed-1']['share'] == 0
    row = read_summary(evaluated)['policies']['novelty']
    runs = COUNT - row['steps'].get('0', 0)
    assert row['frame_ms'] == pytest.approx(3 + (30 * row['mean_steps'] * COUNT + 44 * runs)
                                            / COUNT, abs=0.01)


def test_the_csv_has_a_row_per_frame_and_policy(evaluated):
    with (evaluated / 'per_frame.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT * len({*SEQUENCE_POLICIES, 'fixed-4'})
    for row in rows:
        processed = row['outcome'] == 'processed'
        assert (row['latency_ms'] != '') == (row['abs_rel'] != '') == processed
    means = {name: np.mean([float(row['abs_rel_without_cap']) for row in rows
                            if row['policy'] == name]) for name in ('novelty', 'fixed-4')}
    policies = read_summary(evaluated)['policies']
    assert means == {name: pytest.approx(policies[name]['metrics']['abs_rel'], rel=1e-5)
                     for name in means}
    first = next(row for row in rows if row['policy'] == 'fixed-4')
    assert (first['denoise_ms'], first['latency_ms'], first['age_ms']) == (
        '120.000', '167.000', '0.000')


def test_the_report_is_self_contained(evaluated):
    sources = []

    class Watch(HTMLParser):

        def handle_starttag(self, tag, attributes):
            sources.extend(value for name, value in attributes if name in ('src', 'href'))

    text = (evaluated / 'report.html').read_text()
    Watch().feed(text)
    assert sources and all(source.startswith(('data:', '#')) for source in sources)
    assert text.count('<div><svg') == 6
    assert text.count('class="frame"') >= 4    # best, median and worst of two blocks
    order = [text.index(word) for word in (
        'Accuracy</div>', 'Latency</div>', 'Network time saved</div>', 'Time and quality by',
        'Complexity, steps', 'Timeline', 'Best, median and worst', 'Reproduce this')]
    assert order == sorted(order)
    assert 'protocol A (least squares in depth), 0.001 to 80+ m' in text
    assert 'Partial report' not in text


def test_the_live_run_reports_every_frame(evaluated):
    live = read_summary(evaluated)['policies']['novelty']['live']
    assert sum(live['outcomes'].values()) == COUNT
    assert live['latency_p50_ms'] > 0
    assert 0 < live['scored'] <= live['outcomes']['processed']
    assert live['metrics']['abs_rel'] > 0


def test_frames_that_arrive_over_time_have_errors_but_no_scores_of_edges(evaluated):
    row = read_summary(evaluated)['policies']['novelty']
    assert row['simulated']['metrics']['delta1'] > 0
    assert 'boundary_f1' in row['metrics']
    assert not set(EDGE_SCORES) & {*row['simulated']['metrics'], *row['live']['metrics']}


def test_the_out_bag_has_a_status_for_every_frame(evaluated):
    policies = read_summary(evaluated)['policies']
    outcomes = policies['novelty']['simulated']['outcomes']
    with open_bag(evaluated / 'made') as made:
        counts = {topic.name: topic.message_count for topic in made.topics}
        statuses = [made.decode(message).status[0]
                    for message in made.messages(['/evaluate/status'])]
        error = made.decode(next(iter(made.messages(['/camera/depth_error']))))
    every, processed = COUNT, outcomes['processed']
    assert counts == {
        '/camera/rgb/image_rect': every, '/camera/depth_gt/image_rect': every,
        '/evaluate/status': every, '/camera/depth/image_rect': processed,
        '/camera/depth_error': processed, '/camera/points': processed}
    values = {item.key: item.value for item in statuses[0].values}
    assert values['outcome'] == 'processed'
    mean_error = np.frombuffer(error.data, np.float32).mean()
    assert float(values['abs_rel']) == pytest.approx(mean_error, rel=1e-4)


def test_the_same_command_gives_the_same_numbers(checkpoint, bag, tmp_path):
    """Also if the first run measured the latency table."""
    summaries = []
    for _ in range(2):
        assert evaluate_few(checkpoint, bag, tmp_path / 'out', '--latency-cap-ms', '20') == 0
        summary = read_summary(tmp_path / 'out')
        summaries.append({key: value for key, value in summary.items()
                          if key not in ('timing', 'environment')})
    assert dict(leaves_once(summaries[0])) == dict(leaves_once(summaries[1]))


def test_a_folder_has_sets_and_protocol_b_is_named(checkpoint, tmp_path):
    entries = {'desk': [], 'shelf': []}
    for i, (rgb, depth_m) in enumerate(pictures(4)):
        folder = tmp_path / 'frames' / ('desk', 'shelf')[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f'{i}.png'), rgb[..., ::-1])
        cv2.imwrite(str(folder / f'{i}_mm.png'), (1000 * depth_m).astype(np.uint16))
        entries[folder.name].append({
            'name': str(i), 'rgb': f'{i}.png', 'depth': f'{i}_mm.png', 'depth_unit_m': 0.001,
            'rgb_size': [WIDTH, HEIGHT], 'depth_size': [WIDTH, HEIGHT], 'K': None})
    (tmp_path / 'frames' / 'frames.json').write_text(json.dumps(entries))
    assert main(['folder', str(tmp_path / 'frames'), '--checkpoint', checkpoint, '--protocol',
                 'B', '--out', str(tmp_path / 'out'), '--policies', 'fixed-2']) == 0
    summary = read_summary(tmp_path / 'out')
    assert [each['frames'] for each in summary['sets'].values()] == [2, 2]
    by_set = [each['abs_rel']['ramp'] for each in summary['sets'].values()]
    assert summary['baselines']['ramp']['abs_rel'] == pytest.approx(np.mean(by_set))
    simulated = summary['policies']['fixed-2']['simulated']
    assert simulated['outcomes'] == {'processed': 4, 'superseded': 0}
    assert summary['protocol'] == 'B'
    assert 'runs the networks in 4 of 4 frames' in ' '.join(summary['verdict']['sentences'])
    assert {described(path, SCHEMA) for path, _ in leaves(summary)} >= {'sets.<name>.frames'}
    assert 'RANSAC in log depth' in (tmp_path / 'out' / 'report.html').read_text()
    sets = re.search(r'\| AbsRel \(B, above 0 m\) / delta1 +\| mean of sets +\| desk \(2\) +\|'
                     r' shelf \(2\) +\|', (tmp_path / 'out' / 'tables.md').read_text())
    assert sets is not None


def test_ctrl_c_leaves_a_partial_report(checkpoint, bag, tmp_path, monkeypatch,
                                        capsys):
    infer, images = EvaluationSession._infer, []
    handler = signal.getsignal(signal.SIGINT)

    def interrupt_the_third(self, rgb, steps):
        if not any(rgb is each for each in images):
            images.append(rgb)
            if len(images) == 3:
                signal.raise_signal(signal.SIGINT)
        return infer(self, rgb, steps)

    monkeypatch.setattr(EvaluationSession, '_infer', interrupt_the_third)
    assert main(['bag', str(bag), *TOPICS, '--checkpoint', checkpoint, '--out',
                 str(tmp_path / 'out'), *FEW]) == 130
    summary = read_summary(tmp_path / 'out')
    assert (summary['complete'], summary['data']['frames']) == (False, 3)
    assert summary['notes'] == [f'interrupted after 3 of {COUNT} frames']
    text = (tmp_path / 'out' / 'report.html').read_text()
    assert 'Partial report' in text and 'interrupted after 3' in text
    assert 'PARTIAL report' in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_before_the_first_frame_writes_nothing(checkpoint, bag, tmp_path, monkeypatch,
                                                      capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LatencyTable, 'measure', interrupt)
    assert evaluate_few(checkpoint, bag, tmp_path / 'out') == 130
    assert 'interrupted before the first frame, no report written' in capsys.readouterr().err
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_bag_without_matching_depth_is_rejected(checkpoint, tmp_path, capsys):
    (rgb, depth_m), = pictures(1)
    write_bag(tmp_path / 'bag', {TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, [
        (TOPICS[1], 0, image(rgb, 'rgb8', START_NS)),
        (TOPICS[3], 0, image(depth_m, '32FC1', START_NS + PERIOD_NS))])
    assert evaluate_few(checkpoint, tmp_path / 'bag', tmp_path / 'out') == 2
    assert 'closest +100.000 ms' in capsys.readouterr().err


def test_a_whole_bag_of_ros1_beside_topics_of_another_world_is_evaluated_whole(
        checkpoint, tmp_path, capsys):
    """In MCAP without a profile, in a folder without metadata, under a name of its own."""
    (tmp_path / 'bag').mkdir()
    write_mcap(tmp_path / 'bag' / 'drive.mcap', [
        (topic, IMAGE, at, image(pixels, encoding, START_NS + at))
        for at, pair in zip(range(0, 3 * PERIOD_NS, PERIOD_NS), pictures(3))
        for topic, pixels, encoding in zip(TOPICS[1::2], pair, ('rgb8', '32FC1'))],
        ros1=True, foreign=True, profile='')
    assert evaluate_few(checkpoint, tmp_path / 'bag', tmp_path / 'out') == 0
    assert read_summary(tmp_path / 'out')['complete']
    assert '5 topics cannot be read: /incomplete (my_msgs/msg/Pair, 1 messages: ' in (
        capsys.readouterr().out)


def test_a_truncated_bag_is_evaluated_partially(checkpoint, tmp_path):
    # Noise, so that a chunk of the file holds one frame only.
    rgb = np.random.default_rng(0).integers(0, 255, (400, 640, 3), np.uint8)
    depth_m = np.linspace(1, 4, 400, dtype=np.float32)[:, None].repeat(640, axis=1)
    write_bag(tmp_path / 'bag', {TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, [
        message for at in range(0, 6 * PERIOD_NS, PERIOD_NS) for message in (
            (TOPICS[1], at, image(rgb, 'rgb8', START_NS + at)),
            (TOPICS[3], at, image(depth_m, '32FC1', START_NS + at)))])
    whole = (tmp_path / 'bag' / 'bag.mcap').read_bytes()
    (tmp_path / 'cut.mcap').write_bytes(whole[:len(whole) * 2 // 3])
    assert evaluate_few(checkpoint, tmp_path / 'cut.mcap', tmp_path / 'out',
                        '--max-frames', '99') == 2
    summary = read_summary(tmp_path / 'out')
    assert not summary['complete'] and 0 < summary['data']['frames'] < 6
    assert any('is truncated' in note for note in summary['notes'])
    assert 'Partial report' in (tmp_path / 'out' / 'report.html').read_text()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--policies', 'fixed-0'], "`policies` must be one of .* or fixed-N; got 'fixed-0'"),
    (['--policies', 'fastest'], "`policies` must be one of .*; got 'fastest'"),
    (['--policies', 'fixed-1,fixed-1'], '`policies` must be different names'),
    (['--checkpoint', 'nowhere'], 'nowhere'),
    (['--ensemble-size', '0'], '`ensemble_size` must be at least 1; got 0'),
    (['--processing-resolution', '100'], '`processing_resolution` must be 0 .* multiple of 8'),
    (['--latency-cap-ms', '-5'], '`latency_cap_s` must be positive'),
    (['--max-frames', '0'], '`max_frames` must be at least 1; got 0'),
    (['--latency-table', 'nowhere.json'], '`latency_table` must be a readable file'),
    (['--baseline', 'nowhere.tflite'], 'ai-edge-litert|does not exist'),
    (['--live', '--policies', 'oracle'], '`live` runs the first policy'),
    (['--scale-sources', 'radar'], '`scale_sources` must be one of fixed, depth, cloud, scan, '
     "ground_plane, motion; got 'radar'"),
    (['--scale-sources', 'cloud,radar', '--reference', 'cloud=/points'], "; got 'radar'"),
    (['--scale-sources', 'cloud,cloud'], 'a list in which each source occurs once'),
    (['--scale-sources', 'motion,fixed'], 'a list in which none and fixed stand alone'),
    (['--scale-sources', 'cloud'], r"`reference` must name a topic .* \['cloud'\]; got {}"),
    (['--scale-sources', 'cloud,scan', '--reference', 'cloud=/points'],
     r"`reference` must name a topic .* each of \['cloud', 'scan'\]; got {'cloud': '/points'}"),
    (['--scale-sources', 'motion', '--reference', 'cloud=/points'],
     r"`reference` must be of a source in `scale_sources` \(motion\); got 'cloud=/points'"),
    (['--scale-sources', 'cloud', '--reference', 'cloud=/points', '--reference', 'cloud=/other'],
     "`reference` must be given once for each source; got 'cloud=/other'"),
    (['--scale-sources', 'cloud', '--reference', 'cloud=/points'],
     r'no topic /points \(sensor_msgs/msg/PointCloud2\) .*it has .*/camera/image_rect'),
    (['--reference', 'cloud=/points'],
     r"`reference` must be unset without `scale_sources`; got \[\('cloud', '/points'\)\]"),
    (['--min-depth-m', '0.5'], '`min_depth_m` must be unset without `scale_sources`; got 0.5'),
    (['--weight', 'scan=2'], '`weight` must be unset without `scale_sources`'),
    (['--scale-sources', 'fixed'], '`scale.min_depth_m` and `scale.max_depth_m` must be set'),
    (['--scale-sources', 'fixed', '--min-depth-m', '3', '--max-depth-m', '2'],
     r'`scale.max_depth_m` must be finite and above scale.min_depth_m \(3.0 m\); got 2.0'),
    (['--scale-sources', 'ground_plane'], '`scale.camera_height_m` must be set'),
    (['--scale-sources', 'ground_plane', '--camera-height-m', '-1'],
     '`camera_height_m` must be above 0; got -1.0'),
    (['--scale-sources', 'ground_plane', '--camera-height-m', '1', '--camera-pitch-deg', 'nan'],
     '`scale.camera_pitch_deg` must be an angle in degrees or auto; got nan'),
    (['--scale-sources', 'cloud', '--reference', 'cloud=/points', '--extrinsics', 'cloud=1 2'],
     "`scale.cloud.extrinsics` must be .* six numbers .*; got '1 2'"),
    (['--scale-sources', 'cloud', '--reference', 'cloud=/points', '--extrinsics',
      'scan=0 0 0 0 0 0'],
     r"`extrinsics` must be of a source in `scale_sources` \(cloud\); got 'scan=0 0 0 0 0 0'"),
    (['--refine-rotation'], '`refine_rotation` must be unset without `scale_sources`; got True'),
    (['--costmap-sensor', 'lidar'], '`costmap_sensor` must be unset without `scene`; got .lidar'),
    (['--scale-sources', 'cloud', '--reference', 'cloud=/points', '--weight', 'cloud=0'],
     '`scale.cloud.weight` must be 0.01 to 100; got 0.0'),
    (['--scale-sources', 'fixed', '--min-depth-m', '1', '--max-depth-m', '2', '--scene',
      'nowhere.json'], '`scene` must be a file .*; got nowhere.json'),
    (['--scale-sources', 'fixed', '--min-depth-m', '1', '--max-depth-m', '2', '--scene',
      str(SAMPLE / 'scene.json'), '--costmap', 'nowhere.yaml'], 'nowhere.yaml must contain'),
    (['--scale-sources', 'fixed', '--min-depth-m', '1', '--max-depth-m', '2', '--scene',
      str(SAMPLE / 'scene.json'), '--costmap-sensor', 'radar'],
     'nav2_costmap.yaml must contain .* with the source radar'),
    (['--scale-sources', 'fixed', '--min-depth-m', '1', '--max-depth-m', '2', '--scene',
      str(SAMPLE / 'scene.json')], '`scene` needs the poses of the camera, on /tf or /odom'),
    (['--image', '/left'],
     r'no topic /left .*it has .*/camera/image_rect \(sensor_msgs/msg/Image\)'),
])
def test_invalid_input_is_reported_with_exit_code_2(arguments, message, checkpoint, bag, tmp_path,
                                                    capsys):
    assert main(['bag', str(bag), *TOPICS, '--checkpoint', checkpoint, '--out',
                 str(tmp_path / 'out'), *FEW, *arguments]) == 2
    stderr = capsys.readouterr().err
    assert re.search(message, stderr) and 'Traceback' not in stderr


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--reference', '/points'], "must be SOURCE=VALUE, with a source of depth, .*got '/points'"),
    (['--reference', 'radar=/points'], "must be SOURCE=VALUE, .*; got 'radar=/points'"),
    (['--reference', 'cloud='], "must be SOURCE=VALUE, .*; got 'cloud='"),
    (['--extrinsics', '0 0 0 0 0 0'], "must be SOURCE=VALUE, .*; got '0 0 0 0 0 0'"),
    (['--weight', 'scan=much'], "must be SOURCE=NUMBER; got 'scan=much'"),
    (['--camera-pitch-deg', 'level'], "must be an angle in degrees or auto; got 'level'")])
def test_a_value_that_cannot_be_parsed_is_rejected(arguments, message, bag, capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['bag', str(bag), *TOPICS, '--out', 'out', *arguments])
    assert re.search(f'argument {arguments[0]}: {message}', capsys.readouterr().err)


def test_an_unknown_data_set_is_rejected_with_the_known_ones(capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['sintel', 'folder', '--out', 'out'])
    assert re.search("invalid choice: 'sintel' .*nyu.*kitti.*eth3d.*scannet.*diode",
                     capsys.readouterr().err)


@pytest.mark.parametrize(('topics', 'factor', 'message'), [
    ({TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, None, 'is empty'),
    ({TOPICS[1]: IMAGE, TOPICS[3]: 'sensor_msgs/msg/CameraInfo'}, None, 'sensor_msgs/msg/Image'),
    ({TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, 1000.0, r'got 4000 m: is the unit wrong\?'),
], ids=['empty', 'type', 'unit'])
def test_an_unusable_bag_is_reported_with_exit_code_2(topics, factor, message, checkpoint,
                                                      tmp_path, capsys):
    messages = [] if factor is None else [
        message for number, (rgb, depth_m) in enumerate(pictures())
        for message in ((TOPICS[1], number * PERIOD_NS,
                         image(rgb, 'rgb8', START_NS + number * PERIOD_NS)),
                        (TOPICS[3], number * PERIOD_NS,
                         image(factor * depth_m, '32FC1', START_NS + number * PERIOD_NS)))]
    write_bag(tmp_path / 'bag', topics, messages)
    assert evaluate_few(checkpoint, tmp_path / 'bag', tmp_path / 'out') == 2
    stderr = capsys.readouterr().err
    assert re.search(message, stderr) and 'Traceback' not in stderr, stderr


def test_a_calibration_that_says_nothing_costs_only_metric_depth(checkpoint, tmp_path, capsys):
    messages = [('/camera/camera_info', 0, camera_info(START_NS, WIDTH, HEIGHT, np.zeros((3, 3))))]
    for number, (rgb, depth_m) in enumerate(pictures(4)):
        at = number * PERIOD_NS
        messages += [(TOPICS[1], at, image(rgb, 'rgb8', START_NS + at)),
                     (TOPICS[3], at, image(depth_m, '32FC1', START_NS + at))]
    write_bag(tmp_path / 'bag', {'/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
                                 TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, messages)
    assert evaluate_few(checkpoint, tmp_path / 'bag', tmp_path / 'out', '--out-bag',
                        str(tmp_path / 'results')) == 0
    assert capsys.readouterr().out.count('/camera/camera_info has no valid calibration: '
                                         'camera_info is uncalibrated: K[0] is 0') == 1
    assert read_summary(tmp_path / 'out')['data']['frames'] == 4
    with open_bag(tmp_path / 'results') as results:
        counts = {topic.name: topic.message_count for topic in results.topics}
    assert counts['/camera/depth/image_rect'] > 0 and not counts.get('/camera/points')

    assert evaluate_few(checkpoint, tmp_path / 'bag', tmp_path / 'out', '--scale-sources', 'fixed',
                        '--min-depth-m', '1', '--max-depth-m', '5') == 2
    assert 'metric depth needs the calibration of /camera/image_rect' in capsys.readouterr().err


def test_an_option_says_whether_images_are_rectified(tmp_path):
    image_topic, depth_topic = '/camera/image_rect', '/camera/depth/image_raw'
    write_bag(tmp_path / 'bag', {'/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
                                 image_topic: IMAGE, depth_topic: IMAGE}, [
        ('/camera/camera_info', 0, small_camera_info((0.5, 0.0, 0.0, 0.0, 0.0))),
        (image_topic, 0, image(np.full((16, 24, 3), 90, np.uint8), 'rgb8', START_NS)),
        (depth_topic, 0, image(np.full((16, 24), 2.0, np.float32), '32FC1', START_NS))])

    def valid_pixels(*option):
        data_set = read_data_set(make_parser('evaluate', '').parse_args(
            ['bag', str(tmp_path / 'bag'), '--image', image_topic, '--depth', depth_topic,
             '--out', 'out', *option]))
        frame, = data_set.frames()
        return frame.valid.mean()

    assert valid_pixels('--input-rectified', 'true') == 1
    assert valid_pixels('--input-rectified', 'false') < 1
    with pytest.raises(BagError, match='or set `input_rectified` if both are raw'):
        valid_pixels()


@pytest.mark.parametrize('name', ['nyu', 'kitti', 'eth3d', 'scannet', 'diode'])
def test_a_published_data_set_is_evaluated(name, checkpoint, tmp_path):
    path, file_list = write_layout(name, tmp_path / 'set')
    assert main([name, str(path), '--file-list', str(file_list), '--checkpoint', checkpoint,
                 '--processing-resolution', '128', '--policies', 'fixed-1', '--out',
                 str(tmp_path / 'out')]) == 0
    summary = read_summary(tmp_path / 'out')
    assert summary['complete'] and summary['data']['frames'] == 1


def test_an_unwritable_folder_is_reported_before_loading(bag, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert main(['bag', str(bag), *TOPICS, '--checkpoint', 'nowhere', '--out',
                 str(tmp_path / 'file' / 'out')]) == 2
    assert '`out` must be a writable folder' in capsys.readouterr().err


def test_an_invalid_latency_table_is_rejected(checkpoint, bag, tmp_path, capsys):
    (tmp_path / 'table.json').write_text('{"sizes": {"48x64": []}}')
    assert evaluate_few(checkpoint, bag, tmp_path / 'out', '--latency-table',
                        str(tmp_path / 'table.json')) == 2
    assert 'must be a latency table written by `evaluate`' in capsys.readouterr().err


def test_a_latency_table_of_another_version_in_the_output_folder_is_measured_again(
        checkpoint, bag, tmp_path, capsys):
    out = tmp_path / 'out'
    assert evaluate_few(checkpoint, bag, out) == 0
    old = json.loads((out / 'latency_table.json').read_text())
    for samples in old['sizes'].values():
        for sample in samples:
            del sample['carry_s']
    (out / 'latency_table.json').write_text(json.dumps(old))
    assert evaluate_few(checkpoint, bag, out) == 0
    assert 'measuring again' in capsys.readouterr().err
    LatencyTable.load(out / 'latency_table.json')


def test_a_policy_that_does_not_look_is_not_compared_with_itself(checkpoint, bag, tmp_path):
    assert main(['bag', str(bag), *TOPICS, '--checkpoint', checkpoint, '--policies', 'every-3',
                 '--max-frames', '4', '--out', str(tmp_path / 'out')]) == 0
    summary = read_summary(tmp_path / 'out')
    assert summary['verdict']['comparisons'] == []
    assert summary['policies']['every-3']['against_blind'] == {}


def test_frames_without_a_pixel_to_compare_still_give_a_report(checkpoint, tmp_path):
    """Protocol B excludes every pixel at an edge; here each is at one."""
    rng = np.random.default_rng(0)
    messages = []
    for at in range(0, 2 * PERIOD_NS, PERIOD_NS):
        stamp = START_NS + at
        messages += [
            (TOPICS[1], at, image(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), 'rgb8',
                                  stamp)),
            (TOPICS[3], at, image(rng.uniform(1, 30, (HEIGHT, WIDTH)).astype(np.float32),
                                  '32FC1', stamp))]
    bag = write_bag(tmp_path / 'bag', {TOPICS[1]: IMAGE, TOPICS[3]: IMAGE}, messages)
    assert evaluate_few(checkpoint, bag, tmp_path / 'out', '--protocol', 'B') == 0
    assert read_summary(tmp_path / 'out')['data']['frames_without_truth'] == 2


def test_every_abs_rel_names_its_protocol_and_range(evaluated):
    """In sentences, tables, tiles, captions and plots."""
    texts = [(evaluated / 'tables.md').read_text(), *(
        sentence for key in ('sentences', 'comparisons')
        for sentence in read_summary(evaluated)['verdict'][key])]
    report = (evaluated / 'report.html').read_text()
    texts.append(re.sub(r'<svg.*?</svg>', '', report, flags=re.DOTALL))
    found = 0
    for text in texts:
        for match in re.finditer('AbsRel', text):
            rest = text[match.start():match.start() + 120]
            assert re.match(r'AbsRel \(A, 0\.001 to 80\+ m\)|AbsRel [0-9.]+.*protocol A '
                            r'\(least squares in depth\), 0\.001 to 80\+ m', rest), rest
            found += 1
    assert found > 20
    labels = re.findall(r'<!-- (.*?) -->', report)    # matplotlib adds each text as a comment
    assert any('AbsRel (A, 0.001 to 80+ m)' in label for label in labels)
    assert 'AbsRel' not in labels


def test_a_scene_elsewhere_is_rejected(checkpoint, tmp_path, capsys):
    scene = json.loads((SAMPLE / 'scene.json').read_text())
    scene['walls'] = {'min_m': [50, 50, 0], 'max_m': [60, 60, 3]}
    scene['obstacles'] = []
    (tmp_path / 'scene.json').write_text(json.dumps(scene))
    assert main(['bag', str(SAMPLE / 'living_room'), '--image', '/camera/image_raw', '--depth',
                 '/camera/depth_gt/image_rect', '--checkpoint', checkpoint, '--out',
                 str(tmp_path / 'out'), '--policies', 'fixed-1', '--max-frames', '2',
                 '--scale-sources', 'cloud', '--reference', 'cloud=/lidar/points', '--scene',
                 str(tmp_path / 'scene.json')]) == 2
    stderr = capsys.readouterr().err
    assert '`scene` must surround the camera' in stderr and 'Traceback' not in stderr
