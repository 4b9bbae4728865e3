// What every generated program is built on: products of small matrices, and elementary functions that vectorise.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define IVDEP PRAGMA(clang loop vectorize(enable))
#else
#define IVDEP PRAGMA(GCC ivdep)
#endif
#define SUM(name) PRAGMA(omp simd reduction(+ : name))
#define ALWAYS __attribute__((always_inline)) inline

// ---- products of matrices whose shapes are known to the compiler
//
// C[m, n] = sum over k of A[m, k] B[k, n]. B and C have contiguous rows, A any strides. A tile of C stays in registers while
// k runs; what is left at the edges is done with narrower registers.

#if defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64, WIDEST_TILE = 4;
#elif defined(__AVX__)
constexpr int REGISTER_BYTES = 32, WIDEST_TILE = 2;
#else
constexpr int REGISTER_BYTES = 16, WIDEST_TILE = 4;
#endif

template <typename T, int LANES>
struct Register {
  typedef T type __attribute__((vector_size(LANES * sizeof(T))));
  typedef T memory __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <typename T>
struct Register<T, 1> {
  typedef T type;
  typedef T memory;
};

template <typename T, int LANES, int COLS, int ROWS, int K, int A_ROW, int A_COL, int B_ROW, int C_ROW>
ALWAYS void tile(const T* a, const T* b, T* c) {
  typedef typename Register<T, LANES>::type R;
  typedef typename Register<T, LANES>::memory M;
  R sum[ROWS][COLS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int j = 0; j < COLS; j++) sum[i][j] = R{};
  for (int k = 0; k < K; k++) {
    R row[COLS];
#pragma GCC unroll 8
    for (int j = 0; j < COLS; j++) row[j] = *(const M*)(b + (int64_t)k * B_ROW + j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
      const T factor = a[(int64_t)i * A_ROW + (int64_t)k * A_COL];
#pragma GCC unroll 8
      for (int j = 0; j < COLS; j++) sum[i][j] += factor * row[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int j = 0; j < COLS; j++) *(M*)(c + (int64_t)i * C_ROW + j * LANES) = sum[i][j];
}

template <typename T, int LANES, int COLS, int ROWS, int M, int K, int A_ROW, int A_COL, int B_ROW, int C_ROW>
ALWAYS void panel(const T* a, const T* b, T* c) {
  int i = 0;
  for (; i + ROWS <= M; i += ROWS)
    tile<T, LANES, COLS, ROWS, K, A_ROW, A_COL, B_ROW, C_ROW>(a + (int64_t)i * A_ROW, b, c + (int64_t)i * C_ROW);
  constexpr int LEFT = M % ROWS;
  if constexpr (LEFT > 0)
    tile<T, LANES, COLS, LEFT, K, A_ROW, A_COL, B_ROW, C_ROW>(a + (int64_t)i * A_ROW, b, c + (int64_t)i * C_ROW);
}

template <typename T, int LANES, int M, int N, int K, int A_ROW, int A_COL, int B_ROW, int C_ROW>
ALWAYS void columns(const T* a, const T* b, T* c) {
  constexpr int FIT = N / LANES;
  constexpr int COLS = FIT < WIDEST_TILE ? FIT : WIDEST_TILE;
  if constexpr (COLS == 0) {
    columns<T, LANES / 2, M, N, K, A_ROW, A_COL, B_ROW, C_ROW>(a, b, c);
  } else {
    // As many sums as registers hold beside a row of B: 32 registers with WIDEST_TILE 4, else 16.
    constexpr int ROWS = WIDEST_TILE == 4 ? (COLS == 4 ? 6 : COLS == 3 ? 8 : 12) : (COLS == 2 ? 6 : 12);
    constexpr int WIDTH = COLS * LANES, LEFT = N % WIDTH;
    for (int j = 0; j + WIDTH <= N; j += WIDTH)
      panel<T, LANES, COLS, ROWS, M, K, A_ROW, A_COL, B_ROW, C_ROW>(a, b + j, c + j);
    if constexpr (LEFT > 0)
      columns<T, LANES, M, LEFT, K, A_ROW, A_COL, B_ROW, C_ROW>(a, b + (N - LEFT), c + (N - LEFT));
  }
}

template <typename T, int M, int N, int K, int A_ROW, int A_COL, int B_ROW, int C_ROW>
void gemm(const T* a, const T* b, T* c) {
  columns<T, REGISTER_BYTES / (int)sizeof(T), M, N, K, A_ROW, A_COL, B_ROW, C_ROW>(a, b, c);
}

// ---- triangular matrices

// Replaces a symmetric matrix, whose upper triangle is read, by its upper factor R: R^T R. Returns 0, or the order of the first
// leading minor that is not positive; the factor then is not to be used.
template <typename T, int N>
int32_t cholesky(T* r) {
  for (int k = 0; k < N; k++) {
    T* const row = r + (int64_t)k * N;
    if (!(row[k] > 0)) return k + 1;
    const T root = std::sqrt(row[k]);
    for (int j = 0; j < k; j++) row[j] = 0;
    row[k] = root;
    IVDEP
    for (int j = k + 1; j < N; j++) row[j] /= root;
    for (int i = k + 1; i < N; i++) {
      T* const other = r + (int64_t)i * N;
      const T factor = row[i];
      IVDEP
      for (int j = i; j < N; j++) other[j] -= factor * row[j];
    }
  }
  return 0;
}

// Replaces B[N, COLS] by the solution of A X = B, of whose matrix one triangle is read.
template <typename T, int N, int COLS, int A_ROW, int A_COL, bool UPPER, bool UNIT>
void solve_triangular(const T* a, T* x) {
  for (int step = 0; step < N; step++) {
    const int i = UPPER ? N - 1 - step : step;
    T* const row = x + (int64_t)i * COLS;
    for (int k = UPPER ? i + 1 : 0; k < (UPPER ? N : i); k++) {
      const T factor = a[(int64_t)i * A_ROW + (int64_t)k * A_COL];
      const T* const other = x + (int64_t)k * COLS;
      IVDEP
      for (int j = 0; j < COLS; j++) row[j] -= factor * other[j];
    }
    if constexpr (!UNIT) {
      const T pivot = a[(int64_t)i * A_ROW + (int64_t)i * A_COL];
      IVDEP
      for (int j = 0; j < COLS; j++) row[j] /= pivot;
    }
  }
}

// ---- elementary functions. NaN and infinities come out as they should; the ones for float are branch-free polynomials
// after Cephes (S. Moshier), so that loops over them vectorise without a vector mathematics library.

template <typename T>
ALWAYS T maximum(T a, T b) {
  return a != a ? a : (a < b ? b : (b != b ? b : a));
}
template <typename T>
ALWAYS T minimum(T a, T b) {
  return a != a ? a : (b < a ? b : (b != b ? b : a));
}
template <typename T>
ALWAYS T select(bool choose, T a, T b) {  // both are read, so that loops over it vectorise
  return choose ? a : b;
}
template <typename T>
ALWAYS T relu(T x) {
  return x < 0 ? T(0) : x;
}
template <typename T>
ALWAYS T sign(T x) {
  return x != x ? T(0) : T(x > 0) - T(x < 0);
}
template <typename T>
ALWAYS T remainder_of(T a, T b) {  // with the sign of a
  if constexpr (std::is_integral<T>::value)
    return b ? a % b : 0;  // torch raises where b is 0
  else
    return std::fmod(a, b);
}
template <typename T>
ALWAYS T modulo(T a, T b) {  // with the sign of b, as Python's
  const T rest = remainder_of(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
template <typename T>
ALWAYS T square(T x) {
  return x * x;
}
template <typename T>
ALWAYS T cube(T x) {
  return x * x * x;
}

ALWAYS float power_of_two(int32_t n) {  // -126 <= n <= 127
  const int32_t bits = (n + 127) << 23;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

ALWAYS float exp_(float x) {
  const float bounded = x > 89.0f ? 89.0f : (x < -104.0f ? -104.0f : x);
  const float n = __builtin_rintf(bounded * 1.44269504088896341f);
  float r = bounded - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // NaN has no exponent: any number will do, for p is NaN.
  const int32_t whole = (int32_t)(n == n ? n : 0.0f), half = whole >> 1;
  return p * power_of_two(half) * power_of_two(whole - half);
}

ALWAYS float log_(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float scaled = tiny ? x * 33554432.0f : x;
  int32_t bits;
  std::memcpy(&bits, &scaled, 4);
  float e = (float)((bits >> 23) - 126) - (tiny ? 25.0f : 0.0f);
  bits = (bits & 0x007fffff) | 0x3f000000;
  float m;
  std::memcpy(&m, &bits, 4);
  const bool low = m < 0.707106781186547524f;
  e = low ? e - 1.0f : e;
  const float r = (low ? m + m : m) - 1.0f, z = r * r;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  float y = r * z * p - 2.12194440e-4f * e - 0.5f * z;
  y = r + y + 0.693359375f * e;
  const float infinity = std::numeric_limits<float>::infinity();
  y = x == infinity ? infinity : y;
  y = x == 0.0f ? -infinity : y;
  return x >= 0.0f ? y : std::numeric_limits<float>::quiet_NaN();
}

ALWAYS float log1p_(float x) {
  const float u = 1.0f + x;  // the rounding error of u is put back
  const float y = log_(u) + (x - (u - 1.0f)) / u;
  return u == std::numeric_limits<float>::infinity() || u == 0.0f ? log_(u) : y;
}

ALWAYS float expm1_(float x) {
  const float r = x;
  float p = 1.9841270e-4f;
  p = p * r + 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  const float near = r + r * r * p;
  return (x < 0.35f && x > -0.35f) ? near : exp_(x) - 1.0f;
}

ALWAYS float tanh_(float x) {
  const float a = x < 0 ? -x : x, z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float near = p * z * x + x, far = 1.0f - 2.0f / (exp_(a + a) + 1.0f);
  return a < 0.625f ? near : (x < 0 ? -far : far);
}

ALWAYS float sigmoid(float x) { return 1.0f / (1.0f + exp_(-x)); }

ALWAYS double exp_(double x) { return std::exp(x); }
ALWAYS double log_(double x) { return std::log(x); }
ALWAYS double log1p_(double x) { return std::log1p(x); }
ALWAYS double expm1_(double x) { return std::expm1(x); }
ALWAYS double tanh_(double x) { return std::tanh(x); }
ALWAYS double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
