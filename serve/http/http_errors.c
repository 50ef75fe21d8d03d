#include "serve/http/http_errors.h"

/* clang-format off */
static const http_error_row table[] = {
    [HTTP_OK] = {200, "", "", ""},
#define ROW(id, status, type, code, retry) [HTTP_##id] = {status, type, code, retry},
    HTTP_ERRORS(ROW)
#undef ROW
};
/* clang-format on */

const http_error_row *http_error_get(http_error id)
{
    return &table[id];
}
