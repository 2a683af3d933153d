"""The baselines: the vertical ramp and TFLite networks."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.evaluation.metrics.baselines import predict_ramp, TfliteNetwork


class FakeInterpreter:
    """Mimic the LiteRT interpreter of a quantized network whose depth is the red channel."""

    inputs = (
        {'index': 0, 'shape': [1, 2, 2, 3], 'dtype': np.uint8, 'quantization': (1 / 255, 0)},)
    outputs = ({'index': 1, 'quantization': (0.5, 10)},)

    def __init__(self, model_path):
        if 'broken' in model_path:
            raise ValueError('not a model')

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return self.inputs

    def get_output_details(self):
        return self.outputs

    def set_tensor(self, _, tensor):
        assert tensor.dtype == self.inputs[0]['dtype']
        self.tensor = tensor

    def invoke(self):
        self.depth = self.tensor[..., :1]

    def get_tensor(self, _):
        return self.depth


@pytest.fixture
def interpreter(monkeypatch):
    """Replace the optional package by the fake interpreter."""
    module = ModuleType('ai_edge_litert.interpreter')
    module.Interpreter = type('Interpreter', (FakeInterpreter,), {})
    monkeypatch.setitem(sys.modules, 'ai_edge_litert', ModuleType('ai_edge_litert'))
    monkeypatch.setitem(sys.modules, 'ai_edge_litert.interpreter', module)
    return module.Interpreter


def model(tmp_path, name='net.tflite'):
    """Create an empty file."""
    path = tmp_path / name
    path.write_bytes(b'')
    return path


def test_the_ramp_is_1_at_the_top_and_0_at_the_bottom():
    depth = predict_ramp(np.zeros((3, 2, 3), np.uint8))
    np.testing.assert_array_equal(depth, [[1, 1], [0.5, 0.5], [0, 0]])


def test_a_quantized_network_gets_the_resized_image(
        interpreter, tmp_path):
    network = TfliteNetwork(model(tmp_path))
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2, :2, 0] = [[10, 30], [50, 70]]    # 40 in the mean
    depth = network.predict(rgb)
    assert depth.shape == (4, 4) and depth.dtype == np.float32
    assert depth[0, 0] == pytest.approx(0.5 * (40 - 10))
    assert depth[3, 3] == pytest.approx(0.5 * (0 - 10))


def test_a_float_network_gets_values_in_0_to_1(interpreter, tmp_path):
    interpreter.inputs = [{**FakeInterpreter.inputs[0], 'dtype': np.float32}]
    interpreter.outputs = [{'index': 1, 'quantization': (0.0, 0)}]
    depth = TfliteNetwork(model(tmp_path)).predict(np.full((4, 4, 3), 51, np.uint8))
    np.testing.assert_allclose(depth, 0.2, rtol=1e-6)


def test_an_invalid_network_file_is_rejected(interpreter, tmp_path):
    with pytest.raises(InputError, match='nowhere.tflite does not exist'):
        TfliteNetwork(tmp_path / 'nowhere.tflite')
    with pytest.raises(InputError, match='cannot be read: not a model'):
        TfliteNetwork(model(tmp_path, 'broken.tflite'))
    interpreter.outputs = interpreter.outputs * 2
    with pytest.raises(InputError, match='must have one output; it has 2'):
        TfliteNetwork(model(tmp_path))
    interpreter.inputs = [{**FakeInterpreter.inputs[0], 'shape': [1, 10]}]
    interpreter.outputs = FakeInterpreter.outputs
    with pytest.raises(InputError, match='must take one RGB image'):
        TfliteNetwork(model(tmp_path))


def test_a_missing_package_is_an_error_with_the_install_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'ai_edge_litert', None)
    with pytest.raises(ConfigError, match='pip install ai-edge-litert'):
        TfliteNetwork(model(tmp_path))
