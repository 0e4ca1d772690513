/* Recurrent layers, a step at a time: the cells that follow the product of the previous h with its weights, both ways.
 *
 *   S sentences, H units in each direction, G gates (LSTM i, f, g, o; GRU r, z, n)
 *   LSTM  i, f, g, o = sigma, sigma, tanh, sigma(x + own + sums);  c' = f c + i g;  h' = o tanh(c')
 *   GRU   r, z = sigma(x + own + sums + b);  s = sums + b;  n = tanh(x + own + r s);  h' = (1 - z) n + z h
 *
 * A launch covers all sentences at one step, because a captured execution cannot depend on their lengths. Threads of
 * sentences that have ended write nothing, except zeros where a later product reads them. */
#include "kernels/device.cuh"

enum { THREADS = 128 };

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

struct place {
    size_t s, u;      /* sentence, unit */
    size_t row, unit; /* the sentence's row at this step, column among all units */
    size_t gate;      /* column among the gates of all directions */
    size_t before;    /* the row of the previous step, if t > 0 */
    bool there, alive, last;
};

static __device__ __forceinline__ place place_of(const kernel_recurrent &r, const int32_t *offsets)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    place p = {};
    p.there = i < r.sentences * r.units;
    if (!p.there) return p;
    p.s = i / r.units;
    p.u = i % r.units;
    size_t first = (size_t)offsets[p.s], length = (size_t)offsets[p.s + 1] - first;
    p.alive = r.t < length;
    p.last = r.t + 1 == length;
    p.row = r.direction ? first + length - 1 - r.t : first + r.t;
    p.before = r.direction ? p.row + 1 : p.row - 1;
    p.unit = r.direction * r.units + p.u;
    p.gate = r.direction * r.gates * r.units + p.u;
    return p;
}

/* Returns the sum of gate g: x, plus `sums` and the sentence's own addend where they are given. */
template <typename T>
static __device__ __forceinline__ float gate_sum(const kernel_recurrent &r, const place &p, int g, const float *sums,
                                                 const T *x, const T *own)
{
    size_t width = r.directions * r.gates * r.units, at = p.gate + g * r.units;
    float v = to_float(x[p.row * width + at]);
    if (sums) v += sums[(p.s * r.gates + g) * r.units + p.u];
    if (own) v += to_float(own[p.s * width + at]);
    return v;
}

template <typename T>
static __global__ void lstm_forward_kernel(T *__restrict__ y, T *__restrict__ kept, float *cell, T *__restrict__ state,
                                           const T *__restrict__ x, const float *__restrict__ sums,
                                           const T *__restrict__ own, const T *__restrict__ initial,
                                           const int32_t *__restrict__ offsets, kernel_recurrent r)
{
    place p = place_of(r, offsets);
    if (!p.alive) return;
    size_t hidden = r.directions * r.units;
    float i = sigmoid(gate_sum(r, p, 0, sums, x, own)), f = sigmoid(gate_sum(r, p, 1, sums, x, own)),
          g = tanhf(gate_sum(r, p, 2, sums, x, own)), o = sigmoid(gate_sum(r, p, 3, sums, x, own));
    float c = r.t       ? cell[p.before * hidden + p.unit]
              : initial ? to_float(initial[p.s * 2 * hidden + hidden + p.unit])
                        : 0.0f;
    c = f * c + i * g;
    T h = from_float<T>(o * tanhf(c)), *k = kept + (p.row * r.directions + r.direction) * 4 * r.units + p.u;
    k[0] = from_float<T>(i);
    k[r.units] = from_float<T>(f);
    k[2 * r.units] = from_float<T>(g);
    k[3 * r.units] = from_float<T>(o);
    cell[p.row * hidden + p.unit] = c;
    y[p.row * hidden + p.unit] = h;
    state[p.s * hidden + p.unit] = h;
}

template <typename T>
static __global__ void
gru_forward_kernel(T *__restrict__ y, T *__restrict__ kept, T *__restrict__ state, const T *__restrict__ x,
                   const float *__restrict__ sums, const T *__restrict__ b, const T *__restrict__ own,
                   const T *__restrict__ initial, const int32_t *__restrict__ offsets, kernel_recurrent r)
{
    place p = place_of(r, offsets);
    if (!p.alive) return;
    size_t hidden = r.directions * r.units;
    float reset = sigmoid(gate_sum(r, p, 0, sums, x, own) + to_float(b[p.gate])),
          z = sigmoid(gate_sum(r, p, 1, sums, x, own) + to_float(b[p.gate + r.units])),
          s = to_float(b[p.gate + 2 * r.units]);
    if (sums) s += sums[(p.s * r.gates + 2) * r.units + p.u];
    float n = tanhf(gate_sum(r, p, 2, (const float *)NULL, x, own) + reset * s);
    float h_prev = r.t       ? to_float(state[p.s * hidden + p.unit])
                   : initial ? to_float(initial[p.s * hidden + p.unit])
                             : 0.0f;
    T h_new = from_float<T>((1.0f - z) * n + z * h_prev),
      *k = kept + (p.row * r.directions + r.direction) * 4 * r.units + p.u;
    k[0] = from_float<T>(reset);
    k[r.units] = from_float<T>(z);
    k[2 * r.units] = from_float<T>(n);
    k[3 * r.units] = from_float<T>(s);
    y[p.row * hidden + p.unit] = h_new;
    state[p.s * hidden + p.unit] = h_new;
}

/* dx of the row, ds (S, G H) of the sums; ds is 0 for sentences that have ended. carried (S, H): dc of the LSTM. */
template <typename T>
static __global__ void
lstm_backward_kernel(T *__restrict__ dx, T *__restrict__ ds, float *__restrict__ carried, const T *__restrict__ dy,
                     const float *__restrict__ dh, const T *__restrict__ kept, const float *__restrict__ cell,
                     const T *__restrict__ initial, const int32_t *__restrict__ offsets, kernel_recurrent r)
{
    place p = place_of(r, offsets);
    if (!p.there) return;
    size_t hidden = r.directions * r.units, width = r.directions * 4 * r.units;
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (p.alive) {
        const T *k = kept + (p.row * r.directions + r.direction) * 4 * r.units + p.u;
        float i = to_float(k[0]), f = to_float(k[r.units]), g = to_float(k[2 * r.units]), o = to_float(k[3 * r.units]);
        float tanh_c = tanhf(cell[p.row * hidden + p.unit]), dh_total = to_float(dy[p.row * hidden + p.unit]);
        if (dh && !p.last) dh_total += dh[p.s * r.units + p.u];
        float dc = (p.last ? 0.0f : carried[p.s * r.units + p.u]) + dh_total * o * (1.0f - tanh_c * tanh_c);
        float c_prev = r.t       ? cell[p.before * hidden + p.unit]
                       : initial ? to_float(initial[p.s * 2 * hidden + hidden + p.unit])
                                 : 0.0f;
        d[0] = dc * g * i * (1.0f - i);
        d[1] = dc * c_prev * f * (1.0f - f);
        d[2] = dc * i * (1.0f - g * g);
        d[3] = dh_total * tanh_c * o * (1.0f - o);
        carried[p.s * r.units + p.u] = dc * f;
    }
    KERNEL_UNROLL
    for (int g = 0; g < 4; g++) {
        ds[(p.s * 4 + g) * r.units + p.u] = from_float<T>(d[g]);
        if (p.alive) dx[p.row * width + p.gate + g * r.units] = from_float<T>(d[g]);
    }
}

/* dsums: ds, stored in the sentence's row. carried (S, H): z dh. */
template <typename T>
static __global__ void gru_backward_kernel(T *__restrict__ dx, T *__restrict__ dsums, T *__restrict__ ds,
                                           float *__restrict__ carried, const T *__restrict__ dy,
                                           const float *__restrict__ dh, const T *__restrict__ kept,
                                           const T *__restrict__ y, const T *__restrict__ initial,
                                           const int32_t *__restrict__ offsets, kernel_recurrent r)
{
    place p = place_of(r, offsets);
    if (!p.there) return;
    size_t hidden = r.directions * r.units, width = r.directions * 3 * r.units;
    float d[3] = {0.0f, 0.0f, 0.0f}, dn = 0.0f;
    if (p.alive) {
        const T *k = kept + (p.row * r.directions + r.direction) * 4 * r.units + p.u;
        float reset = to_float(k[0]), z = to_float(k[r.units]), n = to_float(k[2 * r.units]),
              s = to_float(k[3 * r.units]), dh_total = to_float(dy[p.row * hidden + p.unit]);
        if (!p.last) dh_total += carried[p.s * r.units + p.u];
        if (dh && !p.last) dh_total += dh[p.s * r.units + p.u];
        float h_prev = r.t       ? to_float(y[p.before * hidden + p.unit])
                       : initial ? to_float(initial[p.s * hidden + p.unit])
                                 : 0.0f;
        dn = dh_total * (1.0f - z) * (1.0f - n * n);
        d[0] = dn * s * reset * (1.0f - reset);
        d[1] = dh_total * (h_prev - n) * z * (1.0f - z);
        d[2] = dn * reset;
        carried[p.s * r.units + p.u] = dh_total * z;
    }
    KERNEL_UNROLL
    for (int g = 0; g < 3; g++) {
        size_t at = p.row * width + p.gate + g * r.units;
        ds[(p.s * 3 + g) * r.units + p.u] = from_float<T>(d[g]);
        if (p.alive) dsums[at] = from_float<T>(d[g]);
        if (p.alive) dx[at] = from_float<T>(g == 2 ? dn : d[g]);
    }
}

/* dinitial (S, states d H) of one direction: the gradients that leave step 0; 0 for empty sentences. */
template <typename T>
static __global__ void initial_kernel(T *__restrict__ dinitial, const float *__restrict__ dh,
                                      const float *__restrict__ carried, const int32_t *__restrict__ offsets,
                                      kernel_recurrent r)
{
    place p = place_of(r, offsets);
    if (!p.there) return;
    bool lstm = r.gates == 4, some = offsets[p.s + 1] > offsets[p.s];
    size_t hidden = r.directions * r.units;
    float dh_first = some ? dh[p.s * r.units + p.u] : 0.0f, dc_first = some ? carried[p.s * r.units + p.u] : 0.0f;
    T *to = dinitial + p.s * (lstm ? 2 : 1) * hidden + p.unit;
    to[0] = from_float<T>(lstm ? dh_first : dh_first + dc_first);
    if (lstm) to[hidden] = from_float<T>(dc_first);
}

/* h (N, d H) before each row's step; a block per sentence. */
template <typename T>
static __global__ void earlier_kernel(T *__restrict__ h, const T *__restrict__ y, const T *__restrict__ initial,
                                      const int32_t *__restrict__ offsets, kernel_recurrent r)
{
    size_t s = blockIdx.x, first = (size_t)offsets[s], end = (size_t)offsets[s + 1], hidden = r.directions * r.units,
           row = r.gates == 4 ? 2 * hidden : hidden;
    for (size_t n = first; n < end; n++)
        for (size_t j = threadIdx.x; j < hidden; j += blockDim.x) {
            bool back = j >= r.units, begins = back ? n + 1 == end : n == first;
            T v = from_float<T>(0.0f);
            if (!begins)
                v = y[(back ? n + 1 : n - 1) * hidden + j];
            else if (initial)
                v = initial[s * row + j];
            h[n * hidden + j] = v;
        }
}

/* ---- one new token per row ---- */

/* Returns the state that row `n` continues (states H f32), or null at position 0. */
static __device__ __forceinline__ const float *continued(const float *state, const int32_t *position,
                                                         const int32_t *history, size_t n, size_t room, size_t width)
{
    int32_t at = position[n];
    if (!at) return NULL;
    size_t from = history ? (size_t)history[n * room + at - 1] : n;
    return state + (from * 2 + at % 2) * width;
}

template <typename T>
static __global__ void step_gather_kernel(T *__restrict__ h, const float *__restrict__ state,
                                          const T *__restrict__ initial, const int32_t *__restrict__ position,
                                          const int32_t *__restrict__ history, size_t room, kernel_recurrent r)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, width = (r.gates == 4 ? 2 : 1) * r.units;
    if (i >= r.sentences * r.units) return;
    size_t n = i / r.units, u = i % r.units;
    const float *from = continued(state, position, history, n, room, width);
    h[i] = from ? from_float<T>(from[u]) : initial ? initial[n * width + u] : from_float<T>(0.0f);
}

template <typename T>
static __global__ void step_kernel(T *__restrict__ y, float *state, const T *__restrict__ x,
                                   const float *__restrict__ sums, const T *__restrict__ b, const T *__restrict__ own,
                                   const T *__restrict__ initial, const int32_t *__restrict__ position,
                                   const int32_t *__restrict__ history, size_t room, kernel_recurrent r)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= r.sentences * r.units) return;
    bool lstm = r.gates == 4;
    size_t width = (lstm ? 2 : 1) * r.units;
    place p = {};
    p.s = p.row = i / r.units;
    p.u = p.gate = i % r.units;
    const float *from = continued(state, position, history, p.s, room, width);
    float *to = state + (p.s * 2 + (position[p.s] + 1) % 2) * width, h;
    if (lstm) {
        float cell = from ? from[r.units + p.u] : initial ? to_float(initial[p.s * width + r.units + p.u]) : 0.0f;
        float g = tanhf(gate_sum(r, p, 2, sums, x, own));
        cell = sigmoid(gate_sum(r, p, 1, sums, x, own)) * cell + sigmoid(gate_sum(r, p, 0, sums, x, own)) * g;
        h = sigmoid(gate_sum(r, p, 3, sums, x, own)) * tanhf(cell);
        to[r.units + p.u] = cell;
    } else {
        float h_prev = from ? from[p.u] : initial ? to_float(initial[p.s * width + p.u]) : 0.0f;
        float reset = sigmoid(gate_sum(r, p, 0, sums, x, own) + to_float(b[p.u])),
              z = sigmoid(gate_sum(r, p, 1, sums, x, own) + to_float(b[r.units + p.u])),
              s = sums[(p.s * 3 + 2) * r.units + p.u] + to_float(b[2 * r.units + p.u]);
        h = (1.0f - z) * tanhf(gate_sum(r, p, 2, (const float *)NULL, x, own) + reset * s) + z * h_prev;
    }
    T rounded = from_float<T>(h);
    y[i] = rounded;
    to[p.u] = to_float(rounded);
}

/* ---- launchers ---- */

static unsigned grid_of(const struct kernel_recurrent *r)
{
    return blocks_for(r->sentences * r->units, THREADS);
}

extern "C" int recurrent_forward_cuda(const struct recurrent_forward_args *args, kernel_stream stream)
{
    if (!args->step->sentences || !args->step->units) return 0;
    KERNEL_DISPATCH(args->type, {
        if (args->step->gates == 4)
            KERNEL_LAUNCH(lstm_forward_kernel<T>, grid_of(args->step), THREADS, 0, stream, (T *)args->y,
                          (T *)args->kept, args->cell, (T *)args->state, (const T *)args->x, args->sums,
                          (const T *)args->own, (const T *)args->initial, args->offsets, *args->step);
        else
            KERNEL_LAUNCH(gru_forward_kernel<T>, grid_of(args->step), THREADS, 0, stream, (T *)args->y, (T *)args->kept,
                          (T *)args->state, (const T *)args->x, args->sums, (const T *)args->b, (const T *)args->own,
                          (const T *)args->initial, args->offsets, *args->step);
    });
    return cudaGetLastError();
}

extern "C" int recurrent_backward_cuda(const struct recurrent_backward_args *args, kernel_stream stream)
{
    if (!args->step->sentences || !args->step->units) return 0;
    KERNEL_DISPATCH(args->type, {
        if (args->step->gates == 4)
            KERNEL_LAUNCH(lstm_backward_kernel<T>, grid_of(args->step), THREADS, 0, stream, (T *)args->dx,
                          (T *)args->ds, args->carried, (const T *)args->dy, args->dh, (const T *)args->kept,
                          args->cell, (const T *)args->initial, args->offsets, *args->step);
        else
            KERNEL_LAUNCH(gru_backward_kernel<T>, grid_of(args->step), THREADS, 0, stream, (T *)args->dx,
                          (T *)args->dsums, (T *)args->ds, args->carried, (const T *)args->dy, args->dh,
                          (const T *)args->kept, (const T *)args->y, (const T *)args->initial, args->offsets,
                          *args->step);
    });
    return cudaGetLastError();
}

extern "C" int recurrent_initial_cuda(const struct recurrent_initial_args *args, kernel_stream stream)
{
    if (!args->step->sentences || !args->step->units) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(initial_kernel<T>, grid_of(args->step), THREADS, 0, stream, (T *)args->dinitial, args->dh,
                      args->carried, args->offsets, *args->step);
    });
    return cudaGetLastError();
}

extern "C" int recurrent_earlier_cuda(const struct recurrent_earlier_args *args, kernel_stream stream)
{
    if (!args->step->sentences || !args->step->units) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(earlier_kernel<T>, (unsigned)args->step->sentences, THREADS, 0, stream, (T *)args->h,
                      (const T *)args->y, (const T *)args->initial, args->offsets, *args->step);
    });
    return cudaGetLastError();
}

extern "C" int recurrent_gather_cuda(const struct recurrent_gather_args *args, kernel_stream stream)
{
    if (!args->step->sentences || !args->step->units) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(step_gather_kernel<T>, grid_of(args->step), THREADS, 0, stream, (T *)args->h, args->state,
                      (const T *)args->initial, args->position, args->history, args->room, *args->step);
    });
    return cudaGetLastError();
}

extern "C" int recurrent_step_cuda(const struct recurrent_step_args *args, kernel_stream stream)
{
    if (!args->step->sentences || !args->step->units) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(step_kernel<T>, grid_of(args->step), THREADS, 0, stream, (T *)args->y, args->state,
                      (const T *)args->x, args->sums, (const T *)args->b, (const T *)args->own,
                      (const T *)args->initial, args->position, args->history, args->room, *args->step);
    });
    return cudaGetLastError();
}
