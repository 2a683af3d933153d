"""Every error that marigold_ros raises on purpose."""


class MarigoldError(Exception):
    """Base of all errors raised on purpose; its text names the thing, the value and the rule."""


class ConfigError(MarigoldError, ValueError):
    """A setting breaks its rule."""


class CheckpointError(MarigoldError):
    """A checkpoint is missing, truncated or not in Marigold's layout."""


class InputError(MarigoldError, ValueError):
    """An array, frame or file given by the caller breaks its rule."""


class OutOfMemoryError(MarigoldError):
    """Not even one image fits into the device's memory."""


class MessageError(InputError):
    """A message's fields contradict each other or use an unsupported encoding."""


class BagError(MarigoldError):
    """A recording is missing, damaged or cannot be written."""
