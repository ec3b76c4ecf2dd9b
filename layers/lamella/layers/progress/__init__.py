"""Progress of long work, as calls and as bars."""
