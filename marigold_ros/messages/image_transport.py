"""Names of the topics on which image_transport publishes an image."""

from __future__ import annotations

# In the order of preference: raw, then lossless.
TRANSPORT_SUFFIXES = ('', '/compressedDepth', '/compressed')


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
