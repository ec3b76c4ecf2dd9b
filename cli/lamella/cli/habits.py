"""Words of docker, kubectl, helm, uv, pip, conda, conda-pack, pixi, coiled, dask and ray: the verb of Lamella that does it, or how to get there.

Only imported for a command line that Lamella does not know.
"""

from __future__ import annotations

import os
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIASES = {"unmount": "umount", "cp": "copy", "du": "df"}
"""Other names of verbs, if they can mean nothing else."""

_INSTALLERS = "Lamella installs no packages; use pip, uv, conda or pixi, then lamella push REFERENCE"
_SHELL = "use lamella run REFERENCE -- bash"
_PACK = "use lamella export PREFIX env.tar.gz for an environment on this disk, or give a reference for PREFIX"
_UNPACK = "exports need no fixing; use tar -x, then source bin/activate"
_FREE = "use lamella gc --older-than 30d, or lamella gc --layer-cache --older-than 30d for built layers"
_PUSH = "use lamella push REFERENCE, which builds the layers from the environment on this disk"
_PULL = "use lamella pull REFERENCE, then lamella run or lamella mount"
_PACKAGES = "use lamella scan for an environment on this disk, or lamella inspect REFERENCE for a pushed one"
_LISTS = "use lamella ls for the store, lamella scan for an environment on this disk, or lamella tags REPOSITORY"
_STATE = "use lamella ls, which shows each mount; Lamella has no daemon and no containers"
_MANIFEST = "use lamella inject FILE --env REFERENCE, then kubectl apply -f -, which reads what it prints"
_EDITS = "use lamella push --watch REFERENCE here, and lamella run --follow REFERENCE -- COMMAND on nodes"
_SERVICE = "use lamella agent for a node, or lamella inject --daemonset --allow for every node of a cluster"
_CLUSTER = "use lamella.integrations in Python for Dask and Ray, or lamella run REFERENCE -- COMMAND in a job"
_STOP = "use lamella umount TARGET; a command that lamella run started ends by itself"
_TAG = "use lamella copy SOURCE DESTINATION, which uploads nothing within a registry"
_SETTINGS = "write LAMELLA_* variables or ~/.config/lamella/config.toml; see lamella help"
_DELETE = "use lamella untag REFERENCE for a tag, or lamella gc --older-than 30d for this machine's store"
_VERBS = {
    _INSTALLERS: "install add create update upgrade remove uninstall lock init pip tool global self env venv python",
    _SHELL: "shell exec activate deactivate shell-hook sh bash",
    _PACK: "pack conda-pack package save archive tar zip squashfs",
    _UNPACK: "unpack conda-unpack",
    _FREE: "clean prune cache system clear",
    _PUSH: "build publish upload deploy commit",
    _PULL: "sync download load import restore",
    _PACKAGES: "tree freeze show packages",
    _LISTS: "list images image",
    _STATE: "ps container containers logs top",
    _MANIFEST: "apply kubectl helm kustomize kubernetes k8s template render patch pod",
    _EDITS: "watch follow dev live reload",
    _SERVICE: "serve server daemon daemonset node controller",
    _CLUSTER: "dask ray cluster submit job spark slurm",
    _STOP: "start stop restart kill",
    _TAG: "tag retag rename mv move promote",
    _SETTINGS: "config settings set",
    _DELETE: "rmi rm delete",
    "use lamella inspect REFERENCE": "info manifest history digest layers describe cat",
    "use lamella tags REPOSITORY": "search catalog repo repository repositories",
    "use lamella artifacts REFERENCE": "discover referrers",
    "use lamella push --sign KEY REFERENCE": "sign",
    "use lamella inspect --sbom REFERENCE": "sbom",
    "use lamella explain PATH": "which whereis owns provides",
    "use lamella verify, or lamella verify REFERENCE": "check validate doctor fsck",
    "use lamella --version": "version",
}
VERBS = {word: hint for hint, words in _VERBS.items() for word in words.split()}
"""Hints by word. A word that is a verb of Lamella by now is never looked up."""

_STDIN = "every process can read a command line; pipe the password to lamella login REGISTRY -u NAME --password-stdin"
_TERMINAL = "leave it out: the command has this terminal, folder, network and user"
_ENVIRONMENT = "set the variable before: NAME=VALUE lamella run REFERENCE -- COMMAND"
_FLAGS = {
    ("login", _STDIN): "-p --password --token --password-file",
    ("run", _TERMINAL): "-i -t -it -ti --interactive --tty --rm -d --detach --network --net -w --workdir --user --name "
    "-p --publish -P --publish-all --hostname --ipc --shm-size --no-capture-output --live-stream",
    ("run", _ENVIRONMENT): "-e --env --env-file",
    ("run", "the command sees this machine's folders; leave it out"): "--volume --mount -B --bind",
    ("run", "the command sees this machine's devices; leave it out"): "--gpus --device --nv --rocm --privileged",
    ("run", "write the command behind --: lamella run REFERENCE -- COMMAND"): "--entrypoint",
    ("run", "write it behind --: lamella run REFERENCE -- python -m MODULE"): "-m --module",
    ("run", "write it behind --: lamella run REFERENCE -- python -c CODE"): "-c",
    ("run", "name the environment by its reference: lamella run REFERENCE -- COMMAND"): "-n --prefix",
    ("run", _INSTALLERS): "--with --with-requirements --with-editable --extra --group --python",
    ("push", "give the folder as an argument: lamella push REFERENCE PREFIX"): "-p --prefix -n --name",
    ("push", "give the reference as an argument: lamella push REFERENCE"): "-t --tag",
    ("push", "set the base image with --base REFERENCE"): "--from",
    ("push", "use --watch"): "-w",
    ("run", "use --follow"): "-f",
    ("mount", "use --follow"): "-f",
    (
        "inject",
        "give the manifest as an argument: lamella inject FILE --env REFERENCE",
    ): "-f --filename --file --values",
    ("inject", "give the output of kustomize build: kustomize build FOLDER | lamella inject - --env REFERENCE"): "-k "
    "--kustomize",
    ("inject", "use --env REFERENCE"): "-e -t -r --tag --ref --reference --lamella",
    ("inject", "use --container NAME"): "-c --containers",
    ("inject", "use --pull-secret NAME"): "--secret --image-pull-secret --imagePullSecrets --image-pull-secrets",
    ("inject", "pods keep the namespace of their manifest; leave it out"): "-n",
    ("inject", "leave it out: inject only prints, unless --output or --in-place"): "--dry-run",
    ("inject", "use --path PATH"): "--mount-path --target",
    ("inject", "use --remove"): "--uninject --delete",
    ("agent", "use --allow HOST/REPOSITORY"): "--registry --allow-registry --allowed-registries",
    ("agent", "use --keep SIZE, or --min-free PERCENT"): "--max-size --cache-size",
    ("agent", "use --every SECONDS"): "--interval",
    ("scan", "give the folder as an argument: lamella scan PREFIX"): "-p --prefix -n --name",
    ("export", "give the path as an argument: lamella export PREFIX env.tar.gz"): "-o --output -O --out",
    ("export", "give the folder as an argument: lamella export PREFIX env.tar.gz"): "-p -n --name",
    ("export", "use --prefix PATH"): "-d --dest-prefix",
    ("export", "use --threads N"): "-j --n-threads --jobs",
    ("export", "leave it out: links stay links, and ZIP64 is used if needed"): "--zip-symlinks --no-zip-64",
    ("export", "leave it out: editable packages ship, and missing files are findings"): "--ignore-editable-packages "
    "--ignore-missing-files",
    ("export", "name the file NAME-VERSION-DISTRIBUTION.parcel"): "--parcel-name --parcel-version --parcel-distro",
    ("copy", "use lamella copy: every platform is copied"): "-a --all",
    ("gc", "use --all, or --older-than 30d"): "-a",
    ("gc", "use --yes"): "-f --force -y",
    ("umount", "use --lazy"): "-f --force -l",
}
FLAGS = {(verb, flag): hint for (verb, hint), flags in _FLAGS.items() for flag in flags.split()}
"""Hints by verb and flag."""
EVERYWHERE = {
    "--tls-verify": "use --insecure for plain HTTP, or --ca-file FILE",
    "--plain-http": "use --insecure",
    "--skip-tls-verify": "use --insecure for plain HTTP, or --ca-file FILE",
    "--creds": "use lamella login",
    "--username": "use lamella login",
    "--authfile": "set DOCKER_CONFIG to the folder of config.json",
    "--arch": "use --platform OS/ARCH",
    "--debug": "use --verbose; LAMELLA_DEBUG=1 shows tracebacks",
    "--cache-dir": "use --cache FOLDER",
    "--no-cache": 'use --cache "$(mktemp -d)"',
}


def verb_hint(word: str) -> str:
    """Return how Lamella does what `word` does elsewhere; empty for an unknown word."""
    return VERBS.get(word.lower(), "")


def flag_hint(verb: str, flag: str) -> str:
    """Return how `verb` does what `flag` does elsewhere; empty for an unknown flag."""
    return FLAGS.get((verb, flag)) or EVERYWHERE.get(flag, "")


_READING = frozenset(["artifacts", "inspect", "mount", "pull", "run", "tags", "untag", "verify"])
"""Verbs that take references, not environments on this disk."""


def _is_layout_or_environment(word: str) -> bool:
    return any(os.path.isfile(f"{word}/{name}") for name in ("oci-layout", "pyvenv.cfg"))


def path_sentence(verb: str, words: Sequence[str], sentence: str) -> str:
    """Return what to type instead of a path that `sentence` finds invalid as a reference, or looked for on docker.io.

    Else `sentence`.
    """
    path = next((word for word in words if sentence.startswith(f"{word}: ") and os.path.exists(word)), "")
    if not path and sentence.startswith("docker.io"):
        own = words[: list(words).index("--")] if "--" in words else words
        path = next((word for word in own if verb in _READING and _is_layout_or_environment(word)), "")
    if not path or path.startswith("-"):
        return sentence
    shown = quote(path)
    if os.path.isfile(path):
        return f"{path}: a file, not a reference; write REGISTRY/REPOSITORY:TAG"
    if os.path.isfile(f"{path}/oci-layout"):
        return f"{path}: an OCI layout folder; write {quote(f'oci:{path}')}:TAG"
    if not any(os.path.exists(f"{path}/{name}") for name in ("pyvenv.cfg", "conda-meta", "bin/python")):
        return sentence if verb != "push" else f"{path}: a folder, not a reference; use lamella push REFERENCE"
    instead = f"lamella scan {shown}" if verb in {"inspect", "tags", "verify"} else f"lamella push REFERENCE {shown}"
    return f"{path}: an environment on this disk, not a reference; use {instead}"
