"""A module for each verb: `configure` adds its arguments, `run` runs it, `SETTINGS` are its own."""
