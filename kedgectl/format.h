// How single values of the API are written in tables.
#pragma once

#include <string>

#include "common/time.h"
#include "google/protobuf/descriptor.h"
#include "kedge/v1/types.pb.h"

namespace kedge::kedgectl {

enum class TimePrecision { kSeconds, kMilliseconds };

// RFC 3339, UTC: "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z".
std::string format_time(SystemTime time, TimePrecision precision);

// The two largest units: "0s", "12s", "3m12s", "2h3m", "5d4h". Clocks differ: a negative age is "0s".
std::string format_age(SystemTime since, SystemTime now);

// "epoch.revision"; empty when there is none.
std::string format_generation(const v1::Generation& generation);

// The value's name without its type's prefix, in lower case: "relocate", "detached_grace". Empty when unspecified; the
// number when this program does not know it.
std::string short_enum_name(const google::protobuf::EnumDescriptor& type, int value);

template <typename Enum>
std::string short_name(Enum value) {
  return short_enum_name(*google::protobuf::GetEnumDescriptor<Enum>(), static_cast<int>(value));
}

}  // namespace kedge::kedgectl
