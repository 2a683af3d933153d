"""The loop of both trainings, and accidents in it."""

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
from marigold_ros.training.config import FrameSetConfig
from marigold_ros.training.trainer import generator_for, Trainer
from marigold_ros.training.validation import Validation


def test_gradients_accumulate_to_those_of_the_whole_batch(recipe, tmp_path):
    norms, brightness = [], []

    class Brightness(Constant):

        def losses(self, model, batch, generator):
            brightness.append(batch.image.mean().item())
            return {'latent': model(batch.image.mean().reshape(1, 1)).sum()}

    for size in (1, 4):
        one = with_schedule(changed(recipe, run_folder=str(tmp_path / str(size))),
                            device_batch_size=size)
        trainer = Brightness(changed(one, train=recipe.train[:1]))
        norms.append(trainer._train_iteration(trainer._batches())['gradient_norm'])
    # The gradient of weight x brightness is the mean brightness of the four views.
    assert len(brightness) == 4 + 1
    assert norms == pytest.approx([abs(np.mean(brightness[:4]))] * 2, rel=1e-4)
    assert brightness[4] == pytest.approx(np.mean(brightness[:4]), rel=1e-4)


class Constant(Trainer):
    """A training whose loss is a weight, to see what becomes of it."""

    def __init__(self, recipe, accident=None):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        self.calls = 0
        self.accident = accident or (lambda calls, loss: loss)
        super().__init__(recipe, model)

    def prepare(self, device, train):
        """Nothing is left to prepare."""

    def losses(self, model, batch, generator):
        self.calls += 1
        return {'latent': self.accident(self.calls, model(torch.ones(1, 1)).sum())}

    def save(self, folder):
        (folder / 'weight.txt').write_text(str(self.model.weight.item()))

    def validate(self, folder, frame_sets, device):
        return Validation({}, {})


def written_weight(recipe):
    return float((Path(recipe.run_folder) / 'checkpoint/weight.txt').read_text())


def test_the_checkpoint_gets_the_average_of_the_weights(recipe):
    # Rates 0, 1e-3, 1e-3 x .01^(1/9): weights 1, .999, .9984; decays 0, 2/11, 3/12.
    training = Constant(with_schedule(recipe, max_iterations=3, checkpoint_every=100))
    training.run()
    third = 0.999 - 1e-3 * 0.01 ** (1 / 9)
    assert training.model.weight.item() == pytest.approx(third, abs=1e-6)
    second = 0.999 + 2 / 11 * 0.001
    assert written_weight(recipe) == pytest.approx(third + 3 / 12 * (second - third), abs=1e-6)


@pytest.mark.parametrize('accident', [
    lambda loss: loss * torch.nan,                          # a loss that is not a number
    lambda loss: (loss - loss.detach()).abs().sqrt()])      # a finite one of infinite gradient
def test_what_is_not_finite_stops_and_keeps_the_checkpoint(recipe, accident):
    broken = Constant(recipe, lambda calls, loss: accident(loss) if calls > 6 else loss)
    with pytest.raises(MarigoldError, match='must stay finite; got .* in iteration 3; the last '
                                            'good checkpoint is .*/checkpoint'):
        broken.run()
    assert 0.99 < written_weight(recipe) < 1.0
    assert torch.isfinite(weights(recipe.run_folder)['weight']).all()


def test_ctrl_c_saves_and_the_run_can_go_on(recipe):
    def interrupt(calls, loss):
        if calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    Constant(recipe, interrupt).run()
    assert written_weight(recipe) == 1.0                    # after the one iteration of rate 0
    training = Constant(recipe)
    training.run()
    assert training.calls == 2 * 3                              # parts of the three left


def test_a_run_goes_on_only_with_its_own_recipe(recipe):
    Constant(with_schedule(recipe, max_iterations=2)).run()
    with pytest.raises(ConfigError, match=r'another recipe \(schedule\.learning_rate: 0\.001 '
                                          r'there, 0\.1 here\)'):
        Constant(with_schedule(recipe, learning_rate=0.1))
    # Another device may take over, but views taken on it are other views.
    other = changed(recipe.hardware, device='auto', frames_on_device=True)
    with pytest.raises(ConfigError, match=r'\(hardware\.frames_on_device: False there, True'):
        Constant(changed(recipe, hardware=other))
    # A machine that stopped between two renames leaves the old state beside its place.
    state = Path(recipe.run_folder) / 'state'
    shutil.move(state, state.with_name('state.old'))
    training = Constant(recipe)
    training.run()
    assert training.calls == 2 * 2


def test_bad_data_stops_before_the_first_step(recipe, tmp_path):
    millimetres = changed(recipe, train=(write_frames(tmp_path / 'mm', scale=1000.0),))
    with pytest.raises(InputError, match='frame 0 of .*/mm: the median depth must lie between'):
        Constant(millimetres)
    (tmp_path / 'empty').mkdir()
    empty = changed(recipe, validation=(FrameSetConfig(
        reader='shards', path=str(tmp_path / 'empty'), size=(32, 48)),))
    with pytest.raises(MarigoldError, match='must hold rgb_.* shards'):
        Constant(empty)
    assert not Path(recipe.run_folder, 'state').exists()


def test_a_batch_must_be_shared_out_evenly(recipe):
    with pytest.raises(ConfigError, match='`batch_size` must be a multiple .* got 4, 3 and 1'):
        Constant(with_schedule(recipe, device_batch_size=3))


def test_seeds_give_streams_of_their_own():
    draws = {tuple(torch.rand(3, generator=generator_for(*numbers)).tolist())
             for numbers in [(1, 0, 0), (1, 1, 0), (1, 0, 1), (2, 0, 0)]}
    assert len(draws) == 4
    again = torch.rand(3, generator=generator_for(1, 1, 0))
    assert tuple(again.tolist()) in draws
