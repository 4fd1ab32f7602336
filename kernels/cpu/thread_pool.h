// A pool of threads that belongs to this library alone, so that no second OpenMP enters the process.
#pragma once

namespace qscore {

// Calls task(context, 0) ... task(context, count - 1), on the calling thread and others, and returns when
// all have returned. Tasks must not throw. A call that finds the pool busy runs its tasks by itself.
void run_tasks(int count, void (*task)(void* context, int index), void* context);

}  // namespace qscore
