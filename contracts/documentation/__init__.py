"""What the documentation service answers, does and tells; version 1 in `v1`, its typed client in `client`."""
