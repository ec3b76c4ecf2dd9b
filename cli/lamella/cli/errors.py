"""The command's own error."""


class UsageError(Exception):
    """Invalid command line, variable or settings file; exit code 2."""
