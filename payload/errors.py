"""What can go wrong between a bundle and a disk, split by who is at fault.

::

    PayloadError                        reason word
    ├── BundleError                     the bundle's bytes: whoever made, copied or carried it
    │   ├── PayloadMissingError         payload-missing            no bundle starts here
    │   ├── PayloadUnreadableError      payload-unreadable         the medium gives I/O errors
    │   ├── PayloadTruncatedError       payload-truncated          it ends too early
    │   ├── PayloadCorruptError         payload-corrupt            bytes changed since it was made
    │   ├── PayloadTooLargeError        payload-too-large          a length above its bound
    │   └── PayloadFormatError          payload-format             not as docs/SPEC.md says
    ├── TrustError                      an intact bundle that this device must not take
    │   ├── PayloadUnsignedError        payload-unsigned           nobody signed it
    │   ├── PayloadWrongKeyError        payload-wrong-key          signed, but not by a key of ours
    │   ├── PayloadForgedError          payload-forged             claims a key of ours, the signature lies
    │   ├── PayloadKeyRevokedError      payload-key-revoked        signed by a key that counted once
    │   ├── PayloadBelowThresholdError  payload-below-threshold    signed by too few of our keys
    │   ├── PayloadExpiredError         payload-expired            from the network, and something newer is known
    │   ├── PayloadRootRefusedError     payload-root-refused       its chain of roots has a gap or lacks signatures
    │   ├── PayloadRootMismatchError    payload-root-mismatch      another root of the version that is known here
    │   ├── PayloadRootExpiredError     payload-root-expired       from the network, and the root is too old for it
    │   ├── PayloadRootsIncompleteError payload-roots-incomplete   its chain does not begin at the image's own root
    │   ├── PayloadWrongCompatibleError payload-wrong-compatible   for another kind of device
    │   ├── PayloadBelowFloorError      payload-below-floor        older than what is allowed
    │   └── PayloadKernelMismatchError  payload-kernel-mismatch    for another kernel than runs
    ├── TargetError                     the medium that is written
    │   ├── TargetTooSmallError         target-too-small
    │   ├── TargetWriteFailedError      target-write-failed
    │   └── TargetReadbackFailedError   target-readback-failed     it said yes and kept something else
    └── PayloadInputError               payload-input              what the maker of a bundle handed in

    OSError
    └── FetchError                      what lies between us and a bundle on a web server
        ├── NameUnresolvedError         name-unresolved            no address for the server's name
        ├── ServerUnreachableError      server-unreachable         no connection, or it broke
        ├── ServerStalledError          server-stalled             it sends nothing, or next to nothing
        ├── ServerUntrustedError        server-untrusted           no certificate that is believed
        ├── ServerRefusedError          server-refused             it answers that we get nothing
        ├── ServerMisbehavesError       server-misbehaves          it does not follow the protocol
        └── PayloadChangedError         payload-changed            another file than the one begun with

A :class:`FetchError` is to a reader of bundles what an I/O error of a disk is; its word survives in the
``reason`` of the :class:`PayloadUnreadableError` that it becomes.

The word is stable; screens, pages and the journal name a failure by it. Programmer errors are not
here: they are ``assert`` and ``ValueError``.
"""

from __future__ import annotations


class PayloadError(Exception):
    """One failure. ``str()`` of it is a sentence for people, ``reason`` the stable word."""

    reason = "payload-error"


class BundleError(PayloadError):
    """The bytes that were read are not the bytes of a bundle."""

    reason = "payload-format"


class PayloadMissingError(BundleError):
    """No bundle starts here at all."""

    reason = "payload-missing"


class PayloadUnreadableError(BundleError):
    """The medium that holds the bundle answers with I/O errors. ``reason`` is finer for a server."""

    reason = "payload-unreadable"

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        if isinstance(cause, FetchError):
            self.reason = cause.reason


class PayloadTruncatedError(BundleError):
    """The bundle ends before its own lengths say so."""

    reason = "payload-truncated"


class PayloadCorruptError(BundleError):
    """Bytes changed after the bundle was made."""

    reason = "payload-corrupt"


class PayloadTooLargeError(BundleError):
    """A length is above its bound, or a header does not fit the region that keeps it."""

    reason = "payload-too-large"


class PayloadFormatError(BundleError):
    """Made by something that does not follow the format, or follows a later one."""

    reason = "payload-format"


class TrustError(PayloadError):
    """The bundle is whole, and this device must not take it."""

    reason = "payload-unsigned"


class PayloadUnsignedError(TrustError):
    """It carries no signature."""

    reason = "payload-unsigned"


class PayloadWrongKeyError(TrustError):
    """It is signed, by keys that this device does not follow."""

    reason = "payload-wrong-key"


class PayloadForgedError(TrustError):
    """It names a key of ours, but the signature is not of these bytes."""

    reason = "payload-forged"


class PayloadKeyRevokedError(TrustError):
    """It is signed by a key that an older root named and the known one does not."""

    reason = "payload-key-revoked"


class PayloadBelowThresholdError(TrustError):
    """Fewer keys of ours have signed it than the root wants."""

    reason = "payload-below-threshold"


class PayloadExpiredError(TrustError):
    """It expired before the newest signed time that is known, and it comes from the network."""

    reason = "payload-expired"


class PayloadRootRefusedError(TrustError):
    """Its chain of roots does not lead on from the root that is known."""

    reason = "payload-root-refused"


class PayloadRootMismatchError(TrustError):
    """Its chain has another root than ours of the version that is known."""

    reason = "payload-root-mismatch"


class PayloadRootExpiredError(TrustError):
    """The root expired before the newest signed time that is known, and the bundle comes from the network."""

    reason = "payload-root-expired"


class PayloadRootsIncompleteError(TrustError):
    """Without what this device remembers it is not believed: its own chain does not begin at the image's root."""

    reason = "payload-roots-incomplete"


class PayloadWrongCompatibleError(TrustError):
    """It is for another kind of device."""

    reason = "payload-wrong-compatible"


class PayloadBelowFloorError(TrustError):
    """Its version is below the lowest one allowed."""

    reason = "payload-below-floor"


class PayloadKernelMismatchError(TrustError):
    """Its modules are for another kernel than the one that runs."""

    reason = "payload-kernel-mismatch"


class TargetError(PayloadError):
    """The medium that is written to is at fault."""

    reason = "target-write-failed"


class TargetTooSmallError(TargetError):
    """The slot is smaller than the image."""

    reason = "target-too-small"


class TargetWriteFailedError(TargetError):
    """Writing or flushing failed as often as it was tried."""

    reason = "target-write-failed"


class TargetReadbackFailedError(TargetError):
    """The medium took the bytes and gives back others."""

    reason = "target-readback-failed"


class PayloadInputError(PayloadError):
    """What the maker of a bundle handed in does not make one."""

    reason = "payload-input"


class FetchError(OSError):
    """A bundle's bytes do not come over the network. ``reason`` is the stable word."""

    reason = "server-unreachable"


class NameUnresolvedError(FetchError):
    """No name server knows an address for the server's name, or none answers."""

    reason = "name-unresolved"


class ServerUnreachableError(FetchError):
    """No connection, or it broke before the answer was whole."""

    reason = "server-unreachable"


class ServerStalledError(FetchError):
    """Silence, or so few bytes a second that the download would never end."""

    reason = "server-stalled"


class ServerUntrustedError(FetchError):
    """The server has no certificate of an authority that is believed, or it is over, or another's; or no TLS."""

    reason = "server-untrusted"


class ServerRefusedError(FetchError):
    """The server answers, and not with the file."""

    reason = "server-refused"


class ServerMisbehavesError(FetchError):
    """Not HTTP, too many redirects, an endless header, other bytes than those asked for."""

    reason = "server-misbehaves"


class PayloadChangedError(FetchError):
    """The file was replaced by another one while it was being read."""

    reason = "payload-changed"
