#include "speaker/access/frame_filter.h"

#include <linux/bpf.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kedge::speaker {
namespace {

constexpr std::uint32_t kMaxStations = 131072;
constexpr std::int32_t kWholeFrame = 0x40000;
// Ethernet and IPv6 header and something for a look by eye.
constexpr std::int32_t kHeadersOnly = 128;

struct Key {
  std::uint32_t interface_index = 0;
  std::array<std::uint8_t, 6> source{};
  std::uint16_t padding = 0;
};
static_assert(sizeof(Key) == 12);

Key key_of(std::uint32_t interface_index, const LinkLayerAddress& source) {
  return Key{.interface_index = interface_index, .source = source.bytes(), .padding = 0};
}

long bpf(int command, bpf_attr& attributes) { return syscall(SYS_bpf, command, &attributes, sizeof(attributes)); }

std::uint64_t pointer(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

absl::Status error(const char* what) { return absl::ErrnoToStatus(errno, what); }

// NOLINTBEGIN(misc-redundant-expression): parts of an operation code that are zero are named all the same.

// A small assembler: instructions in order, jumps to labels that are placed later.
class Program {
 public:
  enum Label { kLookup, kPlainType, kCheckType, kAccept, kUnserved, kDrop, kLabels };

  void emit(std::uint8_t code, std::uint8_t destination, std::uint8_t source, std::int16_t offset, std::int32_t value) {
    bpf_insn instruction{};
    instruction.code = code;
    instruction.dst_reg = destination & 0xfU;
    instruction.src_reg = source & 0xfU;
    instruction.off = offset;
    instruction.imm = value;
    instructions_.push_back(instruction);
  }
  void move(std::uint8_t destination, std::uint8_t source) {
    emit(BPF_ALU64 | BPF_MOV | BPF_X, destination, source, 0, 0);
  }
  void move_value(std::uint8_t destination, std::int32_t value) {
    emit(BPF_ALU64 | BPF_MOV | BPF_K, destination, 0, 0, value);
  }
  void add_value(std::uint8_t destination, std::int32_t value) {
    emit(BPF_ALU64 | BPF_ADD | BPF_K, destination, 0, 0, value);
  }
  void call(std::int32_t helper) { emit(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
  void exit_with(std::int32_t value) {
    move_value(BPF_REG_0, value);
    emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
  }
  // r0 = frame[offset]; a frame that is too short is dropped by the kernel. Clobbers r1 to r5.
  void load_packet(std::uint8_t size, std::int32_t offset) { emit(BPF_LD | BPF_ABS | size, 0, 0, 0, offset); }
  // Compares r0 unsigned.
  void jump_if(std::uint8_t condition, std::int32_t value, Label to) {
    fixups_.emplace_back(instructions_.size(), to);
    emit(BPF_JMP | condition | BPF_K, BPF_REG_0, 0, 0, value);
  }
  void jump(Label to) {
    fixups_.emplace_back(instructions_.size(), to);
    emit(BPF_JMP | BPF_JA, 0, 0, 0, 0);
  }
  void place(Label label) { labels_[label] = instructions_.size(); }
  void load_map(std::uint8_t destination, int map) {
    emit(BPF_LD | BPF_DW | BPF_IMM, destination, BPF_PSEUDO_MAP_FD, 0, map);
    emit(0, 0, 0, 0, 0);
  }

  const std::vector<bpf_insn>& finish() {
    for (const auto& [at, label] : fixups_) {
      instructions_[at].off = static_cast<std::int16_t>(labels_[label] - at - 1);
    }
    return instructions_;
  }

 private:
  std::vector<bpf_insn> instructions_;
  std::vector<std::pair<std::size_t, Label>> fixups_;
  std::array<std::size_t, kLabels> labels_{};
};

Program make_program(int map) {
  constexpr std::int32_t kKeyAt = -16;
  Program p;
  p.move(BPF_REG_6, BPF_REG_1);

  // The key: interface index, source address, zero.
  p.move(BPF_REG_3, BPF_REG_10);
  p.add_value(BPF_REG_3, kKeyAt + 4);
  p.move_value(BPF_REG_2, 6);
  p.move_value(BPF_REG_4, 6);
  p.call(BPF_FUNC_skb_load_bytes);
  p.jump_if(BPF_JNE, 0, Program::kDrop);
  p.emit(BPF_ST | BPF_MEM | BPF_H, BPF_REG_10, 0, kKeyAt + 10, 0);
  p.emit(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_1, BPF_REG_6, offsetof(__sk_buff, ifindex), 0);
  p.emit(BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, BPF_REG_1, kKeyAt, 0);

  // ICMPv6 directly behind the IPv6 header, or behind a hop-by-hop header of 8 bytes.
  p.load_packet(BPF_H, 12);
  p.jump_if(BPF_JNE, 0x86dd, Program::kLookup);
  p.load_packet(BPF_B, 20);
  p.jump_if(BPF_JEQ, 58, Program::kPlainType);
  p.jump_if(BPF_JNE, 0, Program::kLookup);
  p.load_packet(BPF_H, 54);
  p.jump_if(BPF_JNE, 58 << 8, Program::kLookup);
  p.load_packet(BPF_B, 62);
  p.jump(Program::kCheckType);
  p.place(Program::kPlainType);
  p.load_packet(BPF_B, 54);
  p.place(Program::kCheckType);
  p.jump_if(BPF_JEQ, 143, Program::kAccept);
  p.jump_if(BPF_JLT, 131, Program::kLookup);
  p.jump_if(BPF_JGT, 136, Program::kLookup);
  p.place(Program::kAccept);
  p.exit_with(kWholeFrame);

  p.place(Program::kLookup);
  p.load_map(BPF_REG_1, map);
  p.move(BPF_REG_2, BPF_REG_10);
  p.add_value(BPF_REG_2, kKeyAt);
  p.call(BPF_FUNC_map_lookup_elem);
  p.jump_if(BPF_JEQ, 0, Program::kUnserved);
  p.move(BPF_REG_7, BPF_REG_0);
  p.call(BPF_FUNC_ktime_get_ns);
  p.emit(BPF_STX | BPF_MEM | BPF_DW, BPF_REG_7, BPF_REG_0, 0, 0);
  p.place(Program::kDrop);
  p.exit_with(0);
  p.place(Program::kUnserved);
  p.exit_with(kHeadersOnly);
  return p;
}

// NOLINTEND(misc-redundant-expression)

// The same choice of discovery in classic BPF, without the map.
absl::Status attach_classic(int packet_socket) {
  static constexpr std::array<sock_filter, 15> kFilter = {{
      {BPF_LD | BPF_H | BPF_ABS, 0, 0, 12},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 12, 0x86dd},
      {BPF_LD | BPF_B | BPF_ABS, 0, 0, 20},
      {BPF_JMP | BPF_JEQ | BPF_K, 5, 0, 58},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 9, 0},
      {BPF_LD | BPF_H | BPF_ABS, 0, 0, 54},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 7, 58 << 8},
      {BPF_LD | BPF_B | BPF_ABS, 0, 0, 62},
      {BPF_JMP | BPF_JA, 0, 0, 1},
      {BPF_LD | BPF_B | BPF_ABS, 0, 0, 54},
      {BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 143},
      {BPF_JMP | BPF_JGE | BPF_K, 0, 2, 131},
      {BPF_JMP | BPF_JGT | BPF_K, 1, 0, 136},
      {BPF_RET | BPF_K, 0, 0, static_cast<std::uint32_t>(kWholeFrame)},
      {BPF_RET | BPF_K, 0, 0, 0},
  }};
  sock_fprog program{.len = kFilter.size(), .filter = const_cast<sock_filter*>(kFilter.data())};
  if (setsockopt(packet_socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0) {
    return error("cannot attach a packet filter to the access interface");
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<FrameFilter> FrameFilter::make() {
  std::unique_ptr<FrameFilter> filter(new FrameFilter());
  filter->status_ = filter->load();
  return filter;
}

FrameFilter::~FrameFilter() {
  if (program_ >= 0) close(program_);
  if (map_ >= 0) close(map_);
}

absl::Status FrameFilter::load() {
  bpf_attr map_attributes{};
  map_attributes.map_type = BPF_MAP_TYPE_HASH;
  map_attributes.key_size = sizeof(Key);
  map_attributes.value_size = sizeof(std::uint64_t);
  map_attributes.max_entries = kMaxStations;
  map_attributes.map_flags = BPF_F_NO_PREALLOC;
  map_ = static_cast<int>(bpf(BPF_MAP_CREATE, map_attributes));
  if (map_ < 0) return error("cannot create an eBPF map (CAP_BPF or CAP_SYS_ADMIN is needed)");

  Program program = make_program(map_);
  const std::vector<bpf_insn>& instructions = program.finish();
  std::string verdict(4096, '\0');
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = pointer(instructions.data());
  attributes.insn_cnt = static_cast<std::uint32_t>(instructions.size());
  attributes.license = pointer("Dual MIT/GPL");
  program_ = static_cast<int>(bpf(BPF_PROG_LOAD, attributes));
  if (program_ >= 0) return absl::OkStatus();
  const int load_errno = errno;
  // Once more, for the verifier's reason.
  attributes.log_level = 1;
  attributes.log_buf = pointer(verdict.data());
  attributes.log_size = static_cast<std::uint32_t>(verdict.size());
  program_ = static_cast<int>(bpf(BPF_PROG_LOAD, attributes));
  if (program_ >= 0) return absl::OkStatus();
  verdict.resize(std::strlen(verdict.c_str()));
  return absl::ErrnoToStatus(load_errno, absl::StrCat("cannot load an eBPF socket filter: ", verdict));
}

absl::Status FrameFilter::attach(int packet_socket) const {
  if (program_ < 0) return attach_classic(packet_socket);
  if (setsockopt(packet_socket, SOL_SOCKET, SO_ATTACH_BPF, &program_, sizeof(program_)) != 0) {
    return error("cannot attach the eBPF filter to the access interface");
  }
  return absl::OkStatus();
}

bool FrameFilter::suppress(std::uint32_t interface_index, const LinkLayerAddress& source) {
  if (map_ < 0) return false;
  const Key key = key_of(interface_index, source);
  const std::uint64_t never = 0;
  bpf_attr attributes{};
  attributes.map_fd = static_cast<std::uint32_t>(map_);
  attributes.key = pointer(&key);
  attributes.value = pointer(&never);
  // The time noted for a station that is there already is kept.
  attributes.flags = BPF_NOEXIST;
  return bpf(BPF_MAP_UPDATE_ELEM, attributes) == 0 || errno == EEXIST;
}

void FrameFilter::pass(std::uint32_t interface_index, const LinkLayerAddress& source) {
  if (map_ < 0) return;
  const Key key = key_of(interface_index, source);
  bpf_attr attributes{};
  attributes.map_fd = static_cast<std::uint32_t>(map_);
  attributes.key = pointer(&key);
  bpf(BPF_MAP_DELETE_ELEM, attributes);
}

std::optional<SteadyTime> FrameFilter::last_data(std::uint32_t interface_index, const LinkLayerAddress& source) const {
  if (map_ < 0) return std::nullopt;
  const Key key = key_of(interface_index, source);
  std::uint64_t nanoseconds = 0;
  bpf_attr attributes{};
  attributes.map_fd = static_cast<std::uint32_t>(map_);
  attributes.key = pointer(&key);
  attributes.value = pointer(&nanoseconds);
  if (bpf(BPF_MAP_LOOKUP_ELEM, attributes) != 0 || nanoseconds == 0) return std::nullopt;
  // bpf_ktime_get_ns() and std::chrono::steady_clock are both CLOCK_MONOTONIC.
  return SteadyTime(std::chrono::nanoseconds(nanoseconds));
}

}  // namespace kedge::speaker
