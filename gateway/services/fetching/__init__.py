"""What the gateway fetches: lists, keys, its public address, each by a process without rights."""
