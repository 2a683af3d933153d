"""
What `summary.json` of an evaluation holds.

`python -m marigold_ros.evaluation.report.summary_schema` prints it.
"""

from __future__ import annotations

SCHEMA_VERSION = 2
CLOCK_SCHEMA = {
    'fates.<fate>': 'int: frames processed, superseded by a newer one, or skipped as late',
    'latency_p50_ms': 'number or null: from arrival to depth, processed frames',
    'latency_p95_ms': 'number or null',
    'latency_p99_ms': 'number or null',
    'latency_max_ms': 'number or null',
    'age_p95_ms': 'number or null: from arrival to the decision',
    'over_cap': 'int: processed frames whose latency is above the cap',
    'mean_steps': 'number or null: T of the processed frames',
    'metrics.<metric>': 'number or null: mean over the processed frames',
}
# `against` is a fixed T with its own budget; `equal_budget` is chance, or another policy, where
# the cheaper of two spends what it saves on Tmax for frames chosen by a coin.
DIFFERENCE_SCHEMA = {
    'beats': 'bool: better in AbsRel or boundary F1, worse in neither',
    '<metric>.relative': 'number or null: difference of the means',
    '<metric>.low': 'number or null: of its 95 % interval',
    '<metric>.high': 'number or null',
    '<metric>.verdict': 'string: better, worse, no difference, or unknown with fewer than two '
                        'blocks',
}
# Every leaf of the file: dots between keys, <...> for names, [] for the items of a list.
SCHEMA = {
    'schema_version': 'int: changes whenever this table does',
    'complete': 'bool: false after Ctrl-C, or where the input was damaged',
    'notes[]': 'string: what was left out or lost, and why',
    'command': 'string: repeats the evaluation',
    'protocol': 'string: A (least squares in depth) or B (RANSAC in log depth, edges masked)',
    'compared_range': 'string: depths that are compared and clipped to; 80+ m: or to the '
                      'farthest measurement of a frame',
    'settings.<name>': 'any: what was asked for; see EvaluationConfig',
    'environment.<name>': 'any: machine, versions, commit',
    'data.name': 'string',
    'data.frames': 'int: evaluated',
    'data.frames_offered': 'int or null: in the data set, at most',
    'data.frames_without_truth': 'int: evaluated, but nothing in them could be compared',
    'data.blocks': 'int: groups of frames that the bootstrap draws',
    'data.block': 'string: what a block is',
    'data.mean_of_blocks': 'bool: whether blocks or frames count the same in a mean',
    'data.simulated_arrivals': 'bool: whether frames have stamps and so arrive by the clock',
    'engine.checkpoint': 'string',
    'engine.slowest_policy': 'string: the fixed policy against which time is saved',
    'engine.max_inference_steps': 'int: Tmax',
    'engine.processing_resolution': 'int: px',
    'engine.dtype': 'string',
    'engine.device': 'string',
    'timing.wall_s': 'number: of the evaluation itself, without the latency table',
    'timing.engine_s': 'number: part of it inside the engine',
    'timing.engine_share': 'number: engine_s / wall_s',
    'latency_table.file': 'string: where the costs come from',
    'latency_table.measured_utc': 'string',
    'latency_table.sizes.<size>.samples': 'int: measured',
    'latency_table.sizes.<size>.<stage>_ms': 'number: median',
    'verdict.policy': 'string: the one judged, the first of the policies',
    'verdict.sentences[]': 'string: accuracy, latency, time saved',
    'verdict.choosing[]': 'string: whether the choices of each policy beat chance',
    'policies.<policy>.mean_steps': 'number: T, each frame alone, without cap',
    'policies.<policy>.steps.<T>': 'int: frames with this T, alone',
    'policies.<policy>.frame_ms': 'number: time of a frame by the latency table, alone',
    'policies.<policy>.denoise_ms': 'number',
    'policies.<policy>.time_saved': 'number: share of the time of the slowest fixed policy',
    'policies.<policy>.time_saved_interval[]': 'number or null: low and high, 95 %',
    'policies.<policy>.share_of_ceiling': 'number or null: of what the fastest would save',
    'policies.<policy>.metrics.<metric>': 'number or null: mean, each frame alone',
    'policies.<policy>.temporal.<metric>': 'number or null: see temporal.TemporalScores; only of '
                                           'the judged and the slowest policy, in a bag',
    'policies.<policy>.abs_rel_interval[]': 'number or null: low and high, 95 %',
    'policies.<policy>.curve[].max_inference_steps': 'int: Tmax of this point of the frontier',
    'policies.<policy>.curve[].mean_steps': 'number',
    'policies.<policy>.curve[].frame_ms': 'number',
    'policies.<policy>.curve[].abs_rel': 'number or null',
    'policies.<policy>.curve[].boundary_f1': 'number or null',
    **{f'policies.<policy>.{kind}.<other>.{key}': text for kind in ('against', 'equal_budget')
       for key, text in DIFFERENCE_SCHEMA.items()},
    **{f'policies.<policy>.{kind}.{key}': text for kind in ('clock', 'live')
       for key, text in CLOCK_SCHEMA.items()},
    'baselines.<name>.<metric>': 'number or null: mean',
    'sets.<name>.frames': 'int: of one block of a folder',
    'sets.<name>.abs_rel.<policy>': 'number or null: mean, by policy or baseline',
    'sets.<name>.delta1.<policy>': 'number or null',
    'exemplars.<name>[].frame': 'int: number of a frame shown as best, median or worst',
    'exemplars.<name>[].name': 'string',
    'exemplars.<name>[].abs_rel': 'number',
}


def main() -> None:
    """Print every key with its type and meaning."""
    for key, text in SCHEMA.items():
        print(f'{key}\n    {text}')


if __name__ == '__main__':
    main()
