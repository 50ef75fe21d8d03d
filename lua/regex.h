#pragma once
/* host.regex(pattern, flags): Perl-compatible regular expressions for scripts, over PCRE2, with
 * limits on matching and depth, and memory that is the state's. Always UTF-8 with Unicode
 * properties. Flags: i ignores case, m makes ^ and $ match at lines, s lets . match a newline, x
 * allows space and comments. An expression has match, find, gmatch and gsub, which answer as those
 * of string do; a group that took no part is false. */
#include <lua.h>

enum { REGEX_MAX_PATTERN = 4096, REGEX_MAX_STEPS = 100000, REGEX_MAX_DEPTH = 1000 };

/* Pushes the function. Raises. */
void regex_push(lua_State *L);
