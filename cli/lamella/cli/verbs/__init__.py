"""One module per verb, imported when it is the one that runs: `configure` its parser, `run` it.

`SETTINGS` are the options that may also come from the environment and from pyproject.toml.
"""
