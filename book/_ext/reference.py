"""The reference of the library, from its docstrings: sphinx's autodoc, told how this project writes them.

A name in `single backticks` is code, and |S| is a number of classes, *.json a name of files: neither is
reStructuredText.
"""

import re


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-process-docstring", to_rst, priority=100)  # before napoleon takes the sections apart
    app.config.autodoc_typehints = "none"  # shapes and units stand in the text
    app.config.autodoc_member_order = "bysource"
    app.config.napoleon_google_docstring = False
    app.config.napoleon_use_param = False  # "floating array [N, C]" is a text, not names to look up
    app.config.napoleon_use_rtype = False
    app.config.nitpick_ignore_regex += [("py:.*", ".*")]  # of Python's own names, for which nothing is fetched
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def to_rst(app, what, name, obj, options, lines):
    """The docstring's lines in place, as reStructuredText; examples stay as they are."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            line = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)
            parts = re.split(r"(``.+?``)", line)
            plain = (part if part.startswith("``") else re.sub(r"(\||\*(?=\S))", r"\\\1", part) for part in parts)
            lines[number] = "".join(plain)
