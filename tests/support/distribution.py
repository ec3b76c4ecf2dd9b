"""Debian's `docker-registry` on a free loopback port, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from subprocess import PIPE
from typing import TYPE_CHECKING

from support.engines import need
from support.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "user", "password"
"""Who may use a registry that was started with `auth=True`."""

_HTPASSWD = f"{USER}:$2b$05$LhayLxezLhK1LhWvKxCyLO4XRFevcDuwbjkfQgCC06agHN7E/gQhm\n"

_CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {folder}, maxthreads: 100}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}", secret: tests{tls}}}
{auth}
{proxy}
"""


@contextlib.contextmanager
def distribution(
    *, auth: bool = False, folder: str = "", tls: tuple[str, str] | None = None, cache_of: str = "", port: int = 0
) -> Iterator[str]:
    """Run a registry and give its `localhost:PORT`. Its files go with it unless `folder` is given.

    It speaks plain HTTP, or HTTPS with the certificate and key in `tls`. `cache_of`: the registry whose pull-through cache
    it is. `port`: that of an earlier one; by default the kernel chooses it.
    """
    program = need("docker-registry")
    with tempfile.TemporaryDirectory(prefix="lamella-registry-") as own:
        users = os.path.join(own, "htpasswd")
        with open(users, "w", encoding="ascii") as file:
            file.write(_HTPASSWD)
        config = os.path.join(own, "config.yml")
        with open(config, "w", encoding="utf-8") as file:
            basic = f"auth: {{htpasswd: {{realm: tests, path: {users}}}}}" if auth else ""
            secure = f", tls: {{certificate: {tls[0]}, key: {tls[1]}}}" if tls else ""
            proxy = f"proxy: {{remoteurl: 'http://{cache_of}'}}" if cache_of else ""
            data = folder or os.path.join(own, "data")
            file.write(_CONFIG.format(port=port, folder=data, auth=basic, tls=secure, proxy=proxy))
        # It takes every REGISTRY_* variable for a setting of its own.
        settings = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        command = [program, "serve", config]
        with started(command, stderr=PIPE, env=settings) as process:
            assert process.stderr
            try:
                # The kernel gives the port; one that was free a moment ago may be taken now.
                said = []
                for line in process.stderr:
                    said.append(line)
                    if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                        break
                else:
                    raise AssertionError(f"docker-registry did not start: {''.join(said)}")
                drain = threading.Thread(target=process.stderr.read)
                drain.start()
                yield f"localhost:{found[1]}"
            finally:
                process.terminate()
            drain.join()
