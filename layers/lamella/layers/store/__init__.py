"""The node's unpacked layers, by diff_id."""
