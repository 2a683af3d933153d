"""Cores and GPUs of a task on a Ray cluster."""

from __future__ import annotations

import pytest

from marigold_ros.depth.errors import ConfigError

ray_pool = pytest.importorskip('marigold_ros.evaluation.fleet.ray_pool',
                               reason='pip install .[fleet]')


@pytest.mark.parametrize(('device', 'cluster_gpus', 'gpus'), [
    ('cpu', 0, 0), ('cpu', 8, 0), ('auto', 0, 0), ('auto', 8, 1), ('cuda', 8, 1),
    ('openvino:CPU', 8, 0)])
def test_a_task_takes_a_gpu_only_if_it_uses_one(device, cluster_gpus, gpus):
    assert ray_pool.task_resources(device, cluster_gpus) == {'num_cpus': 1, 'num_gpus': gpus}


def test_a_gpu_that_no_node_has_is_rejected():
    """Tasks would wait for ever."""
    with pytest.raises(ConfigError, match="`device` must be cpu or auto .* got 'cuda'"):
        ray_pool.task_resources('cuda', 0)
