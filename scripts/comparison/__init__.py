"""dpkg and this package manager side by side: the same real packages in two copies of one Debian root."""
