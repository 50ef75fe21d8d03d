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

/* {"backend", "device" or "error"} of one backend; of "auto" also which one it "took" and, when
 * that is not the card, "why". */
static json_t *look_at(const char *backend)
{
    kern_dev *d;
    char err[256];
    json_t *o = json_pack("{s:s}", "backend", backend);
    if (kern_open(&d, backend, NULL, err) == 0) {
        json_object_set_new(o, "device", json_string(d->name));
        if (strcmp(backend, "auto") == 0)
            json_object_set_new(o, "took", json_string(d->backend));
        json_object_set_new(o, "threads", json_integer(d->threads));
        if (d->mem_total > 0)
            json_object_set_new(o, "memory_gib", json_real((double)d->mem_total / 1073741824.0));
        if (err[0] != '\0')
            json_object_set_new(o, "why", json_string(err));
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
    return json_pack("{s:s, s:s, s:i, s:f, s:f, s:[o, o], s:o, s:{s:s, s:s, s:s, s:s}}", "hone",
                     HONE_VERSION, "system", u.release, "processors",
                     (int)sysconf(_SC_NPROCESSORS_ONLN), "memory_gib",
                     (double)sysconf(_SC_PHYS_PAGES) * page / 1073741824.0, "memory_free_gib",
                     (double)sysconf(_SC_AVPHYS_PAGES) * page / 1073741824.0, "backends",
                     look_at("cpu"), look_at("cuda"), "auto", look_at("auto"), "libraries",
                     "libsodium", sodium_version_string(), "sqlite", sqlite3_libversion(),
                     "libmicrohttpd", MHD_get_version(), "jansson", JANSSON_VERSION);
}

/* What a command without --device would run on. */
static void print_choice(const json_t *o)
{
    const char *took = json_string_value(json_object_get(o, "took"));
    if (took == NULL)
        printf("device: auto would fail: %s\n", json_string_value(json_object_get(o, "error")));
    else
        printf("device: auto would take %s%s\n", took,
               json_object_get(o, "why") != NULL ? ", since no card can be used (see cuda)" : "");
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
    print_choice(json_object_get(o, "auto"));
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
        cmd_print(found);
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
