// What the code under test takes from its process, put under the model's control: the monotonic clock, its timers and
// the log.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace kedge::model {

// std::chrono::steady_clock shows `*time` for as long as it is not null; then the real one again.
void set_steady_clock(const std::chrono::steady_clock::time_point* time);

// Timers of an io_context expire by that clock, each time that the io_context is polled.

// Log lines are added to `*lines`; null: nothing is logged, at no cost.
void set_log(std::vector<std::string>* lines);

}  // namespace kedge::model
