"""Key pairs, cosign's signatures and sigstore's bundles."""
