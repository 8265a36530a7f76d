"""What is reported about agents: sources, and the writer of the telemetry files."""
