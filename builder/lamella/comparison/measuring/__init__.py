"""Measurements from outside the programs: processor seconds, memory, bytes on the wire and on disks."""
