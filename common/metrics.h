// The process's metrics and their exposition in Prometheus' text format over HTTP. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace kedge {

// Names follow Prometheus' rules: "kedge_<part>_<what>_<unit>", counters end in "_total". Each call with the same name
// and labels gives the same object, which lives as long as the registry.
class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;

  Metrics();
  prometheus::Counter& counter(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Gauge& gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  // Latency in seconds, buckets from 0.1 ms to 10 s.
  prometheus::Histogram& latency(const std::string& name, const std::string& help, const Labels& labels = {});
  // Text format, version 0.0.4.
  std::string expose() const;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

}  // namespace kedge
