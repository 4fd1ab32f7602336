// What the sources of the Python module share.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

namespace qscore {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// The kernels that work on samples' labels rather than on representations alone.
void bind_evaluation(nanobind::module_& m);
// Those that work on the entries of a finished run.
void bind_stored_entries(nanobind::module_& m);

}  // namespace qscore
