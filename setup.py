"""Build marigold_ros as an ament_python package; `pip install -e .` works as well."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'marigold_ros'


def shared_files():
    """Install what lies in these folders below share/, folder by folder."""
    folders = [folder for root in ('launch', 'config', 'sample')
               for folder in [Path(root), *Path(root).rglob('*')]
               if folder.is_dir() and folder.name != '__pycache__']
    return [(f'share/{PACKAGE}/{folder}', [str(p) for p in folder.iterdir() if p.is_file()])
            for folder in folders]


setup(
    name=PACKAGE,
    version='0.1.0',
    description='Adaptive-step Marigold depth for ROS 2',
    license='Apache-2.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['models/*/*', 'models/*/*/*', 'evaluation/report/*.j2']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *shared_files(),
    ],
    python_requires='>=3.10',
    extras_require={'fleet': ['ray']},
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'depth_node = marigold_ros.ros.main:main',
            'play_bag = marigold_ros.ros.tools.play_bag:main',
            'record_bag = marigold_ros.ros.tools.record_bag:main',
            'demo = marigold_ros.ros.tools.demo:main',
            'finetune = marigold_ros.training.finetune:main',
            'evaluate = marigold_ros.evaluation.evaluate:main',
            'average_checkpoints = marigold_ros.training.average_checkpoints:main',
            'train_vae = marigold_ros.training.train_vae:main',
        ],
    },
)
