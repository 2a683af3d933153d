"""Build marigold_ros as an ament_python package; `pip install -e .` works as well."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'marigold_ros'


def sample_files():
    """Install the sample drive beside the launch files, folder by folder."""
    folders = [Path('sample'), *(p for p in Path('sample').rglob('*') if p.is_dir())]
    return [(f'share/{PACKAGE}/{folder}', [str(p) for p in folder.iterdir() if p.is_file()])
            for folder in folders if folder.is_dir()]


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
        (f'share/{PACKAGE}/launch', glob('launch/*.launch.py')),
        (f'share/{PACKAGE}/config', [p for p in glob('config/*') if Path(p).is_file()]),
        *sample_files(),
    ],
    python_requires='>=3.10',
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'depth_node = marigold_ros.ros.main:main',
            'play_bag = marigold_ros.ros.tools.play_bag:main',
            'record_bag = marigold_ros.ros.tools.record_bag:main',
            'demo = marigold_ros.ros.tools.demo:main',
            'finetune = marigold_ros.training.finetune:main',
            'evaluate = marigold_ros.evaluation.evaluate:main',
            'train_vae = marigold_ros.training.train_vae:main',
        ],
    },
)
