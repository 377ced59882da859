"""Every bound of the state machine and its journal, with its unit in its name. Imports nothing."""

BOOT_ATTEMPTS_DEFAULT = 3
BOOT_ATTEMPTS_MAX = 15
CYCLES_MAX = 4
SLOTS_MAX = 2
TRIED_IMAGES_MAX = 8
TEXT_BYTES_MAX = 96
ROOT_BYTES_MAX = 1536  # the signed root metadata that a record holds
RECORD_BODY_BYTES_MAX = 3968
