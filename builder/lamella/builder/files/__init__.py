"""What files hold: hashes, ELF headers, secrets, prefixes."""
