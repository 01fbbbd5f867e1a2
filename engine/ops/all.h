/* Declarations of all ops, from the list that the build generates: op_matmul, op_conv, ... */
#ifndef HORN_OPS_ALL_H
#define HORN_OPS_ALL_H

#include "engine/graph/op.h"

#define X(name) extern const struct op name;
#include "ops.inc"
#undef X

#endif
