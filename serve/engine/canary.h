#pragma once
/* The first question to a model: one token, computed by the engine, before anybody else is let in.
 */
#include "serve/engine/engine.h"

/* Waits until there is an answer, or for timeout_ms. A full queue is waited for. EDEVICE: the model
 * computes no finite numbers, or the device fails; ECANCELLED: the engine is draining; ETIMEOUT. */
int canary_ask(engine *g, served *s, int timeout_ms, hone_err *e);
