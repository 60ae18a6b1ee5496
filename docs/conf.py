"""How Sphinx builds these pages: `make docs` writes them to docs/_build/html."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
# The package that the reference pages are generated from, and the extensions beside this file.
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

project = "hpc-lpm"
author = "The hpc-lpm developers"
copyright = "The hpc-lpm developers, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_parts"]
exclude_patterns = ["_build"]
root_doc = "index"
# Two dashes begin an option more often than they mean a dash.
smartquotes = False

# Docstrings are in Google's style, with code between single backquotes as in Markdown; types stand
# with each argument, and long signatures have a line for each.
napoleon_numpy_docstring = False
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 80
add_module_names = False

# Headings down to this level can be linked to by the same anchors as on code hosts.
myst_heading_anchors = 4

html_theme = "furo"
html_title = "hpc-lpm"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
