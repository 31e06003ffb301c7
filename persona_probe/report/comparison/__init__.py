"""The comparison of several runs: what they share, what differs, and what cannot be compared."""
