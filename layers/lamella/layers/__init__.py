"""The node: OCI values, storage, registry, pull, unpack, store, mount."""
