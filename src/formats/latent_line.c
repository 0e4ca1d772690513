/* Reading a latent from a line of JSON; see latent_line.h. */
#include "formats/latent_line.h"

#include "base/json.h"

#include <float.h>
#include <math.h>

static elbo_status read_numbers(float *z, size_t width, const json_t *array, size_t line, elbo_error *error)
{
    if (!array)
        return elbo_fail(
            error, ELBO_INPUT,
            "line %zu: the object has neither \"z\" nor \"mu\"; one of them must be an array of %zu numbers", line,
            width);
    if (!json_is_array(array))
        return elbo_fail(error, ELBO_INPUT,
                         "line %zu: expected an array of %zu numbers, or an object with one under \"z\" or \"mu\"",
                         line, width);
    if (json_array_size(array) != width)
        return elbo_fail(error, ELBO_INPUT,
                         "line %zu: expected an array of %zu numbers, as the model's z has, and found %zu", line, width,
                         json_array_size(array));
    for (size_t j = 0; j < width; j++) {
        const json_t *number = json_array_get(array, j);
        if (!json_is_number(number))
            return elbo_fail(error, ELBO_INPUT, "line %zu: element %zu is not a number", line, j);
        double value = json_number_value(number);
        if (!(fabs(value) <= FLT_MAX)) /* the cast would be undefined, also for a NaN */
            return elbo_fail(error, ELBO_INPUT, "line %zu: element %zu is %g, beyond what f32 holds (3.4e38)", line, j,
                             value);
        z[j] = (float)value;
    }
    return ELBO_OK;
}

elbo_status latent_line_parse(float *z, size_t width, const char *text, size_t size, size_t line, elbo_error *error)
{
    json_error_t why;
    bool starved;
    json_t *row = json_read(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why, &starved), *array = row;
    if (starved) return elbo_fail(error, ELBO_MEMORY, "no memory for the latent of line %zu", line);
    if (!row) return elbo_fail(error, ELBO_INPUT, "line %zu, column %d: not JSON (%s)", line, why.column, why.text);
    if (json_is_object(row)) array = json_object_get(row, "z") ? json_object_get(row, "z") : json_object_get(row, "mu");
    elbo_status status = read_numbers(z, width, array, line, error);
    json_decref(row);
    return status;
}
