"""Sphinx settings."""

from importlib.metadata import version as installed_version

project = "persona-probe"
author = "The persona-probe developers"
copyright = "2026, the persona-probe developers"  # noqa: A001
release = version = installed_version("persona-probe")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "persona-probe"
exclude_patterns = ["_build"]
nb_execution_mode = "off"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
