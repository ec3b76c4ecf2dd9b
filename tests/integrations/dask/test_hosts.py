"""How a command starts on a host."""

from __future__ import annotations

import pytest

from lamella.integrations.dask.hosts import SSH, ClusterError, Hosts


def test_the_words_of_the_connection_come_first_with_the_host_s_name() -> None:
    hosts = Hosts(("one",), connect=("ip", "netns", "exec", "net-{host}"))
    assert hosts.command("one", "run", "a b") == ["ip", "netns", "exec", "net-one", "lamella", "run", "a b"]


def test_ssh_gets_one_word_that_its_remote_shell_reads_as_the_command() -> None:
    hosts = Hosts(("one",), lamella=("python3", "/opt/lamella-node.pyz"))
    assert hosts.command("one", "run", "a b") == [*SSH[:3], "one", "python3 /opt/lamella-node.pyz run 'a b'"]


def test_without_a_connection_the_command_runs_here() -> None:
    assert Hosts(("here",), connect=()).command("here", "run") == ["lamella", "run"]


def test_a_name_that_ssh_takes_for_an_option_is_refused() -> None:
    with pytest.raises(ClusterError, match="-oProxyCommand=touch /tmp/x: not a host's name"):
        Hosts(("one", "-oProxyCommand=touch /tmp/x"))
