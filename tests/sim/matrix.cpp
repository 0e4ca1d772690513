/* What stands behind the emulated kernels/ptx.cuh: products and loads of matrices by a warp, and copies in flight. */
#include "private.h"

#include "include/kernels/ptx.cuh"

#include <cstring>
#include <vector>

using namespace sim;

/* ---- a warp's matrices: lane 4 g + t, see kernels/ptx.cuh ---- */

static float half_of(unsigned word, int upper)
{
    return __uint_as_float(upper ? word & 0xffff0000u : word << 16);
}

void sim_mma_together(void *const *lanes)
{
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const sim_mma &l = *static_cast<const sim_mma *>(lanes[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int u = 0; u < 2; u++) a[g + i % 2 * 8][i / 2 * 8 + 2 * t + u] = half_of(l.a[i], u);
        for (int i = 0; i < 2; i++)
            for (int u = 0; u < 2; u++) b[i * 8 + 2 * t + u][g] = half_of(l.b[i], u);
        for (int i = 0; i < 4; i++) d[g + i / 2 * 8][2 * t + i % 2] = l.d[i];
    }
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            static_cast<const sim_mma *>(lanes[lane])->d[i] = d[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
}

void sim_ldmatrix_together(void *const *lanes)
{
    uint16_t matrix[4][8][8];
    for (int lane = 0; lane < 32; lane++)
        memcpy(matrix[lane / 8][lane % 8], static_cast<sim_ldmatrix *>(lanes[lane])->word, 16);
    for (int lane = 0; lane < 32; lane++) {
        sim_ldmatrix &l = *static_cast<sim_ldmatrix *>(lanes[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            unsigned first = l.transposed ? matrix[i][2 * t][g] : matrix[i][g][2 * t];
            unsigned second = l.transposed ? matrix[i][2 * t + 1][g] : matrix[i][g][2 * t + 1];
            l.word[i] = first | second << 16;
        }
    }
    /* The eight rows of a matrix are read at once where they lie in different banks. */
    for (int m = 0; m < 4; m++)
        for (int i = 1; i < 8; i++)
            for (int j = 0; j < i; j++) {
                uintptr_t p = (uintptr_t) static_cast<sim_ldmatrix *>(lanes[8 * m + i])->row;
                uintptr_t q = (uintptr_t) static_cast<sim_ldmatrix *>(lanes[8 * m + j])->row;
                if (p != q && p / 16 % 8 == q / 16 % 8) the().counts.bank_conflicts++;
            }
}

/* ---- copies in flight, by thread of the block ---- */

struct flight {
    sim_copy copy;
    unsigned group;
};
struct thread_copies {
    std::vector<flight> all; /* by rising group */
    size_t done;             /* of them */
    unsigned groups;         /* committed */
};
static thread_copies copies[1024];
static uint64_t coin = 1;

static thread_copies &mine()
{
    return copies[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
}

bool sim_copy_begin(const sim_copy *copy)
{
    if (copy->from && (uintptr_t)copy->from % 16)
        report("an asynchronous copy from %p, which is not aligned", copy->from);
    coin = coin * 6364136223846793005u + 1442695040888963407u;
    if (the().order == SIM_REVERSED || (the().order == SIM_RANDOM && coin >> 63)) return true;
    mine().all.push_back({*copy, mine().groups});
    return false;
}

void sim_copy_commit()
{
    mine().groups++;
}

bool sim_copy_next(sim_copy *copy, int pending)
{
    thread_copies &m = mine();
    if (m.done == m.all.size() || m.all[m.done].group + (unsigned)pending >= m.groups) return false;
    *copy = m.all[m.done++].copy;
    return true;
}

void sim::copies_end(unsigned threads)
{
    for (unsigned i = 0; i < threads; i++) {
        thread_copies &c = copies[i];
        if (c.done < c.all.size()) report("thread %u exits with asynchronous copies that it has not waited for", i);
        c.all.clear();
        c.done = c.groups = 0;
    }
}
