// The loops over tasks and inner steps. Each task is finished before the next begins, so the parameters of its steps are all
// that exact second order keeps, in memory that does not grow with the number of tasks.
//
// The generated part gives `real`, the counts and sizes of tensors by group (MOVING, SHARED, CONSTANT, SUPPORT, QUERY, SIZES),
// SAVED and SCRATCH in bytes, and the functions.

struct Arguments {
  int64_t first, last, tasks, steps, size_steps, constant_steps, share_is_given;
  const void* const* in;  // MOVING, SHARED, CONSTANT, SIZES, QUERY, then SUPPORT of each step; the last serves the query
  real* share;            // weight of each task in the mean: given, or to be set: equal for tasks with query rows of some
                          // weight, else zero
  real* loss;             // of the query, or of the support after adaptation
  real* losses;           // (steps, tasks): of the support, before each step
  real* out;              // sums over tasks of what is MOVING, SHARED and SIZES; for adapt the adapted parameters, one after
                          // another and each with a task axis, or null
  char* workspace;
  const real* step_weights;  // of the query loss after each step in the objective; null: after the last one alone
};

constexpr int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }
constexpr int64_t total(const int64_t* sizes, int n) {
  int64_t sum = 0;
  for (int i = 0; i < n; i++) sum += padded(sizes[i] * (int64_t)sizeof(real));
  return sum;
}
constexpr int64_t MOVING_BYTES = total(MOVING_SIZE, MOVING), SHARED_BYTES = total(SHARED_SIZE, SHARED),
                  SIZES_BYTES = total(SIZES_SIZE, SIZES);
constexpr int AT_SHARED = MOVING, AT_CONSTANT = AT_SHARED + SHARED, AT_SUPPORT = AT_CONSTANT + CONSTANT,
              AT_QUERY = AT_SUPPORT + SUPPORT, AT_SIZES = AT_QUERY + QUERY, AT_COTANGENT = AT_SIZES + SIZES,
              INPUTS = AT_COTANGENT + MOVING;

constexpr int IN_SHARED = MOVING, IN_CONSTANT = IN_SHARED + SHARED, IN_SIZES = IN_CONSTANT + CONSTANT,
              IN_QUERY = IN_SIZES + SIZES, IN_SUPPORT = IN_QUERY + QUERY;

extern "C" int64_t workspace_bytes(int64_t steps) {
  return (steps + 3) * MOVING_BYTES + SHARED_BYTES + SIZES_BYTES + steps * SAVED + SCRATCH + 64;
}

static void place(char* block, const int64_t* sizes, int n, void** at) {
  for (int i = 0; i < n; i++) {
    at[i] = block;
    block += padded(sizes[i] * (int64_t)sizeof(real));
  }
}

static void add(real factor, void* const* from, void* const* to, const int64_t* sizes, int n) {
  for (int i = 0; i < n; i++) {
    const real* x = (const real*)from[i];
    real* y = (real*)to[i];
    IVDEP
    for (int64_t j = 0; j < sizes[i]; j++) y[j] += factor * x[j];
  }
}

// Of the step sizes of step k; steps past the last learned one use that one's.
static int64_t offset(const Arguments& a, int i, int64_t k) {
  return SIZES_PER_STEP[i] ? (k < a.size_steps ? k : a.size_steps - 1) * SIZES_SIZE[i] : 0;
}

static real* lay_out(real* from, const int64_t* sizes, int n, void** at) {
  for (int i = 0; i < n; i++) {
    at[i] = from;
    from += sizes[i];
  }
  return from;
}

struct Task {
  const Arguments& a;
  int64_t t;
  const void* in[INPUTS + 1];

  Task(const Arguments& a, int64_t t) : a(a), t(t) {
    std::memcpy(in + AT_SHARED, a.in + IN_SHARED, SHARED * sizeof(void*));
    std::memcpy(in + AT_CONSTANT, a.in + IN_CONSTANT, CONSTANT * sizeof(void*));
    for (int i = 0; i < QUERY; i++) in[AT_QUERY + i] = (const char*)a.in[IN_QUERY + i] + t * QUERY_BYTES[i];
  }
  // Steps past the last one that constants are kept for use that one's.
  void constants(int64_t k) {
    const int64_t kept = k < a.constant_steps ? k : a.constant_steps - 1;
    for (int i = 0; i < CONSTANT; i++)
      if (CONSTANT_PER_STEP[i]) in[AT_CONSTANT + i] = (const char*)a.in[IN_CONSTANT + i] + kept * CONSTANT_BYTES[i];
  }
  void moving(const void* const* at) { std::memcpy(in, at, MOVING * sizeof(void*)); }
  void cotangent(void* const* at) { std::memcpy(in + AT_COTANGENT, at, MOVING * sizeof(void*)); }
  void support(int64_t k) {
    for (int i = 0; i < SUPPORT; i++)
      in[AT_SUPPORT + i] = (const char*)a.in[IN_SUPPORT + k * SUPPORT + i] + t * SUPPORT_BYTES[i];
  }
  void sizes(int64_t k) {
    for (int i = 0; i < SIZES; i++) in[AT_SIZES + i] = (const real*)a.in[IN_SIZES + i] + offset(a, i, k);
  }
};

#ifdef HAS_META_GRADIENT
static bool has_query_rows(const Arguments& a, int64_t t) {
  constexpr int64_t ROWS = QUERY_BYTES[QUERY_WEIGHT] / sizeof(real);
  const real* weight = (const real*)a.in[IN_QUERY + QUERY_WEIGHT] + t * ROWS;
  for (int64_t r = 0; r < ROWS; r++)
    if (weight[r] > 0) return true;
  return false;
}

extern "C" void meta_gradient(const Arguments* arguments) {
  const Arguments& a = *arguments;
  const int64_t steps = a.steps;
  char* block = a.workspace;
  char* const path = block;
  block += (steps + 1) * MOVING_BYTES;
  void *v[MOVING + 1], *w[MOVING + 1], *at[MOVING + 1], *of_shared[SHARED + 1], *of_sizes[SIZES + 1];
  void *sum_moving[MOVING + 1], *sum_shared[SHARED + 1];
  real* const sum_sizes = lay_out(lay_out(a.out, MOVING_SIZE, MOVING, sum_moving), SHARED_SIZE, SHARED, sum_shared);
  place(block, MOVING_SIZE, MOVING, v);
  place(block += MOVING_BYTES, MOVING_SIZE, MOVING, w);
  place(block += MOVING_BYTES, SHARED_SIZE, SHARED, of_shared);
  place(block += SHARED_BYTES, SIZES_SIZE, SIZES, of_sizes);
  char* const saved = block += SIZES_BYTES;
  char* const scratch = saved + steps * SAVED;
  real unused;
  int64_t valid = 0;
  if (!a.share_is_given)
    for (int64_t t = 0; t < a.tasks; t++) valid += has_query_rows(a, t);
  for (int64_t t = a.first; t < a.last; t++) {
    Task task(a, t);
    task.moving(a.in);
    for (int64_t k = 0; k < steps; k++) {
      place(path + (k + 1) * MOVING_BYTES, MOVING_SIZE, MOVING, at);
      task.support(k);
      task.sizes(k);
      task.constants(k);
      void* out[MOVING + 1];
      std::memcpy(out, at, sizeof(out));
      out[MOVING] = &unused;
      step(task.in, out, saved + k * SAVED, scratch);
      task.moving(at);
    }
    if (!a.share_is_given) a.share[t] = has_query_rows(a, t) ? real(1) / valid : real(0);
    // The query loss at what `task` has as parameters: gradients in moving ones into `into`, those in shared ones are added up.
    const auto judge = [&](int64_t k, void* const* into, real* loss) {
      void* out[1 + MOVING + SHARED];
      out[0] = loss;
      std::memcpy(out + 1, into, MOVING * sizeof(void*));
      std::memcpy(out + 1 + MOVING, of_shared, SHARED * sizeof(void*));
      task.support(steps ? steps - 1 : 0);
      task.constants(k);
      query(task.in, out, nullptr, scratch);
      const real weight = a.share[t] * (a.step_weights && k ? a.step_weights[k - 1] : real(1));
      for (int i = 0; i < MOVING; i++)
        for (int64_t j = 0; j < MOVING_SIZE[i]; j++) ((real*)into[i])[j] *= weight;
      add(weight, of_shared, sum_shared, SHARED_SIZE, SHARED);
    };
    judge(steps, v, a.loss + t);
    for (int64_t k = steps - 1; k >= 0; k--) {
      if (a.step_weights && k + 1 < steps && a.step_weights[k]) {
        place(path + (k + 1) * MOVING_BYTES, MOVING_SIZE, MOVING, at);
        task.moving(at);
        judge(k + 1, w, &unused);
        add(1, w, v, MOVING_SIZE, MOVING);
      }
      if (k) {
        place(path + k * MOVING_BYTES, MOVING_SIZE, MOVING, at);
        task.moving(at);
      } else {
        task.moving(a.in);
      }
      task.support(k);
      task.sizes(k);
      task.constants(k);
      task.cotangent(v);
      void* out[MOVING + PULLED_SHARED + PULLED_SIZES + 1];
      std::memcpy(out, w, MOVING * sizeof(void*));
      std::memcpy(out + MOVING, of_shared, PULLED_SHARED * sizeof(void*));
      for (int i = 0; i < PULLED_SIZES; i++) out[MOVING + PULLED_SHARED + i] = of_sizes[i];
      pull_back(task.in, out, saved + k * SAVED, scratch);
      if (PULLED_SHARED) add(1, of_shared, sum_shared, SHARED_SIZE, SHARED);
      real* first = sum_sizes;
      for (int i = 0; i < PULLED_SIZES; i++) {
        void* to = first + offset(a, i, k);
        add(1, of_sizes + i, &to, SIZES_SIZE + i, 1);
        first += SIZES_SIZE[i] * (SIZES_PER_STEP[i] ? a.size_steps : 1);
      }
      for (int i = 0; i < MOVING; i++) {
        void* swap = v[i];
        v[i] = w[i];
        w[i] = swap;
      }
    }
    add(1, v, sum_moving, MOVING_SIZE, MOVING);
  }
}
#endif

#ifdef HAS_ADAPT
extern "C" void adapt(const Arguments* arguments) {
  const Arguments& a = *arguments;
  void* at[2][MOVING + 1];
  place(a.workspace, MOVING_SIZE, MOVING, at[0]);
  place(a.workspace + MOVING_BYTES, MOVING_SIZE, MOVING, at[1]);
  char* const scratch = a.workspace + 2 * MOVING_BYTES + SAVED;
  for (int64_t t = a.first; t < a.last; t++) {
    Task task(a, t);
    task.moving(a.in);
    void* own[MOVING + 1];
    real* first = a.out;
    for (int i = 0; i < MOVING; i++) {
      own[i] = a.out ? first + t * MOVING_SIZE[i] : at[0][i];
      first += a.tasks * MOVING_SIZE[i];
    }
    for (int64_t k = 0; k < a.steps; k++) {
      void* out[MOVING + 1];
      std::memcpy(out, (a.steps - 1 - k) % 2 ? at[1] : own, MOVING * sizeof(void*));
      out[MOVING] = a.losses + k * a.tasks + t;
      task.support(k);
      task.sizes(k);
      task.constants(k);
      step(task.in, out, a.workspace + 2 * MOVING_BYTES, scratch);
      task.moving(out);
    }
    task.support(a.steps ? a.steps - 1 : 0);
    task.constants(a.steps);
    void* out[1] = {a.loss + t};
    evaluate(task.in, out, nullptr, scratch);
  }
}
#endif
