// Text to ids: added tokens are cut out first, then the pretokenizer makes pieces, then BPE ids.
#include "text/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/file_map.h"
#include "text/pretokenizer.h"
#include "text/utf8.h"

namespace seacliff {

Tokenizer::Impl::Impl(TokenizerFile file) : added(std::move(file.added)) {
  size_t total = 0;
  int32_t size = 0;
  for (const auto& token : file.vocab) {
    total += token.bytes.size();
    size = std::max(size, token.id + 1);
  }
  for (const AddedToken& token : added) {
    total += token.text.size();
    size = std::max(size, token.id + 1);
  }
  bytes.reserve(total);  // the views below need addresses that stay
  token_bytes.resize(size);
  kinds.resize(size, Kind::kNone);
  const auto keep = [this](std::string_view text) {
    const size_t begin = bytes.size();
    bytes += text;
    return std::string_view(bytes).substr(begin);
  };

  std::vector<Bpe::Word> words;
  words.reserve(file.vocab.size());
  for (const auto& token : file.vocab) {
    token_bytes[token.id] = keep(token.bytes);
    kinds[token.id] = Kind::kOrdinary;
    words.push_back({token_bytes[token.id], token.id});
  }
  bpe = Bpe(file.byte_ids, file.merges);
  bpe.AddWords(words, file.ignore_merges);

  for (const AddedToken& token : added) {
    token_bytes[token.id] = keep(token.text);
    kinds[token.id] = token.special ? Kind::kAddedSpecial : Kind::kAdded;
    added_ids.emplace(token_bytes[token.id], token.id);
    (token.normalized ? second_matcher : first_matcher).Add(token);
  }
  for (const SpecialToken& row : SpecialTokens()) {
    const auto found = added_ids.find(row.text);
    if (found == added_ids.end()) continue;
    roles[static_cast<size_t>(row.role)] = found->second;
    if (row.ends_reply) end_ids.push_back(found->second);
  }
  std::sort(end_ids.begin(), end_ids.end());
  for (int32_t id = 0; id < size; ++id) {
    bool never = kinds[id] == Kind::kNone;
    for (const NeverSampled& row : NeverSampledTokens()) {
      if (kinds[id] != Kind::kOrdinary) never |= token_bytes[id].starts_with(row.begins_with);
    }
    if (never) never_sampled_ids.push_back(id);
  }
}

void Tokenizer::Impl::EncodePlain(std::string_view text, Bpe::Scratch* scratch,
                                  std::vector<int32_t>* ids) const {
  Pretokenizer pieces(text);
  for (auto piece = pieces.Next(); !piece.empty(); piece = pieces.Next()) {
    bpe.Encode(piece, scratch, ids);
  }
}

void Tokenizer::Impl::Encode(std::string_view text, std::span<const Trust> trusted,
                             std::vector<int32_t>* ids) const {
  Bpe::Scratch scratch;
  // A search goes through `trusted` in step with the text: `range` is where its matcher stands.
  const auto find = [&](const AddedTokenMatcher& matcher, size_t begin, size_t end, size_t* range) {
    return matcher.Find(text.substr(0, end), begin, [&](size_t at) {
      while (*range < trusted.size() && trusted[*range].end <= at) ++*range;
      if (*range == trusted.size() || trusted[*range].begin > at) return at;
      return trusted[*range].end;
    });
  };
  size_t first_range = 0, second_range = 0;
  const auto encode_gap = [&](size_t begin, size_t end) {
    while (begin < end) {
      std::optional<AddedTokenMatcher::Match> match;
      if (!trusted.empty()) match = find(second_matcher, begin, end, &second_range);
      EncodePlain(text.substr(begin, (match ? match->begin : end) - begin), &scratch, ids);
      if (!match) return;
      ids->push_back(match->id);
      begin = match->end;
    }
  };
  for (size_t begin = 0; begin < text.size();) {
    std::optional<AddedTokenMatcher::Match> match;
    if (!trusted.empty()) match = find(first_matcher, begin, text.size(), &first_range);
    encode_gap(begin, match ? match->begin : text.size());
    if (!match) return;
    ids->push_back(match->id);
    begin = match->end;
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::Load(const std::string& path) {
  std::string file = path;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) file += "/tokenizer.json";
  SC_ASSIGN_OR_RETURN(const std::string json, ReadFile(file));
  return FromJson(json, file);
}

Result<Tokenizer> Tokenizer::FromJson(std::string_view json, const std::string& name) {
  SC_ASSIGN_OR_RETURN(TokenizerFile file, ReadTokenizerFile(json, name));
  return Tokenizer(std::make_unique<Impl>(std::move(file)));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool allow_special) const {
  std::string replaced;
  if (!utf8::IsValid(text)) {
    replaced = utf8::ReplaceInvalid(text);
    text = replaced;
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 4);
  const Impl::Trust all{0, text.size()};
  impl_->Encode(text, std::span(&all, allow_special ? 1 : 0), &ids);
  return ids;
}

std::vector<int32_t> Tokenizer::EncodeSegments(std::span<const TextSegment> segments) const {
  std::string text;
  std::vector<Impl::Trust> trusted;
  for (const TextSegment& segment : segments) {
    const size_t begin = text.size();
    // Each for itself: half a character at the end of client text must not eat template bytes.
    text += utf8::IsValid(segment.text) ? segment.text : utf8::ReplaceInvalid(segment.text);
    if (!segment.trusted || text.size() == begin) continue;
    if (!trusted.empty() && trusted.back().end == begin) {
      trusted.back().end = text.size();
    } else {
      trusted.push_back({begin, text.size()});
    }
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 4);
  impl_->Encode(text, trusted, &ids);
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  for (const int32_t id : ids) {
    if (!skip_special || !IsSpecial(id)) out += TokenBytes(id);
  }
  return out;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? impl_->token_bytes[id] : std::string_view();
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->token_bytes.size()); }

std::optional<int32_t> Tokenizer::SpecialId(std::string_view text) const {
  const auto found = impl_->added_ids.find(text);
  if (found == impl_->added_ids.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::IsAdded(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->kinds[id] >= Impl::Kind::kAdded;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->kinds[id] == Impl::Kind::kAddedSpecial;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return impl_->Id(SpecialRole::kBeginOfSentence);
}
const std::vector<int32_t>& Tokenizer::end_ids() const { return impl_->end_ids; }
const std::vector<int32_t>& Tokenizer::never_sampled_ids() const {
  return impl_->never_sampled_ids;
}

}  // namespace seacliff
