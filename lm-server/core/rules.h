// What follows from a binding's record: pure functions, the rules of RFC 8818, 4.
#pragma once

#include <cstdint>
#include <string>

#include "kedge/v1/types.pb.h"

namespace kedge::lm {

// Null when `ar` is no holder.
v1::Holder* find_holder(v1::Binding& binding, const std::string& ar);
const v1::Holder* find_holder(const v1::Binding& binding, const std::string& ar);
// Adds it when it is none.
v1::Holder& enter_holder(v1::Binding& binding, const std::string& ar);
void remove_holder(v1::Binding& binding, const std::string& ar);

bool is_detached(const v1::Binding& binding);
bool is_away(const v1::Binding& binding);

// It ends when it has not been used for Settings::idle_after.
bool ends_when_idle(const v1::Binding& binding);

// Highest level at which any AR but `ar` may announce the prefix.
std::uint32_t highest_other_preference(const v1::Binding& binding, const std::string& ar);

// RFC 8818, 4.3: the prefix is anchored at the attached AR, which is not the one whose aggregate covers it.
bool anchored_by_bgp(const v1::Binding& binding);

// Level at which the attached AR beats all others, no lower than it may announce at already; 0: there is none left up
// to `levels`.
std::uint32_t winning_preference(const v1::Binding& binding, std::uint32_t levels);

// The attached AR has acknowledged, for the present generation, that it delivers.
bool attached_delivers(const v1::Binding& binding);
// `holder` has acknowledged, for the present generation, that it redirects to the attached AR.
bool follows(const v1::Binding& binding, const v1::Holder& holder);

// Nobody announces or tunnels to `holder` any more, as far as acknowledgements say; what the network still carries is
// left to a hold time. Never true for the home AR and the attached one.
bool may_release(const v1::Binding& binding, const v1::Holder& holder);

// Every AR holds what it shall hold in the end. `advertised`: level that the attached AR has acknowledged to announce
// at in the present generation.
bool is_settled(const v1::Binding& binding, std::uint32_t advertised);

// What has been decided for a prefix, in short: "mn=... attached_ar=ar1 mode=relocate ..."; empty for a binding without
// a prefix. The same for records that differ only in what access routers have acknowledged.
std::string summary(const v1::Binding& binding);

}  // namespace kedge::lm
