"""An environment at a folder: claims, the ladder, overlay, link trees, the kernel, relocation."""
