/* The module `_unbrick_tls`: the client's end of one TLS connection, without a socket and without a clock.
 *
 * Bytes from the network are fed in, bytes for the network are taken out; waiting, sending and every time
 * limit are the caller's, in payload/tls.py. So no signal can come from here, and nothing can hang.
 *
 * Trusted are the given certificates and no others: no default path, no configuration file, no variable of
 * the environment, and (no_loader.c) no way to load code. TLS 1.2 with forward secrecy and authenticated
 * encryption, or TLS 1.3. Whatever OpenSSL refuses is a ValueError with its reason, which is bounded.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum {
    ANCHORS_MAX = 256,
    ANCHOR_BYTES_MAX = 64 * 1024,
    CHAIN_BYTES_MAX = 64 * 1024, /* all that a server may send as its chain */
    CHAIN_DEPTH_MAX = 8,         /* certificates between the server's own and the anchor */
    TRANSFER_BYTES_MAX = 64 * 1024,
    SECURITY_LEVEL = 2, /* 112 bits: no RSA below 2048, no SHA-1 in signatures */
};

static const char CIPHERS_OF_1_2[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
static const char GROUPS[] = "X25519:P-256:P-384";

typedef struct {
    PyObject_HEAD
    SSL *ssl;
    BIO *incoming, *outgoing; /* belong to ssl */
} Session;

/* Turns OpenSSL's queue of errors, which is emptied, into a ValueError. The first one is the cause. */
static PyObject *refuse(const Session *session, const char *otherwise)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : otherwise;
    long verdict = session && session->ssl ? SSL_get_verify_result(session->ssl) : X509_V_OK;

    if (verdict != X509_V_OK)
        reason = X509_verify_cert_error_string(verdict);
    if (reason)
        PyErr_Format(PyExc_ValueError, "%.160s", reason); /* bounded */
    else
        PyErr_Format(PyExc_ValueError, "OpenSSL's error %lx", code);
    ERR_clear_error();
    return NULL;
}

/* The time of judgement is a lower bound of the time that it is: the newest that somebody signed. It proves
 * that a certificate is over, never that one has not begun. And an anchor is believed because it is in
 * the image, not because of its dates: unless the server presents it as its own. */
static int judge(int valid, X509_STORE_CTX *chain)
{
    int error = X509_STORE_CTX_get_error(chain);
    int depth = X509_STORE_CTX_get_error_depth(chain);
    int is_anchor = depth > 0 && depth == sk_X509_num(X509_STORE_CTX_get0_chain(chain)) - 1;

    if (!valid && (error == X509_V_ERR_CERT_NOT_YET_VALID || (error == X509_V_ERR_CERT_HAS_EXPIRED && is_anchor))) {
        X509_STORE_CTX_set_error(chain, X509_V_OK);
        return 1;
    }
    return valid;
}

/* Adds each DER certificate of a tuple. 0: an error is set. */
static int add_anchors(X509_STORE *store, PyObject *anchors)
{
    Py_ssize_t count = PyTuple_GET_SIZE(anchors);

    if (count < 1 || count > ANCHORS_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd trust anchors; 1 to %d are allowed", count, ANCHORS_MAX);
        return 0;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        char *bytes;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(anchors, index), &bytes, &length))
            return 0;
        const unsigned char *place = (const unsigned char *)bytes;
        X509 *anchor = length <= ANCHOR_BYTES_MAX ? d2i_X509(NULL, &place, (long)length) : NULL;
        int added = anchor && (const char *)place == bytes + length && X509_STORE_add_cert(store, anchor);
        X509_free(anchor);
        if (!added) {
            ERR_clear_error();
            PyErr_Format(PyExc_ValueError, "trust anchor %zd is no X.509 certificate", index + 1);
            return 0;
        }
    }
    return 1;
}

/* What every connection has in common. NULL: an error is set. */
static SSL_CTX *new_context(PyObject *anchors)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (!context)
        return (SSL_CTX *)refuse(NULL, "no memory");
    SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
    SSL_CTX_set_max_cert_list(context, CHAIN_BYTES_MAX);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, judge);
    SSL_CTX_set_verify_depth(context, CHAIN_DEPTH_MAX);
    if (!SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) || !SSL_CTX_set_cipher_list(context, CIPHERS_OF_1_2)
        || !SSL_CTX_set1_groups_list(context, GROUPS))
        refuse(NULL, "no memory");
    else if (add_anchors(SSL_CTX_get_cert_store(context), anchors))
        return context;
    SSL_CTX_free(context);
    return NULL;
}

/* Whom to expect: the names in the certificate count, its subject does not. An address is sent to nobody. */
static int expect(SSL *ssl, const char *host, int is_address, long long at)
{
    X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);

    X509_VERIFY_PARAM_set_time(wanted, (time_t)at);
    X509_VERIFY_PARAM_set_flags(wanted, X509_V_FLAG_PARTIAL_CHAIN);
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (is_address)
        return X509_VERIFY_PARAM_set1_ip_asc(wanted, host);
    /* To OpenSSL a name with a dot in front is a whole domain, and no name is any name. */
    return *host && *host != '.' && X509_VERIFY_PARAM_set1_host(wanted, host, 0)
           && SSL_set_tlsext_host_name(ssl, host);
}

static int attach(Session *session, SSL_CTX *context)
{
    session->ssl = SSL_new(context);
    session->incoming = BIO_new(BIO_s_mem());
    session->outgoing = BIO_new(BIO_s_mem());
    if (!session->ssl || !session->incoming || !session->outgoing) {
        BIO_free(session->incoming);
        BIO_free(session->outgoing);
        return 0;
    }
    BIO_set_mem_eof_return(session->incoming, -1); /* empty is not ended */
    SSL_set_bio(session->ssl, session->incoming, session->outgoing);
    SSL_set_connect_state(session->ssl);
    return 1;
}

/* Session(host, is_address, anchors, at): a tuple of DER certificates, and seconds since 1970. */
static PyObject *session_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    const char *host;
    int is_address;
    PyObject *anchors;
    long long at;
    SSL_CTX *context;
    Session *session;

    if (!PyArg_ParseTuple(arguments, "spO!L:Session", &host, &is_address, &PyTuple_Type, &anchors, &at))
        return NULL;
    if (!(context = new_context(anchors)))
        return NULL;
    session = (Session *)type->tp_alloc(type, 0);
    if (session && !attach(session, context)) {
        Py_CLEAR(session);
        refuse(NULL, "no memory");
    } else if (session && !expect(session->ssl, host, is_address, at)) {
        Py_CLEAR(session);
        ERR_clear_error();
        PyErr_Format(PyExc_ValueError, "no host has the name %.80s", host);
    }
    SSL_CTX_free(context); /* the session holds it too */
    return (PyObject *)session;
}

static void session_free(Session *self)
{
    PyTypeObject *type = Py_TYPE(self);

    SSL_free(self->ssl);
    type->tp_free(self);
    Py_DECREF(type);
}

/* handshake() -> bool: it is done, or more must be fed. Take out what it has to say in either case. */
static PyObject *session_handshake(Session *self, PyObject *none)
{
    ERR_clear_error();
    int result = SSL_do_handshake(self->ssl);
    if (result != 1 && SSL_get_error(self->ssl, result) != SSL_ERROR_WANT_READ)
        return refuse(self, "the handshake failed");
    return PyBool_FromLong(result == 1);
}

/* read(size_max) -> bytes | None: b"" after the peer's farewell, None when more must be fed. */
static PyObject *session_read(Session *self, PyObject *arguments)
{
    Py_ssize_t size_max;
    size_t got = 0;

    if (!PyArg_ParseTuple(arguments, "n:read", &size_max))
        return NULL;
    if (size_max < 1 || size_max > TRANSFER_BYTES_MAX)
        return PyErr_Format(PyExc_ValueError, "reading %zd bytes; 1 to %d are allowed", size_max, TRANSFER_BYTES_MAX);
    PyObject *content = PyBytes_FromStringAndSize(NULL, size_max);
    if (!content)
        return NULL;
    ERR_clear_error();
    int result = SSL_read_ex(self->ssl, PyBytes_AS_STRING(content), size_max, &got);
    int error = SSL_get_error(self->ssl, result);
    if (result == 1 || error == SSL_ERROR_ZERO_RETURN) {
        _PyBytes_Resize(&content, got);
        return content;
    }
    Py_DECREF(content);
    if (error == SSL_ERROR_WANT_READ)
        Py_RETURN_NONE;
    return refuse(self, "the connection broke");
}

/* write(content): all of it is encrypted, and waits to be taken out. */
static PyObject *session_write(Session *self, PyObject *arguments)
{
    Py_buffer content;
    size_t written = 0;
    int result;

    if (!PyArg_ParseTuple(arguments, "y*:write", &content))
        return NULL;
    ERR_clear_error();
    if (content.len < 1 || content.len > TRANSFER_BYTES_MAX) {
        PyErr_Format(PyExc_ValueError, "writing %zd bytes; 1 to %d are allowed", content.len, TRANSFER_BYTES_MAX);
        result = 0;
    } else if (!(result = SSL_write_ex(self->ssl, content.buf, content.len, &written))) {
        refuse(self, "nothing can be written now");
    }
    PyBuffer_Release(&content);
    if (!result)
        return NULL;
    Py_RETURN_NONE;
}

/* feed(content): what came from the network; b"" when nothing will come any more. */
static PyObject *session_feed(Session *self, PyObject *arguments)
{
    Py_buffer content;
    int taken = 1;

    if (!PyArg_ParseTuple(arguments, "y*:feed", &content))
        return NULL;
    if (content.len == 0)
        BIO_set_mem_eof_return(self->incoming, 0);
    else if (content.len > TRANSFER_BYTES_MAX)
        taken = 0;
    else
        taken = BIO_write(self->incoming, content.buf, (int)content.len) == content.len;
    PyBuffer_Release(&content);
    if (!taken)
        return refuse(NULL, "too much at once");
    Py_RETURN_NONE;
}

/* take() -> bytes: everything there is for the network. */
static PyObject *session_take(Session *self, PyObject *none)
{
    char *start;
    long length = BIO_get_mem_data(self->outgoing, &start);
    PyObject *content = PyBytes_FromStringAndSize(start, length);

    if (content)
        (void)BIO_reset(self->outgoing);
    return content;
}

/* farewell(): say that nothing more will be written. It waits to be taken out. */
static PyObject *session_farewell(Session *self, PyObject *none)
{
    SSL_shutdown(self->ssl); /* fails in the middle of a handshake, where nothing needs to be said */
    ERR_clear_error();
    Py_RETURN_NONE;
}

/* protocol() -> str: as `TLSv1.3 TLS_AES_256_GCM_SHA384`. */
static PyObject *session_protocol(Session *self, PyObject *none)
{
    return PyUnicode_FromFormat("%s %s", SSL_get_version(self->ssl), SSL_get_cipher_name(self->ssl));
}

static PyMethodDef session_methods[] = {
    {"handshake", (PyCFunction)session_handshake, METH_NOARGS, NULL},
    {"read", (PyCFunction)session_read, METH_VARARGS, NULL},
    {"write", (PyCFunction)session_write, METH_VARARGS, NULL},
    {"feed", (PyCFunction)session_feed, METH_VARARGS, NULL},
    {"take", (PyCFunction)session_take, METH_NOARGS, NULL},
    {"farewell", (PyCFunction)session_farewell, METH_NOARGS, NULL},
    {"protocol", (PyCFunction)session_protocol, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_new, session_new},
    {Py_tp_dealloc, session_free},
    {Py_tp_methods, session_methods},
    {0, NULL},
};

static PyType_Spec session_type = {"_unbrick_tls.Session", sizeof(Session), 0, Py_TPFLAGS_DEFAULT, session_slots};

static int prepare(PyObject *module)
{
    uint64_t what = OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_LOAD_SSL_STRINGS
                    | OPENSSL_INIT_LOAD_CRYPTO_STRINGS;
    PyObject *type = PyType_FromSpec(&session_type);
    int failed = !type || PyModule_AddObjectRef(module, "Session", type);

    Py_XDECREF(type);
    if (!failed && !OPENSSL_init_ssl(what, NULL)) {
        refuse(NULL, "OpenSSL does not start");
        failed = 1;
    }
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, prepare}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_unbrick_tls", NULL, 0, NULL, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__unbrick_tls(void)
{
    return PyModuleDef_Init(&definition);
}
