/* Fuzzes a latent as a line of JSON. An accepted latent must be finite. */
#include "formats/latent_line.h"
#include "fuzz/harness.h"

#include <math.h>

int fuzz_one(const unsigned char *data, size_t size)
{
    enum { WIDTH = 3 };
    float z[WIDTH];
    elbo_error error;
    elbo_status status = latent_line_parse(z, WIDTH, (const char *)data, size, 1, &error);
    if (status) return (int)status;
    for (int i = 0; i < WIDTH; i++) FUZZ_CHECK(isfinite(z[i]));
    FUZZ_PLANTED(z[0] == 7);
    return 0;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        "[0.5, -1e-3, 2]",
        "{\"z\": [1, 2, 3]}",
        "{\"text\": \"a\\u0041\", \"mu\": [0, 0.0, 3e38], \"logvar\": [1, 2, 3]}",
        "[1, 2]",
        "[1e39, 0, 1]",
        "[[1], {\"a\": null}, true]",
        "[9223372036854775807, 1e-400, 1]",
        "{\"z\": [1, 2, 3], \"z\": 1}",
        "[1,2,3] x",
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_text(seeds[index], out, room) : 0;
}
