#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cinnabar {

/// One value of a pickle. Others are named by their place in Pickle::nodes, so that shared and cyclic values
/// cost what they cost in the file.
struct PickleNode {
  using Index = std::uint32_t;
  enum class Kind {
    none,
    boolean,     ///< whole
    whole,       ///< whole
    real,        ///< real
    text,        ///< text: also bytes and the strings of Python 2
    list,        ///< items
    tuple,       ///< items
    dict,        ///< items: key, value, key, value...; also OrderedDict, whose attributes are dropped
    global,      ///< text: "module.name"
    call,        ///< items: a global, the tuple of its arguments and, where it was given, its state
    persistent,  ///< items: the identifier of something that lies outside
  };

  Kind kind = Kind::none;
  std::int64_t whole = 0;
  double real = 0.0;
  std::string text = {};
  std::vector<Index> items = {};
};

/// What a pickle says.
struct Pickle {
  std::vector<PickleNode> nodes;
  PickleNode::Index root = 0;
  std::size_t bytes = 0;  ///< length of the pickle

  const PickleNode& node(PickleNode::Index index) const { return nodes[index]; }
  /// An entry of a list or tuple; throws InputError where there is none or it is of another kind.
  const PickleNode& item(const PickleNode& sequence, std::size_t index, PickleNode::Kind kind) const;
};

/// Reads the pickle (Python's protocols 2 to 4) at the front of `bytes`. Nothing is imported or executed: a
/// call becomes a node, and every name that is not `allowed` is refused. Neither depth nor sharing recurses,
/// and memory is bounded, whatever the bytes are. Throws InputError.
Pickle read_pickle(std::span<const std::byte> bytes,
                   const std::function<bool(std::string_view name)>& allowed);

}  // namespace cinnabar
