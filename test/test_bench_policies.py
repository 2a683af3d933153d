"""The policy benchmark on a random checkpoint: what is run, and what the report says of it."""

from __future__ import annotations

import json

from checkpoints import make_checkpoint
import numpy as np
import pytest

from marigold_ros.benchmark import policy_runs
from marigold_ros.benchmark.bench_policies import main
from marigold_ros.benchmark.policy_report import compare_policies, markdown
from marigold_ros.benchmark.policy_runs import run_policies, Runs
from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.scenes.shards import write_description, write_shard
from marigold_ros.depth.complexity import gradient_energy
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import StepRequest

STEPS, TOTAL_S, DENOISE_S, ABS_REL = range(4)
HEIGHT, WIDTH, COUNT = 32, 40, 6


def make_frames():
    """Return a list of frames that grow more complex, of two scenes, each a box before a wall."""
    rng = np.random.default_rng(3)
    frames = []
    for i in range(COUNT):
        depth_m = np.full((HEIGHT, WIDTH), 4.0, np.float32)
        depth_m[8:20, 5 + i:25 + i] = 1.5
        rgb = (60 * depth_m[..., None] * rng.uniform(1 - i / 8, 1, (HEIGHT, WIDTH, 3)))
        frames.append(DepthFrame(f'{i}', rgb.astype(np.uint8), depth_m, depth_m > 0, 'camera',
                                 f'scene {i // 3}'))
    return frames


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Give the folder of a checkpoint with random weights."""
    return make_checkpoint(tmp_path_factory.mktemp('policies') / 'random')


@pytest.fixture(scope='module')
def engine(checkpoint):
    """Run the checkpoint in float32."""
    return DepthEngine.load(str(checkpoint), device='cpu', dtype='float32')


@pytest.fixture(scope='module')
def runs(engine):
    """Run all policies on all frames once."""
    return run_policies(engine, make_frames())


@pytest.fixture
def shards(tmp_path):
    """Give a folder with the frames as rendered shards."""
    frames, folder = make_frames(), tmp_path / 'shards'
    folder.mkdir()
    write_description(folder, {'views_per_scene': 1})
    write_shard(folder, 0, np.stack([frame.rgb for frame in frames]),
                np.stack([frame.depth_m for frame in frames]), np.zeros((COUNT, 3, 3)),
                ['room'] * COUNT, 0)
    return folder


def test_every_frame_runs_with_every_t(runs):
    assert runs.by_steps.shape == (4, COUNT, 6)
    assert runs.by_steps[:, :, STEPS].tolist() == [[t] * COUNT for t in (1, 2, 3, 4)]
    assert (runs.by_steps[:, :, TOTAL_S] > runs.by_steps[:, :, DENOISE_S]).all()
    assert runs.blocks == ('scene 0',) * 3 + ('scene 1',) * 3


def test_complexity_decides_as_a_live_policy_does_that_has_seen_the_frames_before(runs):
    policy = StepPolicy(StepPolicyConfig(latency_cap_s=None))
    expected = [policy.decide([StepRequest('camera', gradient_energy(frame.rgb), 0.0)],
                              resolution=(0, 0))[0].num_inference_steps
                for frame in make_frames()]
    assert runs.adaptive['complexity-gradient_energy'][:, STEPS].tolist() == expected
    assert expected[0] == 1 and expected[-1] == 4    # each frame is more complex than the last


def test_a_policy_that_chose_t_has_the_depth_of_that_t(runs):
    for name in ('complexity-gradient_energy', 'complexity-entropy', 'first_look'):
        for frame, (steps, *_, abs_rel, delta1, f1) in enumerate(runs.adaptive[name]):
            of_steps = runs.by_steps[int(steps) - 1, frame]
            assert [abs_rel, delta1, f1] == pytest.approx(of_steps[ABS_REL:], abs=1e-9)


def test_choosing_is_paid_for(runs):
    for frame, row in enumerate(runs.adaptive['complexity-entropy']):
        run = runs.by_steps[int(row[STEPS]) - 1, frame]
        assert row[TOTAL_S] > run[TOTAL_S]
        assert row[DENOISE_S] == run[DENOISE_S]


def test_nothing_but_time_depends_on_the_order_and_the_number_of_runs(engine, runs, monkeypatch):
    """Above all, a policy must not learn a frame twice because its run was repeated."""
    monkeypatch.setattr(policy_runs, 'ROUNDS', 1)
    again = run_policies(engine, make_frames(), seed=1)
    quality = [STEPS, *range(ABS_REL, 6)]
    np.testing.assert_array_equal(again.by_steps[:, :, quality], runs.by_steps[:, :, quality])
    for name, outcomes in runs.adaptive.items():
        np.testing.assert_array_equal(again.adaptive[name][:, quality], outcomes[:, quality])


def hand_made_runs():
    """Return two scenes: T = 2 is right for the first, T = 1 for the second, and one knows it."""
    by_steps = np.array([[[t, 1.0 + t, t, 0.2, 0.8, 0.5]] * 4 for t in (1, 2, 3, 4)])
    by_steps[1:, :2, ABS_REL] = 0.1
    by_steps[1:, 2:, ABS_REL] = 0.3
    knowing = np.concatenate([by_steps[1, :2], by_steps[0, 2:]])
    return Runs(by_steps, {'knowing': knowing, 'always': by_steps[3]}, ('a', 'a', 'b', 'b'))


def test_the_report_says_who_beats_whom_and_by_how_much():
    comparison = compare_policies('rooms', 'room', hand_made_runs(), mean_of_blocks=False)
    knowing = comparison.policies['knowing']
    assert knowing['abs_rel'] == pytest.approx(0.15)
    assert comparison.policies['random as knowing']['abs_rel'] == pytest.approx(0.2)
    assert comparison.policies['oracle']['abs_rel'] == pytest.approx(0.15)
    assert knowing['total_share'] == pytest.approx(2.5 / 3)    # of the 3 s that fixed-1 saves
    assert comparison.steps['knowing'] == [2, 2, 0, 0]
    text = markdown(comparison)
    assert ('`knowing` does not beat fixed-1 (no difference in AbsRel and no difference in '
            'boundary F1), and beats random (better in AbsRel and no difference in boundary F1); '
            'it meets the target, with 83.3 % of the ceiling, AbsRel -25.0 % and boundary F1 '
            '+0.0 % against fixed-4.') in text
    assert '| knowing | fixed-1 | -25.0 % [-50.0 %, +0.0 %] no difference |' in text
    assert '`always` does not beat fixed-1' in text
    assert 'it misses the target in time, with 0.0 % of the ceiling' in text


def test_a_checkpoint_that_draws_no_borders_is_called_that():
    runs = hand_made_runs()
    assert 'hardly any border' not in markdown(compare_policies('', '', runs,
                                                                mean_of_blocks=False))
    runs.by_steps[..., 5] = 0.01
    assert 'Boundary F1 of fixed-4 is 0.01: this checkpoint draws hardly any border' in markdown(
        compare_policies('', '', runs, mean_of_blocks=False))


def test_the_command_writes_table_json_and_plot(checkpoint, shards, tmp_path):
    assert main(['--frames', str(shards), '--checkpoint', str(checkpoint), '--max-frames', '2',
                 '--out', str(tmp_path / 'out')]) == 0
    result = json.loads((tmp_path / 'out' / 'bench_policies.json').read_text())
    assert {'commit', 'torch', 'cpu', 'cores'} <= set(result['environment'])
    assert result['settings']['processing_resolution'] == 64
    assert result['settings']['step_policy']['latency_cap_s'] is None
    data_set, = result['data_sets']
    assert (data_set['name'], data_set['frames'], data_set['blocks']) == (
        'rendered frames shards', 2, 2)
    assert len(data_set['verdicts']) == 4
    assert data_set['policies']['fixed-4']['total_saved'] == 0.0
    text = (tmp_path / 'out' / 'bench_policies.md').read_text()
    for policy in data_set['policies']:
        assert f'\n| {policy} | ' in text
    assert (tmp_path / 'out' / 'bench_policies.png').read_bytes()[:4] == b'\x89PNG'


def test_a_one_step_checkpoint_is_refused_with_the_reason(shards, tmp_path, capsys):
    folder = make_checkpoint(tmp_path / 'one', default_steps=1)
    assert main(['--frames', str(shards), '--checkpoint', str(folder), '--out',
                 str(tmp_path / 'out')]) == 2
    assert '`checkpoint` must be good for at least 4 steps' in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [[], ['--bag', 'b', '--max-frames', '0']])
def test_a_command_line_without_work_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, '--out', 'out'])
    assert stopped.value.code == 2
    assert 'at least' in capsys.readouterr().err
