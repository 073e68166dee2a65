// Text that others chose, before it goes into errors, events and records.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kedge {

// `text`, or where that has more than `most` bytes its beginning and "..."; UTF-8 stays UTF-8.
inline std::string shortened(std::string_view text, std::size_t most = 100) {
  if (text.size() <= most) return std::string(text);
  // RFC 3629, 3: the first byte of a character is none of 10xxxxxx.
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0U) == 0x80) --most;
  return std::string(text.substr(0, most)) + "...";
}

}  // namespace kedge
