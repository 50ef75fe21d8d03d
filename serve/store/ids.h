#pragma once
/* Names for things that are made: a prefix and 24 random characters of a-z 2-7 (120 bits). */
enum { IDS_MAX = 40, IDS_RANDOM = 24 };

/* "chatcmpl-" gives "chatcmpl-abc..."; the prefix is at most 15 characters. */
void ids_make(char out[IDS_MAX], const char *prefix);
