"""What the messages of a bag mean: their stamps and images, whether raw or compressed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TYPE_CHECKING

from marigold_ros.messages.compressed import decompress_image
from marigold_ros.messages.image import ImageFields

if TYPE_CHECKING:
    from marigold_ros.data.bags.reader import Bag, BagMessage

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
# Far beyond any camera, far below what a forged header can claim.
MAX_PIXELS = 2 ** 26
# Depth follows its image within a second or two, whatever the camera's rate.
MATCH_WINDOW = 64


def stamp_ns(message: Any) -> int:
    """
    Read the time in a decoded message's header.

    Returns
    -------
    int
        ns since the epoch of the bag's clock.
    """
    stamp = message.header.stamp
    return int(stamp.sec) * 10 ** 9 + int(stamp.nanosec)


def image_fields(message: Any) -> ImageFields:
    """
    Read a decoded sensor_msgs Image or CompressedImage.

    Returns
    -------
    ImageFields
        Shares memory with a raw image; a compressed one is decompressed.

    Raises
    ------
    MessageError
        If a compressed image cannot be decoded.
    """
    if message.__msgtype__ == COMPRESSED_IMAGE:
        return decompress_image(message.data, message.format, max_pixels=MAX_PIXELS)
    return ImageFields(
        height=message.height, width=message.width, encoding=message.encoding,
        is_bigendian=bool(message.is_bigendian), step=message.step, data=message.data)


def decompress(bag: Bag, message: BagMessage) -> bytes:
    """
    Turn a compressed image of a bag into a raw one of the same header.

    Parameters
    ----------
    bag : Bag
        The bag that `message` was read from.
    message : BagMessage
        A sensor_msgs/msg/CompressedImage.

    Returns
    -------
    bytes
        A sensor_msgs/msg/Image in CDR.

    Raises
    ------
    MessageError
        If the image cannot be decoded.
    BagError
        If the bytes are not a message of that type.
    """
    compressed = bag.decode(message)
    fields = image_fields(compressed)
    image = bag.typestore.types[IMAGE](
        header=compressed.header, height=fields.height, width=fields.width,
        encoding=fields.encoding, is_bigendian=int(fields.is_bigendian), step=fields.step,
        data=fields.data)
    return bytes(bag.typestore.serialize_cdr(image, IMAGE, little_endian=True))


def matched_by_stamp(bag: Bag, topics: Sequence[str], *,
                     stamps_ns: Collection[int] | None = None) -> Iterator[tuple[int, list[Any]]]:
    """
    Bring the messages of several topics together that have the same stamp.

    Parameters
    ----------
    bag : Bag
    topics : sequence of str
        Topics whose messages have a header.
    stamps_ns : collection of int or None
        Only these stamps; all, if None.

    Yields
    ------
    stamp_ns : int
    messages : list
        Decoded, one per topic in the order of `topics`.  A message waits for its partners until
        MATCH_WINDOW younger stamps have come, so memory stays bounded.
    """
    waiting: dict[int, dict[str, Any]] = {}
    for message in bag.messages(topics):
        decoded = bag.decode(message)
        stamp = stamp_ns(decoded)
        if stamps_ns is not None and stamp not in stamps_ns:
            continue
        partners = waiting.setdefault(stamp, {})
        partners[message.topic] = decoded
        if len(partners) == len(topics):
            del waiting[stamp]
            yield stamp, [partners[topic] for topic in topics]
        elif len(waiting) > MATCH_WINDOW:
            del waiting[next(iter(waiting))]
