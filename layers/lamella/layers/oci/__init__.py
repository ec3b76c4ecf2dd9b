"""The OCI specifications' nouns, references, and the interfaces of storage."""
