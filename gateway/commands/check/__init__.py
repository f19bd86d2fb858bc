"""`gateway check`: reads a configuration as it would be used, and shows what it means."""
