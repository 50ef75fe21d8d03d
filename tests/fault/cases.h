#pragma once
/* Every case, by the file that defines it. */
#include "tests/fault/fault.h"

/* broken.c: NULL-ended, the ones that the driver must find fault with. */
extern const fault_case *const fault_broken[];

/* fault_file.c */
extern const fault_case fault_file_write, fault_file_create, fault_file_stream, fault_file_append,
    fault_file_copy, fault_dir_rename, fault_dir_make, fault_js_save;

/* fault_checkpoint.c */
extern const fault_case fault_checkpoint;

/* fault_feedback.c */
extern const fault_case fault_feedback;

/* fault_prune.c */
extern const fault_case fault_checkpoint_prune;

/* fault_sign.c */
extern const fault_case fault_sign_dir, fault_sign_key;

/* fault_erase.c */
extern const fault_case fault_erase;

/* fault_crash.c */
extern const fault_case fault_feedback_crash;
