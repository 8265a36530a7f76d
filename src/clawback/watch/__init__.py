"""Read the telemetry, run the detectors, contain at once what must be, and hand the incident to its playbook."""
