"""Folders whose names and metadata contradict their files: the files are right."""

from __future__ import annotations

from bag_fixtures import START_NS, STORE, text, write_bag
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
import yaml

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.depth.errors import BagError

STRING = 'std_msgs/msg/String'
TEXTS = [text(letter) for letter in 'abcdef']


def write(folder, storage=StoragePlugin.MCAP, mode=CompressionMode.NONE):
    """Write three texts, 1 s apart."""
    version = 9 if storage is StoragePlugin.MCAP else 8
    writer = Writer(folder, version=version, storage_plugin=storage)
    if mode is not CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/note', STRING, typestore=STORE)
        for number, data in enumerate(TEXTS[:3]):
            writer.write(connection, START_NS + number * 10 ** 9, data)
    return folder


def write_split(folder):
    """Write six texts in two files, of which the later has the earlier name."""
    for name, first in (('b', 0), ('a', 3)):
        write_bag(folder / name, {'/note': STRING}, [
            ('/note', number * 10 ** 9, TEXTS[number]) for number in range(first, first + 3)])
        (folder / name / f'{name}.mcap').rename(folder / f'{name}.mcap')
        (folder / name / 'metadata.yaml').rename(folder / 'metadata.yaml')
        (folder / name).rmdir()
    edit(folder, relative_file_paths=['b.mcap', 'a.mcap'])
    return folder


def edit(folder, **changes):
    """Change entries of the metadata."""
    path = folder / 'metadata.yaml'
    metadata = yaml.safe_load(path.read_text())
    metadata['rosbag2_bagfile_information'].update(changes)
    path.write_text(yaml.safe_dump(metadata))


def edit_topic(folder, **changes):
    metadata = yaml.safe_load((folder / 'metadata.yaml').read_text())
    topics = metadata['rosbag2_bagfile_information']['topics_with_message_count']
    topics[0]['topic_metadata'].update(changes)
    edit(folder, topics_with_message_count=topics)


def read(path, *, recover=False):
    with open_bag(path, recover=recover) as bag:
        assert bag.topic('/note', STRING).message_count >= 1
        return [message.data for message in bag.messages()], bag.data_loss


def rename_file(folder):
    file, = (each for each in folder.iterdir() if each.suffix != '.yaml')
    file.rename(folder / f'drive{file.suffix}')


CONTRADICTIONS = {
    'no metadata': lambda folder: (folder / 'metadata.yaml').unlink(),
    'metadata of no form': lambda folder: (folder / 'metadata.yaml').write_text('{'),
    'other metadata': lambda folder: (folder / 'metadata.yaml').write_text('a: 1'),
    'renamed file': rename_file,
    'no storage': lambda folder: edit(folder, storage_identifier=''),
    'later version': lambda folder: edit(folder, version=99),
    'too high a count': lambda folder: edit(folder, message_count=80),
    'no QoS': lambda folder: edit_topic(folder, offered_qos_profiles=[]),
    'broken QoS': lambda folder: edit_topic(folder, offered_qos_profiles='{'),
    'other type': lambda folder: edit_topic(folder, type='std_msgs/msg/Int8'),
    'other topic': lambda folder: edit_topic(folder, name='/other'),
    'no topic': lambda folder: edit(folder, topics_with_message_count=[]),
    'other format': lambda folder: edit_topic(folder, serialization_format='wrong')}


@pytest.mark.parametrize('contradiction', CONTRADICTIONS)
@pytest.mark.parametrize('storage', StoragePlugin)
def test_the_file_is_read_whatever_the_metadata_says(tmp_path, storage, contradiction):
    folder = write(tmp_path / 'bag', storage)
    CONTRADICTIONS[contradiction](folder)
    assert read(folder) == (TEXTS[:3], None)


@pytest.mark.parametrize('keep_metadata', [True, False])
@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize('storage', StoragePlugin)
def test_compressed_bags_need_no_metadata(tmp_path, storage, mode, keep_metadata):
    folder = write(tmp_path / 'bag', storage, mode)
    if not keep_metadata:
        (folder / 'metadata.yaml').unlink()
    assert read(folder) == (TEXTS[:3], None)


@pytest.mark.parametrize('keep_metadata', [True, False])
def test_the_files_of_a_split_recording_are_read_in_order_of_time(tmp_path, keep_metadata):
    folder = write_split(tmp_path)
    if not keep_metadata:
        (folder / 'metadata.yaml').unlink()
    assert read(folder) == (TEXTS, None)


def test_files_of_the_same_time_are_merged(tmp_path):
    for name, numbers in (('one', (0, 2, 4)), ('two', (1, 3, 5))):
        write_bag(tmp_path / name, {'/note': STRING}, [
            ('/note', number, TEXTS[number]) for number in numbers])
        (tmp_path / name / f'{name}.mcap').rename(tmp_path / f'{name}.mcap')
    assert read(tmp_path) == (TEXTS, None)


def test_a_missing_file_is_a_loss(tmp_path):
    (write_split(tmp_path) / 'a.mcap').unlink()
    loss = f'{tmp_path} lacks 1 of the files that its metadata.yaml names'
    assert read(tmp_path, recover=True) == (TEXTS[:3], loss)
    with pytest.raises(BagError, match=loss):
        read(tmp_path)


def test_an_empty_file_of_several_is_a_loss(tmp_path):
    (write_split(tmp_path) / 'a.mcap').write_bytes(b'')
    texts, loss = read(tmp_path, recover=True)
    assert texts == TEXTS[:3]
    assert 'a.mcap: unreadable or truncated (it does not begin as' in loss
    with pytest.raises(BagError, match='a.mcap: unreadable or truncated'):
        read(tmp_path)


def test_a_file_that_does_not_belong_to_the_recording_is_not_read(tmp_path):
    folder = write(tmp_path / 'bag')
    write(tmp_path / 'other', StoragePlugin.SQLITE3)
    (tmp_path / 'other' / 'other.db3').rename(folder / 'other.db3')
    assert read(folder) == (TEXTS[:3], None)
    (folder / 'metadata.yaml').unlink()
    with pytest.raises(BagError, match=r'several formats \(db3, mcap\); choose one file'):
        read(folder)


def test_a_file_may_have_any_name(tmp_path):
    (write(tmp_path / 'bag') / 'bag.mcap').rename(tmp_path / 'drive')
    assert read(tmp_path / 'drive') == (TEXTS[:3], None)


def test_a_folder_without_a_bag_file_is_rejected(tmp_path):
    with pytest.raises(BagError, match='it holds no .mcap, .db3 or .bag file'):
        read(tmp_path)
