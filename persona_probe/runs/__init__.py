"""What a study leaves: opened again without torch."""
