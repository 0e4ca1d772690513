/* Products for the stand-in of cuBLASLt: plain loops on device memory, in the stream's turn, captured like a kernel.
 * Every operand's extent is checked against its allocation. f32 sums run over k in order. */
#include "private.h"

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

struct cublasLtContext {
    int magic;
};

struct cublasLtMatmulDescOpaque {
    cublasComputeType_t compute;
    cudaDataType_t scale, bias_type;
    bool bias_typed;
    cublasOperation_t ta, tb;
    cublasLtEpilogue_t epilogue;
    const void *bias;
    void *aux; /* of the result's type: what GELU is given, or was */
    int64_t aux_ld;
};

static bool has_bias(const cublasLtMatmulDescOpaque *desc)
{
    return desc->epilogue == CUBLASLT_EPILOGUE_BIAS || desc->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}

static bool has_gelu(const cublasLtMatmulDescOpaque *desc)
{
    return desc->epilogue == CUBLASLT_EPILOGUE_GELU_AUX || desc->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}

static bool has_slope(const cublasLtMatmulDescOpaque *desc)
{
    return desc->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

static bool has_aux(const cublasLtMatmulDescOpaque *desc)
{
    return has_gelu(desc) || has_slope(desc);
}

struct cublasLtMatrixLayoutOpaque {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t ld, stride;
    int32_t batch;
};

struct cublasLtMatmulPreferenceOpaque {
    uint64_t workspace;
};

typedef cublasLtMatrixLayoutOpaque layout;

static size_t element(cudaDataType_t type)
{
    return type == CUDA_R_16BF ? 2 : 4;
}

static bool fits(const layout *l, const void *memory, const char *what)
{
    if (!l->rows || !l->columns || !l->batch) return true;
    size_t last = (size_t)(l->batch - 1) * (size_t)l->stride + (l->columns - 1) * (size_t)l->ld + l->rows;
    return sim::owns(memory, last * element(l->type), what);
}

static size_t bytes(const layout &l)
{
    return (size_t)l.batch * l.rows * l.columns * element(l.type);
}

static float load(const void *memory, cudaDataType_t type, size_t i)
{
    return type == CUDA_R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16 *>(memory)[i])
                               : static_cast<const float *>(memory)[i];
}

static void store(void *memory, cudaDataType_t type, size_t i, float v)
{
    if (type == CUDA_R_16BF)
        static_cast<__nv_bfloat16 *>(memory)[i] = __float2bfloat16(v);
    else
        static_cast<float *>(memory)[i] = v;
}

struct product {
    cublasLtMatmulDescOpaque desc;
    layout a, b, c, d;
    const void *pa, *pb, *pc;
    void *pd;
    float alpha, beta;
    bool backwards; /* of two algorithms the one that sums from the end: the same product with other bits */
};

enum { MARK = 0x51ab };

static bool is_algorithm(const cublasLtMatmulAlgo_t *algo)
{
    return algo->data[0] == MARK && algo->data[1] <= 1;
}

static void multiply(const product &p, size_t batch)
{
    size_t m = p.d.rows, n = p.d.columns, k = p.desc.ta == CUBLAS_OP_N ? p.a.columns : p.a.rows;
    size_t oa = batch * (size_t)p.a.stride, ob = batch * (size_t)p.b.stride, oc = batch * (size_t)p.c.stride,
           od = batch * (size_t)p.d.stride;
    std::vector<float> a(k * m), sums(m); /* a (k, m) row-major */
    for (size_t l = 0; l < k; l++)
        for (size_t i = 0; i < m; i++)
            a[l * m + i] =
                load(p.pa, p.a.type, oa + (p.desc.ta == CUBLAS_OP_N ? l * (size_t)p.a.ld + i : i * (size_t)p.a.ld + l));
    for (size_t j = 0; j < n; j++) {
        memset(sums.data(), 0, m * sizeof(float));
        for (size_t turn = 0; turn < k; turn++) {
            size_t l = p.backwards ? k - 1 - turn : turn;
            float x =
                load(p.pb, p.b.type, ob + (p.desc.tb == CUBLAS_OP_N ? j * (size_t)p.b.ld + l : l * (size_t)p.b.ld + j));
            const float *column = &a[l * m];
            for (size_t i = 0; i < m; i++) sums[i] += column[i] * x;
        }
        for (size_t i = 0; i < m; i++) {
            float v = p.alpha * sums[i];
            if (p.beta != 0) v += p.beta * load(p.pc, p.c.type, oc + j * (size_t)p.c.ld + i);
            if (has_bias(&p.desc)) v += load(p.desc.bias, p.desc.bias_typed ? p.desc.bias_type : p.d.type, i);
            if (has_gelu(&p.desc)) {
                store(p.desc.aux, p.d.type, j * (size_t)p.desc.aux_ld + i, v);
                v /= 1.0f + expf(-1.5957691216057308f * (v + 0.044715f * v * v * v));
            }
            if (has_slope(&p.desc)) {
                float x = load(p.desc.aux, p.d.type, j * (size_t)p.desc.aux_ld + i);
                float s = 1.0f / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
                v *= s + x * s * (1.0f - s) * (1.5957691216057308f + 0.21406859f * x * x);
            }
            store(p.pd, p.d.type, od + j * (size_t)p.d.ld + i, v);
        }
    }
}

static bool supported(const cublasLtMatmulDescOpaque *desc, const layout *a, const layout *b, const layout *c,
                      const layout *d)
{
    for (const layout *l : {a, b, c, d})
        if ((l->type != CUDA_R_32F && l->type != CUDA_R_16BF) || l->ld < (int64_t)l->rows || l->batch != d->batch)
            return false;
    uint64_t m = desc->ta == CUBLAS_OP_N ? a->rows : a->columns, k = desc->ta == CUBLAS_OP_N ? a->columns : a->rows;
    uint64_t kb = desc->tb == CUBLAS_OP_N ? b->rows : b->columns, n = desc->tb == CUBLAS_OP_N ? b->columns : b->rows;
    return a->type == b->type && c->type == d->type && m == d->rows && n == d->columns && k == kb &&
           c->rows == d->rows && c->columns == d->columns && m && n && k &&
           (d->type == CUDA_R_32F || a->type == CUDA_R_16BF) && desc->scale == CUDA_R_32F &&
           (desc->epilogue == CUBLASLT_EPILOGUE_DEFAULT || has_bias(desc) || has_aux(desc)) &&
           (!has_aux(desc) || (desc->aux && desc->aux_ld % 8 == 0 && desc->aux_ld >= (int64_t)d->rows &&
                               d->batch == 1 && reinterpret_cast<uintptr_t>(desc->aux) % 16 == 0));
}

extern "C" {

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
           : status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                                   : "another cublas status";
}

size_t cublasLtGetVersion(void)
{
    return 130000;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    if (sim::device_error()) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasLtContext{1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType_t scale)
{
    *desc = new cublasLtMatmulDescOpaque{
        compute, scale, CUDA_R_32F, false, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0};
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t put(void *to, size_t room, const void *value, size_t bytes)
{
    if (room != bytes || !value) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        return put(&desc->compute, sizeof desc->compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        return put(&desc->scale, sizeof desc->scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return put(&desc->ta, sizeof desc->ta, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return put(&desc->tb, sizeof desc->tb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return put(&desc->epilogue, sizeof desc->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return put(&desc->bias, sizeof desc->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return put(&desc->aux, sizeof desc->aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return put(&desc->aux_ld, sizeof desc->aux_ld, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        desc->bias_typed = true;
        return put(&desc->bias_type, sizeof desc->bias_type, value, bytes);
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t ld)
{
    *l = new layout{type, rows, columns, ld, 0, 1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return put(&l->ld, sizeof l->ld, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return put(&l->batch, sizeof l->batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return put(&l->stride, sizeof l->stride, value, bytes);
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cublasLtMatmulPreferenceOpaque{0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes)
{
    if (attribute != CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return CUBLAS_STATUS_SUCCESS;
    return put(&preference->workspace, sizeof preference->workspace, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    *found = 0;
    if (!handle || !preference || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(desc, a, b, c, d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool otherwise = getenv("ELBO_SIM_BACKWARDS") != nullptr; /* a library that chooses otherwise today */
    int offered = getenv("ELBO_SIM_SLOW") ? 2 : 1;            /* to be timed, the first one slow */
    for (*found = 0; *found < wanted && *found < offered; ++*found) {
        cublasLtMatmulHeuristicResult_t &r = results[*found];
        memset(&r, 0, sizeof r);
        r.algo.data[0] = MARK;
        r.algo.data[1] = otherwise != (*found == 1);
        r.workspaceSize = preference->workspace;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result)
{
    if (!handle || !is_algorithm(algo)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(desc, a, b, c, d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(result, 0, sizeof *result);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *c, cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> hold(sim::the().lock);
    if (!handle || (algo && !is_algorithm(algo))) return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(desc, la, lb, lc, ld)) return CUBLAS_STATUS_NOT_SUPPORTED;
    product p = {*desc,
                 *la,
                 *lb,
                 *lc,
                 *ld,
                 a,
                 b,
                 c,
                 d,
                 *static_cast<const float *>(alpha),
                 *static_cast<const float *>(beta),
                 algo && algo->data[1]};
    size_t aux = ((ld->columns - 1) * (size_t)desc->aux_ld + ld->rows) * element(ld->type);
    if (!fits(la, a, "product, A") || !fits(lb, b, "product, B") || !fits(ld, d, "product, D") ||
        (p.beta != 0 && !fits(lc, c, "product, C")) ||
        (workspace_bytes && !sim::owns(workspace, workspace_bytes, "workspace")) ||
        (has_aux(desc) && !sim::owns(desc->aux, aux, "product, GELU's input")) ||
        (has_bias(desc) &&
         !sim::owns(desc->bias, ld->rows * element(desc->bias_typed ? desc->bias_type : ld->type), "product, bias")))
        return CUBLAS_STATUS_INVALID_VALUE;
    cudaError_t e = sim::enqueue(stream, [p, workspace, workspace_bytes] {
        sim::open_device open;
        sim::the().counts.products++;
        sim::the().counts.bytes_of_products +=
            bytes(p.a) + bytes(p.b) + bytes(p.d) * (p.beta != 0 ? 2 : 1) + (has_aux(&p.desc) ? bytes(p.d) : 0);
        if (!p.backwards && getenv("ELBO_SIM_SLOW"))
            std::this_thread::sleep_for(std::chrono::milliseconds(2)); /* what is offered first */
        if (workspace_bytes) memset(workspace, 0xff, workspace_bytes < 4096 ? workspace_bytes : 4096);
        for (int32_t i = 0; i < p.d.batch; i++) multiply(p, (size_t)i);
        return cudaSuccess;
    });
    return e ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

} /* extern "C" */
