"""Uses of an environment, from the text of mountinfo."""

from __future__ import annotations

from lamella.layers.agent.uses import is_shared, is_used
from lamella.layers.mountinfo import parse

ENVIRONMENTS = "/var/lib/lamella/environments"
TARGET = f"{ENVIRONMENTS}/sha256-aa"

NODE = f"""\
20 1 8:1 / / rw shared:1 - ext4 /dev/sda rw
30 20 0:50 / {TARGET} ro shared:7 - overlay lamella-1 ro
31 20 0:51 / {ENVIRONMENTS}/sha256-bb ro shared:8 - overlay lamella-2 ro
"""
POD = """\
90 1 0:77 / / rw - overlay overlay rw
91 90 {device} {root} {point} ro master:7 - overlay lamella-1 ro
"""


def used(node: str, *others: str, target: str = TARGET) -> bool:
    return is_used(target, parse(node.encode()), [parse(each.encode()) for each in others])


def test_a_pod_with_a_bind_mount_uses_the_environment() -> None:
    assert used(NODE, POD.format(device="0:50", root="/", point="/opt/env"))


def test_a_pod_with_a_part_of_the_environment_uses_it() -> None:
    assert used(NODE, POD.format(device="0:50", root="/lib/python3.11", point="/usr/lib/python"))


def test_a_pod_with_another_environment_does_not_use_this_one() -> None:
    assert not used(NODE, POD.format(device="0:51", root="/", point="/opt/env"))


def test_an_environment_without_pods_is_unused() -> None:
    assert not used(NODE)


def test_a_copy_that_follows_the_node_is_not_a_use() -> None:
    # A service with the node's root mounted as a slave, such as a monitor of disks.
    service = (
        NODE.replace("shared:1", "master:1").replace("20 1 8:1 / /", "20 1 8:1 / /host").replace(" /var", " /host/var")
    )
    assert not used(NODE, service)


def test_a_private_copy_is_a_use_since_unmounting_the_target_does_not_reach_it() -> None:
    assert used(NODE, NODE.replace(" shared:1", "").replace(" shared:7", ""))


def test_a_bind_mount_in_the_node_s_own_namespace_is_a_use() -> None:
    assert used(NODE + "40 20 0:50 / /srv/env ro shared:7 - overlay lamella-1 ro\n")


def test_an_environment_of_one_layer_is_known_by_the_folder_that_is_bound() -> None:
    layer = "/var/lib/lamella/layers/sha256/cc/tree/opt/env"
    node = NODE.replace(f"0:50 / {TARGET}", f"8:1 {layer} {TARGET}").replace("overlay lamella-1", "ext4 /dev/sda")
    assert used(node, POD.format(device="8:1", root=layer, point="/opt/env"))
    assert not used(node, POD.format(device="8:1", root="/var/lib/other", point="/opt/env"))


def test_a_tree_of_links_is_known_by_its_folder() -> None:
    node = "20 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n"
    assert used(node, POD.format(device="8:1", root=TARGET, point="/opt/env"))
    assert not used(node, POD.format(device="8:1", root=f"{TARGET}0", point="/opt/env"))


def test_paths_with_blanks_are_read_as_they_are() -> None:
    (mount,) = parse(b"30 20 0:50 / /srv/a\\040b ro - overlay lamella-1 ro\n")
    assert mount.point == "/srv/a b"


def test_lines_that_are_cut_short_are_passed_over() -> None:
    assert parse(b"30 20 0:50\n\n30 20 0:50 / /x ro shared:1 overlay\n") == []


def test_mounts_reach_other_namespaces_from_a_shared_mount_alone() -> None:
    assert is_shared(ENVIRONMENTS, parse(NODE.encode()))
    assert not is_shared(ENVIRONMENTS, parse(NODE.replace(" shared:1", "").encode()))
