"""The report over many recordings: medians, worst places, regressions, problems, bad input."""

from __future__ import annotations

import csv
from dataclasses import replace
from html.parser import HTMLParser
import json
from pathlib import Path
import re
import shutil
from urllib.parse import unquote

from bag_fixtures import image, START_NS, write_bag
from checkpoints import make_checkpoint
import numpy as np
import pytest
from summary_schema import check_summary

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.fleet.recordings import FleetRecording
from marigold_ros.evaluation.report.fleet import read_baseline, SCHEMA, write_fleet_report
from marigold_ros.evaluation.report.summary import SCHEMA_VERSION

SAMPLE = Path(__file__).parents[3] / 'sample'
IMAGE, DEPTH = '/camera/image_rect', '/camera/depth/image_rect'
POLICIES = ('--policies', 'fixed-1,fixed-2')
LABEL = 'AbsRel (A, 0.001 to 80+ m)'
SECONDS, RATE_HZ = 12, 5


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Evaluate a bag of two seconds, and metric depth and obstacles of the sample drive."""
    folder = tmp_path_factory.mktemp('fleet')
    checkpoint = str(make_checkpoint(folder / 'random'))
    rng = np.random.default_rng(0)
    messages = []
    for number in range(4):
        at = number * 500_000_000
        depth_m = np.full((48, 64), 4.0, np.float32)
        depth_m[10:30, 10 + number:40] = 1.5
        rgb = (50 * depth_m[..., None] * rng.uniform(0.5, 1, (48, 64, 3))).astype(np.uint8)
        messages += [(IMAGE, at, image(rgb, 'rgb8', START_NS + at)),
                     (DEPTH, at, image(depth_m, '32FC1', START_NS + at))]
    bag = write_bag(folder / 'bag', dict.fromkeys((IMAGE, DEPTH), 'sensor_msgs/msg/Image'),
                    messages)
    assert main(['bag', str(bag), '--image', IMAGE, '--depth', DEPTH, '--checkpoint', checkpoint,
                 *POLICIES, '--out', str(folder / 'out' / 'yard')]) == 0
    assert main(['bag', str(SAMPLE / 'living_room'), '--image', '/camera/image_raw', '--depth',
                 '/camera/depth_gt/image_rect', '--checkpoint', checkpoint, *POLICIES,
                 '--max-frames', '3', '--scale-sources', 'cloud', '--reference',
                 'cloud=/lidar/points', '--scene', str(SAMPLE / 'scene.json'), '--costmap',
                 str(SAMPLE.parent / 'config' / 'nav2_costmap.yaml'),
                 '--out', str(folder / 'out' / 'room 1')]) == 0
    return folder / 'out'


@pytest.fixture
def fleet(results, tmp_path):
    """Return the folder of a fleet, with its own copy of the results, and its recordings."""
    shutil.copytree(results, tmp_path / 'fleet')
    return tmp_path / 'fleet', [
        FleetRecording('room 1', tmp_path / 'fleet' / 'room 1', {'site': 'home'}, 'complete'),
        FleetRecording('yard', tmp_path / 'fleet' / 'yard', {'site': 'farm', 'weather': 'rain'},
                       'partial', 'the file ends after 2 s <br>'),
        FleetRecording('barn', tmp_path / 'fleet' / 'barn', {'site': 'farm'}, 'failed',
                       'no topic /camera/image_rect')]


def make_recording(results, folder, errors, **changes):
    """Write a recording with these AbsRel, [SECONDS * RATE_HZ], and changes of its summary."""
    shutil.copytree(results / 'yard', folder)
    with (folder / 'per_frame.csv').open() as file:
        reader = csv.DictReader(file)
        columns, row = reader.fieldnames, next(reader)
    with (folder / 'per_frame.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for policy in ('fixed-1', 'fixed-2'):
            for number, abs_rel in enumerate(errors):
                writer.writerow({
                    **row, 'policy': policy, 'frame': number, 'name': f'{folder}/{number}.png',
                    'block': f'second {number // RATE_HZ}', 'stamp_ns': number * 10 ** 8,
                    'abs_rel_without_cap': abs_rel if policy == 'fixed-1' else 1.0})
    change_summary(folder, **changes)
    return FleetRecording(folder.name, folder, {}, 'complete')


def change_summary(folder, **changes):
    """Change keys of a summary.json, named with two underscores for a dot."""
    path = folder / 'summary.json'
    summary = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split('__')
        row = summary
        for parent in parents:
            row = row[parent]
        row[last] = value
    path.write_text(json.dumps(summary))


def report(out, recordings, baseline=None):
    """Write a report and return its summary."""
    out.mkdir(exist_ok=True)
    write_fleet_report(out, recordings, baseline)
    return json.loads((out / 'summary.json').read_text())


def compare(results, tmp_path, errors, earlier_errors, **changes):
    """Return `regressions` of recordings with these AbsRel, by name."""
    for side, by_name in (('old', earlier_errors), ('new', errors)):
        recordings = [make_recording(results, tmp_path / side / name, values,
                                     **(changes if side == 'new' else {}))
                      for name, values in by_name.items()]
        summary = report(tmp_path / side, recordings,
                         tmp_path / 'old' if side == 'new' else None)
    return summary['regressions']


def noisy(seed, mean=0.2):
    """Return AbsRel that differ by second and by frame."""
    rng = np.random.default_rng(seed)
    seconds = np.repeat(rng.normal(0, 0.05, SECONDS), RATE_HZ)
    return mean + seconds + rng.normal(0, 0.01, SECONDS * RATE_HZ)


def test_the_summary_matches_its_schema(fleet):
    out, recordings = fleet
    report(out, recordings)
    summary = report(out, recordings, out)
    assert check_summary(summary, SCHEMA) == set(SCHEMA) - {
        'regressions.changed[]', 'regressions.only_here[]', 'regressions.only_in_baseline[]'}


def test_numbers_are_those_of_the_recordings(fleet):
    out, recordings = fleet
    summary = report(out, recordings)
    room = json.loads((out / 'room 1' / 'summary.json').read_text())
    row = summary['recordings'][0]
    metric = room['metric']['policies']['fixed-1']
    assert row['values'] == {
        'abs_rel': room['policies']['fixed-1']['metrics']['abs_rel'],
        'delta1': room['policies']['fixed-1']['metrics']['delta1'],
        'metric_abs_rel': metric['abs_rel'], 'share_with_metric_depth': 1.0,
        'obstacle_recall': metric['obstacles']['recall'],
        'obstacle_precision': metric['obstacles']['precision'], 'saved': 0.0,
        'latency_p95_ms': room['policies']['fixed-1']['simulated']['latency_p95_ms']}
    assert (row['policy'], row['frames'], row['folder']) == ('fixed-1', 3, 'room 1')


def test_failed_recordings_are_counted_and_have_no_numbers(fleet):
    out, recordings = fleet
    summary = report(out, recordings)
    barn = summary['recordings'][2]
    assert (barn['frames'], barn['values'], barn['policy']) == (None, {}, None)
    counts = {(row['tag'], row['value']): [row[key] for key in (
        'recordings', 'partial', 'failed', 'of', 'frames')] for row in summary['groups']}
    assert counts == {('', ''): [2, 1, 1, 3, 7], ('site', 'farm'): [1, 1, 1, 2, 4],
                      ('site', 'home'): [1, 0, 0, 1, 3], ('weather', ''): [1, 0, 1, 2, 3],
                      ('weather', 'rain'): [1, 1, 0, 1, 4]}
    tables = (out / 'tables.md').read_text()
    assert re.search(r'\| site: farm +\| 1 of 2 \[1 partial, 1 failed\] +\|', tables)
    assert re.search(r'\| weather: not set +\| 1 of 2 \[1 failed\] +\|', tables)
    assert tables.index('Failed and partial') < tables.index('Medians over')
    page = (out / 'report.html').read_text()
    assert '1 of 3 recordings failed, 1\nis partial' in page
    assert 'ends after 2 s &lt;br&gt;' in page and 'no topic /camera/image_rect' in page


def test_a_fleet_of_which_all_failed_is_reported(tmp_path):
    failed = [FleetRecording(name, tmp_path / name, {}, 'failed', f'no {name}') for name in 'ab']
    summary = report(tmp_path, failed)
    assert [(row['recordings'], row['failed'], row['medians']) for row in summary['groups']] == [
        (0, 2, {})]
    assert summary['worst_recordings'] == summary['worst_seconds'] == []
    assert '2 of 2 recordings failed' in (tmp_path / 'report.html').read_text()


def test_medians_have_an_interval_over_recordings_and_one_recording_has_none(results, tmp_path):
    values = {'a': 0.1, 'b': 0.2, 'c': 0.6}
    recordings = [replace(make_recording(results, tmp_path / name, [], **{
        'policies__fixed-1__metrics__abs_rel': value,
        'policies__fixed-1__abs_rel_interval': [None, None]}),
        tags={'alone': 'yes' if name == 'c' else 'no'}) for name, value in values.items()]
    groups = report(tmp_path, recordings)['groups']
    medians = [row['medians']['abs_rel'] for row in groups]
    # Of three draws, all are the same value with probability 1/27, more than 2.5 %.
    assert medians == [{'median': 0.2, 'low': 0.1, 'high': 0.6, 'recordings': 3},
                       {'median': pytest.approx(0.15), 'low': 0.1, 'high': 0.2, 'recordings': 2},
                       {'median': 0.6, 'low': None, 'high': None, 'recordings': 1}]
    tables = (tmp_path / 'tables.md').read_text()
    assert '0.200 [0.100, 0.600]' in tables and '0.600 [only one]' in tables
    worst = re.search(r'## Worst recordings\n\n(.*?)\n\n', tables, re.DOTALL)[1].splitlines()
    assert f'fixed-1, {LABEL}' in worst[0]
    assert [re.split(r' *\| *', line)[1][:8] for line in worst[2:]] == [
        'c: 0.600', 'b: 0.200', 'a: 0.100']


def test_numbers_of_different_protocols_are_not_averaged(results, tmp_path):
    recordings = [make_recording(results, tmp_path / 'a', [0.1]),
                  make_recording(results, tmp_path / 'b', [0.1], protocol='B',
                                 compared_range='above 0 m')]
    summary = report(tmp_path, recordings)
    assert [(row['protocol'], row['recordings'], row['of'], row['medians']['abs_rel']['low'])
            for row in summary['groups']] == [('A', 1, 2, None), ('B', 1, 2, None)]
    assert [(row['protocol'], row['recordings']) for row in summary['worst_recordings']] == [
        ('A', ['a']), ('B', ['b'])]
    tables = (tmp_path / 'tables.md').read_text()
    assert f'fixed-1, {LABEL}' in tables and 'fixed-1, AbsRel (B, above 0 m)' in tables


def test_a_shift_is_a_regression_and_noise_is_not(results, tmp_path, bars):
    """The shift is a tenth of what the seconds differ by: only pairs show it."""
    found = compare(
        results, tmp_path, {
            'worse': noisy(0) + 0.01, 'better': noisy(1) - 0.01, 'noise': noisy(2)
            + np.random.default_rng(9).normal(0, 0.02, SECONDS * RATE_HZ), 'same': noisy(3)},
        {'same': noisy(3), 'worse': noisy(0), 'better': noisy(1), 'noise': noisy(2)})
    assert bars() == {'comparison': (4, 4)}
    rows = {row['name']: row for row in found['recordings']}
    assert {name: row['verdict'] for name, row in rows.items()} == {
        'worse': 'worse', 'better': 'better', 'noise': 'no difference', 'same': 'no difference'}
    assert [*rows][:2] == ['worse', 'better']
    change = rows['worse']['metrics']['abs_rel']
    assert change['relative'] == pytest.approx(0.01 / noisy(0).mean())
    assert change['low'] <= change['relative'] <= change['high']
    assert (rows['worse']['frames'], rows['worse']['blocks']) == (60, 12)
    assert found['all']['abs_rel']['verdict'] == 'unknown'    # of four recordings
    assert found['changed'] == []
    page = (tmp_path / 'new' / 'report.html').read_text()
    assert ('Of 4 recordings that the baseline has too: 1 worse, 1 better, 2 no difference.'
            in page)


def test_a_small_shift_of_all_recordings_is_found_over_recordings(results, tmp_path):
    rng = np.random.default_rng(5)
    earlier = {f'r{number}': noisy(number) for number in range(6)}
    now = {name: errors + 0.004 + rng.normal(0, 0.02, errors.size)
           for name, errors in earlier.items()}
    found = compare(results, tmp_path, now, earlier)
    ratios = [now[name].mean() / earlier[name].mean() - 1 for name in now]
    assert found['all']['abs_rel']['relative'] == pytest.approx(np.mean(ratios))
    assert found['all']['abs_rel']['verdict'] == 'worse'


def test_frames_are_paired_by_stamp_and_what_cannot_be_paired_is_listed(results, tmp_path):
    """Of 'cut', the baseline holds the last 40 of 60 frames, under other numbers."""
    errors = noisy(0)
    old = make_recording(results, tmp_path / 'old' / 'cut', errors)
    lines = (old.folder / 'per_frame.csv').read_text().splitlines(keepends=True)
    (old.folder / 'per_frame.csv').write_text(''.join(lines[:1] + lines[21:]))
    gone = make_recording(results, tmp_path / 'old' / 'gone', errors)
    broken = make_recording(results, tmp_path / 'old' / 'broken', errors)
    report(tmp_path / 'old', [old, gone, broken])
    (tmp_path / 'old').rename(tmp_path / 'moved')
    found = report(tmp_path / 'new', [
        make_recording(results, tmp_path / 'new' / 'cut', errors + 0.01),
        make_recording(results, tmp_path / 'new' / 'added', errors),
        FleetRecording('broken', tmp_path / 'new' / 'broken', {}, 'failed', 'damaged')],
        tmp_path / 'moved')['regressions']
    assert (found['only_here'], found['only_in_baseline']) == (['added'], ['gone'])
    cut, broken = found['recordings']
    assert [cut[key] for key in ('frames', 'frames_now', 'blocks', 'verdict')] == [
        40, 60, 8, 'worse']
    assert (broken['verdict'], broken['reason']) == ('not compared', 'failed now')


def test_changed_settings_are_said_and_another_protocol_is_not_compared(results, tmp_path):
    found = compare(results, tmp_path, {'a': noisy(0) + 0.1}, {'a': noisy(0)},
                    settings__ensemble_size=3, protocol='B', settings__protocol='B')
    assert found['changed'] == ['ensemble size: 1 in the baseline, 3 now',
                                'protocol: A in the baseline, B now']
    assert [(row['verdict'], row['reason']) for row in found['recordings']] == [
        ('not compared', 'other protocol or depth range')]
    assert 'Changed: ensemble size: 1 in the baseline, 3 now' in (
        tmp_path / 'new' / 'report.html').read_text()


def test_a_change_in_few_blocks_is_not_decided(results, tmp_path):
    """Five differences have the same sign by chance in one case of 16."""
    errors = noisy(0)[:5 * RATE_HZ]
    row, = compare(results, tmp_path, {'a': errors + 0.1}, {'a': errors})['recordings']
    assert (row['verdict'], row['reason'], row['blocks']) == ('unknown', 'fewer than 6 blocks', 5)
    assert row['metrics']['abs_rel']['low'] > 0


def test_the_page_is_one_file_with_pictures_and_links_to_each_recording(fleet):
    out, recordings = fleet
    summary = report(out, recordings)
    page = (out / 'report.html').read_text()
    sources, links, tags = [], [], []

    class Watch(HTMLParser):

        def handle_starttag(self, tag, attributes):
            tags.append((tag, dict(attributes).get('class')))
            sources.extend(value for name, value in attributes if name == 'src')
            links.extend(value for name, value in attributes if name == 'href')

    Watch().feed(page)
    assert 'script' not in [tag for tag, _ in tags]
    assert sources and all(source.startswith('data:image/') for source in sources)
    assert sum(source.startswith('data:image/jpeg') for source in sources) == len(
        summary['worst_seconds']) == 3    # two of the yard, one of the room
    assert set(links) == {'room%201/report.html', 'yard/report.html'}
    assert all((out / unquote(link)).is_file() for link in links)
    assert all(tags[at - 1] == ('div', 'scroll') for at, tag in enumerate(tags)
               if tag[0] == 'table')
    errors = [row['abs_rel'] for row in summary['worst_seconds']]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(('text', 'message'), [
    (None, r'`baseline` must have a readable file .*summary.json: No such file'),
    ('{', r'`baseline`: .*summary.json must be JSON'),
    (f'{{"schema_version": {SCHEMA_VERSION}}}', 'must be the summary of a fleet; it is not'),
    ('[]', 'must be the summary of a fleet; it is not'),
    ('{"report": "fleet", "schema_version": 0}', 'must have `schema_version` 1; got 0'),
])
def test_an_unusable_baseline_is_rejected(text, message, tmp_path):
    if text is not None:
        (tmp_path / 'summary.json').write_text(text)
    with pytest.raises(InputError, match=message):
        read_baseline(tmp_path)


def test_missing_results_are_rejected_by_name(fleet):
    out, recordings = fleet
    with pytest.raises(InputError, match='`recordings` must be at least one; got none'):
        write_fleet_report(out, [], None)
    report(out, recordings)
    (out / 'yard' / 'per_frame.csv').unlink()
    with pytest.raises(InputError, match='recording yard must have the file .*per_frame.csv'):
        read_baseline(out)
    change_summary(out / 'room 1', schema_version=4)
    with pytest.raises(InputError, match=r'recording room 1: .* must have `schema_version` 5; '
                                         'got 4'):
        write_fleet_report(out, recordings, None)
