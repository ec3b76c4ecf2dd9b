"""Stands in for packages that the node's part of Lamella leaves out: their import is an error with advice."""

from lamella.layers import Unsupported

raise Unsupported(
    "this command is not in the node's part of Lamella, which pulls, mounts and runs; "
    "install all of it: python3 -m pip install . in a checkout, or its wheel"
)
