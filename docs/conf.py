"""Sphinx configuration: `make docs` builds the pages in this folder into out/docs."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from pathlib import Path
import pkgutil
import shutil
import warnings

import marigold_ros

# A page of the reference must not outlive its module.
shutil.rmtree(Path(__file__).parent / 'generated', ignore_errors=True)

# autosummary reads the docstrings of imported functions too, and not all of them are numpydoc.
warnings.filterwarnings('ignore', 'Unknown section', UserWarning)

project = 'marigold_ros'
author = 'the marigold_ros maintainers'
copyright = f'2026, {author}'  # noqa: A001, Sphinx's own name for it
version = release = installed_version('marigold_ros')

extensions = ['myst_parser', 'numpydoc', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary']
# Included by other pages.
exclude_patterns = ['results/*']
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
templates_path = ['_templates']
# A name between single backticks is a link where it names something of ours, else code.
default_role = 'py:obj'
autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
numpydoc_show_class_members = False
# A page for each package, with a section for each of its modules.
autosummary_context = {'packages': {
    each.name for each in pkgutil.walk_packages(marigold_ros.__path__, 'marigold_ros.')
    if each.ispkg}}

html_theme = 'furo'
html_title = 'marigold_ros'
html_static_path = ['_static']
html_css_files = ['pages.css']
html_show_sourcelink = False


def setup(app):
    """Keep numpydoc from adding a signature where Sphinx found none, of deque in Python 3.13."""
    app.connect('autodoc-process-signature',
                lambda *given: () if given[5] is None else None, priority=0)
