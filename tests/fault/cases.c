/* The list of cases. A room that writes files adds its row here and its functions in a file of its
 * own. */
#include "tests/fault/cases.h"

#include <stddef.h>

const fault_case *const fault_cases[] = {
    &fault_file_write,
    &fault_file_create,
    &fault_file_stream,
    &fault_file_append,
    &fault_file_copy,
    &fault_dir_rename,
    &fault_dir_make,
    &fault_js_save,
    &fault_checkpoint,
    &fault_feedback,
    &fault_checkpoint_prune,
    &fault_feedback_crash,
    &fault_sign_key,
    &fault_sign_dir,
    &fault_erase,
    NULL,
};
