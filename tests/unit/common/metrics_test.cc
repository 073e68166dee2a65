#include "common/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kedge {
namespace {

using testing::HasSubstr;

TEST(Metrics, SameNameAndLabelsAreTheSameObject) {
  Metrics metrics;
  auto& a = metrics.counter("kedge_lm_attaches_total", "Attaches.", {{"ar", "ar1"}});
  auto& b = metrics.counter("kedge_lm_attaches_total", "Attaches.", {{"ar", "ar1"}});
  auto& other = metrics.counter("kedge_lm_attaches_total", "Attaches.", {{"ar", "ar2"}});
  EXPECT_EQ(&a, &b);
  EXPECT_NE(&a, &other);
}

TEST(Metrics, ExposesTextFormat) {
  Metrics metrics;
  metrics.counter("kedge_lm_attaches_total", "Attaches.", {{"ar", "ar1"}}).Increment(3);
  metrics.gauge("kedge_lm_bindings", "Bindings.").Set(7);
  metrics.latency("kedge_lm_commit_seconds", "Commits.").Observe(0.0002);
  const std::string text = metrics.expose();
  EXPECT_THAT(text, HasSubstr("# HELP kedge_lm_attaches_total Attaches.\n# TYPE kedge_lm_attaches_total counter\n"
                              "kedge_lm_attaches_total{ar=\"ar1\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE kedge_lm_bindings gauge\nkedge_lm_bindings 7\n"));
  EXPECT_THAT(text, HasSubstr("kedge_lm_commit_seconds_bucket{le=\"0.0001\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("kedge_lm_commit_seconds_bucket{le=\"+Inf\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("kedge_lm_commit_seconds_count 1\n"));
}

TEST(Metrics, ALabelCannotBreakOutOfItsQuotes) {
  Metrics metrics;
  metrics.gauge("kedge_x", "X.", {{"reason", "a\"b\\c\nforged 1"}}).Set(1);
  EXPECT_THAT(metrics.expose(), HasSubstr("kedge_x{reason=\"a\\\"b\\\\c\\nforged 1\"} 1\n"));
}

}  // namespace
}  // namespace kedge
