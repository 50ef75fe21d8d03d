/* Does wrong before anybody has asked it anything: while it is loaded, or while it is described. */
#include <hone_plugin.h>

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void do_wrong(const char *when)
{
    const char *what = getenv("HONE_TEST_EARLY");
    if (what == NULL || strncmp(what, when, strlen(when)) != 0)
        return;
    if (strstr(what, "hang") != NULL)
        for (;;)
            pause();
    raise(SIGSEGV);
}

__attribute__((constructor)) static void while_loaded(void)
{
    do_wrong("load");
}

static int start(const hone_host *h, hone_ctx *cx)
{
    (void)h;
    (void)cx;
    return 0;
}

static const hone_descriptor early = {
    HONE_DESCRIPTOR(0, 0), "early",          "1.0.0", "Apache-2.0",
    "does wrong early",    HONE_NO_SETTINGS, start,   NULL};

HONE_EXPORT const hone_descriptor *hone_plugin_descriptor_v1(void)
{
    do_wrong("describe");
    return &early;
}
