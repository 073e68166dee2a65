// Callbacks that outlive their owner: what a Guard wraps does nothing once the Guard is gone.
#pragma once

#include <memory>
#include <utility>

namespace kedge::speaker {

// Threading: wrap, call and destroy on one executor.
class Guard {
 public:
  template <typename Call>
  auto operator()(Call call) const {
    return [alive = std::weak_ptr<int>(alive_), call = std::move(call)](auto&&... arguments) mutable {
      if (!alive.expired()) call(std::forward<decltype(arguments)>(arguments)...);
    };
  }

 private:
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace kedge::speaker
