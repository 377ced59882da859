/* Decompression piece by piece: what is too large to be held at once, such as the content of a package.
 *
 * A stream is made for one whole frame (zstd) or stream (xz); its memory is bounded when it is made, whatever the
 * bytes claim. What is damaged or wants more memory raises ValueError. Thin: no policy.
 */
#define PY_SSIZE_T_CLEAN
#include "native.h"

#include <lzma.h>
#include <zstd.h>

enum { PIECE_BYTES_MAX = 1024 * 1024 };

typedef struct {
    PyObject_HEAD
    ZSTD_DCtx *zstd; /* one of the two is used */
    lzma_stream xz;
    int busy; /* a step runs without the interpreter's lock */
} Stream;

/* What a step did. problem is NULL if all went well. */
typedef struct {
    size_t taken, given;
    int ended;
    const char *problem;
} Step;

static Step step_zstd(Stream *self, const void *input, size_t size, void *output, size_t capacity)
{
    ZSTD_inBuffer from = {input, size, 0};
    ZSTD_outBuffer to = {output, capacity, 0};
    size_t result = ZSTD_decompressStream(self->zstd, &to, &from);

    return (Step){from.pos, to.pos, result == 0, ZSTD_isError(result) ? ZSTD_getErrorName(result) : NULL};
}

static const char *xz_problem(lzma_ret result)
{
    switch (result) {
    case LZMA_OK:
    case LZMA_STREAM_END:
    case LZMA_BUF_ERROR: /* nothing to do with what there is: the caller's loop ends it */
        return NULL;
    case LZMA_MEMLIMIT_ERROR:
        return "wants more memory than is allowed";
    case LZMA_FORMAT_ERROR:
        return "not xz";
    case LZMA_OPTIONS_ERROR:
        return "made in a way that is not supported";
    case LZMA_MEM_ERROR:
        return "no memory";
    default:
        return "damaged";
    }
}

static Step step_xz(Stream *self, const void *input, size_t size, void *output, size_t capacity)
{
    lzma_ret result;

    self->xz.next_in = input;
    self->xz.avail_in = size;
    self->xz.next_out = output;
    self->xz.avail_out = capacity;
    result = lzma_code(&self->xz, LZMA_RUN);
    return (Step){size - self->xz.avail_in, capacity - self->xz.avail_out, result == LZMA_STREAM_END,
                  xz_problem(result)};
}

/* step(input, output_bytes_max) -> (output, bytes of the input that were taken, whether the stream has ended) */
static PyObject *stream_step(PyObject *object, PyObject *arguments)
{
    Stream *self = (Stream *)object;
    Py_buffer input;
    Py_ssize_t capacity;
    PyObject *output = NULL, *answer = NULL;
    Step done;

    if (!PyArg_ParseTuple(arguments, "y*n:step", &input, &capacity))
        return NULL;
    if (capacity <= 0 || capacity > PIECE_BYTES_MAX || self->busy)
        PyErr_Format(PyExc_ValueError, "a step gives 1 to %d bytes, and one at a time", PIECE_BYTES_MAX);
    else if ((output = PyBytes_FromStringAndSize(NULL, capacity))) {
        self->busy = 1;
        Py_BEGIN_ALLOW_THREADS
        done = (self->zstd ? step_zstd : step_xz)(self, input.buf, input.len, PyBytes_AS_STRING(output), capacity);
        Py_END_ALLOW_THREADS
        self->busy = 0;
        if (done.problem)
            PyErr_Format(PyExc_ValueError, "%s: %s", self->zstd ? "zstd" : "xz", done.problem);
        else if (_PyBytes_Resize(&output, done.given) == 0)
            answer = Py_BuildValue("OnN", output, (Py_ssize_t)done.taken, PyBool_FromLong(done.ended));
    }
    Py_XDECREF(output);
    PyBuffer_Release(&input);
    return answer;
}

static void stream_free(PyObject *object)
{
    Stream *self = (Stream *)object;

    ZSTD_freeDCtx(self->zstd);
    lzma_end(&self->xz);
    PyObject_Free(object);
}

static PyMethodDef methods[] = {
    {"step", stream_step, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "_unbrick.Stream",
    .tp_basicsize = sizeof(Stream),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = stream_free,
    .tp_methods = methods,
};

static Stream *new_stream(void)
{
    Stream *self = PyType_Ready(&type) == 0 ? PyObject_New(Stream, &type) : NULL;

    if (self) {
        self->zstd = NULL;
        self->xz = (lzma_stream)LZMA_STREAM_INIT;
        self->busy = 0;
    }
    return self;
}

/* zstd_stream(window_log_max) -> Stream, which takes a window of at most two to that power bytes. */
PyObject *unbrick_zstd_stream(PyObject *self, PyObject *arguments)
{
    int window_log_max;
    Stream *stream;

    if (!PyArg_ParseTuple(arguments, "i:zstd_stream", &window_log_max) || !(stream = new_stream()))
        return NULL;
    if (!(stream->zstd = ZSTD_createDCtx()))
        PyErr_NoMemory();
    else if (ZSTD_isError(ZSTD_DCtx_setParameter(stream->zstd, ZSTD_d_windowLogMax, window_log_max)))
        PyErr_SetString(PyExc_ValueError, "no such window");
    else
        return (PyObject *)stream;
    Py_DECREF(stream);
    return NULL;
}

/* xz_stream(memory_bytes_max) -> Stream */
PyObject *unbrick_xz_stream(PyObject *self, PyObject *arguments)
{
    unsigned long long memory_bytes_max;
    Stream *stream;

    if (!PyArg_ParseTuple(arguments, "K:xz_stream", &memory_bytes_max) || !(stream = new_stream()))
        return NULL;
    if (lzma_stream_decoder(&stream->xz, memory_bytes_max, 0) == LZMA_OK)
        return (PyObject *)stream;
    Py_DECREF(stream);
    return PyErr_NoMemory();
}
