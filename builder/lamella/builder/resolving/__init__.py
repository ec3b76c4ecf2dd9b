"""The same packages for another platform: resolve the installed ones, download them, lay them out for the target machine."""
