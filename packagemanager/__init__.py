"""The package manager's place. Empty for now."""
