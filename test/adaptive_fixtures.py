"""A scene for tests of AdaptiveDepth."""

from __future__ import annotations

import cv2
import numpy as np


def scene(seed=0, dx=0):
    """Return an image of blobs, moved to the right by some px."""
    rng = np.random.default_rng(seed)
    world = 128 + 12 * sum(
        cell ** 0.5 * cv2.resize(rng.normal(size=(960 // cell, 960 // cell, 3)), (960, 960))
        for cell in (16, 48))
    return np.clip(world[:240, 320 - dx:640 - dx], 0, 255).astype(np.uint8)
