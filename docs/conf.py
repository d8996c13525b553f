"""Settings of Sphinx: `make docs` builds the pages of this folder into build/docs, without network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from densecl import __version__

project = "densecl"
copyright = "densecl contributors, MIT licence"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "extension.directives"]
exclude_patterns = ["pictures"]
default_role = "code"  # docstrings write `names` with single quotes, as Markdown does
highlight_language = "text"

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a value in one list, not an entry each

html_theme = "furo"
html_title = f"densecl {version}"
html_copy_source = False
html_show_sphinx = False
