"""Move an environment's files to another prefix than the one that they name.

The modules of this room go into exported environments as they are, and run there with whatever Python they hold: they
import the standard library and each other alone, and read on Python 3.7.
"""
