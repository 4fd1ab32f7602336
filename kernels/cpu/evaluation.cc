// The kernels of evaluation, for Python: failure prediction on resamples, and linear probes.
#include "bindings.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace nb = nanobind;

namespace qscore {
namespace {

void resampled_metrics(Address weights, int64_t resamples, int64_t samples, Address order, Address wrong,
                       Address starts, int64_t blocks, Address harmonic, Address metrics, Address parameters,
                       int64_t num_metrics, Address values) {
  const ResampledMetrics a{at<int64_t>(weights),   samples,     at<int64_t>(order),   at<uint8_t>(wrong),
                           at<int64_t>(starts),    blocks,      at<double>(harmonic), at<int32_t>(metrics),
                           at<double>(parameters), num_metrics, at<double>(values)};
  const std::unique_ptr<char[]> scratch(new char[failure_scratch_bytes(blocks, num_metrics)]);
  target_in_use().resampled_metrics(a, 0, resamples, scratch.get());
}

// Every worker sums into an array of its own; they are joined in the order of the rows.
void softmax_regression(int threads, Address x, int64_t rows, int64_t features, int64_t row_stride,
                        Address targets, Address weights, Address biases, int64_t probes, int64_t classes,
                        Address sums) {
  const SoftmaxRegression a{{at<void>(x), rows, features, row_stride},
                            at<int64_t>(targets),
                            at<float>(weights),
                            at<float>(biases),
                            probes,
                            classes};
  const Target& target = target_in_use();
  const std::unique_ptr<float[]> packed(new float[packed_probe_floats(probes, classes, features)]);
  target.pack_probes(a, packed.get());
  const int workers = workers_for(a.x, threads);
  const int64_t length = probes + probes * classes * (features + 1);
  std::vector<double> partial(workers * length);
  const int64_t room = probe_scratch_floats(probes, classes);
  std::vector<float> scratch(workers * room);
  for_spans(a.x, workers, [&](int w, int64_t begin, int64_t end) {
    target.softmax_regression(a, begin, end, packed.get(), scratch.data() + w * room,
                              partial.data() + w * length);
  });
  double* total = at<double>(sums);
  std::copy_n(partial.begin(), length, total);
  for (int w = 1; w < workers; ++w)
    for (int64_t i = 0; i < length; ++i) total[i] += partial[w * length + i];
}

}  // namespace

void bind_evaluation(nb::module_& m) {
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  m.def("resampled_metrics", &resampled_metrics, Unlocked());
  m.def("softmax_regression", &softmax_regression, Unlocked());
}

}  // namespace qscore
