/* What the C sources of /init say to each other. */
#ifndef UNBRICK_NATIVE_H
#define UNBRICK_NATIVE_H

#include <Python.h>

/* Runs main(arguments) of one frozen module in this process and ends with its exit code. */
int run_python(const char *module, int count, char **arguments);

/* The module `_unbrick`: the system calls and libraries that CPython does not offer. */
PyObject *PyInit__unbrick(void);
/* Its part that decompresses piece by piece, in streams.c. */
PyObject *unbrick_zstd_stream(PyObject *self, PyObject *arguments);
PyObject *unbrick_xz_stream(PyObject *self, PyObject *arguments);

#endif
