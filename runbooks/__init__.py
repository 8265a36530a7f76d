"""What analysts launch and read: one Markdown file for each runbook, and the ticket templates."""
