"""A layer's bytes: tar, decompression, unpacking; the headers of tars to write."""
