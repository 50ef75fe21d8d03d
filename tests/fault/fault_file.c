/* The writes of core/base. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/fault/cases.h"

#include <stdlib.h>
#include <string.h>

static void put_old(const char *dir)
{
    fault_put(dir, "a", "old");
}

static void put_nothing(const char *dir)
{
    (void)dir;
}

static fault_state which(bool is_old, bool is_new)
{
    return is_old ? FAULT_OLD : is_new ? FAULT_NEW : FAULT_BROKEN;
}

static int write_new(const char *dir, hone_err *e)
{
    char *path = path_join(dir, "a");
    int rc = file_write(path, "new and longer", 14, e);
    free(path);
    return rc;
}

static fault_state look_replaced(const char *dir)
{
    return which(fault_holds(dir, "a", "old"), fault_holds(dir, "a", "new and longer"));
}

static fault_state look_created(const char *dir)
{
    return which(fault_holds(dir, "a", NULL), fault_holds(dir, "a", "new and longer"));
}

const fault_case fault_file_write = {.name = "file_write",
                                     .prepare = put_old,
                                     .act = write_new,
                                     .look = look_replaced,
                                     .durable = true};
const fault_case fault_file_create = {.name = "file_create",
                                      .prepare = put_nothing,
                                      .act = write_new,
                                      .look = look_created,
                                      .durable = true};

enum { PIECES = 5 };

static int write_stream(const char *dir, hone_err *e)
{
    file_out *f;
    char *path = path_join(dir, "a");
    int rc = file_out_open(&f, path, 0644, e);
    for (int i = 0; rc == 0 && i < PIECES; i++)
        rc = file_out_write(f, "piece ", 6, e);
    if (rc == 0)
        rc = file_out_commit(f, e);
    else
        file_out_abort(f);
    free(path);
    return rc;
}

static fault_state look_stream(const char *dir)
{
    return which(fault_holds(dir, "a", "old"),
                 fault_holds(dir, "a", "piece piece piece piece piece "));
}

const fault_case fault_file_stream = {.name = "file_stream",
                                      .prepare = put_old,
                                      .act = write_stream,
                                      .look = look_stream,
                                      .durable = true};

static void put_log(const char *dir)
{
    fault_put(dir, "a", "one\ncut sho");
}

static int append(const char *dir, hone_err *e)
{
    char *path = path_join(dir, "a");
    int rc = file_append(path, "three\n", 6, true, e);
    free(path);
    return rc;
}

static fault_state look_log(const char *dir)
{
    return which(fault_holds(dir, "a", "one\ncut sho"),
                 fault_holds(dir, "a", "one\ncut sho\nthree\n"));
}

const fault_case fault_file_append = {
    .name = "file_append", .prepare = put_log, .act = append, .look = look_log, .durable = true};

static void put_pair(const char *dir)
{
    fault_put(dir, "a", "old");
    fault_put(dir, "b", "new and longer");
}

static int copy(const char *dir, hone_err *e)
{
    char *from = path_join(dir, "b"), *to = path_join(dir, "a");
    int rc = file_copy(from, to, e);
    free(from);
    free(to);
    return rc;
}

const fault_case fault_file_copy = {
    .name = "file_copy", .prepare = put_pair, .act = copy, .look = look_replaced, .durable = true};

static void put_dir(const char *dir)
{
    char *path = path_join(dir, "d.new");
    if (dir_make(path, NULL) != 0)
        abort();
    fault_put(path, "weights", "w");
    free(path);
}

static int rename_dir(const char *dir, hone_err *e)
{
    char *from = path_join(dir, "d.new"), *to = path_join(dir, "d");
    int rc = dir_rename(from, to, e);
    free(from);
    free(to);
    return rc;
}

static fault_state look_dir(const char *dir)
{
    bool is_old = fault_holds(dir, "d.new/weights", "w"),
         is_new = fault_holds(dir, "d/weights", "w");
    return is_old && is_new ? FAULT_BROKEN : which(is_old, is_new);
}

const fault_case fault_dir_rename = {
    .name = "dir_rename", .prepare = put_dir, .act = rename_dir, .look = look_dir, .durable = true};

static int make_dirs(const char *dir, hone_err *e)
{
    char *path = path_join(dir, "x/y/z");
    int rc = dir_make(path, e);
    free(path);
    return rc;
}

static fault_state look_dirs(const char *dir)
{
    char *path = path_join(dir, "x/y/z");
    bool there = file_is_dir(path);
    free(path);
    return which(!there, there);
}

const fault_case fault_dir_make = {.name = "dir_make",
                                   .prepare = put_nothing,
                                   .act = make_dirs,
                                   .look = look_dirs,
                                   .durable = true,
                                   .leaves_names = true};

static int save(const char *dir, hone_err *e)
{
    char *path = path_join(dir, "a");
    json_t *o = json_object();
    json_object_set_new(o, "step", json_integer(7));
    json_object_set_new(o, "loss", json_real(0.5));
    json_object_set_new(o, "name", json_string("run"));
    int rc = js_save(o, path, false, e);
    json_decref(o);
    free(path);
    return rc;
}

static fault_state look_saved(const char *dir)
{
    return which(fault_holds(dir, "a", "old"),
                 fault_holds(dir, "a", "{\"step\":7,\"loss\":0.5,\"name\":\"run\"}"));
}

const fault_case fault_js_save = {
    .name = "js_save", .prepare = put_old, .act = save, .look = look_saved, .durable = true};
