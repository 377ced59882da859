"""The build host: freeze, ELF closure, kernel modules, tree, archive, self-check, command line."""
