#include "lm-server/core/binding_reader.h"

#include <map>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lm-server/core/binding_table.h"
#include "lm-server/core/generation.h"
#include "lm-server/core/machine.h"

namespace kedge::lm {
namespace {

using testing::HasSubstr;

constexpr int kMany = 5'000;

// A store in memory that breaks where it is told to.
class Values : public ValueReader {
 public:
  void seek(const std::string& key) override { at_ = values.lower_bound(key); }
  absl::StatusOr<bool> next(std::string* key, std::string* value) override {
    if (at_ == values.end()) return false;
    if (at_->first == broken_at) return absl::UnavailableError("the disk does not answer");
    *key = at_->first;
    *value = at_->second;
    ++at_;
    return true;
  }

  std::map<std::string, std::string> values;
  std::string broken_at;

 private:
  std::map<std::string, std::string>::const_iterator at_;
};

v1::Binding binding_of(int number) {
  v1::Binding binding;
  binding.set_prefix(absl::StrFormat("2001:db8:1000:%x::/64", number));
  binding.set_mn_id(absl::StrFormat("02:00:00:00:%02x:%02x", number >> 8, number & 0xFF));
  binding.set_home_ar("ar1");
  binding.set_attached_ar("ar1");
  binding.set_state(v1::BINDING_STATE_SETTLED);
  binding.add_holders()->set_ar("ar1");
  *binding.mutable_generation() = make_generation(1, 5);
  return binding;
}

std::string key_of(const v1::Binding& binding) { return Machine::key_of(*Ipv6Prefix::parse(binding.prefix())); }

class BindingReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 1; i <= kMany; ++i) put(binding_of(i));
    values_.values["audit/1"] = "before the bindings";
    values_.values["policy/1"] = "behind them";
  }

  void put(const v1::Binding& binding) { values_.values[key_of(binding)] = binding.SerializeAsString(); }

  // How many came before the end, or before `error`.
  int read_all(absl::Status* error = nullptr) {
    BindingReader reader(values_, make_generation(1, 9));
    std::string last;
    for (int count = 0;; ++count) {
      const auto record = reader.next();
      if (!record.ok()) {
        if (error == nullptr) ADD_FAILURE() << record.status();
        if (error != nullptr) *error = record.status();
        return count;
      }
      if (*record == nullptr) return count;
      const std::string key = Machine::key_of((*record)->prefix);
      EXPECT_LT(last, key);
      EXPECT_EQ((*record)->binding->SerializeAsString(), values_.values.at(key));
      EXPECT_EQ((*record)->packed, BindingTable::pack_binding(values_.values.at(key)));
      last = key;
    }
  }

  Values values_;
};

TEST_F(BindingReaderTest, ReadsAllBindingsInOrderAndNothingElse) { EXPECT_EQ(read_all(), kMany); }

TEST_F(BindingReaderTest, ReadsAStoreWithout) {
  values_.values.clear();
  EXPECT_EQ(read_all(), 0);
}

TEST_F(BindingReaderTest, SaysWhichRecordIsNoBindingWhenItsTurnComes) {
  const auto wrong = binding_of(3'000);
  const std::string key = key_of(wrong);
  values_.values[key] = "\xFF\xFF";
  absl::Status error;
  const auto before = std::distance(values_.values.lower_bound("binding/"), values_.values.find(key));
  EXPECT_EQ(read_all(&error), before);
  EXPECT_EQ(error.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(error.message(), HasSubstr(key));
}

// More than one batch may be wrong by the time that the first is asked for.
TEST_F(BindingReaderTest, SaysWhichOfManyWrongRecordsIsTheFirst) {
  std::set<std::string> wrong;
  for (int i = 1; i <= kMany; i += 100) wrong.insert(key_of(binding_of(i)));
  for (const auto& key : wrong) values_.values[key] = "\xFF\xFF";
  absl::Status error;
  const auto before = std::distance(values_.values.lower_bound("binding/"), values_.values.find(*wrong.begin()));
  EXPECT_EQ(read_all(&error), before);
  EXPECT_THAT(error.message(), HasSubstr(*wrong.begin()));
}

TEST_F(BindingReaderTest, SaysWhatIsWrongWithARecord) {
  auto ahead = binding_of(77);
  *ahead.mutable_generation() = make_generation(1, 10);
  put(ahead);
  absl::Status error;
  read_all(&error);
  EXPECT_EQ(error.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(error.message(), HasSubstr("ahead of the store"));
}

TEST_F(BindingReaderTest, HandsOnTheStoresOwnErrors) {
  values_.broken_at = key_of(binding_of(4'000));
  absl::Status error;
  read_all(&error);
  EXPECT_EQ(error, absl::UnavailableError("the disk does not answer"));
}

TEST_F(BindingReaderTest, EndsWhenNobodyReadsOn) {
  BindingReader reader(values_, make_generation(1, 9));
  EXPECT_TRUE(reader.next().ok());
}

}  // namespace
}  // namespace kedge::lm
