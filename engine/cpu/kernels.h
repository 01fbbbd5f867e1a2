/* All kernels of the CPU backend, best first for each op. */
#ifndef HORN_CPU_KERNELS_H
#define HORN_CPU_KERNELS_H

#include "engine/run/backend.h"

#ifdef HORN_ONEDNN
#define KERNELS_ONEDNN(X) \
    X(matmul_onednn)      \
    X(conv_onednn)        \
    X(conv_dx_onednn)     \
    X(conv_dw_onednn)
#else
#define KERNELS_ONEDNN(X)
#endif
#define KERNELS(X)      \
    X(conv_winograd)    \
    X(conv_dx_winograd) \
    X(conv_dw_winograd) \
    KERNELS_ONEDNN(X)   \
    X(widen_matmul)     \
    X(widen_conv)       \
    X(widen_conv_dx)    \
    X(widen_conv_dw)    \
    X(conv)             \
    X(conv_dx)          \
    X(conv_dw)          \
    X(matmul)           \
    X(pointwise)        \
    X(update)           \
    X(update_rows)      \
    X(expand)           \
    X(fill)             \
    X(reduce)           \
    X(softmax)          \
    X(softmax_dx)       \
    X(cross_entropy)    \
    X(cross_entropy_dx) \
    X(dropout)          \
    X(accumulate)       \
    X(pool)             \
    X(pool_dx)          \
    X(batch_norm)       \
    X(batch_norm_dx)    \
    X(rnn)              \
    X(rnn_dx)           \
    X(transpose)        \
    X(concat)           \
    X(slice)            \
    X(copy)             \
    X(reverse)          \
    X(pad)              \
    X(store)            \
    X(cast)             \
    X(gather)           \
    X(scatter_add)      \
    X(scatter_rows)     \
    X(pick)             \
    X(pick_dx)          \
    X(one_hot)

#define X(name) extern const struct kernel kernel_##name;
KERNELS(X)
#undef X

#endif
