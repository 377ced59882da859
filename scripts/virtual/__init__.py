"""The virtual device: the disk, the operating systems, the kernel and the USB stick that demo and tests boot.

Everything here runs on the host, from Debian packages and this machine's own apt settings, and is kept in
``build/cache``. What must be right on a real device too (frames, the journal, the bundle) is not done
again here: this package calls the production code on the disk image.
"""
