/* Every tolerance of the numerical tests, in one table with its reason; the Python tests read it from here too.
 *
 * Errors are relative: |a - b| / max(|b|, 1e-3 * |whole gradient| / sqrt(tensors)) in the Euclidean norm of a tensor
 * (forward values have no floor but their own norm). */
#ifndef TESTS_TOLERANCES_H
#define TESTS_TOLERANCES_H

#define TOLERANCES(X)                                                                                                  \
    X(FORWARD, 1e-5, "f32 kernels against a double reference: sums of at most a few thousand terms, 6e-8 each")        \
    X(PRODUCT, 1e-6, "an f32 product's element, of the magnitudes that are added: some hundred terms, 6e-8 each")      \
    X(GRADIENT, 1e-5, "f32 gradients against a double reference, exact or differenced in double to 1e-8")              \
    X(DIFFERENCES, 1e-4, "f32 gradients against central differences of the double reference, the looser of the two")   \
    X(ANALYTIC, 1e-6, "a double gradient against differences of its own function: the step of 1e-5 costs 1e-9")        \
    X(REORDERED, 1e-6, "the same f32 sums added in another order (slots, shared values)")                              \
    X(OPTIMIZER, 1e-5, "20 updates in f32 against double: one rounding per operation and step")                        \
    X(STEP, 1e-4, "a tensor's movement in one update beside double: Adam divides small gradients by their own size")   \
    X(MODEL, 1e-5, "a whole model's loss and gradients in f32 against PyTorch in double")                              \
    X(ZERO, 1e-5, "a gradient that is exactly zero in the mathematics, against the whole gradient's norm")             \
    X(CACHED, 1e-5, "one row with a cache against the packed rows: the same sums in another order")                    \
    X(BACKENDS, 1e-4, "20 steps of training in f32, one backend beside another: sums in another order, then Adam")     \
    X(BACKENDS_BF16, 5e-3, "20 steps in bf16 beside f32: 2^-9 a rounding, a mean over some hundred tokens")            \
    X(MOMENTS_BF16, 2e-3,                                                                                              \
      "20 steps with bf16 moments beside f32: off by under 2^-7, unbiased; the loss moves by a quarter")               \
    X(BF16_RATIO, 2, "a bf16 result against its double reference, in units of that reference rounded once to bf16")

#define TOLERANCE_ENTRY(name, value, reason) static const double TOLERANCE_##name __attribute__((unused)) = value;
TOLERANCES(TOLERANCE_ENTRY)
#undef TOLERANCE_ENTRY

#endif
