"""Evidence: what is kept of an agent before anything about it is changed for good."""
