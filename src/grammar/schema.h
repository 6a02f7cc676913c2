// JSON Schema, as far as a grammar can enforce it: read with every keyword either understood,
// passed because it only annotates, or refused by its path. docs/structured_output.md has the list.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "grammar/number.h"
#include "text/json_text.h"

namespace seacliff::grammar {

constexpr int64_t kMostMultiple = 1000;  // of multipleOf

// Bits of Schema::types. A number is an integer if it has no fraction.
enum SchemaType : uint32_t {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,
  kString = 16,
  kArray = 32,
  kObject = 64,
  kNumber = kInteger | kFraction,
  kAnyType = 127,
};

// What one JSON object (or true, false) of a schema says. What is not said allows everything. Lists
// of other schemas point into the SchemaSet, which owns all.
struct Schema {
  std::string path;    // JSON pointer with "#" before it
  bool says = false;   // anything but `refs`, `all` and `any`
  bool never = false;  // no value is valid
  uint32_t types = kAnyType;
  std::optional<std::vector<const JsonText*>> values;  // enum, const

  std::optional<Bound> low, high;
  int64_t multiple_of = 0;

  int64_t min_length = 0, max_length = -1;
  std::vector<std::string> patterns;
  std::string format;

  std::vector<const Schema*> prefix;
  const Schema* items = nullptr;  // of those behind `prefix`
  int64_t min_items = 0, max_items = -1;
  bool unique = false;

  bool lists = false;  // `properties` or patternProperties is there, maybe empty
  std::vector<std::pair<std::string, const Schema*>> properties;
  std::vector<std::string> required;
  const Schema* additional = nullptr;  // as said
  std::vector<std::pair<std::string, const Schema*>> pattern_properties;
  const Schema* names = nullptr;
  int64_t min_properties = 0, max_properties = -1;

  // All of these hold too, and one of each group.
  struct Group {
    std::vector<const Schema*> options;
    bool one = false;  // oneOf: exactly one
    std::string path;
  };
  std::vector<std::string> refs;
  std::vector<const Schema*> all;
  std::vector<Group> any;

  const Schema* Property(std::string_view name) const;
  bool Requires(std::string_view name) const;
};

class SchemaSet {
 public:
  // The first thing that went wrong, here or in whoever uses the set. Once it is not ok, what the
  // other methods return means nothing.
  const Status& status() const { return status_; }
  void Fail(const std::string& path, std::string_view what);

  // Reads a whole schema; `json` must outlive the set.
  const Schema* Read(const JsonText& json);
  // One that says its `types` alone.
  const Schema* OfTypes(uint32_t types);
  // One that is both; null stands for a schema that says nothing.
  const Schema* Both(const Schema* a, const Schema* b);
  // What `ref` of `schema` leads to.
  const Schema* Resolve(const std::string& ref, const Schema& schema);
  // `schema` as alternatives without `refs`, `all` and `any`: a value is valid if it is by one.
  std::vector<Schema> Alternatives(const Schema& schema);
  // No value is valid by both. False if that cannot be told.
  bool Disjoint(const Schema& a, const Schema& b);
  // Whether `value`, of an enum, is valid by what else stands there.
  bool Allows(const Schema& flat, const JsonText& value);

 private:
  Schema* New(const std::string& path);
  const Schema* ReadAt(const JsonText& json, const std::string& path);
  void ReadKeyword(const JsonText& json, const std::string& key, const JsonText& value,
                   Schema* out);
  bool ReadStructure(const std::string& key, const JsonText& value, const std::string& path,
                     Schema* out);
  void ReadTypes(const JsonText& value, const std::string& path, Schema* out);
  void ReadFormat(const std::string& format, const std::string& path, Schema* out);
  int64_t ReadCount(const JsonText& value, const std::string& path);
  std::optional<Bound> ReadBound(const JsonText& value, const std::string& path, bool exclusive);
  std::vector<const Schema*> ReadList(const JsonText& value, const std::string& path);
  void CheckName(const std::string& name, const std::string& path);
  std::vector<std::string> ReadNames(const JsonText& value, const std::string& path);
  std::vector<std::pair<std::string, const Schema*>> ReadMap(const JsonText& value,
                                                             const std::string& path);
  void Merge(const Schema& with, Schema* into);
  // Counts what combining costs: pairs of elements that are compared, and one.
  void Work(const std::string& path, size_t pairs);
  bool Disjoint(const std::vector<Schema>& left, const std::vector<Schema>& right);
  bool DisjointFlat(const Schema& x, const Schema& y);

  Status status_;
  const JsonText* root_ = nullptr;
  std::deque<Schema> schemas_;
  std::map<std::string, const Schema*> read_;  // by path
  std::map<uint32_t, const Schema*> of_types_;
  std::map<std::pair<const Schema*, const Schema*>, const Schema*> both_;
  int depth_ = 0;
  size_t work_ = 0;
};

uint32_t TypeOf(const JsonText& value);
bool SameJson(const JsonText& a, const JsonText& b);

}  // namespace seacliff::grammar
