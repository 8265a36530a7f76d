"""One file for each of the playbooks; `clawback.catalog` finds them by walking this folder."""
