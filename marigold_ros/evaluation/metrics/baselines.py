"""Baselines to compare a checkpoint with: a vertical ramp, and a depth network in TFLite."""

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
    Return a vertical ramp as relative depth: 1 in the top row, 0 in the bottom row.

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

    The input is one RGB image, resized by area averaging, as uint8 or as float in [0, 1].  The
    only output is a depth map.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ConfigError
        If the interpreter is not installed.
    InputError
        If the file is missing, is not a TFLite model, or does not map one RGB image to one output.
    """

    def __init__(self, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as err:
            raise ConfigError('`baseline` needs the optional package ai-edge-litert: '
                              'pip install ai-edge-litert') from err
        if not path.is_file():
            raise InputError(f'`baseline` must be a TFLite file; {path} does not exist')
        try:
            self._interpreter = Interpreter(model_path=str(path))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as err:
            raise InputError(f'`baseline` must be a TFLite file; {path} cannot be read: '
                             f'{err}') from err
        self._input, = _require_one(path, 'input', self._interpreter.get_input_details())
        self._output, = _require_one(path, 'output', self._interpreter.get_output_details())
        if len(self._input['shape']) != 4 or self._input['shape'][3] != 3:
            raise InputError(f'{path} must take one RGB image [1, H, W, 3]; it takes '
                             f'{list(self._input["shape"])}')

    def predict(self, rgb: RgbImage) -> FloatImage:
        """
        Predict depth for one image.

        Parameters
        ----------
        rgb : uint8 [H, W, 3]

        Returns
        -------
        float32 [H, W]
            Depth up to scale and shift, resized bilinearly to the image's size.
        """
        _, height, width, _ = self._input['shape']
        small = cv2.resize(rgb, (int(width), int(height)), interpolation=cv2.INTER_AREA)
        self._interpreter.set_tensor(self._input['index'], self._quantize(small)[None])
        self._interpreter.invoke()
        depth = np.squeeze(self._interpreter.get_tensor(self._output['index'])).astype(np.float32)
        scale, zero_point = self._output['quantization']
        if scale:
            depth = np.float32(scale) * (depth - np.float32(zero_point))
        return np.asarray(cv2.resize(depth, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR),
                          np.float32)

    def _quantize(self, small: Any) -> Any:
        """Convert uint8 pixels to the type and the quantization of the input tensor."""
        kind = self._input['dtype']
        if kind == np.uint8:
            return small
        unit = small.astype(np.float32) / 255
        if kind == np.float32:
            return unit
        scale, zero_point = self._input['quantization']
        limits = np.iinfo(kind)
        return np.clip(np.round(unit / scale + zero_point), limits.min, limits.max).astype(kind)


def _require_one(path: Path, name: str, details: list[Any]) -> list[Any]:
    if len(details) != 1:
        raise InputError(f'{path} must have one {name}; it has {len(details)}')
    return details
