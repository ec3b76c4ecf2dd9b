"""Whether other users could change a folder: a store or cache that they can write runs their code as this user.

Not only the folder itself counts. Who can write a folder above it can put another one in its place, unless it is sticky,
and who owns a link that leads there can change the link.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOST_PROCESSES = 0xEFFFFFFC
"""Inode of the PID namespace that the machine starts with. Source: linux/proc_ns.h, PROC_PID_INIT_INO."""

_MAX_LINKS = 40
# Source: linux/posix_acl_xattr.h and posix_acl.h.
_ACL = "system.posix_acl_access"
_ACL_USER, _ACL_OWNERS_GROUP, _ACL_GROUP = 0x02, 0x04, 0x08
_WRITE = 2
_SHARED = stat.S_ISGID | stat.S_IWGRP


class Members(NamedTuple):
    """A group and its members."""

    group: int
    users: frozenset[int]


@dataclass(frozen=True, slots=True)
class Stranger:
    """One reason why others can change a folder."""

    path: str
    """The folder or link that they can write."""
    who: str
    """Who can, as the subject of a sentence."""
    remedy: str
    """A command that ends it; empty without one."""
    holds_safe_folders: bool = False
    """Whether a folder in it is safe from others: it is sticky, as /tmp is, and stays open to them."""

    def __str__(self) -> str:
        return f"{self.who} can write {self.path}"

    def advice(self, another: str) -> str:
        """Return what to do, if `another` names something else to choose."""
        if self.holds_safe_folders:
            return f"choose a folder in it, or {another}"
        return f"{self.remedy}, or choose {another}" if self.remedy else f"choose {another}"


def stranger(path: str, shared_group: str = "") -> Stranger | None:
    """The first reason why others than this user and root can change `path`, from the root down; None without one.

    `shared_group`: members of this group may, in its folders; the machine's administrator named it.

    A part of the path that is missing is left out: this user makes it. In a container the modes of volumes are left out as
    well: the pod decides who mounts them, and orchestrators open them to every user (an `emptyDir` is 0777).
    """
    if sys.platform == "win32":
        return None  # its access lists are the administrator's: profiles are closed to other users
    path = os.path.abspath(path)
    members = _members(shared_group)
    volumes = _volumes()
    end = os.path.realpath(path)
    for each, seen in _passed(path):
        if found := _owned(each, seen, members):
            return found
        if stat.S_ISLNK(seen.st_mode) or _volume_of(each, volumes):
            continue
        # In a sticky folder others can't rename this user's files, but they can add their own.
        if seen.st_mode & stat.S_ISVTX and each != end:
            continue
        if found := _open_to_others(each, seen, members):
            return found
    return None


def foreign_link(path: str) -> str:
    """Return why a symlink on the way to `path` can't be followed: another user owns it. Empty without one.

    Root's links are followed, and any user's by that user.
    """
    if sys.platform == "win32":
        return ""
    for each, seen in _passed(os.path.abspath(path)):
        own = seen.st_uid in (0, os.geteuid()) or _is_unmapped(seen.st_uid)
        if stat.S_ISLNK(seen.st_mode) and not own:
            return f"{each}: symlink owned by {user_name(seen.st_uid)}; name the folder that it leads to"
    return ""


def _passed(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each folder and link that the kernel passes on its way to `path`, as far as they exist."""
    at, links = "/", 0
    waiting = [part for part in reversed(path.split("/")) if part]
    yield at, os.lstat(at)
    while waiting:
        part = waiting.pop()
        if part in {".", ".."}:
            at = os.path.dirname(at) if part == ".." else at
            continue
        following = os.path.join(at, part)
        try:
            seen = os.lstat(following)
        except OSError:
            return  # missing, or closed to this user
        yield following, seen
        if stat.S_ISLNK(seen.st_mode):
            links += 1
            if links > _MAX_LINKS:
                return
            target = os.readlink(following)
            at = "/" if target.startswith("/") else at
            waiting += [each for each in reversed(target.split("/")) if each]
        else:
            at = following


def is_shared_folder(folder: str) -> bool:
    """Whether members of a folder's group add to it, and the group passes on to what they add."""
    return os.stat(folder).st_mode & _SHARED == _SHARED


def make_folder(path: str, mode: int = 0o755) -> None:
    """Make a folder with this mode, whatever the umask. One that is there stays as it is."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    else:
        os.chmod(path, mode)


def make_part(path: str, mode: int = 0o755) -> None:
    """Make a folder of a store or cache as `make_folder` does; in a shared folder, a shared one."""
    make_folder(path, mode | _SHARED | 0o070 if is_shared_folder(os.path.dirname(path)) else mode)


def make_folders(path: str) -> None:
    """Make a folder of a store or cache and those above it that are missing: with the umask, or shared in a shared one."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    make_folders(above)
    if is_shared_folder(above):
        make_part(path)
        return
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error


def _members(group: str) -> Members | None:
    if not group:
        return None
    import grp
    import pwd

    try:
        found = grp.getgrnam(group)
    except KeyError:
        return None
    names = set(found.gr_mem)
    users = {each.pw_uid for each in pwd.getpwall() if each.pw_gid == found.gr_gid or each.pw_name in names}
    return Members(found.gr_gid, frozenset(users))


def _owned(path: str, seen: os.stat_result, members: Members | None) -> Stranger | None:
    if seen.st_uid in {0, os.geteuid()} or _is_unmapped(seen.st_uid):
        return None
    if members and seen.st_gid == members.group and seen.st_uid in members.users:
        return None
    return Stranger(path, f"its owner, {user_name(seen.st_uid)},", "")


def _open_to_others(path: str, seen: os.stat_result, members: Members | None) -> Stranger | None:
    if not stat.S_ISDIR(seen.st_mode):
        return None  # such as /dev/null; the use of it as a folder fails
    if seen.st_mode & stat.S_IWOTH:
        # Never chmod o-w /tmp, which would break every other program.
        sticky = bool(seen.st_mode & stat.S_ISVTX)
        return Stranger(path, "every user", "" if sticky else f"chmod o-w {quote(path)}", sticky)
    if not seen.st_mode & stat.S_IWGRP:
        return None
    # With an access list the group's bits are the mask of all that it names.
    users, groups = _writers(path, seen.st_gid)
    for user in users:
        if user not in {0, os.geteuid()}:
            return Stranger(path, user_name(user), f"setfacl -b {quote(path)}")
    for group in groups:
        if not (members and group == members.group) and not _is_own(group):
            return Stranger(path, f"group {_group_name(group)}", f"chmod g-w {quote(path)}")
    return None


def _writers(path: str, group: int) -> tuple[Sequence[int], Sequence[int]]:
    """Users and groups with write access to a folder of `group` that its group can write."""
    try:
        raw = os.getxattr(path, _ACL)
    except (OSError, AttributeError):
        return (), (group,)
    entries = [(tag, name) for tag, allowed, name in struct.iter_unpack("<HHI", raw[4:]) if allowed & _WRITE]
    users = [name for tag, name in entries if tag == _ACL_USER]
    groups = [group for tag, _ in entries if tag == _ACL_OWNERS_GROUP]
    return users, groups + [name for tag, name in entries if tag == _ACL_GROUP]


def _is_own(group: int) -> bool:
    """Whether only this user and root are in `group`, by this machine's databases.

    So is a user's private group, which distributions with the umask 002 give every user. A group without a name counts if
    this process has it: Kubernetes gives `fsGroup` to the processes of one pod.
    """
    import grp
    import pwd

    if group == 0:
        return True
    try:
        found = grp.getgrgid(group)
    except KeyError:
        return group in {os.getegid(), *os.getgroups()}
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    if set(found.gr_mem) - {me.pw_name, "root"}:
        return False
    if found.gr_name == me.pw_name and me.pw_gid == group:
        return True
    # A directory service may list no users: then not even this one is found, and others may be in the group.
    users = {each.pw_uid for each in pwd.getpwall() if each.pw_gid == group}
    return (me.pw_uid in users or me.pw_name in found.gr_mem) and not users - {0, me.pw_uid}


def _is_unmapped(user: int) -> bool:
    """Whether `user` is what a user namespace shows in place of every user that it has no number for, such as root."""
    try:
        with open("/proc/self/uid_map", encoding="utf-8") as file:
            whole = file.read().split() == ["0", "0", "4294967295"]
        with open("/proc/sys/kernel/overflowuid", encoding="utf-8") as file:
            return not whole and user == int(file.read())
    except (OSError, ValueError):
        return False


def _volumes() -> tuple[str, ...]:
    """Where volumes are mounted, if this process is in a container; the longest first."""
    try:
        if os.stat("/proc/self/ns/pid").st_ino == HOST_PROCESSES:
            return ()
        from lamella.layers import mountinfo

        points = {each.point for each in mountinfo.mounts()}
    except OSError:
        return ()
    return tuple(sorted(points - {"/"}, key=len, reverse=True))


def _volume_of(path: str, volumes: tuple[str, ...]) -> str:
    return next((each for each in volumes if path == each or path.startswith(f"{each}/")), "")


def user_name(user: int) -> str:
    """A user for a message."""
    import pwd

    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user {user}"


def _group_name(group: int) -> str:
    import grp

    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
