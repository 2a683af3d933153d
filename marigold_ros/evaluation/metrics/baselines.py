"""What a checkpoint must beat: a vertical ramp, and any small network in a TFLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.evaluation.metrics.protocol_a import vertical_ramp


def predict_ramp(rgb: RgbImage) -> FloatImage:
    """
    Return 1 in the top row and 0 in the bottom row: what knows nothing but that up is far.

    Parameters
    ----------
    rgb : uint8 [H, W, 3]

    Returns
    -------
    float32 [H, W]
    """
    return vertical_ramp(*rgb.shape[:2]).astype(np.float32)


class TfliteNetwork:
    """
    A depth network in a TFLite file, such as FastDepth.

    Its input is the image resized by area, as uint8 or in [0, 1]; its only output is depth.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ConfigError
        If the interpreter is not installed.
    InputError
        If the file is missing, is no TFLite model, or does not make one map from one RGB image.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as err:
            raise ConfigError('`baseline` needs the package ai-edge-litert, which is optional: '
                              'pip install ai-edge-litert') from err
        if not path.is_file():
            raise InputError(f'`baseline` must be a TFLite file; {path} does not exist')
        try:
            self._interpreter = Interpreter(model_path=str(path))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as err:
            raise InputError(f'`baseline` must be a TFLite file; {path} cannot be read: '
                             f'{err}') from err
        self._input, = _only(path, 'input', self._interpreter.get_input_details())
        self._output, = _only(path, 'output', self._interpreter.get_output_details())
        if len(self._input['shape']) != 4 or self._input['shape'][3] != 3:
            raise InputError(f'{path} must take one RGB image [1, H, W, 3]; it takes '
                             f'{list(self._input["shape"])}')

    def predict(self, rgb: RgbImage) -> FloatImage:
        """
        Run the network.

        Parameters
        ----------
        rgb : uint8 [H, W, 3]

        Returns
        -------
        float32 [H, W]
            Its depth up to scale and shift, resized to the image bilinearly.
        """
        _, height, width, _ = self._input['shape']
        small = cv2.resize(rgb, (int(width), int(height)), interpolation=cv2.INTER_AREA)
        self._interpreter.set_tensor(self._input['index'], self._quantized(small)[None])
        self._interpreter.invoke()
        depth = np.squeeze(self._interpreter.get_tensor(self._output['index'])).astype(np.float32)
        scale, zero_point = self._output['quantization']
        if scale:
            depth = np.float32(scale) * (depth - np.float32(zero_point))
        return np.asarray(cv2.resize(depth, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR),
                          np.float32)

    def _quantized(self, small: Any) -> Any:
        """Bring pixels to the input's type: as they are, or [0, 1] by its scale."""
        kind = self._input['dtype']
        if kind == np.uint8:
            return small
        unit = small.astype(np.float32) / 255
        if kind == np.float32:
            return unit
        scale, zero_point = self._input['quantization']
        limits = np.iinfo(kind)
        return np.clip(np.round(unit / scale + zero_point), limits.min, limits.max).astype(kind)


def _only(path: Path, name: str, details: list[Any]) -> list[Any]:
    if len(details) != 1:
        raise InputError(f'{path} must have one {name}; it has {len(details)}')
    return details
