#include "tests/model/server.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "lm-server/core/generation.h"

namespace kedge::model {
namespace {
// As RocksDbStore does at each opening: a revision that was handed out and lost never comes back.
constexpr std::uint64_t kSkippedAtOpening = 1'000'000;
}  // namespace

void Server::apply(Values& values, std::uint64_t& revision, const lm::Commit& commit) {
  for (const auto& write : commit.writes) {
    if (write.value) {
      values[write.key] = *write.value;
    } else {
      values.erase(write.key);
    }
  }
  revision = commit.revision;
}

void Server::write(const lm::Commit& commit) {
  if (commit.previous != revision_ || commit.revision <= revision_) {
    throw std::logic_error("the store is asked for a revision out of order");
  }
  apply(values_, revision_, commit);
  tail_.push_back(commit);
  if (commit.durability != lm::Durability::kSync) return;
  for (const auto& written : tail_) apply(durable_, durable_revision_, written);
  tail_.clear();
}

void Server::submit(lm::Output output, Reply reply) {
  auto commit = std::exchange(output.commit, std::nullopt);
  pending_.push_back({std::move(output), std::move(commit), std::move(reply)});
  release();
}

bool Server::is_waiting() const { return !pending_.empty(); }

bool Server::complete_one() {
  if (pending_.empty()) return false;
  write(*pending_.front().commit);
  pending_.front().commit.reset();
  release();
  return true;
}

void Server::release() {
  while (!pending_.empty() && !pending_.front().commit) {
    Pending done = std::move(pending_.front());
    pending_.pop_front();
    for (const auto& message : done.output.messages) send(message);
    if (done.reply) done.reply(done.output.status);
  }
}

void Server::crash(bool power_failure, Random& random) {
  machine_.reset();
  // Some may have reached the disk, though nobody was told.
  int written = random.pick(static_cast<int>(pending_.size()) + 1);
  for (auto& waiting : pending_) {
    if (written-- > 0 && waiting.commit) write(*waiting.commit);
    if (waiting.reply) waiting.reply(absl::UnavailableError("the LM has died"));
  }
  pending_.clear();
  if (!power_failure) return;
  for (int kept = random.pick(static_cast<int>(tail_.size()) + 1); kept > 0; --kept) {
    apply(durable_, durable_revision_, tail_.front());
    tail_.pop_front();
  }
  tail_.clear();
  values_ = durable_;
  revision_ = durable_revision_;
}

void Server::start(SystemTime now) {
  revision_ += kSkippedAtOpening;
  durable_ = values_;
  durable_revision_ = revision_;
  tail_.clear();
  machine_ = std::make_unique<lm::Machine>(settings_, epoch_);
  auto output = machine_->load(epoch_, revision_, values_, now, nullptr);
  if (!output.ok()) throw std::logic_error(output.status().ToString());
  submit(std::move(*output));
}

void Server::back_up() { backup_.emplace(values_, lm::make_generation(epoch_, revision_)); }

// As kedge-lm --restore does it.
void Server::restore() {
  v1::BackupHeader header;
  *header.mutable_revision() = backup_->second;
  values_ = backup_->first;
  values_[lm::Machine::kRestoredFromKey] = header.SerializeAsString();
  revision_ = backup_->second.revision();
  ++epoch_;
}

}  // namespace kedge::model
