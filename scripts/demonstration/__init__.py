"""The main job, shown on a real operating system in a virtual machine. Started by ./scripts/demo."""
