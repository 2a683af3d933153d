"""The training loop, and failures in it."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import signal

import numpy as np
import pytest
import torch
from training_fixtures import changed, weights, with_schedule, write_frames

from marigold_ros.depth.errors import ConfigError, InputError, MarigoldError
from marigold_ros.training import trainer
from marigold_ros.training.config import FrameSetConfig, HardwareConfig
from marigold_ros.training.trainer import make_seeded_generator, Trainer
from marigold_ros.training.validation import ValidationResult


def test_gradients_accumulate_to_those_of_the_whole_batch(tiny_config, tmp_path):
    norms, brightness = [], []

    class Brightness(OneWeightTrainer):

        def losses(self, model, batch, generator):
            brightness.append(batch.image.mean().item())
            return {'latent': model(batch.image.mean().reshape(1, 1)).sum()}

    for size in (1, 4):
        one = with_schedule(changed(tiny_config, run_folder=str(tmp_path / str(size))),
                            device_batch_size=size)
        trainer = Brightness(changed(one, train=tiny_config.train[:1]))
        norms.append(trainer._train_iteration(trainer._batches())['gradient_norm'])
    # The gradient of weight x brightness is the mean brightness of the four views.
    assert len(brightness) == 4 + 1
    assert norms == pytest.approx([abs(np.mean(brightness[:4]))] * 2, rel=1e-4)
    assert brightness[4] == pytest.approx(np.mean(brightness[:4]), rel=1e-4)


class OneWeightTrainer(Trainer):
    """A training whose loss is its only weight."""

    def __init__(self, tiny_config, failure=None):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        self.calls = 0
        self.failure = failure or (lambda calls, loss: loss)
        super().__init__(tiny_config, model)

    def prepare(self, device, train):
        """Do nothing."""

    def losses(self, model, batch, generator):
        self.calls += 1
        return {'latent': self.failure(self.calls, model(torch.ones(1, 1)).sum())}

    def save(self, folder):
        (folder / 'weight.txt').write_text(str(self.model.weight.item()))

    def validate(self, folder, frame_sets, device):
        return ValidationResult({}, {})


def saved_weight(tiny_config):
    return float((Path(tiny_config.run_folder) / 'checkpoint/weight.txt').read_text())


def test_the_checkpoint_gets_the_average_of_the_weights(tiny_config):
    # Rates 0, 1e-3, 1e-3 x .01^(1/9): weights 1, .999, .9984; decays 0, 2/11, 3/12.
    training = OneWeightTrainer(with_schedule(tiny_config, max_iterations=3, checkpoint_every=100))
    training.run()
    third = 0.999 - 1e-3 * 0.01 ** (1 / 9)
    assert training.model.weight.item() == pytest.approx(third, abs=1e-6)
    second = 0.999 + 2 / 11 * 0.001
    assert saved_weight(tiny_config) == pytest.approx(third + 3 / 12 * (second - third), abs=1e-6)


@pytest.mark.parametrize('failure', [
    lambda loss: loss * torch.nan,                          # a loss that is not a number
    lambda loss: (loss - loss.detach()).abs().sqrt()])      # a finite one of infinite gradient
def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tiny_config, failure):
    failing = OneWeightTrainer(
        tiny_config, lambda calls, loss: failure(loss) if calls > 6 else loss)
    with pytest.raises(MarigoldError, match='must stay finite; got .* in iteration 3; the last '
                                            'good checkpoint is .*/checkpoint'):
        failing.run()
    assert 0.99 < saved_weight(tiny_config) < 1.0
    assert torch.isfinite(weights(tiny_config.run_folder)['weight']).all()


def test_ctrl_c_saves_and_the_run_can_resume(tiny_config):
    def interrupt(calls, loss):
        if calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    OneWeightTrainer(tiny_config, interrupt).run()
    assert saved_weight(tiny_config) == 1.0                    # after the one iteration of rate 0
    training = OneWeightTrainer(tiny_config)
    training.run()
    assert training.calls == 2 * 3                              # parts of the three left


def test_a_run_resumes_only_with_its_own_configuration(tiny_config):
    OneWeightTrainer(with_schedule(tiny_config, max_iterations=2)).run()
    with pytest.raises(ConfigError, match=r'another configuration \(schedule\.learning_rate: '
                                          r'was 0\.001, now 0\.1\)'):
        OneWeightTrainer(with_schedule(tiny_config, learning_rate=0.1))
    # Another device may be used, but views computed on it are different.
    other = changed(tiny_config.hardware, device='auto', frames_on_device=True)
    with pytest.raises(ConfigError, match=r'\(hardware\.frames_on_device: was False, now True'):
        OneWeightTrainer(changed(tiny_config, hardware=other))
    # A machine that stopped between two renames leaves the old state as a backup.
    state = Path(tiny_config.run_folder) / 'state'
    shutil.move(state, state.with_name('state.old'))
    training = OneWeightTrainer(tiny_config)
    training.run()
    assert training.calls == 2 * 2


def test_bad_data_stops_before_the_first_step(tiny_config, tmp_path):
    millimetres = changed(tiny_config, train=(write_frames(tmp_path / 'mm', scale=1000.0),))
    with pytest.raises(InputError, match='frame 0 of .*/mm: the median depth must lie between'):
        OneWeightTrainer(millimetres)
    (tmp_path / 'empty').mkdir()
    empty = changed(tiny_config, validation=(FrameSetConfig(
        reader='shards', path=str(tmp_path / 'empty'), size=(32, 48)),))
    with pytest.raises(MarigoldError, match='must hold rgb_.* shards'):
        OneWeightTrainer(empty)
    assert not Path(tiny_config.run_folder, 'state').exists()


def test_a_batch_must_divide_evenly(tiny_config):
    with pytest.raises(ConfigError, match='`batch_size` must be a multiple .* got 4, 3 and 1'):
        OneWeightTrainer(with_schedule(tiny_config, device_batch_size=3))


@pytest.mark.parametrize(('capabilities', 'precision'), [
    ({'avx512_bf16': True}, 'bf16'), ({'avx2': True}, 'no')])
def test_auto_computes_in_bfloat16_only_where_the_processor_does(
        monkeypatch, capabilities, precision):
    asked = {}
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: capabilities)
    monkeypatch.setattr(trainer, 'Accelerator', lambda **settings: asked.update(settings))
    trainer._make_accelerator(HardwareConfig(device='cpu', precision='auto'))
    assert asked == {'mixed_precision': precision, 'cpu': True}


def test_seeds_give_independent_streams():
    draws = {tuple(torch.rand(3, generator=make_seeded_generator(*numbers)).tolist())
             for numbers in [(1, 0, 0), (1, 1, 0), (1, 0, 1), (2, 0, 0)]}
    assert len(draws) == 4
    again = torch.rand(3, generator=make_seeded_generator(1, 1, 0))
    assert tuple(again.tolist()) in draws
