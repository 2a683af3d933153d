"""Rules of the engine's benchmark: equal work on both sides, complete output, honest targets."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import contestants
from benchmarks import engine as bench_engine
from benchmarks.architecture import Architecture, ARCHITECTURES, save_random_checkpoint
from benchmarks.contestants import Contestant, peak_memory, Subject
from benchmarks.engine_report import markdown, targets
from marigold_ros.depth.checkpoint import load_components

MINIATURE = Architecture((32, 64), (2, 4), 48, (32, 32, 32, 32), (8, 8, 8, 8), 1, (1, 1, 1, 1),
                         64)
MIB = 2 ** 20


@pytest.fixture(scope='module')
def subject(tmp_path_factory):
    folder = save_random_checkpoint(tmp_path_factory.mktemp('miniature'), MINIATURE, 'kl')
    return Subject(str(folder), 'cpu', 64)


@pytest.fixture(scope='module')
def runners(subject):
    return {each: each.open(subject) for each in (Contestant('reference', 'float32'),
                                                  Contestant('engine', 'float32'),
                                                  Contestant('engine', 'bfloat16'))}


@pytest.mark.parametrize(('batch_size', 'steps'), [(1, 3), (2, 1)])
def test_both_sides_do_the_same_work(subject, runners, batch_size, steps):
    """Same images, noise, steps and output size: float32 depths agree, bfloat16 about."""
    work = bench_engine.make_work(load_components(subject.checkpoint), 64, batch_size, steps)
    rows = bench_engine.measure_setting(runners, work, 2, torch.device('cpu'))
    differences = {row['contestant']: row['largest_difference'] for row in rows}
    assert differences['reference float32'] == 0.0
    assert differences['engine float32'] < 1e-4
    assert 1e-4 < differences['engine bfloat16'] < 0.2


def test_other_work_is_noticed(subject, runners):
    """An engine that runs one step less is faster, and marked."""
    class OneStepLess:
        def prepare(self, work, *, by_stage=False):
            fewer = contestants.Work(work.frames, work.latents, work.num_inference_steps - 1)
            return runners[Contestant('engine', 'float32')].prepare(fewer, by_stage=by_stage)

    reference = Contestant('reference', 'float32')
    rows = bench_engine.measure_setting(
        {reference: runners[reference], Contestant('engine', 'float32'): OneStepLess()},
        bench_engine.make_work(load_components(subject.checkpoint), 64, 1, 2), 2,
        torch.device('cpu'))
    assert rows[1]['largest_difference'] > 1e-4
    report = markdown({'environment': bench_engine.environment(), 'checkpoint': 'x',
                       'image_size': (480, 640), 'complexity': {},
                       'subjects': [a_result(rows)]})
    assert report.count('NOT THE SAME WORK') == 1


def test_stages_add_up_to_the_call(subject, runners):
    work = bench_engine.make_work(load_components(subject.checkpoint), 64, 1, 2)
    for runner in runners.values():
        stages_s = runner.prepare(work, by_stage=True)().stages_s
        assert list(stages_s) == ['encode', 'denoise', 'decode']
        assert all(seconds > 0.0 for seconds in stages_s.values())
    assert bench_engine._stages_ms(
        torch.tensor([0.010, 0.012]).double().numpy(),
        [{'encode': 0.001, 'denoise': 0.004, 'decode': 0.002},
         {'encode': 0.001, 'denoise': 0.006, 'decode': 0.002}],
    ) == pytest.approx({'encode': 1.0, 'denoise': 5.0, 'decode': 2.0, 'other': 3.0})


def test_reference_is_watched_only_where_stages_are_asked_for(subject, runners):
    """Its networks carry no wrapper in the rounds whose total time counts, nor after watching."""
    runner = runners[Contestant('reference', 'float32')]
    work = bench_engine.make_work(load_components(subject.checkpoint), 64, 1, 1)
    assert runner.prepare(work)().stages_s == {}
    runner.prepare(work, by_stage=True)()
    assert 'forward' not in vars(runner.pipeline.unet)
    assert not {'encode', 'decode'} & set(vars(runner.pipeline.vae))


def test_memory_is_of_the_contestant_alone():
    """More than the embedded checkpoint's weights, less than torch."""
    subject = Subject('tiny', 'cpu', 128)
    components = load_components('tiny')
    weights = sum(4 * parameter.numel() for module in (components.unet, components.vae)
                  for parameter in module.parameters())
    works = [bench_engine.make_work(components, 128, size, 1) for size in (1, 4)]
    ballast = torch.ones(400 * MIB, dtype=torch.uint8)  # of this process, not of the child
    one, four = peak_memory(Contestant('engine', 'float32'), subject, works)
    assert weights < one <= four < 300 * MIB
    assert ballast.sum() == 400 * MIB


def test_whole_run_writes_every_setting(tmp_path, monkeypatch, capsys):
    """The path of a full-size architecture, at a miniature's size."""
    monkeypatch.setitem(ARCHITECTURES, 'miniature', MINIATURE)
    monkeypatch.setattr(bench_engine, 'peak_memory', contestants._peak_memory_here)
    monkeypatch.setattr('benchmarks.architecture.MATRIX_EDGE', {'cpu': 256})
    bench_engine.main(['--architecture', 'miniature', '--vae', 'tiny', '--device', 'cpu',
                       '--steps', '1', '4', '--batch-sizes', '1', '2', '--rounds', '2',
                       '--out', str(tmp_path)])
    report = json.loads((tmp_path / 'bench_engine_miniature_tiny.json').read_text())
    result, = report['subjects']
    assert result['processing_resolution'] == 64
    assert result['vae'] == 'AutoencoderTiny'
    names = [each.name for each in bench_engine.contestants(torch.device('cpu'), False)]
    assert [(row['batch_size'], row['num_inference_steps'], row['contestant'])
            for row in result['rows']] == [
        (batch, steps, name) for batch in (1, 2) for steps in (1, 4) for name in names]
    assert all(row['rounds'] == bench_engine.MIN_ROUNDS for row in result['rows'])
    assert set(result['floor']['flops']) == {'encode', 'unet_step', 'decode'}
    assert [target['goal'] for target in result['targets']] == [1.5, 1.5]
    text = (tmp_path / 'bench_engine_miniature_tiny.md').read_text()
    assert text.count('| engine float32 |') == 4
    assert 'NOT THE SAME WORK' not in text
    assert 'on one core: gradient_energy ' in text
    assert set(report['complexity']) == {'gradient_energy', 'entropy'}
    assert 'goal 1.5' in capsys.readouterr().out


def a_row(steps, batch, ms, denoise_ms, ratio):
    return {'contestant': 'engine bfloat16 compiled', 'num_inference_steps': steps,
            'batch_size': batch, 'median_ms': ms, 'q25_ms': ms, 'q75_ms': ms,
            'frames_per_s': 1e3 * batch / ms, 'largest_difference': 0.0,
            'speedup': {'ratio': ratio, 'low': ratio, 'high': ratio},
            'stages_ms': {'encode': 1.0, 'denoise': denoise_ms, 'decode': 1.0, 'other': 1.0}}


def a_result(rows, vae='AutoencoderKL'):
    return {'processing_resolution': 768, 'vae': vae, 'rows': rows, 'memory': [],
            'first_call_compiled_s': {}, 'targets': [],
            'floor': {'flops': {'encode': 2e12, 'unet_step': 1.5e12, 'decode': 4e12},
                      'matrix_rate_flops_per_s': {'bfloat16': 600e12, 'float32': 60e12}}}


@pytest.mark.parametrize(('vae', 'goal'), [('AutoencoderKL', 20.0), ('AutoencoderTiny', 60.0)])
def test_gpu_targets_are_those_of_the_project(vae, goal):
    """By hand: 4 x 1.5 TFLOP in 25 ms are 240 TFLOP/s, 40 % of 600; batch 8 in 200 ms is 40/s."""
    result = a_result([a_row(1, 1, 40.0, 6.0, 1.9), a_row(4, 1, 80.0, 25.0, 4.0),
                       a_row(1, 8, 200.0, 40.0, 3.0)], vae)
    found = {target['what']: (target['goal'], pytest.approx(target['measured']), target['met'])
             for target in targets(result, torch.device('cuda'))}
    assert found == {
        'times the reference at 1 step(s)': (2.0, 1.9, False),
        'times the reference at 4 step(s)': (2.0, 4.0, True),
        f'frames/s at 1 step, {vae}': (goal, 25.0, 25.0 >= goal),
        'U-Net step, part of the matrix rate': (0.25, 0.4, True),
        'frames/s of batch 8 over batch 1, 1 step': (1.5, 1.6, True),
    }


def test_a_goal_that_was_not_measured_is_not_judged():
    found = targets(a_result([a_row(4, 1, 80.0, 25.0, 1.2)]), torch.device('cpu'))
    assert [(target['what'], target['met']) for target in found] == [
        ('times the reference at 4 step(s)', False)]


def test_on_a_gpu_the_reference_runs_in_the_engines_format_too(monkeypatch):
    """And the speedup is counted from that faster one."""
    monkeypatch.setattr(bench_engine, 'resolve_dtype', lambda dtype, device: torch.bfloat16)
    names = [each.name for each in bench_engine.contestants(torch.device('cuda'), True)]
    assert names == ['reference bfloat16', 'reference float32', 'engine float32',
                     'engine bfloat16', 'engine bfloat16 compiled']
