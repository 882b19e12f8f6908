// Block-causal attention for heads of 8, which the published network has 32 of: see
// narrow_attention.py for what it takes and gives, and for TILES and WARPS.
//
// A warp holds 16 * TILES queries and walks over the keys 32 at a time. Scores come out of the
// tensor cores as float16 with a reference subtracted that is at most 4 below the largest score so
// far (of base 2), and go into them again as weights, without leaving their registers. Half of the
// exponentials are taken by the special function units and half by a polynomial on the multipliers:
// either alone would take longer than everything else together. What bounds the rest is how many
// instructions a multiprocessor can begin, so the polynomial has as few as it could be given: six.

typedef unsigned int u32;
typedef unsigned short u16;

constexpr int kKeys = 256;   // of a block of keys and values in shared memory
constexpr int kStages = 3;   // such blocks, on their way or in use
// Pairs of float16.
constexpr u32 kNone = 0xFC00FC00u;      // minus infinity
constexpr u32 kOnes = 0x3C003C00u;      // 1
constexpr u32 kMost = 0x44004400u;      // 4, the largest score against a reference
constexpr u32 kSmall = 0x18001800u;     // 1/512, see Queries
constexpr u32 kLarge = 0x60006000u;     // 512
constexpr float kPolynomial = 2048.0f;  // what the polynomial's exponentials are larger by

// Pairs of float16 in one register; not by cuda_fp16.h, which need not lie where only torch does.
__device__ __forceinline__ u32 subtract2(u32 a, u32 b) {
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}

__device__ __forceinline__ u32 multiply2(u32 a, u32 b) {
    asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}

__device__ __forceinline__ u32 fma2(u32 a, u32 b, u32 c) {
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(a) : "r"(b), "r"(c));
    return a;
}

// Nothing below 0.
__device__ __forceinline__ u32 fma2_relu(u32 a, u32 b, u32 c) {
    asm("fma.rn.relu.f16x2 %0, %0, %1, %2;" : "+r"(a) : "r"(b), "r"(c));
    return a;
}

__device__ __forceinline__ u32 max2(u32 a, u32 b) {
    asm("max.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}

__device__ __forceinline__ u32 exp2_of(u32 a) {
    asm("ex2.approx.f16x2 %0, %0;" : "+r"(a));
    return a;
}

__device__ __forceinline__ float low(u32 a) {
    float f;
    asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(f) : "r"(a));
    return f;
}

__device__ __forceinline__ float high(u32 a) { return low(a >> 16); }

__device__ __forceinline__ u32 twice(float f) {
    u32 d;
    asm("{.reg .f16 h; cvt.rn.f16.f32 h, %1; mov.b32 %0, {h, h};}" : "=r"(d) : "f"(f));
    return d;
}

__device__ __forceinline__ float exp2_of(float x) {
    asm("ex2.approx.f32 %0, %0;" : "+f"(x));
    return x;
}

// 2048 * 2^(512 x) for scores 512 x below 4.5, never less than 2^-14: the score's fraction f by a
// polynomial (0.1 % off, 0.4 % at most), its whole part n by the exponent's bits. The factor keeps
// what is small clear of float16's denormal numbers.
//
// n is had without a conversion, since the last bit of a denormal number stands for 2^-24: the
// score times 2^-24, which is x times 2^-15, is rounded to n in the lowest bits. The polynomial is
// made times 2^-13 = 2048 * 2^-24; n + 24, moved up to where the exponents are and added to both
// halves at once, makes 2048 * 2^n of that.
__device__ __forceinline__ u32 exp2_by_polynomial(u32 x) {
    const u32 n = multiply2(x, 0x02000200u);                // n 2^-24
    const u32 f = fma2(n, 0xF800F800u, x);                  // f / 512: n times -2^15, plus x
    const u32 exponent = fma2_relu(n, kOnes, 0x00180018u);  // n + 24, in bits; never below 0
    u32 p = fma2(f, 0x47BD47BDu, 0x299D299Du);              // 2^-13 512^2 0.2418, 2^-13 512 0.7017
    p = fma2(p, f, 0x08000800u);                            // 2^-13
    return exponent * 1024u + p;
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

// What a thread holds of 16 queries: rows g and g + 8, where g is a quarter of its lane. The first
// index is the way of the exponentials: 0 by the special function units, 1 by the polynomial. It
// wants scores times 1/512 and has them of queries and references that are, at no cost but the
// last bits of what is below 2^-5: hence BALANCE in narrow_attention.py.
struct Queries {
    u32 q[2][2];
    u32 offset[2][2];   // minus the row's reference, twice
    float value[2][4];  // the polynomial's are 2048 times the other's
    float total[2][4];
};

typedef u32 Scores[TILES][4][2];  // of 32 keys: four times 8, rows g and g + 8

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

__device__ __forceinline__ bool any_outgrown(u32 most) {
    u32 yes;
    asm("{.reg .pred p, q, r; setp.gt.f16x2 p|q, %1, %2; or.pred r, p, q; selp.u32 %0, 1, 0, r;}"
        : "=r"(yes) : "r"(most), "r"(kMost));
    return __any_sync(0xFFFFFFFFu, yes);
}

__device__ __forceinline__ void refer_to(Queries &queries, int half, u32 offset) {
    queries.offset[0][half] = offset;
    queries.offset[1][half] = multiply2(offset, kSmall);
}

__device__ __forceinline__ void raise(Queries &queries, const u32 (&most)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float top = fmaxf(quad_max(fmaxf(low(most[half]), high(most[half]))), 0.0f);
        const u32 before = queries.offset[0][half], after = subtract2(before, twice(top));
        const float shrink = exp2_of(low(after) - low(before));
        refer_to(queries, half, after);
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
        scores_of(s, queries.q[0], *(const u32 *)(k + key * 8 + (lane % 4) * 2), zero);
        most[0] = max2(most[0], s[0]);
        most[1] = max2(most[1], s[1]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
        refer_to(queries, half, twice(-quad_max(fmaxf(low(most[half]), high(most[half])))));
}

// The way of keys 8 j to 8 j + 8 of 32. LAST: the polynomial never gives nothing.
template <bool LAST>
__device__ __forceinline__ constexpr int way_of(int j) { return !LAST && j >= 2; }

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
            const int way = way_of<LAST>(j);
            scores_of(s[r][j], queries[r].q[way], k[j], queries[r].offset[way]);
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
    // A chain of each way, as Hopper takes two maxima of a chain in one instruction.
    u32 top[2] = {kNone, kNone};
#pragma unroll
    for (int r = 0; r < TILES; ++r)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int way = way_of<LAST>(i / 2);
            top[way] = max2(top[way], s[r][i / 2][i % 2]);
        }
    if (__builtin_expect(any_outgrown(max2(top[0], multiply2(top[1], kLarge))), 0)) {
#pragma unroll
        for (int r = 0; r < TILES; ++r) {
            u32 most[2] = {kNone, kNone};
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const u32 x = s[r][i / 2][i % 2];
                most[i % 2] = max2(most[i % 2], way_of<LAST>(i / 2) ? multiply2(x, kLarge) : x);
            }
            raise(queries[r], most);
        }
        look<LAST>(s, queries, keys, left);
    }
}

// Adds 32 weighted values.
template <bool LAST>
__device__ __forceinline__ void add(Queries (&queries)[TILES], const Scores &s, u32 values) {
    u32 v[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(values));
#pragma unroll
    for (int j = 0; j < 4; j += 2)
#pragma unroll
        for (int r = 0; r < TILES; ++r) {
            const int way = way_of<LAST>(j);
            u32 w[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const u32 x = s[r][j + i / 2][i % 2];
                w[i] = way ? exp2_by_polynomial(x) : exp2_of(x);
            }
            weigh(queries[r].value[way], w, v[j], v[j + 1]);
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
#pragma unroll
        for (int n = 0; n < kKeys; n += 32 * WARPS) {
            const int own = n + threadIdx.x;
            const long long key = min(block * kKeys + own, end - 1);
            const u32 place = (u32)__cvta_generic_to_shared(&shared[block % kStages][0][own][0]);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                         ::"r"(place), "l"(k + key * 8));
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                         ::"r"(place + kKeys * 16), "l"(v + key * 8));
        }
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
        // The next scores are on their way while these are used.
        const u32 keys = at(block, 0), values = at(block, 1), after = at(block + 1, 0);
#pragma unroll 1
        for (int n = 0; n < 16 * kKeys; n += 1024) {  // bytes: 16 a key
            look<false>(ahead, queries, keys + n + 512, 32);
            add<false>(queries, s, values + n);
            check<false>(ahead, queries, keys + n + 512, 32);
            const u32 next = n + 1024 < 16 * kKeys ? keys + n + 1024 : after;
            look<false>(s, queries, next, 32);
            add<false>(queries, ahead, values + n + 512);
            check<false>(s, queries, next, 32);
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
extern "C" __global__ void __launch_bounds__(32 * WARPS, 5) attend(
    const u16 *__restrict__ q, const u16 *__restrict__ k, const u16 *__restrict__ v,
    void *__restrict__ out, int length, int tokens, int heads, int bfloat16) {
    static_assert(kKeys % (32 * WARPS) == 0, "each thread fetches as many keys and values");
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
            const u32 x = *(const u32 *)(q + base + (frame * length + row) * 8 + (lane % 4) * 2);
            queries[r].q[0][half] = x;
            queries[r].q[1][half] = multiply2(x, kSmall);
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
                queries[r].total[0][2 * half] + queries[r].total[1][2 * half] / kPolynomial;
#pragma unroll
            for (int i = 0; i < 2; ++i)
                y[i] = (queries[r].value[0][2 * half + i] +
                        queries[r].value[1][2 * half + i] / kPolynomial) / total;
            u32 pair;
            if (bfloat16)
                asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y[1]), "f"(y[0]));
            else
                asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y[1]), "f"(y[0]));
            const long long place = ((sample * tokens + frame * length + row) * heads + head) * 8;
            if (row < length) ((u32 *)out)[place / 2 + lane % 4] = pair;
        }
}
