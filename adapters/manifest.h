#pragma once
/* hone_manifest.json: what an artefact was made of. Readers compare base_digest and template_digest
 * before they put it to work. */
#include "adapters/tune.h"
#include "core/base/err.h"
#include "core/train/inputs.h"

#define MANIFEST_NAME "hone_manifest.json"
#define MANIFEST_ROUND "manifest.json" /* of a round of retraining: what, and why it was taken */

typedef struct manifest_facts {
    const train_conf *conf;
    const train_inputs *in;
    const kern_dev *dev;
    const json_t *identity;
    const tune_result *result;
    const hooks *hooks; /* may be NULL */
} manifest_facts;

/* Writes output_dir/hone_manifest.json, with the hash of every artefact file that stands there. */
int manifest_write(const manifest_facts *f, hone_err *e);
