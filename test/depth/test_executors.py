"""How stages run: OpenVINO, CUDA graphs on a fake device, compilation in the background."""

from __future__ import annotations

from contextlib import nullcontext
import errno
from importlib import import_module
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from unittest.mock import patch

from checkpoints import make_checkpoint
import numpy as np
import pytest
import torch

from marigold_ros.depth import executors
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors import base, cuda_graph, executor_for, inductor
from marigold_ros.depth.executors.base import PreparingExecutor
from marigold_ros.depth.executors.blob_cache import BlobCache
from marigold_ros.depth.executors.cuda_graph import CapturedStage, CudaGraphExecutor
from marigold_ros.depth.executors.inductor import InductorExecutor
from marigold_ros.depth.executors.torch import TorchExecutor
from marigold_ros.depth.stages import NetworkStage, TensorLayout

CPU = torch.device('cpu')
RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return str(make_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'model'))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the path of an empty cache."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'marigold_ros'


def test_devices_have_their_executors(monkeypatch):
    """`auto` takes OpenVINO on a CPU where it can be imported, and torch elsewhere."""
    pytest.importorskip('openvino')
    assert executor_for('cpu').name == 'torch'
    assert executor_for('auto').name == executor_for('openvino:CPU').name == 'openvino:CPU'
    monkeypatch.setattr(executors.openvino, '_make_core', lambda: import_module('no_openvino'))
    assert executor_for('auto').name == 'torch'
    with pytest.raises(ConfigError, match="`device` 'openvino:CPU' needs OpenVINO: pip install"):
        executor_for('openvino:CPU')


def test_bfloat16_is_chosen_where_the_processor_has_it(monkeypatch):
    for capability, expected in (('amx_bf16', torch.bfloat16), ('avx512_bf16', torch.bfloat16),
                                 ('bf16', torch.bfloat16),
                                 ('avx2', torch.float32)):
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda name=capability: {name: True})
        assert executor_for('cpu').dtype == expected


def test_invalid_devices_are_rejected_by_name(monkeypatch):
    pytest.importorskip('openvino')
    with pytest.raises(ConfigError, match="`device` 'openvino:GPU' does not exist: OpenVINO has"):
        executor_for('openvino:GPU')
    with pytest.raises(ConfigError, match='`compile` is for torch'):
        executor_for('openvino:CPU', compile=True)
    # As on a processor without float16.
    monkeypatch.setattr('marigold_ros.depth.executors.openvino.CAPABILITIES',
                        {torch.float32: 'FP32'})
    with pytest.raises(ConfigError, match='`dtype` must be one that openvino:CPU has in hardware'):
        executor_for('openvino:CPU', 'float16')


@pytest.mark.parametrize('vae', ['tiny', 'kl'])
def test_openvino_equals_torch_in_float32(tmp_path, cache, vae):
    """A ragged batch and an ensemble, at sizes of which only the first was converted."""
    pytest.importorskip('openvino')
    folder = str(make_checkpoint(tmp_path / 'model', vae=vae))
    torch_engine, engine = (DepthEngine.load(folder, device=device, dtype='float32')
                            for device in ('cpu', 'openvino:CPU'))
    for (height, width), options in itertools.product(
            ((48, 64), (48, 40), (24, 64), (40, 56)), ({}, {'ensemble_size': 2})):
        frames = RGB[:height, :width], RGB[::-1][:height, :width].copy()
        expected, found = (each.infer_batch(frames, [1, 3], seed=[4, 5], **options)
                           for each in (torch_engine, engine))
        for one, two in zip(found, expected):
            assert one.num_inference_steps == two.num_inference_steps
            assert (one.latent - two.latent).abs().max() < 1e-4
            if not options:  # the alignment of random members amplifies rounding
                difference = one.affine_invariant_depth - two.affine_invariant_depth
                assert np.abs(difference).max() < 1e-4


def test_ctrl_c_after_engines_were_deleted_is_no_crash():
    """Else OpenVINO would leave a signal stack that is freed."""
    pytest.importorskip('openvino')
    done = subprocess.run([sys.executable, '-c', """
import gc, signal
from marigold_ros.depth.executors import executor_for

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
first, second = executor_for('openvino:CPU'), executor_for('openvino:CPU')
del first
gc.collect()
del second
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print('interrupted')
"""], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ('interrupted\n', 0), done.stderr


def test_a_second_start_reads_what_the_first_compiled(checkpoint, cache, monkeypatch):
    pytest.importorskip('openvino')
    engine = DepthEngine.load(checkpoint, device='openvino:CPU')
    first = engine.infer(RGB).affine_invariant_depth
    # Encode, step, decode, its head: as converted for all sizes and as compiled for one.
    assert len(list(cache.iterdir())) == 4 + 4
    again = DepthEngine.load(checkpoint, device='openvino:CPU')
    monkeypatch.setattr(executors.openvino, '_convert', None)  # would raise
    assert np.array_equal(again.infer(RGB).affine_invariant_depth, first)
    again.infer(RGB[:24])
    assert len(list(cache.iterdir())) == 4 + 4 + 4
    shutil.rmtree(cache)
    with pytest.raises(ConfigError, match='not callable'):
        DepthEngine.load(checkpoint, device='openvino:CPU').infer(RGB)


def test_a_size_that_comes_while_the_node_runs_delays_no_frame(checkpoint, cache, monkeypatch):
    """Neither converting nor exporting, which keep Python's lock, happens beside frames."""
    pytest.importorskip('openvino')
    engine = DepthEngine.load(checkpoint, device='openvino:CPU', dtype='float32')
    engine.infer(RGB)
    engine.prepare_in_background()
    for name in ('_convert', '_serialize', 'OpenVinoExecutor._export'):
        monkeypatch.setattr(f'marigold_ros.depth.executors.openvino.{name}', None)  # would raise
    eager = engine.infer(RGB[:24])
    engine._executor._preparer.submit(lambda: None).result()
    compiled = engine.infer(RGB[:24])
    assert engine.executor_name == 'openvino:CPU'  # nothing failed
    assert np.abs(compiled.affine_invariant_depth - eager.affine_invariant_depth).max() < 1e-4


@pytest.mark.parametrize('size', [100, 30_000, None])
def test_a_damaged_cache_is_made_again(checkpoint, cache, caplog, size):
    """Cut off, or with other bytes in the middle."""
    pytest.importorskip('openvino')
    expected = DepthEngine.load(checkpoint, device='openvino:CPU').infer(RGB)
    for path in cache.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content[:size])
    found = DepthEngine.load(checkpoint, device='openvino:CPU').infer(RGB)
    assert np.array_equal(found.affine_invariant_depth, expected.affine_invariant_depth)
    assert caplog.text.count('is damaged and is made again: its digest is wrong') == 8
    caplog.clear()
    DepthEngine.load(checkpoint, device='openvino:CPU').infer(RGB)
    assert not caplog.text


def test_a_bfloat16_head_returns_more_digits_than_its_dtype(checkpoint, cache):
    """The head is a model of its own, because OpenVINO sets the precision of a whole one."""
    pytest.importorskip('openvino')
    executor = DepthEngine.load(checkpoint, device='openvino:CPU')._executor
    if executor.dtype != torch.bfloat16:
        pytest.skip('this processor has no bfloat16')
    depth = executor.decode(torch.randn(1, 4, 6, 8))
    assert depth.dtype == torch.float32
    assert (depth.bfloat16().float() != depth).float().mean() > 0.9


def test_a_read_only_cache_is_read(cache):
    store = BlobCache()
    store.write('key', b'blob')
    with patch('os.utime', side_effect=PermissionError):
        assert store.read('key') == b'blob'


def test_a_full_disk_leaves_nothing_behind(cache, caplog):
    full = OSError(errno.ENOSPC, 'No space left on device')
    with patch('tempfile._TemporaryFileWrapper.write', create=True, side_effect=full):
        BlobCache().write('key', b'blob')
    assert list(cache.iterdir()) == []
    assert 'No space left on device' in caplog.text


def test_a_cache_that_cannot_be_written_is_reported_once(tmp_path, monkeypatch, caplog):
    file = tmp_path / 'file'
    file.write_text('not a folder')
    monkeypatch.setenv('XDG_CACHE_HOME', str(file))
    cache = BlobCache()
    for _ in range(2):
        cache.write('key', b'blob')
        assert cache.read('key') is None
    assert caplog.text.count('compiled models cannot be kept in') == 1
    assert str(file) in caplog.text and 'set XDG_CACHE_HOME' in caplog.text


def test_the_blobs_unused_for_longest_are_deleted(cache, monkeypatch):
    """A quarter of what would be free without them is 250 bytes."""
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(
        free=1000 - sum(path.stat().st_size for path in folder.iterdir())))
    store = BlobCache()
    for age_s, key in enumerate(['new', 'old', 'oldest']):
        store.write(key, bytes(48))  # 80 with the digest
        os.utime(cache / key, (1e9 - age_s, 1e9 - age_s))
    store.write('added', bytes(48))
    assert {path.name for path in cache.iterdir()} == {'added', 'new', 'old'}


class SlowExecutor(PreparingExecutor):
    """An executor whose preparation waits for an event, and whose stages count their runs."""

    name = 'slow'

    def __init__(self, *, fall_back=False):
        super().__init__(CPU, torch.float32, fall_back=fall_back)
        self.may_end, self.prepared_runs = threading.Event(), 0
        self.error: Exception | None = None
        self.load(SimpleNamespace(encode=lambda images: images + 1.0))

    def _prepare(self, name, inputs):
        self.may_end.wait(10.0)
        if self.error is not None:
            raise self.error

        def run(images):
            self.prepared_runs += 1
            return [images + 1.0]
        return run


def test_a_new_size_runs_eagerly_until_it_is_prepared():
    executor, images = SlowExecutor(), torch.zeros(1, 3, 8, 8)
    executor.wait = False
    assert (executor.encode(images) == 1.0).all() and executor.prepared_runs == 0
    executor.may_end.set()
    executor._preparer.submit(lambda: None).result()
    assert (executor.encode(images) == 1.0).all() and executor.prepared_runs == 1


def test_waiting_prepares_before_the_first_result():
    executor = SlowExecutor()
    executor.may_end.set()
    executor.encode(torch.zeros(2, 3, 8, 8))
    assert executor.prepared_runs == 1
    executor.error = RuntimeError('simulated')
    with pytest.raises(ConfigError, match=r'slow cannot prepare the stage encode for inputs of '
                                          r'\[2, 3, 4, 4\]: simulated\. `device` auto'):
        executor.encode(torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(('wait', 'fall_back'), [(False, False), (True, True)])
def test_what_cannot_be_prepared_runs_eagerly_and_is_reported(caplog, wait, fall_back):
    """In the background, or where the user said `auto`."""
    executor, images = SlowExecutor(fall_back=fall_back), torch.zeros(1, 3, 8, 8)
    executor.wait, executor.error = wait, RuntimeError('simulated')
    executor.may_end.set()
    for _ in range(3):
        assert (executor.encode(images) == 1.0).all()
        executor._preparer.submit(lambda: None).result()
    expected = 'slow cannot prepare the stage encode for inputs of [1, 3, 8, 8]'
    assert caplog.text.count(expected) == 1


@pytest.mark.parametrize('wait', [True, False])
def test_memory_that_runs_out_while_preparing(wait):
    """Splits the batch, or, in the background, leaves the stage as it is."""
    executor, images = SlowExecutor(), torch.zeros(2, 3, 8, 8)
    executor.wait, executor.error = wait, torch.OutOfMemoryError('simulated')
    executor.may_end.set()
    for _ in range(2):
        if wait:
            with pytest.raises(torch.OutOfMemoryError, match='simulated'):
                executor.encode(images)
            assert not executor._prepared  # nothing keeps the tensors of the failure
        else:
            assert (executor.encode(images) == 1.0).all()
            executor._preparer.submit(lambda: None).result()


def test_few_sizes_wait_to_be_prepared():
    executor = SlowExecutor()
    executor.wait = False
    for edge in range(1, 2 * base.MAX_UNFINISHED):
        executor.encode(torch.zeros(1, 3, edge, edge))
    assert len(executor._prepared) == base.MAX_UNFINISHED
    executor.may_end.set()
    executor._preparer.submit(lambda: None).result()
    executor.encode(torch.zeros(1, 3, 100, 100))
    assert len(executor._prepared) == base.MAX_UNFINISHED + 1


def test_closing_waits_for_one_stage_and_prepares_no_other():
    executor = SlowExecutor()
    executor.wait = False
    for edge in (1, 2, 3):
        executor.encode(torch.zeros(1, 3, edge, edge))
    closing = threading.Thread(target=executor.close)
    closing.start()
    executor.may_end.set()
    closing.join(10.0)
    assert not closing.is_alive()
    assert [each.cancelled() for each in executor._prepared.values()] == [False, True, True]


def test_the_number_of_prepared_stages_is_bounded(monkeypatch):
    monkeypatch.setattr(base, 'MAX_PREPARED_STAGES', 2)
    executor = SlowExecutor()
    executor.may_end.set()
    for edge in (1, 2, 1, 3, 1):  # 2 is the one unused for longest when 3 comes
        executor.encode(torch.zeros(1, 3, edge, edge))
    assert [key[2][-1] for key in executor._prepared] == [3, 1]


class FakeCuda:
    """torch.cuda's graphs on the CPU: a replay repeats what was captured, on the same memory."""

    def __init__(self, monkeypatch):
        self.captures, self.replays, self.pools = [], 0, 0
        self.recorded: list = []
        fake = self

        class Graph:
            def capture_begin(self, pool, capture_error_mode):
                assert capture_error_mode == 'thread_local'
                fake.captures.append(pool)
                fake.recorded = []

            def capture_end(self):
                self.work = fake.recorded

            def replay(self):
                fake.replays += 1
                for target, compute in self.work:
                    target.copy_(compute())

        class Stream:
            def wait_stream(self, other):
                pass

            def synchronize(self):
                pass

        def graph_pool_handle():
            fake.pools += 1
            return f'pool {fake.pools}'

        for name, value in (('CUDAGraph', Graph), ('Stream', Stream), ('current_stream', Stream),
                            ('stream', lambda stream: nullcontext()),
                            ('graph_pool_handle', graph_pool_handle)):
            monkeypatch.setattr(torch.cuda, name, value)


@torch.inference_mode()
def test_a_captured_stage_is_replayed_on_its_own_memory(monkeypatch):
    """Fewer rows than captured are padded; results survive the next replay."""
    fake, runs = FakeCuda(monkeypatch), []

    def stage(latent, bias):
        runs.append(len(latent))
        output = latent + bias
        fake.recorded.append((output, lambda: latent + bias))
        return output

    captured = CapturedStage(stage, [torch.zeros(4, 2), torch.zeros(4, 2)], 'pool')
    assert runs == [4] * (cuda_graph.WARM_UP_RUNS + 1)
    first = captured(torch.ones(3, 2), torch.full((3, 2), 2.0))[0]
    second = captured(torch.ones(4, 2), torch.full((4, 2), 4.0))[0]
    assert (first == 3.0).all() and len(first) == 3
    assert (second == 5.0).all() and len(second) == 4
    assert (fake.captures, fake.replays) == (['pool'], 2)


@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'),
                                   RuntimeError('not permitted in a capture')])
@pytest.mark.parametrize('fall_back', [False, True])
def test_what_cannot_be_captured_is_an_error_or_runs_eagerly(monkeypatch, caplog, error,
                                                             fall_back):
    """The former with a device that the user named, the latter with `auto`."""
    fake, runs = FakeCuda(monkeypatch), []

    def stage(images):
        runs.append(len(images))
        if len(runs) == cuda_graph.WARM_UP_RUNS + 1:
            raise error
        return images + 1.0

    executor = CudaGraphExecutor(CPU, torch.float32, compile=False, fall_back=fall_back)
    executor.load(SimpleNamespace(encode=stage))
    if fall_back:
        for _ in range(2):
            assert (executor.encode(torch.ones(3, 2)) == 2.0).all()
        assert executor.name == 'cuda_graph, in part eager'
        assert caplog.text.count('cuda_graph cannot prepare the stage encode') == 1
    else:
        expected = ConfigError if type(error) is RuntimeError else torch.OutOfMemoryError
        with pytest.raises(expected, match=f'{error}.*`device` auto'):
            executor.encode(torch.ones(3, 2))
    assert (fake.captures, fake.replays) == (['pool 1'], 0)
    assert executor._pool == 'pool 2'  # the other may still be in the capture


@pytest.mark.parametrize('fall_back', [False, True])
def test_without_a_compiler_graphs_are_of_eager_stages_if_auto(monkeypatch, caplog, fall_back):
    FakeCuda(monkeypatch)

    def no_triton(*_):
        raise RuntimeError('Cannot find a working triton installation')

    monkeypatch.setattr(cuda_graph, 'compile_stage', no_triton)
    executor = CudaGraphExecutor(CPU, torch.float32, compile=True, fall_back=fall_back)
    executor.load(SimpleNamespace(encode=lambda images: images + 1.0))
    if fall_back:
        executor.encode(torch.ones(1, 2))
        assert executor.name == 'cuda_graph'
        assert 'without `compile`: Cannot find a working triton' in caplog.text
    else:
        with pytest.raises(ConfigError, match='Cannot find a working triton'):
            executor.encode(torch.ones(1, 2))


def test_row_counts_share_graphs_of_powers_of_two(monkeypatch):
    FakeCuda(monkeypatch)
    executor = CudaGraphExecutor(CPU, torch.float32, compile=False, fall_back=False)
    assert [executor._rows_per_call(n) for n in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]


def test_a_cuda_device_gets_graphs(monkeypatch):
    FakeCuda(monkeypatch)
    monkeypatch.setattr(executors, 'resolve_device', lambda device: torch.device('cuda'))
    monkeypatch.setattr(executors, 'resolve_dtype', lambda dtype, device: torch.bfloat16)
    assert executor_for('cuda').name == 'cuda_graph'
    assert executor_for('auto', compile=True).name == 'cuda_graph, inductor'


def test_a_compile_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    file = tmp_path / 'file'
    file.write_text('not a folder')
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(file))
    with pytest.raises(ConfigError, match=f"`compile` .* TORCHINDUCTOR_CACHE_DIR is '{file}'"):
        executor_for('cpu', compile=True)


def inductor_executor():
    executor = InductorExecutor(CPU, torch.float32)
    executor.load(SimpleNamespace(encode=NetworkStage(
        torch.nn.ReLU(), TensorLayout(torch.float32, torch.channels_last))))
    return executor


def test_inductor_compiles_in_a_process_of_its_own_and_only_once(cache, monkeypatch):
    """Tracing in this process would trace the stages that run meanwhile in other threads."""
    images = torch.arange(-3.0, 3.0).reshape(1, 1, 2, 3)
    with patch.object(torch.export, 'export', None):  # would raise
        assert (inductor_executor().encode(images) == images.relu()).all()
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(inductor, 'COMPILE', "raise SystemExit('simulated')")
    again = inductor_executor()
    assert (again.encode(images) == images.relu()).all()
    with pytest.raises(ConfigError, match='inductor cannot prepare .*ended with 1: simulated'):
        again.encode(images[..., :2])


def test_closing_ends_the_compiler(cache):
    executor = inductor_executor()
    executor.wait = False
    assert (executor.encode(torch.zeros(1, 1, 2, 3)) == 0.0).all()
    while executor._compiler is None:
        time.sleep(0.01)
    executor.close()
    assert executor._compiler.returncode == -signal.SIGKILL
    assert not cache.exists()


def test_graphs_for_a_size_that_comes_while_the_node_runs_are_of_eager_stages(monkeypatch):
    """Compiling traces, see above."""
    FakeCuda(monkeypatch)
    monkeypatch.setattr(cuda_graph, 'compile_stage', lambda stage, inputs: lambda images: images)
    executor = CudaGraphExecutor(CPU, torch.float32, compile=True, fall_back=False)
    executor.load(SimpleNamespace(encode=lambda images: images + 1.0))
    assert (executor.encode(torch.zeros(1, 2)) == 0.0).all()
    executor.wait = False
    for _ in range(2):
        assert (executor.encode(torch.zeros(1, 3)) == 1.0).all()
        executor._preparer.submit(lambda: None).result()


def test_a_broken_openvino_falls_back_only_with_auto(monkeypatch, caplog):
    def break_down(*_, **__):
        raise ConfigError('simulated')

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(executors, 'OpenVinoExecutor', break_down)
    assert isinstance(executor_for('auto'), TorchExecutor)
    assert 'the networks run with torch, more slowly: simulated' in caplog.text
    with pytest.raises(ConfigError, match='simulated'):
        executor_for('openvino:CPU')
