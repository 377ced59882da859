/* Starts the frozen interpreter. Nothing is looked up: no file, no environment, no locale, no entropy.
 *
 * Every module is in the executable, so the search path is empty and the prefixes are names only.
 * The hash seed is fixed: on a machine that has just started, waiting for entropy takes a second.
 * The price is that strangers can craft colliding keys, so what they may put into a dict is bounded
 * where it is parsed.
 */
#include "native.h"

#include <malloc.h>

enum {
    PIECE_BYTES_MAX = 1280 * 1024,     /* more than is written at once */
    KEPT_BYTES_MAX = 32 * 1024 * 1024, /* the largest threshold that malloc takes */
};

/* Frames come and go by the thousand. What malloc gives back to the system after each is faulted in again, page
 * by page, for the next: a third of the time of an installation. What is larger than a piece comes once, as an index does,
 * and its place would be kept for nothing: 5 MB. One arena, so that threads use the same memory. */
static void keep_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, PIECE_BYTES_MAX);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX);
    mallopt(M_ARENA_MAX, 1);
}

/* Three parts of libpython are replaced here, because the linker takes the first definition it meets.
 * Modules/getpath.c runs a Python program to find directories: there are none. Python/deepfreeze.c holds
 * a second form of the start-up modules, a tenth of the executable, and interns all of it at every start.
 * Python/frozen.c names what that holds, zipimport and test modules among them: see the generated tables. */
PyStatus _PyConfig_InitPathConfig(PyConfig *config, int compute)
{
    (void)config, (void)compute;
    return PyStatus_Ok();
}

int _Py_Deepfreeze_Init(void)
{
    return 0;
}

void _Py_Deepfreeze_Fini(void)
{
}

static void end_on(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

static void start_interpreter(int count, char **arguments)
{
    PyPreConfig early;
    PyConfig config;

    PyPreConfig_InitIsolatedConfig(&early);
    early.utf8_mode = 1;
    early.configure_locale = 0;
    end_on(Py_PreInitialize(&early));

    PyConfig_InitIsolatedConfig(&config);
    config.use_hash_seed = 1;
    config.hash_seed = 0;
    config.site_import = 0;
    config.write_bytecode = 0;
    config.install_signal_handlers = 0;
    config.buffered_stdio = 0;
    config.code_debug_ranges = 0;
    config.pathconfig_warnings = 0;
    config.module_search_paths_set = 1;
    wchar_t **names[] = {
        &config.program_name, &config.executable, &config.base_executable, &config.prefix, &config.base_prefix,
        &config.exec_prefix, &config.base_exec_prefix, &config.stdlib_dir,
    };
    for (size_t index = 0; index < sizeof names / sizeof *names; index++)
        end_on(PyConfig_SetString(&config, names[index], L"/init"));
    end_on(PyConfig_SetString(&config, &config.stdio_encoding, L"utf-8"));
    /* A console must never raise: what it cannot show is escaped. */
    end_on(PyConfig_SetString(&config, &config.stdio_errors, L"backslashreplace"));
    end_on(PyConfig_SetBytesArgv(&config, count, arguments));
    end_on(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

/* The exit code, or -1 with a Python error set. */
static int call_main(const char *name)
{
    PyObject *module = PyImport_ImportModule(name);
    PyObject *arguments = module ? PySys_GetObject("argv") : NULL;
    PyObject *result = arguments ? PyObject_CallMethod(module, "main", "O", arguments) : NULL;
    long code = -1;

    if (result)
        code = result == Py_None ? 0 : PyLong_AsLong(result);
    Py_XDECREF(result);
    Py_XDECREF(module);
    return (int)code;
}

int run_python(const char *module, int count, char **arguments)
{
    keep_memory();
    start_interpreter(count, arguments);
    int code = call_main(module);
    if (PyErr_Occurred()) {
        PyErr_Print(); /* ends the process itself for SystemExit */
        code = 1;
    }
    return Py_FinalizeEx() < 0 ? 1 : code;
}
