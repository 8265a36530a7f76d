"""What a policy says: read from its file, kept in versions, asked for each attempt."""
