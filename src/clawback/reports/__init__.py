"""What people read about an incident: its ticket and its timeline, made from the incident record alone."""
