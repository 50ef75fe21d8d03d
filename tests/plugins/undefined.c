/* A plugin that needs a function that nobody has. */
#include <hone_plugin.h>

int hone_test_nobody_has_this(void);

static int start(const hone_host *h, hone_ctx *cx)
{
    (void)h;
    (void)cx;
    return hone_test_nobody_has_this();
}

static const hone_descriptor undefined = {
    HONE_DESCRIPTOR(0, 0), "undefined",      "1.0.0", "Apache-2.0",
    "lacks something",     HONE_NO_SETTINGS, start,   NULL};
HONE_PLUGIN(undefined)
