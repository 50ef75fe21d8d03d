/* hone doctor: what this machine has and what would run on it. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "core/base/version.h"
#include "kernels/kern.h"

#include <jansson.h>
#include <microhttpd.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

typedef struct options {
    bool json;
} options;

static const args_row rows[] = {{"json", offsetof(options, json), ARGS_FLAG}, {NULL, 0, ARGS_TEXT}};

/* {"name", "device" or "error"} of one backend. */
static json_t *look_at(const char *backend)
{
    kern_dev *d;
    char err[256];
    json_t *o = json_pack("{s:s}", "backend", backend);
    if (kern_open(&d, backend, NULL, err) == 0) {
        json_object_set_new(o, "device", json_string(d->name));
        json_object_set_new(o, "threads", json_integer(d->threads));
        kern_close(d);
    } else {
        json_object_set_new(o, "error", json_string(err));
    }
    return o;
}

static json_t *examine(void)
{
    struct utsname u;
    double page = (double)sysconf(_SC_PAGESIZE);
    uname(&u);
    return json_pack(
        "{s:s, s:s, s:i, s:f, s:f, s:[o, o], s:{s:s, s:s, s:s, s:s}}", "hone", HONE_VERSION,
        "system", u.release, "processors", (int)sysconf(_SC_NPROCESSORS_ONLN), "memory_gib",
        (double)sysconf(_SC_PHYS_PAGES) * page / 1073741824.0, "memory_free_gib",
        (double)sysconf(_SC_AVPHYS_PAGES) * page / 1073741824.0, "backends", look_at("cpu"),
        look_at("cuda"), "libraries", "libsodium", sodium_version_string(), "sqlite",
        sqlite3_libversion(), "libmicrohttpd", MHD_get_version(), "jansson", JANSSON_VERSION);
}

static void print(const json_t *o)
{
    size_t i;
    json_t *b, *v;
    const char *name;
    printf("hone %s on Linux %s, %d processors, %.1f GiB memory (%.1f free)\n",
           json_string_value(json_object_get(o, "hone")),
           json_string_value(json_object_get(o, "system")),
           (int)json_integer_value(json_object_get(o, "processors")),
           json_real_value(json_object_get(o, "memory_gib")),
           json_real_value(json_object_get(o, "memory_free_gib")));
    json_array_foreach (json_object_get(o, "backends"), i, b) {
        json_t *device = json_object_get(b, "device");
        printf("%-5s %s: %s\n", json_string_value(json_object_get(b, "backend")),
               device != NULL ? "yes" : "no",
               json_string_value(device != NULL ? device : json_object_get(b, "error")));
    }
    printf("device: auto would take %s\n",
           json_object_get(json_array_get(json_object_get(o, "backends"), 1), "device") != NULL
               ? "cuda"
               : "cpu");
    printf("libraries:");
    json_object_foreach (json_object_get(o, "libraries"), name, v) {
        printf(" %s %s", name, json_string_value(v));
    }
    putchar('\n');
}

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    int n_rest;
    if (args_parse(rows, &o, argc, argv, NULL, 0, &n_rest, &e) != 0)
        return cmd_usage(&cmd_doctor, "%s", e.msg);
    json_t *found = examine();
    if (o.json) {
        json_dumpf(found, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print(found);
    }
    json_decref(found);
    return 0;
}

const cmd cmd_doctor = {
    "doctor", run, "what this machine has and what would run",
    "usage: hone doctor [--json]\n"
    "\n"
    "Shows the machine, the backends with the reason where one cannot run, and the "
    "libraries.\n"
    "\n"
    "example: hone doctor"};
