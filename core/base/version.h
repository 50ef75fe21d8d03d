#pragma once
/* The program's version, as manifests and /metrics give it. */
#define HONE_VERSION "0.1.0"
