"""The resolver that workloads ask, and the names that it blocks."""
