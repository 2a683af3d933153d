"""The documentation builds without a warning, and its pages keep their promises."""

from __future__ import annotations

from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ROOT / 'README.md', ROOT / 'CONTRIBUTING.md'
PAGES = sorted((ROOT / 'docs').glob('*.md'))
MODEL_CARD = ROOT / 'marigold_ros' / 'models' / 'tiny' / 'README.md'
LINK = re.compile(r'\]\(([^)#\s]+)(?:#[^)]*)?\)')


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    result = subprocess.run(
        [sys.executable, '-m', 'sphinx', '--quiet', '--fail-on-warning', '--keep-going',
         str(ROOT / 'docs'), str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'generated' / 'marigold_ros.depth.html').is_file()


def test_the_readme_is_one_page():
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_the_question_that_it_answers(page):
    text = CONTRIBUTING.read_text() if page.stem == 'contributing' else page.read_text()
    assert re.match(r'# .+\n\n> [^\n]*(\n> [^\n]*)*\?\n', text)


@pytest.mark.parametrize('page', [README, CONTRIBUTING, MODEL_CARD, *PAGES],
                         ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = [target for target in LINK.findall(page.read_text()) if '://' not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_and_installation_show_the_same_steps():
    """The steps that a robot's user types, and no others, stand in the Dockerfile too."""
    installation = (ROOT / 'docs' / 'installation.md').read_text()
    steps = re.search(r'```sh\n(source /opt/ros/jazzy.*?)```', installation, re.DOTALL).group(1)
    assert steps in README.read_text()
    dockerfile = (ROOT / 'Dockerfile').read_text()
    for step in ('rosdep install --from-paths src --ignore-src -y',
                 'python3 -m venv --system-site-packages venv && touch venv/COLCON_IGNORE',
                 '-r src/marigold_ros/requirements-robot.txt', 'python -m colcon build',
                 'source /opt/ros/jazzy/setup.bash'):
        assert step in steps and step in dockerfile
