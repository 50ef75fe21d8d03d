#include "cli/state.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "serve/http/serve_conf.h"

#include <pwd.h>
#include <unistd.h>

int state_open(store **out, const char *config, const char *state, bool must_exist, hone_err *e)
{
    serve_conf c = {0};
    store_options o = {.must_exist = must_exist};
    *out = NULL;
    if (config != NULL && state != NULL)
        return hone_fail(e, HONE_EINVAL, "--config and --state exclude each other");
    if (config == NULL && state == NULL && file_exists("hone.yaml"))
        config = "hone.yaml";
    int rc = serve_conf_load(&c, config, NULL, 0, e);
    if (rc == 0)
        rc = store_open(out, state != NULL ? state : c.state_dir, &o, e);
    serve_conf_free(&c);
    return rc;
}

char *state_actor(void)
{
    const struct passwd *p = getpwuid(getuid());
    return p != NULL ? mem_printf("cli:%s", p->pw_name) : mem_printf("cli:%u", (unsigned)getuid());
}
