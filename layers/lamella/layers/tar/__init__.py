"""Reading a layer's bytes: tar, decompression, unpacking."""
