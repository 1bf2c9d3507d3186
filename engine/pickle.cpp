#include "engine/pickle.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "engine/error.hpp"
#include "engine/printable.hpp"

namespace cinnabar {

namespace {

using Index = PickleNode::Index;
using Kind = PickleNode::Kind;

// A network of a thousand layers makes about 50 000 nodes.
constexpr std::size_t kMaxNodes = 1 << 20;  ///< also of the stack and of the memo
constexpr std::size_t kMaxItems = 1 << 22;  ///< entries of all lists, tuples and dicts together
constexpr std::size_t kMaxText = 1 << 26;   ///< bytes of all texts together

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const std::function<bool(std::string_view)>& allowed)
      : bytes_(bytes), allowed_(allowed) {}

  Pickle run() {
    for (;;) {
      const std::uint8_t code = number<std::uint8_t>();
      if (code == '.') break;
      if (!constant(code) && !text(code) && !container(code) && !remember(code) && !object(code)) {
        fail_input("a pickle has the unknown code ", static_cast<int>(code), " at byte ", at_ - 1);
      }
    }
    result_.root = pop();
    result_.bytes = at_;
    return std::move(result_);
  }

 private:
  std::string_view take(std::size_t count) {
    if (count > bytes_.size() - at_) fail_input("the file is truncated: a pickle ends before its end");
    const char* first = reinterpret_cast<const char*>(bytes_.data()) + at_;
    at_ += count;
    return {first, count};
  }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view line() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_);
    const std::size_t length = rest.find('\n');
    if (length == std::string_view::npos) fail_input("the file is truncated: a pickle ends in a name");
    at_ += length + 1;
    return rest.substr(0, length);
  }

  void push(Index index) {
    if (stack_.size() >= kMaxNodes) fail_input("a pickle has too many values");
    stack_.push_back(index);
  }

  void push_node(PickleNode node) {
    if (result_.nodes.size() >= kMaxNodes) fail_input("a pickle has too many values");
    charge(node.items.size());
    text_bytes_ += node.text.size();
    if (text_bytes_ > kMaxText) fail_input("a pickle has too much text");
    result_.nodes.push_back(std::move(node));
    push(static_cast<Index>(result_.nodes.size() - 1));
  }

  void charge(std::size_t items) {
    items_ += items;
    if (items_ > kMaxItems) fail_input("a pickle has too many values");
  }

  /// Values below the last mark belong to what was begun before it.
  Index pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back()))
      fail_input("a pickle takes a value from nowhere");
    const Index index = stack_.back();
    stack_.pop_back();
    return index;
  }

  std::vector<Index> pop_to_mark() {
    if (marks_.empty()) fail_input("a pickle lacks a mark");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    marks_.pop_back();
    std::vector<Index> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    return items;
  }

  Index top() {
    const Index index = pop();
    stack_.push_back(index);
    return index;
  }

  PickleNode& node(Index index) { return result_.nodes[index]; }

  void push_whole(std::int64_t value) { push_node({.kind = Kind::whole, .whole = value}); }

  bool constant(std::uint8_t code) {
    switch (code) {
      case 'N':
        push_node({});
        return true;
      case 0x88:
      case 0x89:
        push_node({.kind = Kind::boolean, .whole = code == 0x88});
        return true;
      case 'J':
        push_whole(number<std::int32_t>());
        return true;
      case 'K':
        push_whole(number<std::uint8_t>());
        return true;
      case 'M':
        push_whole(number<std::uint16_t>());
        return true;
      case 'I':
        push_whole(number_of(line()));
        return true;
      case 0x8a:
        push_whole(long_number(number<std::uint8_t>()));
        return true;
      case 'G':
        push_node(
            {.kind = Kind::real, .real = std::bit_cast<double>(__builtin_bswap64(number<std::uint64_t>()))});
        return true;
      default:
        return false;
    }
  }

  static std::int64_t number_of(std::string_view digits) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size())
      fail_input("a pickle has a faulty number");
    return value;
  }

  /// Little-endian two's complement.
  std::int64_t long_number(std::size_t count) {
    const std::string_view digits = take(count);
    if (count > sizeof(std::int64_t)) fail_input("a pickle has a number beyond 64 bits");
    const bool negative = count > 0 && (digits.back() & 0x80) != 0;
    std::int64_t value = negative ? -1 : 0;
    std::memcpy(&value, digits.data(), count);
    return value;
  }

  bool text(std::uint8_t code) {
    switch (code) {
      case 'U':
      case 'C':
      case 0x8c:
        push_text(number<std::uint8_t>());
        return true;
      case 'X':
      case 'T':
      case 'B':
        push_text(number<std::uint32_t>());
        return true;
      default:
        return false;
    }
  }

  void push_text(std::size_t count) { push_node({.kind = Kind::text, .text = std::string(take(count))}); }

  bool container(std::uint8_t code) {
    switch (code) {
      case '(':
        if (marks_.size() >= kMaxNodes) fail_input("a pickle has too many marks");
        marks_.push_back(stack_.size());
        return true;
      case '}':
        push_node({.kind = Kind::dict});
        return true;
      case ']':
        push_node({.kind = Kind::list});
        return true;
      case ')':
        push_node({.kind = Kind::tuple});
        return true;
      case 't':
        push_node({.kind = Kind::tuple, .items = pop_to_mark()});
        return true;
      case 0x85:
      case 0x86:
      case 0x87:
        push_tuple(code - 0x84u);
        return true;
      case 'a':
        extend(Kind::list, {pop()});
        return true;
      case 'e':
        extend(Kind::list, pop_to_mark());
        return true;
      case 's': {
        const Index value = pop();
        extend(Kind::dict, {pop(), value});
        return true;
      }
      case 'u':
        extend(Kind::dict, pop_to_mark());
        return true;
      default:
        return false;
    }
  }

  void push_tuple(std::size_t count) {
    std::vector<Index> items(count);
    std::generate(items.rbegin(), items.rend(), [this] { return pop(); });
    push_node({.kind = Kind::tuple, .items = std::move(items)});
  }

  void extend(Kind kind, const std::vector<Index>& added) {
    PickleNode& target = node(top());
    if (target.kind != kind) fail_input("a pickle adds to something that cannot be added to");
    if (kind == Kind::dict && added.size() % 2 != 0) fail_input("a pickle has a key without a value");
    charge(added.size());
    target.items.insert(target.items.end(), added.begin(), added.end());
  }

  bool remember(std::uint8_t code) {
    switch (code) {
      case 'q':
        store(number<std::uint8_t>());
        return true;
      case 'r':
        store(number<std::uint32_t>());
        return true;
      case 0x94:
        store(static_cast<std::uint32_t>(memo_.size()));
        return true;
      case 'h':
        recall(number<std::uint8_t>());
        return true;
      case 'j':
        recall(number<std::uint32_t>());
        return true;
      default:
        return false;
    }
  }

  void store(std::uint32_t name) {
    if (memo_.size() >= kMaxNodes) fail_input("a pickle has too many values");
    memo_[name] = top();
  }

  void recall(std::uint32_t name) {
    const auto found = memo_.find(name);
    if (found == memo_.end()) fail_input("a pickle recalls what it never stored");
    push(found->second);
  }

  bool object(std::uint8_t code) {
    switch (code) {
      case 0x80:
        if (number<std::uint8_t>() > 4) fail_input("a pickle has a protocol above 4");
        return true;
      case 0x95:
        number<std::uint64_t>();  // the length of a frame: where the bytes lie together
        return true;
      case 'c': {
        const std::string_view module = line();
        push_global(module, line());
        return true;
      }
      case 0x93: {
        const Index name = pop(), module = pop();
        if (node(name).kind != Kind::text || node(module).kind != Kind::text) {
          fail_input("a pickle has a faulty name");
        }
        push_global(node(module).text, node(name).text);
        return true;
      }
      case 'Q':
        push_node({.kind = Kind::persistent, .items = {pop()}});
        return true;
      case 'R':
      case 0x81: {
        const Index arguments = pop();
        call(pop(), arguments);
        return true;
      }
      case 'b':
        build(pop());
        return true;
      default:
        return false;
    }
  }

  void push_global(std::string_view module, std::string_view name) {
    const std::string full = std::string(module) + '.' + std::string(name);
    if (!allowed_(full)) fail_input("it refers to ", printable(full), ", which is not allowed");
    push_node({.kind = Kind::global, .text = full});
  }

  void call(Index callee, Index arguments) {
    if (node(callee).kind != Kind::global || node(arguments).kind != Kind::tuple) {
      fail_input("a pickle has a faulty call");
    }
    if (node(callee).text == "collections.OrderedDict") {
      push_node({.kind = Kind::dict, .items = pairs_of(arguments)});
    } else {
      push_node({.kind = Kind::call, .items = {callee, arguments}});
    }
  }

  /// OrderedDict's argument: none, or a list of pairs.
  std::vector<Index> pairs_of(Index arguments) {
    std::vector<Index> items;
    if (node(arguments).items.empty()) return items;
    const PickleNode& pairs = node(node(arguments).items.front());
    if (pairs.kind != Kind::list) fail_input("a pickle has a faulty OrderedDict");
    charge(pairs.items.size());
    for (const Index index : pairs.items) {
      const PickleNode& pair = node(index);
      if ((pair.kind != Kind::list && pair.kind != Kind::tuple) || pair.items.size() != 2) {
        fail_input("a pickle has a faulty OrderedDict");
      }
      items.insert(items.end(), pair.items.begin(), pair.items.end());
    }
    return items;
  }

  void build(Index state) {
    PickleNode& target = node(top());
    if (target.kind == Kind::dict) return;  // the attributes of an OrderedDict
    if (target.kind != Kind::call || target.items.size() != 2) fail_input("a pickle has a faulty state");
    charge(1);
    target.items.push_back(state);
  }

  std::span<const std::byte> bytes_;
  const std::function<bool(std::string_view)>& allowed_;
  std::size_t at_ = 0;
  std::vector<Index> stack_;
  std::vector<std::size_t> marks_;  ///< heights of the stack
  std::unordered_map<std::uint32_t, Index> memo_;
  std::size_t items_ = 0;
  std::size_t text_bytes_ = 0;
  Pickle result_;
};

}  // namespace

const PickleNode& Pickle::item(const PickleNode& sequence, std::size_t index, PickleNode::Kind kind) const {
  const bool is_sequence = sequence.kind == Kind::tuple || sequence.kind == Kind::list;
  if (!is_sequence || index >= sequence.items.size() || node(sequence.items[index]).kind != kind) {
    fail_input("the description of a tensor is damaged");
  }
  return node(sequence.items[index]);
}

Pickle read_pickle(std::span<const std::byte> bytes,
                   const std::function<bool(std::string_view name)>& allowed) {
  return Machine(bytes, allowed).run();
}

}  // namespace cinnabar
