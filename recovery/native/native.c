/* The module `_unbrick`: system calls and libraries that CPython does not offer. Thin: no policy.
 *
 * A system call that fails raises OSError with its errno; data that is wrong raises ValueError; a bad
 * signature is an answer, not an error. Everything that can take time runs without the interpreter's lock.
 */
#define PY_SSIZE_T_CLEAN
#include "native.h"

#include <errno.h>
#include <sodium/crypto_sign_ed25519.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/blkpg.h>
#include <sys/ioctl.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
    DIRECT_ALIGNMENT_BYTES = 4096, /* no disk of today asks for more */
    TRANSFER_BYTES_MAX = 16 * 1024 * 1024,
    DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024,
};

static PyObject *none_or_error(long result)
{
    if (result < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* mount(source, target, filesystem, flags, data): each text may be None, as mount(2) allows. */
static PyObject *unbrick_mount(PyObject *self, PyObject *arguments)
{
    const char *source, *target, *filesystem, *data;
    unsigned long flags;
    int result;

    if (!PyArg_ParseTuple(arguments, "zszkz:mount", &source, &target, &filesystem, &flags, &data))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = mount(source, target, filesystem, flags, data);
    Py_END_ALLOW_THREADS
    return none_or_error(result);
}

static PyObject *unbrick_umount(PyObject *self, PyObject *arguments)
{
    const char *target;
    int flags, result;

    if (!PyArg_ParseTuple(arguments, "si:umount", &target, &flags))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = umount2(target, flags);
    Py_END_ALLOW_THREADS
    return none_or_error(result);
}

static PyObject *unbrick_finit_module(PyObject *self, PyObject *arguments)
{
    const char *parameters;
    int file;
    long result;

    if (!PyArg_ParseTuple(arguments, "is:finit_module", &file, &parameters))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = syscall(SYS_finit_module, file, parameters, 0);
    Py_END_ALLOW_THREADS
    return none_or_error(result);
}

/* syncfs(file): everything that was done to the file system of this descriptor is durable. */
static PyObject *unbrick_syncfs(PyObject *self, PyObject *arguments)
{
    int file, result;

    if (!PyArg_ParseTuple(arguments, "i:syncfs", &file))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = syncfs(file);
    Py_END_ALLOW_THREADS
    return none_or_error(result);
}

/* A buffer that O_DIRECT accepts; NULL with an error set. */
static void *aligned_buffer(Py_ssize_t length)
{
    void *buffer = NULL;

    if (length < 0 || length > TRANSFER_BYTES_MAX)
        PyErr_Format(PyExc_ValueError, "%zd bytes in one transfer; 0 to %d are allowed", length, TRANSFER_BYTES_MAX);
    else if (posix_memalign(&buffer, DIRECT_ALIGNMENT_BYTES, length ? length : 1))
        PyErr_NoMemory();
    return buffer;
}

/* Moves length bytes, in as many calls as the kernel takes. Fewer only at the end of the file. -1: errno is set. */
static Py_ssize_t transfer(int file, char *buffer, Py_ssize_t length, long long offset, int write)
{
    Py_ssize_t done = 0;

    while (done < length) {
        ssize_t moved = write ? pwrite64(file, buffer + done, length - done, offset + done)
                              : pread64(file, buffer + done, length - done, offset + done);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return -1;
        if (moved == 0)
            break;
        done += moved;
    }
    return done;
}

/* pread_direct(file, length, offset) -> bytes, shorter only at the end of the file. */
static PyObject *unbrick_pread_direct(PyObject *self, PyObject *arguments)
{
    int file;
    Py_ssize_t length, done;
    long long offset;
    void *buffer;
    PyObject *content;

    if (!PyArg_ParseTuple(arguments, "inL:pread_direct", &file, &length, &offset))
        return NULL;
    if (!(buffer = aligned_buffer(length)))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = transfer(file, buffer, length, offset, 0);
    Py_END_ALLOW_THREADS
    content = done < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyBytes_FromStringAndSize(buffer, done);
    free(buffer);
    return content;
}

/* pwrite_direct(file, content, offset) -> int, the bytes written. */
static PyObject *unbrick_pwrite_direct(PyObject *self, PyObject *arguments)
{
    int file;
    Py_buffer content;
    Py_ssize_t done = -1;
    long long offset;
    void *buffer;

    if (!PyArg_ParseTuple(arguments, "iy*L:pwrite_direct", &file, &content, &offset))
        return NULL;
    if ((buffer = aligned_buffer(content.len))) {
        memcpy(buffer, content.buf, content.len);
        Py_BEGIN_ALLOW_THREADS
        done = transfer(file, buffer, content.len, offset, 1);
        Py_END_ALLOW_THREADS
        if (done < 0)
            PyErr_SetFromErrno(PyExc_OSError);
        free(buffer);
    }
    PyBuffer_Release(&content);
    return done < 0 ? NULL : PyLong_FromSsize_t(done);
}

/* ed25519_verify(signature, message, public_key) -> bool. sodium_init() is not called: verifying needs
 * none of what it prepares, and it waits for entropy, which a machine that has just started lacks. */
static PyObject *unbrick_ed25519_verify(PyObject *self, PyObject *arguments)
{
    Py_buffer signature, message, key;
    int valid = -1;

    if (!PyArg_ParseTuple(arguments, "y*y*y*:ed25519_verify", &signature, &message, &key))
        return NULL;
    if (signature.len != crypto_sign_ed25519_BYTES || key.len != crypto_sign_ed25519_PUBLICKEYBYTES) {
        PyErr_Format(PyExc_ValueError, "an Ed25519 signature has %d bytes and a key %d, not %zd and %zd",
                     crypto_sign_ed25519_BYTES, crypto_sign_ed25519_PUBLICKEYBYTES, signature.len, key.len);
    } else {
        Py_BEGIN_ALLOW_THREADS
        valid = crypto_sign_ed25519_verify_detached(signature.buf, message.buf, message.len, key.buf) == 0;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&signature);
    PyBuffer_Release(&message);
    PyBuffer_Release(&key);
    return valid < 0 ? NULL : PyBool_FromLong(valid);
}

/* The capacity to give the decompressor: what the frame announces, else the bound. -1 with an error set. */
static Py_ssize_t capacity_of(const Py_buffer *compressed, Py_ssize_t size_max)
{
    unsigned long long announced = ZSTD_getFrameContentSize(compressed->buf, compressed->len);

    if (size_max < 0 || size_max > DECOMPRESSED_BYTES_MAX) {
        PyErr_Format(PyExc_ValueError, "size_max is %zd; 0 to %d are allowed", size_max, DECOMPRESSED_BYTES_MAX);
        return -1;
    }
    if (announced == ZSTD_CONTENTSIZE_UNKNOWN)
        announced = (unsigned long long)size_max;
    if (announced == ZSTD_CONTENTSIZE_ERROR || announced > (unsigned long long)size_max) {
        PyErr_Format(PyExc_ValueError, "not a zstd frame of at most %zd bytes", size_max);
        return -1;
    }
    /* The decompressor would go on with what follows the frame: other frames, and those that are skipped. */
    if (ZSTD_findFrameCompressedSize(compressed->buf, compressed->len) != (size_t)compressed->len) {
        PyErr_SetString(PyExc_ValueError, "not one whole zstd frame");
        return -1;
    }
    return (Py_ssize_t)announced;
}

/* The size of the result or an error code of libzstd. A dictionary that looks like one of zstd's own, with tables in
 * front, is content all the same: it is a piece of somebody's disk. */
static size_t decompress(void *target, size_t capacity, const Py_buffer *compressed, const Py_buffer *dictionary)
{
    ZSTD_DCtx *context;
    size_t size;

    if (!dictionary->buf || dictionary->len == 0)
        return ZSTD_decompress(target, capacity, compressed->buf, compressed->len);
    if (!(context = ZSTD_createDCtx()))
        return (size_t)-ZSTD_error_memory_allocation;
    size = ZSTD_DCtx_refPrefix(context, dictionary->buf, dictionary->len);
    if (!ZSTD_isError(size))
        size = ZSTD_decompressDCtx(context, target, capacity, compressed->buf, compressed->len);
    ZSTD_freeDCtx(context);
    return size;
}

/* zstd_decompress(compressed, size_max[, dictionary]) -> bytes. Never allocates more than size_max for the result. */
static PyObject *unbrick_zstd_decompress(PyObject *self, PyObject *arguments)
{
    Py_buffer compressed, dictionary = {.buf = NULL};
    Py_ssize_t size_max, capacity;
    PyObject *content = NULL;
    size_t size;

    if (!PyArg_ParseTuple(arguments, "y*n|y*:zstd_decompress", &compressed, &size_max, &dictionary))
        return NULL;
    capacity = capacity_of(&compressed, size_max);
    if (capacity >= 0 && (content = PyBytes_FromStringAndSize(NULL, capacity))) {
        Py_BEGIN_ALLOW_THREADS
        size = decompress(PyBytes_AS_STRING(content), capacity, &compressed, &dictionary);
        Py_END_ALLOW_THREADS
        if (ZSTD_isError(size)) {
            PyErr_Format(PyExc_ValueError, "zstd: %s", ZSTD_getErrorName(size));
            Py_CLEAR(content);
        } else if ((Py_ssize_t)size < capacity) {
            _PyBytes_Resize(&content, size);
        }
    }
    PyBuffer_Release(&compressed);
    if (dictionary.buf)
        PyBuffer_Release(&dictionary);
    return content;
}

static PyObject *change_partition(int descriptor, int operation, struct blkpg_partition partition)
{
    struct blkpg_ioctl_arg request = {.op = operation, .datalen = sizeof partition, .data = &partition};
    int result;

    Py_BEGIN_ALLOW_THREADS
    result = ioctl(descriptor, BLKPG, &request);
    Py_END_ALLOW_THREADS
    return none_or_error(result);
}

/* add_partition(descriptor, number, offset, size), in bytes: for a disk whose table does not name it any more. */
static PyObject *unbrick_add_partition(PyObject *self, PyObject *arguments)
{
    int descriptor, number;
    long long offset, size;

    if (!PyArg_ParseTuple(arguments, "iiLL:add_partition", &descriptor, &number, &offset, &size))
        return NULL;
    struct blkpg_partition partition = {.start = offset, .length = size, .pno = number};
    return change_partition(descriptor, BLKPG_ADD_PARTITION, partition);
}

/* delete_partition(descriptor, number): the kernel forgets it; nothing on the disk changes. */
static PyObject *unbrick_delete_partition(PyObject *self, PyObject *arguments)
{
    int descriptor, number;

    if (!PyArg_ParseTuple(arguments, "ii:delete_partition", &descriptor, &number))
        return NULL;
    return change_partition(descriptor, BLKPG_DEL_PARTITION, (struct blkpg_partition){.pno = number});
}

static PyMethodDef methods[] = {
    {"mount", unbrick_mount, METH_VARARGS, NULL},
    {"umount", unbrick_umount, METH_VARARGS, NULL},
    {"finit_module", unbrick_finit_module, METH_VARARGS, NULL},
    {"syncfs", unbrick_syncfs, METH_VARARGS, NULL},
    {"pread_direct", unbrick_pread_direct, METH_VARARGS, NULL},
    {"pwrite_direct", unbrick_pwrite_direct, METH_VARARGS, NULL},
    {"add_partition", unbrick_add_partition, METH_VARARGS, NULL},
    {"delete_partition", unbrick_delete_partition, METH_VARARGS, NULL},
    {"ed25519_verify", unbrick_ed25519_verify, METH_VARARGS, NULL},
    {"zstd_decompress", unbrick_zstd_decompress, METH_VARARGS, NULL},
    {"zstd_stream", unbrick_zstd_stream, METH_VARARGS, NULL},
    {"xz_stream", unbrick_xz_stream, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_unbrick", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__unbrick(void)
{
    return PyModuleDef_Init(&definition);
}
