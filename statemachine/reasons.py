"""Reasons: a stable code and word for every ending and failure, and what a person can do about it.

The same reason stands on the console, in the log, in the journal and in the command line's output.
Codes are never reused. E1xx boots, E2xx the journal, E3xx the slot, E4xx the payload and trust,
E5xx the device, E9xx recovery itself. ``docs/reasons.md`` is generated from this table.
"""

# ruff: noqa: E501 - a table reads best with a reason on a line
# code: (word, what it means, what to do)
REASONS = {
    0: ("none", "Nothing happened.", "Nothing."),
    100: ("confirmed", "The OS said that it runs well.", "Nothing."),
    101: ("started", "An ordinary boot.", "Nothing."),
    102: ("installed", "A verified image is in the slot and is being tried.", "Nothing: the OS confirms it."),
    104: ("attempts-exhausted", "The OS did not say that it runs well in any of its attempts.",
          "Nothing: the slot is verified now. `unbrick log` tells later what was found."),
    105: ("boot-failed", "The slot could not be mounted or handed over to.", "Nothing: the slot is verified now."),
    106: ("button-held", "The button was held at power-on.", "Release it."),
    107: ("recovery-on-command-line", "The kernel command line asks for recovery.", "Take the word off it afterwards."),
    108: ("recovery-requested", "The OS asked for recovery.", "Nothing."),
    109: ("pristine", "The image is intact; its system state is set aside to see whether that is the cause.",
          "Nothing. User data is not mounted in this boot and not touched."),
    110: ("repairs-exhausted", "Recovery went round as often as it may without the OS running well.",
          "Offer another image on a USB stick, or hold the button at power-on."),
    111: ("resumed", "Work that a power cut interrupted goes on.", "Nothing."),
    112: ("no-factory-evidence", "The device was never provisioned.", "Provision it."),
    113: ("slot-verified", "The slot was verified and boots.", "Nothing."),
    200: ("journal-intact", "All three copies of the journal agree.", "Nothing."),
    201: ("journal-repaired", "A copy of the journal was missing or behind and was written again.",
          "Nothing. When it comes back often, the medium wears out."),
    202: ("journal-lost", "No copy of the journal holds a record of this device.",
          "Nothing: the record is rebuilt from the slot."),
    203: ("journal-unwritable", "Fewer than two copies of the journal take writes.",
          "Check the medium: read-only, worn out or unplugged."),
    300: ("frames-damaged", "Frames of the slot differ from the signed table.", "Nothing: they are rewritten."),
    301: ("slot-unreadable", "No signed header describes the slot.", "Nothing: an image is installed."),
    302: ("kernel-mismatch", "The image was made for another kernel than the one that runs.",
          "Offer an image for this kernel, or boot that kernel."),
    303: ("slot-write-failed", "The slot did not take a write or a flush.", "Check the medium; it is tried again."),
    304: ("target-too-small", "The image does not fit the slot.", "Take a smaller one."),
    305: ("filesystem-failing", "The read-write slot fails with its file system in order.",
          "Reinstall it, or allow that in the device's configuration."),
    306: ("filesystem-repaired", "The read-write slot's file system was put in order.", "Nothing."),
    307: ("frames-repaired", "The damaged frames are rewritten and read back.", "Nothing."),
    308: ("image-never-good", "The image is intact and fails.", "Nothing: another image is installed if one is here."),
    400: ("no-source", "No payload is here.", "Plug in a USB stick labelled UNBRICK with unbrick/os.ubk on it."),
    401: ("payload-unsigned", "The payload has no signature.", "Sign it with `unbrick bundle sign`."),
    402: ("payload-wrong-key", "No signature of the payload is by a key of this device.", "Sign it with the device's key."),
    403: ("payload-corrupt", "The payload's content differs from what is signed.", "Copy the payload again."),
    404: ("payload-truncated", "The payload is cut short.", "Copy the payload again."),
    405: ("payload-wrong-compatible", "The payload is for another kind of device.", "Take the one for this device."),
    406: ("payload-below-floor", "The payload's version is lower than allowed.", "Take a newer one."),
    407: ("payload-kernel-mismatch", "The payload's image is for another kernel.", "Take the one for this kernel."),
    408: ("payload-too-large", "A part of the payload's header is over its bound.", "Make it with this version of unbrick."),
    409: ("payload-format", "The payload's format is not known.", "Make it with this version of unbrick."),
    410: ("payload-tried", "The payload's image was tried and failed.", "Offer another version."),
    411: ("payload-unreadable", "The payload's medium gives read errors.", "Take another medium."),
    412: ("payload-forged", "The payload claims the device's key and its signature is not by it.", "Do not trust where it comes from."),
    413: ("payload-missing", "No payload starts at this place.", "Copy the payload again."),
    420: ("payload-below-threshold", "Too few of the device's keys signed the payload.", "Let the others sign it, too: `unbrick bundle sign`."),
    421: ("payload-key-revoked", "The key that signed the payload is revoked.", "Take a payload that is signed by a current key."),
    422: ("payload-expired", "The payload from the network has expired; something newer was signed since.",
          "Offer the newest one, or bring this one on a USB stick."),
    423: ("payload-root-refused", "The payload's chain of roots does not lead on from the known root.",
          "Make the payload with the whole chain; do not trust where it comes from."),
    424: ("payload-root-mismatch", "The payload has another root than the device of the same version.", "Do not trust where it comes from."),
    425: ("payload-root-expired", "The device's root has expired for payloads from the network.",
          "Make a new root with `unbrick key rotate` and a payload with it, or use a USB stick."),
    430: ("link-missing", "The network interface of the configuration is not there.", "Check [network] and its modules in device.toml."),
    431: ("address-missing", "No network interface got an address.", "Check the cable and the DHCP server; it is tried again."),
    432: ("name-unresolved", "No name server knows the server's address.", "Check the name servers and the URL; it is tried again."),
    433: ("server-unreachable", "No connection to the server, or it broke.", "Check the network and the server; it is tried again."),
    434: ("server-stalled", "The server sends nothing, or next to nothing.", "Check the network and the server; it is tried again."),
    435: ("server-refused", "The server does not give the file.", "Put the payload where the URL says; it is tried again."),
    436: ("server-misbehaves", "The server does not answer as HTTP demands, or gives other bytes than the signed ones.", "Check what answers at the URL; it is tried again."),
    437: ("payload-changed", "The payload on the server was replaced while it was read.", "Nothing: it is read anew."),
    438: ("server-untrusted", "The server has no certificate that is believed for its name, or does not speak TLS.", "Check the certificate, its dates and [network] ca, and what answers at the URL; it is tried again."),
    500: ("disk-missing", "The device's disk did not appear.", "Check the disk and its serial number in device.toml."),
    501: ("data-unmountable", "The data partition could not be mounted.",
          "Nothing: the OS starts without it. User data is not touched."),
    502: ("watchdog-missing", "The watchdog of the configuration is not there.", "Check [watchdog] in device.toml."),
    503: ("module-failed", "A kernel module could not be loaded.", "Check [modules] in device.toml."),
    900: ("handover", "The OS gets the machine.", "Nothing."),
    901: ("python-exited", "Recovery's interpreter ended.", "Nothing: it is started again."),
    902: ("python-silent", "Recovery's interpreter showed no progress.", "Nothing: it is started again."),
    903: ("recovery-crashed", "Recovery's interpreter ended as often as it may.",
          "Keep the console's last lines and report them. It is tried again after a delay."),
    904: ("init-not-executable", "The OS's init could not be started.", "Nothing: the attempt counts."),
    905: ("handover-failed", "The mounted root could not become the root.", "Nothing: the attempt counts."),
    906: ("module-not-loaded", "A boot module was not loaded; without an optional one the device works.", "Check [modules] in device.toml if a disk is missing."),
    907: ("message-not-understood", "PID 1 and its child do not belong together.", "Build the image again and report this."),
}  # fmt: skip

CODES = {word: code for code, (word, _meaning, _advice) in REASONS.items()}


def label(code: int) -> str:
    """``E104 attempts-exhausted``; a code of a newer version is ``E777 unknown``."""
    word = REASONS[code][0] if code in REASONS else "unknown"
    return f"E{code:03d} {word}"


def advice(code: int) -> str:
    return REASONS[code][2] if code in REASONS else "Read the log with this recovery's own version of unbrick."
