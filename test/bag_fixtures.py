"""Tiny bags for tests."""

from __future__ import annotations

from pathlib import Path
import re
import struct
from typing import Any

import cv2
from mcap.writer import Writer as McapWriter
import numpy as np
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

from marigold_ros.data.bags.message_format import jazzy_typestore
from marigold_ros.data.bags.writer import BagWriter

START_NS = 1_700_000_000 * 10 ** 9
# Installed nowhere, not even on a robot.
UNINSTALLED = 'absent_msgs/msg/Note'
STORE = jazzy_typestore()
STORE.register(get_types_from_msg('string text', UNINSTALLED))
TYPES = STORE.types
ROS1 = get_typestore(Stores.ROS1_NOETIC)
# Schemas that no ROS can decode: name, encoding of the schema, schema, encoding of the messages.
FOREIGN_SCHEMAS = {
    '/protobuf': ('foxglove.SceneUpdate', 'protobuf', b'\x0a\x04\xff\xfe', 'protobuf'),
    '/json': ('foxglove.Log', 'jsonschema', b'{"type": "object"}', 'json'),
    '/service_event': ('my_srvs/srv/Add_Event', 'ros2msg', b'int64 a\n---\nint64 sum\n', 'cdr'),
    '/nameless_field': ('my_msgs/msg/Odd', 'ros2msg', b'other_msgs/Missing', 'cdr'),
    '/incomplete': ('my_msgs/msg/Pair', 'ros2msg', b'my_msgs/Half half', 'cdr')}
# Intrinsics of the camera of `camera_info`, px.
K = (20.0, 0.0, 12.0, 0.0, 20.0, 8.0, 0.0, 0.0, 1.0)


def offered_qos(*, reliable: bool = True, latched: bool = False) -> Qos:
    """Create the QoS of a recorded publisher."""
    no_limit = QosTime(9223372036, 854775807)
    return Qos(QosHistory.KEEP_LAST, 5,
               QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
               QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
               no_limit, no_limit, QosLiveliness.AUTOMATIC, no_limit, False)


def header(stamp_ns: int, frame_id: str = 'camera_optical_frame') -> Any:
    """Create a std_msgs Header."""
    stamp = TYPES['builtin_interfaces/msg/Time'](sec=stamp_ns // 10 ** 9,
                                                 nanosec=stamp_ns % 10 ** 9)
    return TYPES['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)


def text(data: str) -> bytes:
    """Serialize a std_msgs String."""
    return serialize('std_msgs/msg/String', data=data)


def image(pixels: np.ndarray, encoding: str, stamp_ns: int) -> bytes:
    """Serialize a sensor_msgs Image."""
    return serialize('sensor_msgs/msg/Image', header=header(stamp_ns), height=pixels.shape[0],
                     width=pixels.shape[1], encoding=encoding, is_bigendian=0,
                     step=pixels.strides[0], data=pixels.reshape(-1).view(np.uint8))


def compressed_image(pixels: np.ndarray, extension: str, image_format: str,
                     stamp_ns: int) -> bytes:
    """Serialize a sensor_msgs CompressedImage; colours are BGR."""
    stream = cv2.imencode(extension, pixels)[1].reshape(-1)
    return serialize('sensor_msgs/msg/CompressedImage', header=header(stamp_ns),
                     format=image_format, data=stream)


def serialize(msgtype: str, **fields: Any) -> bytes:
    """Serialize a message of any type in Jazzy."""
    return bytes(STORE.serialize_cdr(TYPES[msgtype](**fields), msgtype))


def write_bag(path: Path, topics: dict[str, str], messages: list[tuple[str, int, bytes]],
              qos: dict[str, Qos] | None = None) -> Path:
    """
    Write an MCAP bag.

    Parameters
    ----------
    path : Path
        Folder to create.
    topics : dict
        Message type of each topic.
    messages : list of (str, int, bytes)
        Topic, ns after START_NS, CDR.
    qos : dict
        QoS offered on some of the topics.
    """
    with BagWriter(path) as writer:
        for name, msgtype in topics.items():
            offered = [qos[name]] if qos and name in qos else []
            writer.add_topic(name, msgtype, typestore=STORE, qos=offered)
        for name, offset_ns, data in messages:
            writer.write(name, START_NS + offset_ns, data)
    return path


def write_mcap(path: Path, messages: list[tuple[str, str, int, bytes]], *, ros1: bool = False,
               foreign: bool = False, json: tuple[str, ...] = (), profile: str = 'ros2',
               **options: Any) -> Path:
    """
    Write a lone MCAP file with the writer of the mcap library.

    Parameters
    ----------
    path : Path
    messages : list of (str, str, int, bytes)
        Topic, type, ns after START_NS, CDR.
    ros1 : bool
        Write messages of ROS 1, as `mcap convert` makes them from a bag of ROS 1.
    foreign : bool
        Add a message on each topic of `FOREIGN_SCHEMAS`.
    json : tuple of str
        Topics whose messages are said to be JSON, so that they cannot be read.
    profile : str
        Name of the MCAP profile.
    **options
        Options of the writer.
    """
    with path.open('wb') as file:
        writer = McapWriter(file, **options)
        writer.start(profile=profile)
        channels: dict[tuple[str, str], int] = {}
        for topic in FOREIGN_SCHEMAS if foreign else ():
            name, language, schema, encoding = FOREIGN_SCHEMAS[topic]
            channel = writer.register_channel(topic, encoding,
                                              writer.register_schema(name, language, schema))
            writer.add_message(channel, START_NS, bytes(8), START_NS)
        for topic, msgtype, offset_ns, data in messages:
            if (topic, msgtype) not in channels:
                definition = (ROS1 if ros1 else STORE).generate_msgdef(msgtype)[0].encode()
                name, language = ((msgtype.replace('/msg/', '/'), 'ros1msg') if ros1
                                  else (msgtype, 'ros2msg'))
                encoding = 'json' if topic in json else 'ros1' if ros1 else 'cdr'
                channels[topic, msgtype] = writer.register_channel(
                    topic, encoding, writer.register_schema(name, language, definition))
            writer.add_message(channels[topic, msgtype], START_NS + offset_ns,
                               to_ros1(msgtype, data) if ros1 else data, START_NS + offset_ns)
        writer.finish()
    return path


def to_ros1(msgtype: str, data: bytes) -> bytes:
    """Serialize a message in CDR as ROS 1 does: with a `seq`, and capital K in CameraInfo."""
    def convert(value: Any) -> Any:
        if not hasattr(value, '__msgtype__'):
            return [convert(each) for each in value] if isinstance(value, list) else value
        made = ROS1.types[value.__msgtype__]
        fields = {name: 0 if name == 'seq' else convert(
                      getattr(value, name, getattr(value, name.lower(), None)))
                  for name in made.__dataclass_fields__ if name != '__msgtype__'}
        return made(**fields)

    return bytes(ROS1.serialize_ros1(convert(STORE.deserialize_cdr(data, msgtype)), msgtype))


def webcam_jpeg(rgb: np.ndarray) -> tuple[bytes, bytes]:
    """Encode with restart markers, and once more with a stray byte before each, as webcams do."""
    good = cv2.imencode('.jpg', rgb[..., ::-1], [
        cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes()
    return good, re.sub(rb'\xff[\xd0-\xd7]', rb'\0\0\0\0\0\0\0\0\g<0>', good)


def octal_nibbles(number: int) -> list[int]:
    """Write octal digits, the least significant first; each but the last is marked by 8."""
    octal = [int(digit) for digit in reversed(f'{number:o}')]
    return [digit + 8 for digit in octal[:-1]] + octal[-1:]


def encode_rvl(samples: np.ndarray) -> bytes:
    """Encode as A. D. Wilson describes: runs of zeros, then runs of differences."""
    flat, nibbles, previous = samples.reshape(-1).tolist(), [], 0
    while flat:
        zeros = next((at for at, sample in enumerate(flat) if sample), len(flat))
        run = flat[zeros:next((at for at in range(zeros, len(flat)) if not flat[at]), len(flat))]
        nibbles += octal_nibbles(zeros) + octal_nibbles(len(run))
        for sample in run:
            difference, previous = sample - previous, sample
            nibbles += octal_nibbles(2 * difference if difference >= 0 else -2 * difference - 1)
        flat = flat[zeros + len(run):]
    text = ''.join(f'{nibble:x}' for nibble in nibbles)
    text += '0' * (-len(text) % 8)
    words = [int(text[at:at + 8], 16) for at in range(0, len(text), 8)]
    height, width = samples.shape
    return struct.pack(f'<{2 + len(words)}I', width, height, *words)


def compressed_depth(depth: np.ndarray, stamp_ns: int, codec: str = 'png',
                     encoding: str = '16UC1') -> bytes:
    """Serialize uint16 mm, or float32 m, as compressed_depth_image_transport does."""
    quantization = np.array([0], np.int32).tobytes()
    a, b = 0.0, 0.0
    if depth.dtype == np.float32:
        a, b = 1000.0, 1.0
        samples = np.where(np.isfinite(depth), np.round(a / depth + b), 0).astype(np.uint16)
        encoding = '32FC1'
    else:
        samples = depth
    stream = (encode_rvl(samples) if codec == 'rvl'
              else cv2.imencode('.png', samples)[1].tobytes())
    data = quantization + np.array([a, b], np.float32).tobytes() + stream
    return serialize('sensor_msgs/msg/CompressedImage', header=header(stamp_ns),
                     format=f'{encoding}; compressedDepth {codec}',
                     data=np.frombuffer(data, np.uint8))


def camera_info(d: tuple[float, ...] = (0.0,) * 5, stamp_ns: int = START_NS,
                **changes: Any) -> bytes:
    """Serialize the calibration of a camera of 24 x 16 px; `changes` are fields."""
    whole = {'x_offset': 0, 'y_offset': 0, 'height': 0, 'width': 0, 'do_rectify': False}
    fields = {
        'height': 16, 'width': 24, 'distortion_model': 'plumb_bob', 'd': np.array(d, float),
        'k': np.array(K), 'r': np.eye(3).ravel(),
        'p': np.hstack([np.reshape(K, (3, 3)), np.zeros((3, 1))]).ravel(), 'binning_x': 0,
        'binning_y': 0, 'roi': TYPES['sensor_msgs/msg/RegionOfInterest'](**whole)}
    return serialize('sensor_msgs/msg/CameraInfo', header=header(stamp_ns), **(fields | changes))


def pose_messages(x_m: float, stamp_ns: int, *, frame_id: str = 'odom',
                  child_frame_id: str = 'base_link', xyzw: tuple[float, ...] = (
                      0.0, 0.0, 0.0, 1.0)) -> dict[str, bytes]:
    """Serialize /odom and /tf of a robot at x = `x_m`."""
    point = TYPES['geometry_msgs/msg/Point'](x=x_m, y=0.0, z=0.0)
    twist = TYPES['geometry_msgs/msg/Twist'](linear=vector(0.0, 0.0, 0.0),
                                             angular=vector(0.0, 0.0, 0.0))
    odometry = serialize(
        'nav_msgs/msg/Odometry', header=header(stamp_ns, frame_id), child_frame_id=child_frame_id,
        pose=TYPES['geometry_msgs/msg/PoseWithCovariance'](
            pose=TYPES['geometry_msgs/msg/Pose'](position=point, orientation=quaternion(*xyzw)),
            covariance=np.zeros(36)),
        twist=TYPES['geometry_msgs/msg/TwistWithCovariance'](twist=twist,
                                                             covariance=np.zeros(36)))
    return {'/odom': odometry,
            '/tf': transform(frame_id, child_frame_id, (x_m, 0.0, 0.0), xyzw, stamp_ns)}


def transform(parent: str, child: str, xyz: tuple[float, ...], xyzw: tuple[float, ...] = (
        0.0, 0.0, 0.0, 1.0), stamp_ns: int = START_NS) -> bytes:
    """Serialize a tf2_msgs TFMessage with one transform."""
    stamped = TYPES['geometry_msgs/msg/TransformStamped'](
        header=header(stamp_ns, parent), child_frame_id=child,
        transform=TYPES['geometry_msgs/msg/Transform'](translation=vector(*xyz),
                                                       rotation=quaternion(*xyzw)))
    return serialize('tf2_msgs/msg/TFMessage', transforms=[stamped])


def vector(x: float, y: float, z: float) -> Any:
    """Create a Vector3."""
    return TYPES['geometry_msgs/msg/Vector3'](x=x, y=y, z=z)


def quaternion(x: float = 0.0, y: float = 0.0, z: float = 0.0, w: float = 1.0) -> Any:
    """Create a Quaternion."""
    return TYPES['geometry_msgs/msg/Quaternion'](x=x, y=y, z=z, w=w)
