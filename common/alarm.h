// Which of the LM's events an operator has to look at.
#pragma once

#include "kedge/v1/admin.pb.h"

namespace kedge {

// The LM logs these as warnings; kedgectl writes their names in capital letters.
inline bool is_alarm(v1::EventType type) {
  return type == v1::EVENT_TYPE_POOL_EXHAUSTED || type == v1::EVENT_TYPE_TWO_ACCESS_ROUTERS ||
         type == v1::EVENT_TYPE_TOO_MANY_NEW_NODES;
}

}  // namespace kedge
