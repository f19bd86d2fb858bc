"""One module for each kernel subsystem that the gateway touches."""
