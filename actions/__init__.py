"""One file for each of the actions; `clawback.catalog` finds them by walking this folder."""
