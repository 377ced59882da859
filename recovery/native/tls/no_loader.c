/* Takes the place of OpenSSL's way to load shared objects, because the linker takes the first definition it
 * meets. A static program has nothing to load; without this a dynamic loader would be linked in, and a
 * configuration file or an engine could still ask for it. OpenSSL reports every method that is absent.
 */
static const void *const no_methods[16]; /* a DSO_METHOD of OpenSSL 3 has a name and ten functions */

const void *DSO_METHOD_openssl(void)
{
    return no_methods;
}
