"""What a reference names: environments, findings, requirements of a node, copies."""
