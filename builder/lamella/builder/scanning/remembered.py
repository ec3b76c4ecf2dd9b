"""Remember what follows from an environment's inventory: who owns each file, what its libraries need, the findings.

An unchanged environment is walked, and its records are read; the rest of its scan is then read back. The key
has everything that the rest depends on: the inventory with each file's stat, options and variables, and the code.
What the rest asks this disk besides is noted with the answers, and asked again. See docs/adr/how-files-are-known.md.
"""

from __future__ import annotations

import functools
import hashlib
import json
import marshal
import os
import struct
import sys
from array import array
from dataclasses import fields
from itertools import islice
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import lamella.layers
from lamella.builder.environment import File, LeftOut, Needs, Package, RunPath
from lamella.builder.files.content_cache import is_settled
from lamella.builder.files.content_listing import identity
from lamella.builder.installed import conda_specs
from lamella.builder.installed.distributions import Distribution
from lamella.builder.installed.record import Record
from lamella.builder.prefix.places import prefixes
from lamella.builder.scanning.disk import still_holds
from lamella.builder.scanning.packages import file_of
from lamella.layers.oci.documents import Platform
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamella.builder.files.content_cache import ContentCache
    from lamella.builder.installed.inventory import Inventory
    from lamella.builder.prefix.interpreter import Prefix
    from lamella.builder.prefix.walk import FoundFile
    from lamella.builder.scanning.disk import Disk, Noted
    from lamella.builder.scanning.options import ScanOptions

_SIZES = struct.Struct("<II")
_DIGEST = 32
_NO_DIGEST = "0" * 2 * _DIGEST

# In C: a scan calls them for 44,000 files.
_paths: Callable[[FoundFile], tuple[object, ...]] = itemgetter(0, 1, 3)
_seen: Callable[[FoundFile], os.stat_result] = itemgetter(2)
_stat: Callable[[os.stat_result], tuple[int, ...]] = attrgetter(
    "st_mode", "st_ino", "st_dev", "st_size", "st_mtime_ns", "st_ctime_ns"
)
_metadata: Callable[[Distribution], tuple[object, ...]] = attrgetter(
    *(each.name for each in fields(Distribution) if each.name != "files")
)


class ScanResult(NamedTuple):
    """The part of a scan that follows from the inventory."""

    packages: tuple[Package, ...]
    """Sorted as in an `Environment`."""
    left_out: tuple[LeftOut, ...]
    findings: tuple[Finding, ...]
    needs: Needs
    """Without certificates."""
    digest: str = ""
    """Digest of this result and of its inputs; empty if it is not remembered."""


class ScanKey(NamedTuple):
    """Identifies a scan."""

    name: str
    """The scan that this one replaces: of the same environment, with the same options."""
    prefixes: tuple[bytes, ...]
    inputs: bytes
    """Digest of everything that its result depends on."""


def scan_key(prefix: Prefix, options: ScanOptions, collected: Inventory) -> ScanKey | None:
    """Return the key of the scan of `collected`, the inventory of `prefix`; None if its inputs cannot be identified."""
    code = _code()
    if code is None:
        return None
    searched = prefixes(prefix)
    entries = collected.entries.values()
    inputs = (
        *(code.digest, searched, repr(prefix), repr(options), str(Platform.here())),
        *(os.environ.get("LD_LIBRARY_PATH", ""), conda_specs.available()),
        list(map(_paths, entries)),
        list(map(_stat, map(_seen, entries))),
        [tuple(place) for place in collected.places],
        sorted(collected.python),
        [(item.path, item.reason) for item in collected.left_out],
        list(map(_fields, collected.findings)),
        [(path, sorted(digests)) for path, digests in collected.expected.items()],
        [_distribution(each) for each in collected.conda],
        [_distribution(each) for each in collected.pip],
    )
    name = hashlib.sha256(repr((prefix.path, options)).encode("utf-8", "surrogatepass")).hexdigest()
    # Version 2 has no references, so that equal values have equal bytes.
    return ScanKey(name, searched, hashlib.sha256(marshal.dumps(inputs, 2)).digest())


def recall(hashes: ContentCache, key: ScanKey, collected: Inventory) -> ScanResult | None:
    """Return the result of an earlier scan with the same inputs, or None."""
    value = hashes.scan(key.name, key.prefixes) or b""
    seal, value = value[:_DIGEST], value[_DIGEST:]
    if seal != _seal(key, value):
        return None  # other inputs, or damaged
    result = _unpacked(value, collected)
    return result and result._replace(digest=seal.hex())


def keep(hashes: ContentCache, key: ScanKey, collected: Inventory, result: ScanResult, disk: Disk) -> ScanResult:
    """Remember the result of a scan, unless a change since it began could go unnoticed; return it with its digest.

    `disk` is older than its walk.
    """
    code = _code()
    files = [file for package in result.packages for file in package.files if package.origin != "system"]
    settled = (
        all(
            hashes.is_settled(entry.source, entry.seen, disk.began)
            for entry in collected.entries.values()
            if entry.target is None
        )
        and code is not None
        and all(is_settled(seen, disk.began) for seen in code.seen)
        and disk.is_settled()
    )
    # Files that only a package left out on request records are not read.
    if not settled or not all(file.digest or file.target is not None for file in files):
        return result
    value = _packed(result, files, collected, disk.noted)
    seal = _seal(key, value)
    hashes.keep_scan(key.name, key.prefixes, seal + value)
    return result._replace(digest=seal.hex())


def _seal(key: ScanKey, value: bytes) -> bytes:
    return hashlib.sha256(key.inputs + value).digest()


def _packed(result: ScanResult, files: Sequence[File], collected: Inventory, noted: Noted) -> bytes:
    """`result` as JSON, and columns of `files`, those that the walk found: position in the inventory, and digest."""
    positions = {path: at for at, path in enumerate(collected.entries)}
    left_out = set(collected.left_out)
    document = json.dumps(
        {
            "noted": noted,
            "packages": [
                [
                    *(each.origin, each.name, each.version, each.build, each.source, each.records),
                    each.files if each.origin == "system" else len(each.files),
                ]
                for each in result.packages
            ],
            "holds": [(at, file.holds) for at, file in enumerate(files) if file.holds],
            "run_paths": [(at, file.run_path) for at, file in enumerate(files) if file.run_path],
            "left_out": [(item.path, item.reason) for item in result.left_out if item not in left_out],
            "findings": list(map(_fields, result.findings)),
            "needs": (result.needs.glibc, result.needs.level, result.needs.drivers),
        }
    ).encode()
    order = array("I", [positions[file.path] for file in files])
    digests = bytes.fromhex("".join([file.digest or _NO_DIGEST for file in files]))
    return b"".join((_SIZES.pack(len(document), len(order)), document, order.tobytes(), digests))


def _unpacked(value: bytes, collected: Inventory) -> ScanResult | None:
    """Undo `_packed`; None if this disk answers otherwise than it did."""
    size, count = _SIZES.unpack_from(value)
    begin, order = _SIZES.size + size, array("I")
    document = json.loads(value[_SIZES.size : begin])
    if not still_holds(document["noted"]):
        return None
    end = begin + count * order.itemsize
    order.frombytes(value[begin:end])
    holds: list[Any] = [""] * count
    for at, held in document["holds"]:
        holds[at] = held
    # Separated by the conversion itself: a slice for each digest takes four times as long.
    digests = value[end:].hex("\n", _DIGEST).split("\n") if count else []
    entries = list(collected.entries.values())
    files = list(map(file_of, map(entries.__getitem__, order), digests, holds))
    for at, run_path in document["run_paths"]:
        files[at] = files[at]._replace(run_path=RunPath(*run_path))
    left_out = {*collected.left_out, *(LeftOut(*values) for values in document["left_out"])}
    glibc, level, drivers = document["needs"]
    return ScanResult(
        tuple(_packages(document["packages"], iter(files))),
        tuple(sorted(left_out, key=lambda each: (each.path, each.reason))),
        tuple(Finding(*values) for values in document["findings"]),
        Needs(glibc, level, tuple(drivers)),
    )


def _packages(listed: Iterable[list[Any]], files: Iterator[File]) -> Iterator[Package]:
    for origin, name, version, build, source, records, of in listed:
        its = tuple(map(_system_file, of)) if origin == "system" else tuple(islice(files, of))
        yield Package(origin, name, version, its, build, source, records)


def _system_file(values: list[Any]) -> File:
    *others, run_path = values
    return File._make([*others, RunPath(*run_path) if run_path else None])


def _distribution(each: Distribution) -> tuple[object, ...]:
    files = each.files
    if isinstance(files, Record):
        return (*_metadata(each), hashlib.sha256(files.content).digest(), files.base, files.prefixes)
    return (*_metadata(each), files if files is None else list(files.items()))


def _fields(finding: Finding) -> tuple[str, ...]:
    return finding.severity, finding.kind, finding.subject, finding.message


class CodeIdentity(NamedTuple):
    """What identifies code on this disk."""

    digest: bytes
    seen: list[os.stat_result]
    """Stat of each of its files and folders."""


def code_identity(roots: Iterable[str], libraries: Iterable[str]) -> CodeIdentity | None:
    """Identity of the modules below `roots`, and of the folders with `libraries`; None for modules in a zip file."""
    modules = [
        os.path.join(folder, name)
        for root in roots
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith(".py")
    ]
    found = [(path, os.stat(path)) for path in (*sorted(modules), *filter(os.path.exists, libraries))]
    facts = repr((sys.version, [(path, identity(seen)) for path, seen in found]))
    digest = hashlib.sha256(facts.encode("utf-8", "surrogatepass")).digest()
    return CodeIdentity(digest, [seen for _, seen in found]) if modules else None


@functools.cache
def _code() -> CodeIdentity | None:
    """Identity of Lamella itself, and of what it imports."""
    rooms = [os.path.join(folder, part) for folder in lamella.__path__ for part in ("layers", "builder")]
    return code_identity(rooms, sys.path)
