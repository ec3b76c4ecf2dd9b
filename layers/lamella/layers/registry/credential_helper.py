"""Programs named `docker-credential-NAME`, which keep credentials in place of a file.

Each action is one run: it reads a server or a JSON object, and answers in JSON. Source:
docker-credential-helpers, README.md, "Development".
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import Any

from lamella.layers.errors import CredentialsError

TIMEOUT = 60.0
"""Seconds for one run: a keychain may ask its user for a password."""

# Helpers have no status for it; these are the texts that Docker's clients compare.
_NOT_FOUND = (
    "credentials not found in native keychain",
    "no credentials server URL",
    "The specified item could not be found",
)


def get(helper: str, server: str) -> tuple[str, str] | None:
    """Return the stored user name and secret for `server`, or None. Raises `CredentialsError`."""
    output = _run(helper, "get", server, server)
    if output is None:
        return None
    try:
        answer: Any = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
        if isinstance(username, str) and isinstance(secret, str):
            return username, secret
    except (ValueError, RecursionError, LookupError, TypeError):
        pass
    raise _failure(helper, server, "its answer is not the JSON of a credential helper")


def store(helper: str, server: str, username: str, secret: str) -> None:
    """Store a user name and secret for `server`, replacing others. Raises `CredentialsError`."""
    entry = {"ServerURL": server, "Username": username, "Secret": secret}
    if _run(helper, "store", server, json.dumps(entry)) is None:
        raise _failure(helper, server, "it could not store them")


def erase(helper: str, server: str) -> bool:
    """Remove the credentials for `server`; return whether there were any. Idempotent.

    Raises `CredentialsError`.
    """
    return _run(helper, "erase", server, server) is not None


def _run(helper: str, action: str, server: str, text: str) -> bytes | None:
    """Return the helper's output, or None if it has no credentials for the server."""
    command = [f"docker-credential-{helper}", action]
    try:
        # In a session of its own, it and its children can be ended together.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise _failure(helper, server, f"it cannot be run: {error}") from error
    with process:
        try:
            output, _ = process.communicate(text.encode(), TIMEOUT)
        except subprocess.TimeoutExpired:
            raise _failure(helper, server, f"no answer within {TIMEOUT:.0f} seconds") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        return output
    # Any other output may hold a secret: no message shows it.
    if any(text.encode() in output for text in _NOT_FOUND):
        return None
    raise _failure(helper, server, f"exit code {process.returncode}")


def _failure(helper: str, server: str, problem: str) -> CredentialsError:
    return CredentialsError(
        f"docker-credential-{helper}: the credential helper failed for {server}: {problem}; "
        f"try it with: echo {server} | docker-credential-{helper} get"
    )
