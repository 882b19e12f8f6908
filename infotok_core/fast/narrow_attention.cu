// Block-causal attention for heads of 8, which the published network has 32 of: see
// narrow_attention.py for what it takes and gives, and for TILES and WARPS.
//
// A warp holds 16 * TILES queries and walks over the keys 32 at a time. Scores come out of the
// tensor cores as float16 with a reference subtracted that is at most 4 below the largest score so
// far (of base 2), and go into them again as weights, without leaving their registers. Half of the
// exponentials are taken by the special function units and half by a polynomial on the multipliers:
// either alone would take longer than everything else together.

typedef unsigned int u32;
typedef unsigned short u16;

constexpr int kKeys = 128;   // of a block of keys and values in shared memory
constexpr int kStages = 4;   // such blocks, on their way or in use
constexpr u32 kOnes = 0x3C003C00u, kNone = 0xFC00FC00u;  // pairs of 1 and of minus infinity

// Pairs of float16 in one register; not by cuda_fp16.h, which need not lie where only torch does.
__device__ __forceinline__ u32 add2(u32 a, u32 b) {
    u32 d;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

__device__ __forceinline__ u32 subtract2(u32 a, u32 b) {
    u32 d;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

__device__ __forceinline__ u32 multiply2(u32 a, u32 b) {
    u32 d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

__device__ __forceinline__ u32 fma2(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

__device__ __forceinline__ u32 max2(u32 a, u32 b) {
    u32 d;
    asm("max.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

__device__ __forceinline__ u32 exp2_of(u32 a) {
    u32 d;
    asm("ex2.approx.f16x2 %0, %1;" : "=r"(d) : "r"(a));
    return d;
}

__device__ __forceinline__ float low(u32 a) {
    float f;
    asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(f) : "r"(a));
    return f;
}

__device__ __forceinline__ float high(u32 a) {
    float f;
    asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(f) : "r"(a));
    return f;
}

__device__ __forceinline__ u32 twice(float f) {
    u32 d;
    asm("{.reg .f16 h; cvt.rn.f16.f32 h, %1; mov.b32 %0, {h, h};}" : "=r"(d) : "f"(f));
    return d;
}

__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1024 * 2^x for x below 5.5, never less than 2^-14: the fraction by a polynomial (0.1 % off), the
// exponent by its bits. The factor keeps what is small clear of float16's denormal numbers.
__device__ __forceinline__ u32 exp2_by_polynomial(u32 x) {
    x = max2(x, 0xCE00CE00u);               // -24
    const u32 magic = 0x66196619u;          // 1536 + 25: the sum's last bits are 15 + 10 + n
    const u32 t = add2(x, magic);
    const u32 f = subtract2(x, subtract2(t, magic));
    // Shifting both halves at once leaves 0x198 in the mantissa of the upper one: a factor of
    // 1.3984375, by which its coefficients are smaller.
    u32 p = fma2(f, 0x319333BDu, 0x3801399Du);
    p = fma2(p, f, 0x39B83C00u);
    return multiply2(p, t << 10);
}

// d = a b + c: 16 queries by 8 keys, over the 8 channels.
__device__ __forceinline__ void scores_of(
    u32 (&d)[2], const u32 (&a)[2], u32 b, const u32 (&c)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%5, %6};"
        : "=r"(d[0]), "=r"(d[1]) : "r"(a[0]), "r"(a[1]), "r"(b), "r"(c[0]), "r"(c[1]));
}

// c += a b: 16 queries by 8 channels, over 16 keys.
__device__ __forceinline__ void weigh(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// What a thread holds of 16 queries: rows g and g + 8, where g is a quarter of its lane.
struct Queries {
    u32 q[2];
    u32 offset[2];     // minus the row's reference, twice
    float value[2][4]; // of either exponential: the polynomial's are 1024 times the other's
    float total[2][4];
};

typedef u32 Scores[TILES][4][2];  // of 32 keys: four times 8, rows g and g + 8

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

__device__ __forceinline__ bool any_above_4(u32 most) {
    u32 yes;
    asm("{.reg .pred p, q, r; setp.gt.f16x2 p|q, %1, %2; or.pred r, p, q; selp.u32 %0, 1, 0, r;}"
        : "=r"(yes) : "r"(most), "r"(0x44004400u));
    return __any_sync(0xFFFFFFFFu, yes);
}

__device__ __forceinline__ void raise(Queries &queries, const u32 (&most)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float top = fmaxf(quad_max(fmaxf(low(most[half]), high(most[half]))), 0.0f);
        const u32 before = queries.offset[half];
        queries.offset[half] = subtract2(before, twice(top));
        const float shrink = exp2_of(low(queries.offset[half]) - low(before));
#pragma unroll
        for (int way = 0; way < 2; ++way)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
                queries.value[way][i] *= shrink;
                queries.total[way][i] *= shrink;
            }
    }
}

// The first reference: the largest score among 64 keys at the start and 64 at the queries' place.
__device__ __forceinline__ void refer(Queries &queries, const u16 *k, int own, int end) {
    const u32 zero[2] = {0, 0};
    const int lane = threadIdx.x % 32;
    u32 most[2] = {kNone, kNone};
#pragma unroll 4
    for (int n = 0; n < 128; n += 8) {
        const int key = min((n < 64 ? n : own + n - 64) + lane / 4, end - 1);
        u32 s[2];
        scores_of(s, queries.q, *(const u32 *)(k + key * 8 + (lane % 4) * 2), zero);
        most[0] = max2(most[0], s[0]);
        most[1] = max2(most[1], s[1]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
        queries.offset[half] = twice(-quad_max(fmaxf(low(most[half]), high(most[half]))));
}

// Scores of 32 keys against the references. LAST: only ``left`` of them are keys.
template <bool LAST>
__device__ __forceinline__ void look(
    Scores &s, const Queries (&queries)[TILES], u32 keys, int left) {
    u32 k[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(k[0]), "=r"(k[1]), "=r"(k[2]), "=r"(k[3]) : "r"(keys));
#pragma unroll
    for (int r = 0; r < TILES; ++r)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            scores_of(s[r][j], queries[r].q, k[j], queries[r].offset);
            if (LAST) {
                const int key = 8 * j + (threadIdx.x % 4) * 2;
                const u32 keep = (key < left ? 0xFFFFu : 0u) | (key + 1 < left ? 0xFFFF0000u : 0u);
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    s[r][j][half] = (s[r][j][half] & keep) | (kNone & ~keep);
            }
        }
}

// Raises references that were outgrown, and looks again.
template <bool LAST>
__device__ __forceinline__ void check(Scores &s, Queries (&queries)[TILES], u32 keys, int left) {
    u32 most[TILES][2], top = kNone;
#pragma unroll
    for (int r = 0; r < TILES; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            most[r][half] = max2(max2(s[r][0][half], s[r][1][half]),
                                 max2(s[r][2][half], s[r][3][half]));
            top = max2(top, most[r][half]);
        }
    if (any_above_4(top)) {
#pragma unroll
        for (int r = 0; r < TILES; ++r) raise(queries[r], most[r]);
        look<LAST>(s, queries, keys, left);
    }
}

// Adds 32 weighted values. The polynomial never gives nothing, which LAST wants.
template <bool LAST>
__device__ __forceinline__ void add(Queries (&queries)[TILES], const Scores &s, u32 values) {
    u32 v[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(values));
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int r = 0; r < TILES; ++r) {
            const int way = LAST ? 0 : i;
            u32 w[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const u32 x = s[r][2 * i + j / 2][j % 2];
                w[j] = way ? exp2_by_polynomial(x) : exp2_of(x);
            }
            weigh(queries[r].value[way], w, v[2 * i], v[2 * i + 1]);
            weigh(queries[r].total[way], w, kOnes, kOnes);
        }
}

typedef u16 Shared[kStages][2][kKeys][8];

__device__ __forceinline__ void attend_to(
    Queries (&queries)[TILES], const u16 *k, const u16 *v, int end, Shared &shared) {
    const int whole = end / kKeys;
    auto at = [&](int block, int which) {
        return (u32)__cvta_generic_to_shared(&shared[block % kStages][which][threadIdx.x % 32][0]);
    };
    auto fetch = [&](int block) {
        // Behind the end the last key stands again and again, for what looks ahead.
        const long long key = min(block * kKeys + (int)threadIdx.x, end - 1);
        const u32 target =
            (u32)__cvta_generic_to_shared(&shared[block % kStages][0][threadIdx.x][0]);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(k + key * 8));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target + kKeys * 16),
                     "l"(v + key * 8));
        asm volatile("cp.async.commit_group;");
    };
#pragma unroll
    for (int block = 0; block < kStages - 1; ++block) fetch(block);
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
    __syncthreads();
    Scores s, ahead;
    look<false>(s, queries, at(0, 0), 32);
    check<false>(s, queries, at(0, 0), 32);
#pragma unroll 1
    for (int block = 0; block < whole; ++block) {
        // The next block is there too, and all warps are through with the one before.
        asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 3));
        __syncthreads();
        fetch(block + kStages - 1);
#pragma unroll 1
        for (int n = 0; n < kKeys; n += 32) {
            // The next scores are on their way while these are used.
            const u32 next = n + 32 < kKeys ? at(block, 0) + 16 * (n + 32) : at(block + 1, 0);
            look<false>(ahead, queries, next, 32);
            add<false>(queries, s, at(block, 1) + 16 * n);
            check<false>(ahead, queries, next, 32);
#pragma unroll
            for (int i = 0; i < TILES * 8; ++i)
                s[i / 8][i / 2 % 4][i % 2] = ahead[i / 8][i / 2 % 4][i % 2];
        }
    }
    asm volatile("cp.async.wait_all;");
    __syncthreads();
#pragma unroll 1
    for (int n = 0; n < end - whole * kKeys; n += 32) {
        const u32 keys = at(whole, 0) + 16 * n;
        const int left = end - whole * kKeys - n;
        look<true>(s, queries, keys, left);
        check<true>(s, queries, keys, left);
        add<true>(queries, s, at(whole, 1) + 16 * n);
    }
}

// Grid: blocks of 16 * TILES * WARPS queries of every frame, by B * heads.
extern "C" __global__ void __launch_bounds__(32 * WARPS) attend(
    const u16 *__restrict__ q, const u16 *__restrict__ k, const u16 *__restrict__ v,
    void *__restrict__ out, int length, int tokens, int heads, int bfloat16) {
    static_assert(32 * WARPS == kKeys, "each thread fetches one key and one value");
    __shared__ __align__(16) Shared shared;
    const int blocks = (length + 16 * TILES * WARPS - 1) / (16 * TILES * WARPS);
    // The last frames have the most to do: they start first.
    const int program = gridDim.x - 1 - blockIdx.x;
    const int frame = program / blocks, block = program % blocks;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = (block * WARPS + warp) * 16 * TILES;  // of the frame, the warp's own
    const int end = (frame + 1) * length;
    const long long base = (long long)blockIdx.y * tokens * 8;

    Queries queries[TILES];
#pragma unroll
    for (int r = 0; r < TILES; ++r) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = min(first + 16 * r + 8 * half + lane / 4, length - 1);
            queries[r].q[half] =
                *(const u32 *)(q + base + (frame * length + row) * 8 + (lane % 4) * 2);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i)
            queries[r].value[i / 4][i % 4] = queries[r].total[i / 4][i % 4] = 0.0f;
        refer(queries[r], k + base, frame * length + min(first + 16 * r, length - 1), end);
    }
    attend_to(queries, k + base, v + base, end, shared);

    const long long sample = blockIdx.y / heads, head = blockIdx.y % heads;
#pragma unroll
    for (int r = 0; r < TILES; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first + 16 * r + 8 * half + lane / 4;
            float y[2];
            const float total =
                queries[r].total[0][2 * half] + queries[r].total[1][2 * half] / 1024.0f;
#pragma unroll
            for (int i = 0; i < 2; ++i)
                y[i] = (queries[r].value[0][2 * half + i] +
                        queries[r].value[1][2 * half + i] / 1024.0f) / total;
            u32 pair;
            if (bfloat16)
                asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y[1]), "f"(y[0]));
            else
                asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y[1]), "f"(y[0]));
            const long long place = ((sample * tokens + frame * length + row) * heads + head) * 8;
            if (row < length) ((u32 *)out)[place / 2 + lane % 4] = pair;
        }
}
