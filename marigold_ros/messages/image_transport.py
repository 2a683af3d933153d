"""Names of the topics on which image_transport publishes an image."""

from __future__ import annotations

# In the order of preference: raw, then lossless.
TRANSPORT_SUFFIXES = ('', '/compressedDepth', '/compressed')


def camera_info_beside(topic: str) -> str:
    """
    Return the camera_info topic in the namespace of an image.

    Examples
    --------
    >>> camera_info_beside('/camera/image_raw/compressed'), camera_info_beside('image')
    ('/camera/camera_info', 'camera_info')
    """
    namespace, slash, _ = base_topic(topic).rpartition('/')
    return f'{namespace}{slash}camera_info'


def base_topic(topic: str) -> str:
    """
    Remove the suffix of the transport.

    Examples
    --------
    >>> base_topic('/camera/depth/image_rect/compressedDepth')
    '/camera/depth/image_rect'
    """
    return next((topic.removesuffix(suffix) for suffix in TRANSPORT_SUFFIXES[1:]
                 if topic.endswith(suffix)), topic)
