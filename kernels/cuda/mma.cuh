#pragma once
/* Tensor cores and copies into shared memory: one function an instruction, so that kernels read as
 * C. sm_80 and later. Register layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and
 * "ldmatrix". */
#include "kernels/cuda/device.cuh"

#ifdef EMU

/* d += a b, a [16, 16] row-major, b [16, 8] column-major, d [16, 8] f32. Lane l holds, with
 * g = l / 4 and t = l % 4: a[0] (g, 2t..), a[1] (g + 8, 2t..), a[2] (g, 2t + 8..), a[3] (g + 8, 2t
 * + 8..); b[0] (2t.., g), b[1] (2t + 8.., g); d[0..1] (g, 2t..), d[2..3] (g + 8, 2t..). */
static inline void mma_bf16(float d[4], const unsigned a[4], const unsigned b[2])
{
    struct regs {
        unsigned a[4], b[2];
    } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const char *all = emu::exchange("mma", 0xFFFFFFFFU, &mine, sizeof mine);
    unsigned g = emu::lane() / 4, t = emu::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = g + (i >= 2 ? 8 : 0), col = 2 * t + i % 2;
        float sum = 0;
        for (unsigned k = 0; k < 16; k++) {
            regs ra = emu_lane<regs>(all, row % 8 * 4 + k % 8 / 2);
            regs rb = emu_lane<regs>(all, col * 4 + k % 8 / 2);
            float2 fa = unpack_bf16(ra.a[(row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0)]);
            float2 fb = unpack_bf16(rb.b[k >= 8 ? 1 : 0]);
            sum += (k % 2 == 0 ? fa.x : fa.y) * (k % 2 == 0 ? fb.x : fb.y);
        }
        d[i] += sum;
    }
}

static inline void emu_ldmatrix(unsigned *r, int n, const void *row, bool trans)
{
    const char *all = emu::exchange("ldmatrix", 0xFFFFFFFFU, &row, sizeof row);
    unsigned g = emu::lane() / 4, t = emu::lane() % 4;
    for (int i = 0; i < n; i++) {
        unsigned short v[2];
        for (unsigned j = 0; j < 2; j++) {
            unsigned line = trans ? 2 * t + j : g, at = trans ? g : 2 * t + j;
            const unsigned short *p = emu_lane<const unsigned short *>(all, (unsigned)i * 8 + line);
            if ((uintptr_t)p % 16 != 0)
                emu::die("ldmatrix: a row is not aligned to 16 bytes");
            v[j] = p[at];
        }
        r[i] = (unsigned)v[0] | (unsigned)v[1] << 16;
    }
}
static inline void ldmatrix_x4(unsigned r[4], const void *row)
{
    emu_ldmatrix(r, 4, row, false);
}
static inline void ldmatrix_x4_trans(unsigned r[4], const void *row)
{
    emu_ldmatrix(r, 4, row, true);
}
static inline void ldmatrix_x2(unsigned r[2], const void *row)
{
    emu_ldmatrix(r, 2, row, false);
}
static inline void ldmatrix_x2_trans(unsigned r[2], const void *row)
{
    emu_ldmatrix(r, 2, row, true);
}
static inline void copy_async16(void *shared, const void *global, bool keep)
{
    if ((uintptr_t)shared % 16 != 0 || (keep && (uintptr_t)global % 16 != 0))
        emu::die("cp.async: not aligned to 16 bytes");
    emu::async_copy(shared, global, 16, !keep);
}
static inline void copy_async8(void *shared, const void *global, bool keep)
{
    if ((uintptr_t)shared % 8 != 0 || (keep && (uintptr_t)global % 8 != 0))
        emu::die("cp.async: not aligned to 8 bytes");
    emu::async_copy(shared, global, 8, !keep);
}
static inline void copy_commit()
{
    emu::async_commit();
}
template <int PENDING> static inline void copy_wait()
{
    emu::async_wait(PENDING);
}

#else

__device__ __forceinline__ void mma_bf16(float d[4], const unsigned a[4], const unsigned b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* Four 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8, and
 * gets elements (l / 4, 2 (l % 4)..) of each; trans: of each matrix's transpose. x2: lanes 0 to 15.
 */
__device__ __forceinline__ void ldmatrix_x4(unsigned r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(unsigned r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/* 16 bytes from global to shared memory; zeros when keep is false (global is not read then). */
__device__ __forceinline__ void copy_async16(void *shared, const void *global, bool keep)
{
    int bytes = keep ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}
/* The same for 8 bytes. */
__device__ __forceinline__ void copy_async8(void *shared, const void *global, bool keep)
{
    int bytes = keep ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until at most PENDING of this thread's groups are on their way; a barrier shows them to others.
 */
template <int PENDING> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#endif
