"""Pods from Kubernetes YAML, run by podman 4.3: what a kubelet does and it does not is done here, on the text.

Images are made once a run: a minimal Debian, and the image for nodes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.engines import need, need_root
from support.node_part import node_image
from support.once import once
from support.processes import started
from support.short_folders import short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent.parent
DEBIAN, NODE = "localhost/debian:minimal", "localhost/lamella:node"


@dataclass(frozen=True, slots=True)
class Said:
    """What a pod's containers wrote, by container; and what podman did, with the reason where one could not start."""

    logs: Mapping[str, str]
    podman: str


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that runs pods: its file system is `folder`, as far as volumes of the host go."""

    folder: Path
    podman: tuple[str, ...]
    settings: Path

    def run(self, pod: str, name: str, uid: str, *, until: str = "") -> Said:
        """Runs a pod to its end, or until its last container has written a line with `until`; its containers stay."""
        manifest = self.folder / f"{name}.yaml"
        manifest.write_text(self._without_a_kubelet(_named(pod, name), uid))
        containers = re.findall(r"^    - name: (\S+)\n      image:", pod, re.MULTILINE)
        # Of a container that ends at once podman 4.3 now and then loses the exit code: what it wrote counts.
        played = self.call("play", "kube", "--network", "host", "--log-driver", "k8s-file", str(manifest))
        # Init containers may be written behind the others, and have ended before.
        own = pod.partition("\n  containers:\n")[2]
        last_name = re.findall(
            r"^    - name: (\S+)\n      image:", re.split(r"^  \w", own, flags=re.MULTILINE)[0], re.MULTILINE
        )[-1]
        # What loops for ever and never writes it is given up.
        follow = [need("timeout"), "300", *self.podman, "logs", "--follow", f"{name}-{last_name}"]
        with started(follow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._env) as last:
            assert last.stdout
            for line in last.stdout:
                if until and until in line:
                    last.terminate()
                    break
        logs = {each: self.call("logs", f"{name}-{each}") for each in containers}
        return Said({each: done.stdout + done.stderr for each, done in logs.items()}, played.stdout + played.stderr)

    def restart(self, name: str, container: str) -> str:
        """Starts a container of a pod once more; what it writes then."""
        done = self.call("start", "--attach", f"{name}-{container}")
        return done.stdout + done.stderr

    def remove(self, name: str) -> None:
        """Ends a pod. Volumes of the host stay as they are."""
        self.call("pod", "rm", "--force", "--time", "0", name)

    def call(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs one command of podman, in `folder`."""
        return subprocess.run(
            [*self.podman, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
        )

    @property
    def _env(self) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "CONTAINERS_CONF": str(self.settings)}

    def _without_a_kubelet(self, pod: str, uid: str) -> str:
        """The pod as podman 4.3 understands it."""
        # It knows neither image volumes nor secrets' `items`; the kubelet mounts both as folders.
        pod = re.sub(
            r"image:\n +reference: (\S+)\n +pullPolicy: \w+",
            lambda found: f"hostPath:\n        path: /{self._mounted(found[1])}",
            pod,
        )
        pod = re.sub(
            r"secret:\n +secretName: (\w+)\n +items:\n +- key: (\S+)\n +path: (\S+)",
            lambda found: f"hostPath:\n        path: /{self._secret(*found.groups())}",
            pod,
        )
        # It refuses values of annotations that are longer than those of labels may be.
        pod = re.sub(r"^    lamella\.dev/\S+: .*\n", "", pod, flags=re.MULTILINE)
        # It expands no variables in commands, and gives a pod a new UID each time.
        pod = re.sub(r"valueFrom:\n +fieldRef:\n +fieldPath: metadata\.uid", f"value: {uid}", pod)
        pod = re.sub(r"\$\((?:LAMELLA_)?POD_UID\)", uid, pod)
        # It mounts no part of an empty folder, gives it to no user but root, and has no controllers for limits here.
        pod = re.sub(r"emptyDir: \{\}", f"hostPath:\n        path: /{self._empty()}", pod)
        pod = re.sub(r"^      resources:\n(?: {8,}.*\n)+", "", pod, flags=re.MULTILINE)
        pod = re.sub(r"(hostPath:\n +path: )(/\S+)", rf"\g<1>{self.folder}\g<2>", pod)
        # It mounts the whole volume where a part is asked for.
        paths = dict(re.findall(r"- name: (\S+)\n +hostPath:\n +path: (\S+)", pod))
        asked = r'- name: (\S+)\n +mountPath: (\S+)\n +subPath(?:Expr)?: "?([^"\s]+)"?'
        for name, at, part in dict.fromkeys(re.findall(asked, pod)):
            own = f"{name}-part"
            pod = re.sub(rf"- name: {name}(\n +mountPath: {at})\n +subPath(?:Expr)?: \S+", rf"- name: {own}\1", pod)
            pod += f"    - name: {own}\n      hostPath:\n        path: {paths[name]}/{part}\n"
            pod += "        type: DirectoryOrCreate\n"
            # It makes the part before the init container does, and as root.
            folder = Path(paths[name], part)
            if folder.parent.name.startswith("empty-"):
                folder.mkdir()
                folder.chmod(0o777)
        return pod

    def _mounted(self, reference: str) -> str:
        self.call("pull", "--quiet", "--tls-verify=false", reference)
        mounted = self.call("image", "mount", reference)
        assert mounted.returncode == 0, mounted.stderr
        return os.path.relpath(mounted.stdout.strip(), self.folder)

    def _empty(self) -> str:
        volume = Path(tempfile.mkdtemp(prefix="empty-", dir=self.folder))
        volume.chmod(0o777)
        return volume.name

    def _secret(self, name: str, key: str, path: str) -> str:
        # As the kubelet lays it out, so that all files of a secret change at once.
        volume = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        volume.chmod(0o755)
        (volume / "..2026").mkdir()
        (volume / "..2026" / path).write_text((self.folder / "secrets" / name / key).read_text())
        (volume / "..data").symlink_to("..2026")
        (volume / path).symlink_to(f"..data/{path}")
        return volume.name


@contextmanager
def node(folder: Path, images: Path) -> Iterator[Node]:
    """A node with the images of `images` (see `make_images`)."""
    need_root()
    need("catatonit")  # the process that keeps a pod's namespaces
    with short_folder() as short:
        made = Node(
            folder,
            (*_podman(folder / "containers", short), "--storage-opt", f"additionalimagestore={images}"),
            _settings(folder),
        )
        try:
            yield made
        finally:
            made.call("pod", "rm", "--all", "--force", "--time", "0")
            _leave(folder / "containers", short)


@contextmanager
def emptied(kubelet: Node, *folders: str) -> Iterator[Node]:
    """A node without pods, which loses its pods and these folders afterwards."""
    yield kubelet
    kubelet.call("pod", "rm", "--all", "--force", "--time", "0")
    for folder in folders:
        shutil.rmtree(kubelet.folder / folder, ignore_errors=True)


def make_images(folder: Path, debian: Path) -> Path:
    """A store of podman's with the two images, made once a run in `folder`."""
    need_root()
    images = folder / "images"
    with once(images) as mine:
        if mine:
            # What an attempt that failed has left belongs to another runroot.
            shutil.rmtree(images, ignore_errors=True)
            with short_folder() as short:
                podman = Node(folder, tuple(_podman(images, short)), _settings(folder))
                try:
                    archive = folder / "root.tar"
                    subprocess.run(["tar", "-C", debian, "-cf", archive, "."], check=True)
                    path = "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                    done = podman.call("import", "--quiet", "--change", path, str(archive), DEBIAN)
                    assert done.returncode == 0, done.stderr
                    archive.unlink()
                    layout, version = node_image(folder.parent).removeprefix("oci:").rsplit(":", 1)
                    # podman names the image by this path, and takes no upper case letters there.
                    reference = f"oci:{Path(layout).name}:{version}"
                    pulled = podman.call("pull", "--quiet", reference, folder=Path(layout).parent)
                    assert pulled.returncode == 0, pulled.stderr
                    podman.call("tag", pulled.stdout.strip(), NODE)
                finally:
                    _leave(images, short)
    return images


def _leave(root: Path, short: Path) -> None:
    # podman keeps its folders mounted on themselves. Its own `system reset` would take the images of all with it.
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    for mounted in reversed([line.split()[1] for line in mounts]):
        if Path(mounted).is_relative_to(root) or Path(mounted).is_relative_to(short):
            subprocess.run(["umount", mounted], check=True)


def _podman(root: Path, short: Path) -> list[str]:
    # By default they share /run/libpod, which a `system reset` of another test takes away.
    podman = [need("podman"), "--root", str(root), "--runroot", str(short), "--tmpdir", f"{short}/libpod"]
    return [*podman, "--storage-driver", "overlay", "--runtime", need("runc"), "--cgroup-manager", "cgroupfs"]


def _settings(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "containers.conf"
    settings.write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096","nproc=4096:4096"]\n')
    return settings


def blocks(page: Path) -> list[str]:
    """The YAML blocks of a page."""
    return re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def pod_of(daemon_set: str) -> str:
    """The pod that a DaemonSet puts on each node."""
    return "apiVersion: v1\nkind: Pod\n" + textwrap.dedent(daemon_set.partition("  template:\n")[2])


def _named(pod: str, name: str) -> str:
    # Init containers that have ended stay as well, for their logs. podman takes an annotation for a label: 63 characters.
    kept = f"metadata:\n  name: {name}\n  annotations:\n    io.podman.annotations.init.container.type: always\n"
    return re.sub(
        r"^metadata:\n  name: \S+\n(?:  annotations:\n(?:    lamella\.dev/.*\n)*)?",
        kept,
        pod,
        count=1,
        flags=re.MULTILINE,
    )
