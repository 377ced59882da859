"""The pure part: states, events, the table, the journal's bytes and its three-copy store."""
