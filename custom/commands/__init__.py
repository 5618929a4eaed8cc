"""What a command does, where it is more than one call."""
