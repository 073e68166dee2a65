#include "speaker/lm_client/attach_queue.h"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::IsEmpty;
using testing::Lt;

// As many calls as go one by one.
constexpr int kCalls = 4;

class AttachQueueTest : public testing::Test {
 protected:
  struct Call {
    std::vector<v1::AttachRequest> requests;
    std::function<void(absl::StatusOr<v1::AttachManyResponse>)> answer;
  };

  AttachQueueTest() {
    queue_ = std::make_unique<AttachQueue>(AttachQueue::Calls{
        [this](v1::AttachRequest request, auto done) {
          calls_.push_back({{std::move(request)}, [done](const absl::StatusOr<v1::AttachManyResponse>& response) {
                              if (!response.ok()) return done(response.status());
                              done(response->results(0).response());
                            }});
        },
        [this](v1::AttachManyRequest request, auto done) {
          EXPECT_EQ(request.ar(), "ar1");
          calls_.push_back({{request.requests().begin(), request.requests().end()}, done});
        }});
  }

  void add(const std::string& mn, std::chrono::nanoseconds age = {}) {
    v1::AttachRequest request;
    request.set_ar("ar1");
    request.set_mn_id(mn);
    *request.mutable_age() = to_proto(age);
    queue_->add(request, [this, mn](const absl::Status& status) {
      answers_.emplace_back(mn, status.code());
      if (on_answer_) on_answer_();
    });
  }
  void fill() {
    for (int i = 0; i < kCalls; ++i) add("first");
  }
  std::vector<std::string> asked(std::size_t call) const {
    std::vector<std::string> mns;
    for (const auto& request : calls_.at(call).requests) mns.push_back(request.mn_id());
    return mns;
  }
  // As the LM would answer it.
  void answer(std::size_t call, const std::map<std::string, absl::StatusCode>& refused = {}) {
    v1::AttachManyResponse response;
    for (const auto& mn : asked(call)) {
      const auto found = refused.find(mn);
      response.add_results()->set_code(found == refused.end() ? 0 : static_cast<int>(found->second));
    }
    calls_.at(call).answer(response);
  }

  std::vector<Call> calls_;
  std::vector<std::pair<std::string, absl::StatusCode>> answers_;
  std::function<void()> on_answer_;
  std::unique_ptr<AttachQueue> queue_;
};

TEST_F(AttachQueueTest, FewGoAtOnceAndEachByItself) {
  for (int i = 0; i < kCalls; ++i) {
    add(std::to_string(i));
    ASSERT_EQ(calls_.size(), static_cast<std::size_t>(i) + 1);
    EXPECT_THAT(asked(calls_.size() - 1), ElementsAre(std::to_string(i)));
  }
}

TEST_F(AttachQueueTest, WhatComesMeanwhileGoesTogetherInItsOrder) {
  fill();
  add("a");
  add("b");
  add("c");
  ASSERT_EQ(calls_.size(), kCalls);
  answer(0);
  ASSERT_EQ(calls_.size(), kCalls + 1);
  EXPECT_THAT(asked(kCalls), ElementsAre("a", "b", "c"));
}

TEST_F(AttachQueueTest, EachIsAnsweredForItself) {
  fill();
  for (const auto* mn : {"a", "b", "c"}) add(mn);
  answer(0);
  answers_.clear();
  answer(kCalls, {{"b", absl::StatusCode::kPermissionDenied}});
  EXPECT_THAT(answers_,
              ElementsAre(std::pair("a", absl::StatusCode::kOk), std::pair("b", absl::StatusCode::kPermissionDenied),
                          std::pair("c", absl::StatusCode::kOk)));
}

TEST_F(AttachQueueTest, AFailedCallFailsEach) {
  fill();
  add("a");
  add("b");
  answer(0);
  answers_.clear();
  calls_.at(kCalls).answer(absl::UnavailableError("no LM"));
  EXPECT_THAT(answers_, ElementsAre(std::pair("a", absl::StatusCode::kUnavailable),
                                    std::pair("b", absl::StatusCode::kUnavailable)));
}

TEST_F(AttachQueueTest, AnAnswerThatIsTooShortIsAnError) {
  fill();
  add("a");
  add("b");
  answer(0);
  answers_.clear();
  v1::AttachManyResponse response;
  response.add_results();
  calls_.at(kCalls).answer(response);
  EXPECT_THAT(answers_,
              ElementsAre(std::pair("a", absl::StatusCode::kOk), std::pair("b", absl::StatusCode::kInternal)));
}

TEST_F(AttachQueueTest, WhatTheAnswersBringGoesTogether) {
  fill();
  add("a");
  add("b");
  answer(0);
  int left = 2;
  on_answer_ = [&] {
    if (left-- > 0) add("again");
  };
  answer(kCalls);
  ASSERT_EQ(calls_.size(), kCalls + 2);
  EXPECT_THAT(asked(kCalls + 1), ElementsAre("again", "again"));
}

TEST_F(AttachQueueTest, ACallTakesNoMoreThanTheLmDoes) {
  fill();
  for (int i = 0; i < 300; ++i) add("more");
  answer(0);
  ASSERT_EQ(calls_.size(), kCalls + 1);
  EXPECT_EQ(asked(kCalls).size(), 256U);
  answer(1);
  EXPECT_EQ(asked(kCalls + 1).size(), 44U);
}

TEST_F(AttachQueueTest, ACallIsNoLargerThanTheLeastThatAnLmTakes) {
  fill();
  const std::string mn(20'000, 'x');
  for (int i = 0; i < 5; ++i) add(mn);
  answer(0);
  EXPECT_EQ(asked(kCalls).size(), 2U);
}

TEST_F(AttachQueueTest, WaitingMakesTheArrivalOlder) {
  fill();
  const auto before = std::chrono::steady_clock::now();
  add("a", std::chrono::milliseconds(1500));
  while (std::chrono::steady_clock::now() - before < std::chrono::milliseconds(2)) {
  }
  answer(0);
  const auto age = from_proto(calls_.at(kCalls).requests.front().age());
  EXPECT_THAT(age, AllOf(Ge(std::chrono::nanoseconds(std::chrono::milliseconds(1502))),
                         Lt(std::chrono::nanoseconds(std::chrono::minutes(5)))));
}

TEST_F(AttachQueueTest, AnOlderLmIsAskedOneByOne) {
  const auto begin = std::chrono::steady_clock::now();
  fill();
  for (const auto* mn : {"a", "b", "c"}) add(mn);
  while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(20)) {
  }
  answer(0);
  answers_.clear();
  calls_.at(kCalls).answer(absl::UnimplementedError("unknown method AttachMany"));
  EXPECT_THAT(answers_, IsEmpty());
  ASSERT_EQ(calls_.size(), kCalls + 4);
  EXPECT_THAT(asked(kCalls + 1), ElementsAre("a"));
  EXPECT_THAT(asked(kCalls + 3), ElementsAre("c"));
  // Each has waited once only, however often it was sent.
  EXPECT_LE(from_proto(calls_.at(kCalls + 1).requests.front().age()), std::chrono::steady_clock::now() - begin);
  // A newer one has taken its place.
  queue_->begin_anew();
  add("d");
  add("e");
  for (std::size_t call = 1; call < calls_.size() - 1 && calls_.size() == kCalls + 4; ++call) {
    if (call != kCalls) answer(call);
  }
  EXPECT_THAT(asked(kCalls + 4), ElementsAre("d", "e"));
}

TEST_F(AttachQueueTest, NothingIsCalledWhenItIsGone) {
  fill();
  add("a");
  add("b");
  on_answer_ = [&] { queue_.reset(); };
  answer(0);
  EXPECT_EQ(answers_.size(), 1U);
  EXPECT_EQ(calls_.size(), kCalls);
  answer(1);
  EXPECT_EQ(answers_.size(), 1U);
}

}  // namespace
}  // namespace kedge::speaker
