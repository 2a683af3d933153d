"""What was seen of a running node, summed up, held against its targets and laid out as tables."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Iterable, Iterator, Mapping, Sequence

import numpy as np

Line = Mapping[str, Any]

# Stages of ~/status that are the engine's own.
ENGINE_STAGES = ('preprocess_ms', 'encode_ms', 'denoise_ms', 'decode_depth_ms', 'postprocess_ms')
PERIOD_MS = 1e3 / 30
# Receipt to publish minus engine time, p50, ms, by height of the image.
ADDED_GOALS_MS = {480: 10.0, 1080: 35.0}
REPLY_GOAL_MS = 20.0
GROWTH_GOAL = 0.02
EARLY_FRAMES, LATE_FRAMES = 500, 5000


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95, the largest and the number of values; None if there are none."""
    if not len(values):
        return None
    p50, p95 = np.quantile(values, (0.5, 0.95))
    return {'p50': float(p50), 'p95': float(p95), 'max': float(max(values)),
            'count': len(values)}


def processed_frames(lines: Iterable[Line]) -> list[dict[str, float]]:
    """
    Take the times of every processed frame from the lines of ~/status.

    Returns
    -------
    list of dict
        All values that end in _ms, `num_inference_steps`, and `engine_ms`, the engine's stages
        together, `added_ms`, latency minus engine time, and `added_after_start_ms`, the same
        without the time that the frame waited for the worker.
    """
    frames = []
    for line in lines:
        if not line['topic'].endswith('/status'):
            continue
        for status in line['statuses']:
            if status['outcome'] != 'processed':
                continue
            frame = {key: float(value) for key, value in status.items()
                     if key.endswith('_ms') or key == 'num_inference_steps'}
            frame['engine_ms'] = sum(frame[stage] for stage in ENGINE_STAGES)
            frame['added_ms'] = frame['latency_ms'] - frame['engine_ms']
            frame['added_after_start_ms'] = frame['added_ms'] - frame['age_ms']
            frames.append(frame)
    return frames


def output_ages_ms(lines: Iterable[Line]) -> dict[str, list[float]]:
    """Return, by topic, the time from each message's stamp, the camera's, to its receipt."""
    ages: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if 'statuses' not in line:
            ages[line['topic']].append((line['received_ns'] - line['stamp_ns']) / 1e6)
    return ages


def last_counters(lines: Iterable[Line]) -> dict[str, dict[str, int]]:
    """Return the counters of every camera in the last /diagnostics."""
    counters: dict[str, dict[str, int]] = {}
    for line in lines:
        if line['topic'] == '/diagnostics':
            counters = {status['camera']: {
                key: int(value) for key, value in status.items()
                if key.startswith(('frames_', 'dropped_'))}
                for status in line['statuses'] if 'camera' in status}
    return counters


def growth(ticks: Sequence[Mapping[str, int]], early: int, late: int) -> dict[str, float] | None:
    """
    Compare a node's memory after many frames with that after few.

    Parameters
    ----------
    ticks : sequence of mapping
        `frames` and `memory_bytes`, in order.
    early, late : int
        Frames.

    Returns
    -------
    dict or None
        `early_bytes` and `late_bytes`, medians of up to ten ticks from there on, or of the last
        ones, and `growth`, the relative difference.  None if there were not as many frames.
    """
    at_early = [tick['memory_bytes'] for tick in ticks if early <= tick['frames'] < late][:10]
    at_late = [tick['memory_bytes'] for tick in ticks if tick['frames'] >= 0.98 * late][-10:]
    if not at_early or ticks[-1]['frames'] < late:
        return None
    first, last = float(np.median(at_early)), float(np.median(at_late))
    return {'early_frames': early, 'late_frames': late, 'early_bytes': first,
            'late_bytes': last, 'growth': last / first - 1.0}


def summarize(case: Mapping[str, Any], seen: Mapping[str, Any], lines: Sequence[Line],
              sent: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """
    Sum up one case.

    Parameters
    ----------
    case : mapping
        What was asked for: `outputs`, the topic that counts frames first, `rate_hz`, ...
    seen : mapping
        A rig's Observation.
    lines : sequence of mapping
        All that the bystander wrote.
    sent : mapping
        What every camera has sent.

    Returns
    -------
    dict
        The case itself and every figure that it allows; times of the observation only, counts of
        the whole run.
    """
    inside = [line for line in lines if seen['start_ns'] <= line['received_ns'] < seen['end_ns']]
    frames = processed_frames(inside)
    ages = output_ages_ms(inside)
    first = case['outputs'][0].rpartition(':')[0]
    wall_s = (seen['end_ns'] - seen['start_ns']) / 1e9
    out = len(ages.get(first, ()))
    keys = sorted({key for frame in frames for key in frame})
    cameras = last_counters(lines)
    return {
        **case,
        'seconds': wall_s,
        'frames_out_per_s': out / wall_s,
        'times_ms': {key: quantiles([frame[key] for frame in frames]) for key in keys},
        'stamp_to_receipt_ms': {topic: quantiles(values) for topic, values in ages.items()},
        'reply_ms': quantiles([1e3 * reply_s for reply_s in seen['replies_s']]),
        'processor_share': seen['processor_s'] / wall_s,
        'processor_ms_per_frame': 1e3 * seen['processor_s'] / out if out else None,
        'memory_bytes': seen['ticks'][-1]['memory_bytes'],
        'memory': growth(seen['ticks'], case['early_frames'], case['late_frames'])
        if case['late_frames'] else None,
        'sent': {camera: counts['frames'] for camera, counts in sent.items()},
        'counters': cameras,
        'received_share': received_share(sent, cameras),
        'outputs_received_share': outputs_received_share(first, lines, cameras),
    }


def received_share(sent: Mapping[str, Mapping[str, int]],
                   counters: Mapping[str, Mapping[str, int]]) -> float | None:
    """Part of the images that reached the node; None where the node does not count them."""
    total = sum(counts['frames'] for counts in sent.values())
    if not counters or not total:
        return None
    return sum(counts['frames_in'] for counts in counters.values()) / total


def outputs_received_share(topic: str, lines: Iterable[Line],
                           counters: Mapping[str, Mapping[str, int]]) -> float | None:
    """Part of the processed frames whose first output reached the bystander."""
    camera = topic.split('/')[1]
    published = counters.get(camera, {}).get('frames_processed', 0)
    received = sum(line['topic'] == topic for line in lines)
    return received / published if published else None


def targets(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Hold the node to its goals.

    Returns
    -------
    list of dict
        `what`, `goal`, `measured` and `met`; lower is better.  Only goals that were measured.
    """
    found: list[tuple[str, float, float]] = []
    for result in results:
        name = result['name']
        if result['section'] == 'added' and result['times_ms']:
            goal = ADDED_GOALS_MS.get(result['height'])
            if goal is not None:
                found.append((f'{name}: receipt to publish minus engine time, p50 ms', goal,
                              result['times_ms']['added_ms']['p50']))
        if result['section'] == 'age' and result['times_ms']:
            key = ('stamp_age_ms' if 'stamp_age_ms' in result['times_ms'] else 'age_ms')
            found.append((f'{name}: age of the frame when work starts, p50 ms', PERIOD_MS,
                          result['times_ms'][key]['p50']))
        if result['section'] in ('added', 'age') and result['reply_ms']:
            found.append((f'{name}: service reply while busy, p95 ms', REPLY_GOAL_MS,
                          result['reply_ms']['p95']))
        if result['memory']:
            found.append((f'{name}: memory after {result["late_frames"]} frames over '
                          f'{result["early_frames"]}', GROWTH_GOAL,
                          result['memory']['growth']))
    return [{'what': what, 'goal': goal, 'measured': measured, 'met': measured < goal}
            for what, goal, measured in found]


def markdown(report: Mapping[str, Any]) -> str:
    """Lay a whole report out: facts, a table per section, targets."""
    facts = report['environment']
    lines = ['# bench_node', '',
             f'{facts["cpu"]}, {facts["cores"]} cores (load average '
             f'{facts["load_average_1min"]} before), torch {facts["torch"]}, rclpy '
             f'{facts["rclpy"]}, commit {facts["commit"]}, {facts["date_utc"]}; '
             f'`{report["command"]}`']
    for section, table in TABLES.items():
        results = [result for result in report['results'] if result['section'] == section]
        if results:
            lines += ['', f'## {section}', '', *table(results)]
    if report['targets']:
        lines += ['', '## targets', '']
    for target in report['targets']:
        verdict = 'met' if target['met'] else 'MISSED'
        lines.append(f'- {target["what"]}: {target["measured"]:.3g}, goal below '
                     f'{target["goal"]:.3g}: {verdict}')
    return '\n'.join(lines)


def _row(cells: Iterable[object]) -> str:
    return f'| {" | ".join(map(str, cells))} |'


def _head(*names: str) -> Iterator[str]:
    yield _row(names)
    yield '|---' * len(names) + '|'


def _pair(values: Mapping[str, float] | None) -> str:
    """Show p50 and p95."""
    return '-' if values is None else f'{values["p50"]:.1f}, {values["p95"]:.1f}'


def _share(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.1f} %'


def _times(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _head('p50, p95 in ms', 'frames/s', 'steps', 'age at start', 'decode, rectify',
                     'engine', 'publish', 'added', 'stamp to receipt of the first output',
                     'service reply')
    for result in results:
        times = defaultdict(lambda: None, result['times_ms'])
        steps = times['num_inference_steps']
        yield _row([
            result['name'], f'{result["frames_out_per_s"]:.1f}',
            '-' if steps is None else f'{steps["p50"]:.0f}, {steps["p95"]:.0f}',
            _pair(times['stamp_age_ms'] or times['age_ms']), _pair(times['read_image_ms']),
            _pair(times['engine_ms']), _pair(times['publish_ms']), _pair(times['added_ms']),
            _pair(result['stamp_to_receipt_ms'].get(result['outputs'][0].rpartition(':')[0])),
            _pair(result['reply_ms'])])


def _rates(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _head('', 'images sent', 'reach the node', "reach the listener of the node's first "
                     'output', 'stamp to receipt there, p50, p95 ms')
    for result in results:
        first = result['outputs'][0].rpartition(':')[0]
        yield _row([result['name'], sum(result['sent'].values()),
                    _share(result['received_share']), _share(result['outputs_received_share']),
                    _pair(result['stamp_to_receipt_ms'].get(first))])


def _processor(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _head('', 'of one core', 'a camera', 'frames/s of the first camera',
                     'resident memory, MiB')
    for result in results:
        yield _row([result['name'], _share(result['processor_share']),
                    _share(result['processor_share'] / result['cameras']),
                    f'{result["frames_out_per_s"]:.1f}',
                    f'{result["memory_bytes"] / 2 ** 20:.0f}'])


def _memory(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for result in results:
        memory = result['memory']
        if memory is None:
            yield f'- {result["name"]}: not {result["late_frames"]} frames'
            continue
        early, late = memory['early_bytes'] / 2 ** 20, memory['late_bytes'] / 2 ** 20
        yield (f'- {result["name"]}: {early:.1f} MiB after {memory["early_frames"]} frames, '
               f'{late:.1f} MiB after {memory["late_frames"]}: {100 * memory["growth"]:+.2f} %')


def _outside(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _head('p50, p95 in ms', 'frames/s out', 'stamp to receipt', 'service reply',
                     'of one core', 'processor ms a frame', 'resident memory, MiB')
    for result in results:
        first = result['outputs'][0].rpartition(':')[0]
        per_frame = result['processor_ms_per_frame']
        yield _row([result['name'], f'{result["frames_out_per_s"]:.2f}',
                    _pair(result['stamp_to_receipt_ms'].get(first)), _pair(result['reply_ms']),
                    _share(result['processor_share']),
                    '-' if per_frame is None else f'{per_frame:.0f}',
                    f'{result["memory_bytes"] / 2 ** 20:.0f}'])


TABLES = {'added': _times, 'age': _times, 'rates': _rates, 'processor': _processor,
          'memory': _memory, 'outside': _outside}
