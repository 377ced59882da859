"""The keys that a recovery button may have, by their names in Linux's input-event-codes.h.

The image knows the button's code alone; a name that is not here is refused when the image is built.
"""

from __future__ import annotations

KEY_CODES = {
    "KEY_ESC": 1, "KEY_R": 19, "KEY_ENTER": 28, "KEY_SPACE": 57, "KEY_F1": 59, "KEY_F2": 60, "KEY_F3": 61,
    "KEY_F4": 62, "KEY_F5": 63, "KEY_F6": 64, "KEY_F7": 65, "KEY_F8": 66, "KEY_F9": 67, "KEY_F10": 68, "KEY_F11": 87,
    "KEY_F12": 88, "KEY_HOME": 102, "KEY_UP": 103, "KEY_LEFT": 105, "KEY_RIGHT": 106, "KEY_DOWN": 108,
    "KEY_DELETE": 111, "KEY_MUTE": 113, "KEY_VOLUMEDOWN": 114, "KEY_VOLUMEUP": 115, "KEY_POWER": 116, "KEY_HELP": 138,
    "KEY_MENU": 139, "KEY_SETUP": 141, "KEY_SLEEP": 142, "KEY_WAKEUP": 143, "KEY_PROG1": 148, "KEY_PROG2": 149,
    "KEY_BACK": 158, "KEY_CONFIG": 171, "KEY_PROG3": 202, "KEY_PROG4": 203, "KEY_WLAN": 238, "KEY_RFKILL": 247,
    "BTN_0": 256, "BTN_1": 257, "BTN_2": 258, "BTN_3": 259, "BTN_4": 260, "BTN_5": 261, "BTN_6": 262, "BTN_7": 263,
    "BTN_8": 264, "BTN_9": 265, "KEY_SELECT": 353, "KEY_VENDOR": 360, "KEY_RESTART": 408, "KEY_WPS_BUTTON": 529,
}  # fmt: skip
