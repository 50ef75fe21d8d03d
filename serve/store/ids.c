#include "serve/store/ids.h"

#include <sodium.h>
#include <stdio.h>

void ids_make(char out[IDS_MAX], const char *prefix)
{
    static const char set[] = "abcdefghijklmnopqrstuvwxyz234567";
    unsigned char raw[IDS_RANDOM];
    int n = snprintf(out, IDS_MAX - IDS_RANDOM, "%.15s", prefix);
    randombytes_buf(raw, sizeof raw);
    for (int i = 0; i < IDS_RANDOM; i++)
        out[n + i] = set[raw[i] & 31];
    out[n + IDS_RANDOM] = '\0';
}
