"""Signature check and decompression, from well-kept libraries.

On the device both are functions of the built-in C module ``_unbrick`` (libsodium, libzstd); on the
build host they come from ``cryptography`` and ``zstandard``. Nothing here decides whom to trust.
"""

from __future__ import annotations

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32


def ed25519_verify(signature: bytes, message: bytes, public_key: bytes) -> bool:
    """Whether ``signature`` is Ed25519 (RFC 8032) of ``message`` by ``public_key``.

    Wrong lengths and points that are not on the curve are a plain ``False``.
    """
    if len(signature) != SIGNATURE_BYTES or len(public_key) != PUBLIC_KEY_BYTES:
        return False
    return _ed25519_verify(signature, message, public_key)


def zstd_decompress(stored: bytes, size: int, dictionary: bytes | bytearray | memoryview = b"") -> bytes:
    """The content of one zstd frame, which must be exactly ``size`` bytes.

    ``dictionary`` is plain content that the frame was compressed against, or nothing. Memory is bounded
    by ``size``, whatever ``stored`` claims.

    Raises:
        ValueError: ``stored`` is not one whole frame of that size.
    """
    plain = _zstd_decompress(stored, size, dictionary)
    if len(plain) != size:
        raise ValueError(f"{len(plain)} bytes after decompression, expected {size}")
    return plain


def _host_ed25519_verify(signature: bytes, message: bytes, public_key: bytes) -> bool:
    try:  # guarded, so that freezing this module leaves the host's library out
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _host_zstd_decompress(stored: bytes, size_max: int, dictionary: bytes | bytearray | memoryview = b"") -> bytes:
    try:  # guarded, as above
        import zstandard
    except ImportError:
        raise
    try:
        # The library believes the size that the frame claims and allocates it: look first.
        claimed = zstandard.get_frame_parameters(stored).content_size
        if claimed > size_max and claimed != zstandard.CONTENTSIZE_UNKNOWN:
            raise ValueError(f"claims {claimed} bytes, allowed are {size_max}")
        content = zstandard.ZstdCompressionDict(dictionary, zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
        decompressor = zstandard.ZstdDecompressor(content)
        return decompressor.decompress(stored, max_output_size=size_max, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


try:
    import _unbrick
except ImportError:
    _ed25519_verify = _host_ed25519_verify
    _zstd_decompress = _host_zstd_decompress
else:
    _ed25519_verify = _unbrick.ed25519_verify  # type: ignore[assignment]
    _zstd_decompress = _unbrick.zstd_decompress  # type: ignore[assignment]
