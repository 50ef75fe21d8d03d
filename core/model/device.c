#include "core/model/device.h"

#include "core/base/file.h"
#include "core/base/log.h"

#include <string.h>

/* A driver has left its mark, whether it works or not. */
static bool has_card(void)
{
    return file_exists("/proc/driver/nvidia/version") || file_exists("/dev/nvidia0");
}

int device_open(kern_dev **out, const char *name, int threads, hone_err *e)
{
    char why[256];
    const char *asked = name != NULL ? name : "auto";
    int rc = kern_open(out, asked, &(kern_open_args){.threads = threads}, why);
    if (rc != 0)
        return hone_fail(e, rc, "%s", why);
    if (strcmp(asked, "auto") != 0)
        return 0;
    if (why[0] == '\0')
        log_info("device", "auto takes %s: %s", (*out)->backend, (*out)->name);
    else
        log_line(has_card() ? LOG_WARN : LOG_INFO, "device", "auto takes %s: %s (%s)",
                 (*out)->backend, (*out)->name, why);
    return 0;
}
