#!/bin/sh
# How old.so was made, with the header of 1.0 that lies here. It is not made again: that it loads is
# the test. (gcc 12.2, x86-64)
cd "$(dirname "$0")" || exit 1
gcc -std=c99 -Os -Wall -Wextra -Werror -I. -fPIC -fvisibility=hidden -shared -s \
    -Wl,--build-id=none -Wl,-z,norelro -Wl,-z,noseparate-code -o old.so old.c
