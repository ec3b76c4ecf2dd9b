"""Environments that follow a tag: at a folder, and for one command."""
