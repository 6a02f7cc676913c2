// Fuzz target: tokenizer.json. A tokenizer that is taken must encode and decode any text.
#include <algorithm>
#include <string>
#include <vector>

#include "seacliff/text.h"
#include "tests/fuzz/fuzz.h"
#include "text/utf8.h"

namespace seacliff {
namespace {

void CheckIds(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    FUZZ_REQUIRE(id >= 0 && id < tokenizer.vocab_size());
    FUZZ_REQUIRE(!tokenizer.TokenBytes(id).empty());
  }
}

void CheckText(const Tokenizer& tokenizer, std::string_view text) {
  const std::string valid = utf8::ReplaceInvalid(text);
  const auto special = tokenizer.Encode(text, true);
  const auto plain = tokenizer.Encode(text, false);
  CheckIds(tokenizer, special);
  CheckIds(tokenizer, plain);
  FUZZ_REQUIRE(tokenizer.Decode(special) == valid);
  FUZZ_REQUIRE(tokenizer.Decode(plain) == valid);
  for (const int32_t id : plain) FUZZ_REQUIRE(!tokenizer.IsAdded(id));
  const TextSegment trusted[] = {{std::string(text), true}};
  const TextSegment client[] = {{std::string(text), false}};
  FUZZ_REQUIRE(tokenizer.EncodeSegments(trusted) == special);
  FUZZ_REQUIRE(tokenizer.EncodeSegments(client) == plain);
}

void CheckAccepted(const Tokenizer& tokenizer, std::string_view json) {
  CheckText(tokenizer, "Hello world, 12345 times!\n\n  don't <think>x</think> 你好 😀 a\xFF\xC3z");
  CheckText(tokenizer, json.substr(0, 512));
  for (const auto* list : {&tokenizer.end_ids(), &tokenizer.never_sampled_ids()}) {
    FUZZ_REQUIRE(std::is_sorted(list->begin(), list->end()));
    for (const int32_t id : *list) FUZZ_REQUIRE(id >= 0 && id < tokenizer.vocab_size());
  }
  constexpr int32_t kMost = 1000;
  std::string added;
  for (int32_t id = 0; id < std::min(tokenizer.vocab_size(), kMost); ++id) {
    if (!tokenizer.IsAdded(id)) continue;
    const std::string_view text = tokenizer.TokenBytes(id);
    FUZZ_REQUIRE(tokenizer.SpecialId(text) == id);
    added += text;
  }
  CheckText(tokenizer, added);
}

}  // namespace
}  // namespace seacliff

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seacliff;  // NOLINT: one function
  const std::string_view json = fuzz::AsText(data, size);
  const auto tokenizer = Tokenizer::FromJson(json, "tokenizer.json");
  if (tokenizer.ok()) {
    CheckAccepted(*tokenizer, json);
  } else {
    fuzz::RequireRefusal(tokenizer.status(), "tokenizer.json: ");
  }
  return 0;
}
