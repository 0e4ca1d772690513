/* See traffic.h. The compiler's checks of addresses, with the names that it calls. */
#include "traffic.h"
#include "private.h"

#include <sys/mman.h>

namespace
{

enum : size_t { WORD = 4, COVERED = (size_t)8 << 30 };

uintptr_t base;
uint32_t *last_read, *last_written; /* launch that touched a word last */
uint32_t launch;
struct sim_traffic sum;

uint32_t *table()
{
    void *p = mmap(nullptr, COVERED / WORD * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) sim::report("no room to count what kernels touch");
    return static_cast<uint32_t *>(p);
}

void touch(uintptr_t address, size_t bytes, uint32_t *&last, size_t &total)
{
    if (!sim::on_device(reinterpret_cast<void *>(address))) return;
    if (!base) base = address / (1 << 20) * (1 << 20) - ((size_t)1 << 30);
    if (!last) last = table();
    for (uintptr_t word = address / WORD; word <= (address + bytes - 1) / WORD; word++) {
        size_t at = word - base / WORD;
        if (at >= COVERED / WORD) sim::report("device memory beyond what is counted");
        if (last[at] != launch) {
            last[at] = launch;
            total += WORD;
        }
    }
}

} // namespace

extern "C" {

void sim_traffic_launch(void)
{
    launch++;
}

void sim_get_traffic(struct sim_traffic *traffic)
{
    *traffic = sum;
}

#define SIM_CHECK(bytes)                                                                                               \
    void __asan_load##bytes##_noabort(uintptr_t address)                                                               \
    {                                                                                                                  \
        touch(address, bytes, last_read, sum.read);                                                                    \
    }                                                                                                                  \
    void __asan_store##bytes##_noabort(uintptr_t address)                                                              \
    {                                                                                                                  \
        touch(address, bytes, last_written, sum.written);                                                              \
    }
SIM_CHECK(1)
SIM_CHECK(2)
SIM_CHECK(4)
SIM_CHECK(8)
SIM_CHECK(16)

void __asan_loadN_noabort(uintptr_t address, size_t bytes)
{
    touch(address, bytes, last_read, sum.read);
}

void __asan_storeN_noabort(uintptr_t address, size_t bytes)
{
    touch(address, bytes, last_written, sum.written);
}

void __asan_handle_no_return(void)
{
}
}
