#pragma once
/* Loads a plugin: reads its descriptor, refuses what does not fit, gives it its settings and lets
 * it subscribe. All of that happens or none of it. The code of a plugin is never unmapped: closing
 * one takes its subscriptions away, waits until nothing of it runs, and calls its fini. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/base/trust.h"
#include "plugins/hone_plugin.h"

typedef struct loaded loaded;

typedef struct loader_args {
    const trust_file *file; /* opened and approved by the caller, who keeps it */
    const json_t *settings; /* object of the plugin's own settings; NULL: none given */
    const json_t *points;   /* array of names: only these hook points; NULL: all */
    const char *dir; /* what settings of type PATH are relative to; NULL: working directory */
    hooks *hooks;
    /* What one call may take of the processor, and at least ten times what its point gives; init
     * twelve times as much, and before it the loading (image_open) once. 0: no limit, and no thread
     * of its own for it. A call that does not come back is lost: it fails with ETIMEOUT, the plugin
     * is not called any more (hook_retire), and stays in memory. It sees copies, so that what it
     * may still write to is nobody else's. */
    int64_t limit_ns;
} loader_args;

/* Every error begins with the file, or with the plugin's name and version once they are known:
 * EFORMAT for what is no plugin, EUNSUPPORTED naming the field and both numbers for another ABI,
 * what conf_apply says of the settings, and what the plugin's init says. */
int loader_open(loaded **out, const loader_args *a, hone_err *e);

/* ETIMEOUT: a call is still running after timeout_ms, or was lost, or fini does not come back. Its
 * subscriptions are gone in any case, but the plugin's memory stays. NULL is a no-op. */
int loader_close(loaded *p, int timeout_ms, hone_err *e);

const hone_descriptor *loader_descriptor(const loaded *p);

/* What the file says of itself, without starting it: {name, version, license, summary, abi,
 * threadsafe, deterministic, caps: [], sha256, settings: [{name, type, default, help, ...}]}. New
 * reference. */
int loader_describe(json_t **out, const trust_file *f, hone_err *e);
