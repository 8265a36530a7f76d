"""The core that agents run inside. Imports `clawback.model`, `clawback.errors` and `clawback.log` alone."""
