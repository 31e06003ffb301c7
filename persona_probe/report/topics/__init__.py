"""The report by topic: each file holds all that is said and shown of one topic."""
