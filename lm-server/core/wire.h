// Protobuf messages put together from parts that are serialised already.
#pragma once

#include <cstdint>
#include <string>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"

namespace kedge::lm {

// A message whose field `number` is `message`. Fields of a message may stand in any order, so that serialised ones,
// appended to each other, are a message with all of them.
inline std::string field_of(int number, const std::string& message) {
  using google::protobuf::internal::WireFormatLite;
  std::string whole;
  // Tag and size take at most five bytes each.
  whole.reserve(message.size() + 10);
  google::protobuf::io::StringOutputStream stream(&whole);
  google::protobuf::io::CodedOutputStream out(&stream);
  out.WriteTag(WireFormatLite::MakeTag(number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
  out.WriteVarint32(static_cast<std::uint32_t>(message.size()));
  out.WriteString(message);
  out.Trim();
  return whole;
}

}  // namespace kedge::lm
