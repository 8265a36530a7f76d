"""One file for each of the detectors; `clawback.catalog` finds them by walking this folder."""
