"""`gateway init`: a compose file and its secrets, from a provider's file or from answers."""
