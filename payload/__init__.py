"""What bytes are trusted and how they reach the disk. Knows nothing of states and boots."""
