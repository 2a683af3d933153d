"""The exceptions of marigold_ros."""


class MarigoldError(Exception):
    """Base class; the message contains the name, the rule and the value."""


class ConfigError(MarigoldError, ValueError):
    """A setting is invalid."""


class CheckpointError(MarigoldError):
    """A checkpoint is missing, truncated, not in Marigold's layout or of another task."""


class InputError(MarigoldError, ValueError):
    """An array, frame or file given by the caller is invalid."""


class OutOfMemoryError(MarigoldError):
    """A single image does not fit into the device's memory."""


class MessageError(InputError):
    """A message's fields contradict each other or use an unsupported encoding."""


class BagError(MarigoldError):
    """A bag is missing, damaged or cannot be written."""


class DepthError(MarigoldError):
    """
    A run of the networks, or the depth of a frame, has failed; `__cause__` is the exception.

    Attributes
    ----------
    cameras : tuple of str
        Whose frames were concerned.
    """

    def __init__(self, text: str, cameras: tuple[str, ...]) -> None:
        super().__init__(text)
        self.cameras = cameras
