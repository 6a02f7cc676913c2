// Rendered prompts, rule by rule; ids and the comparison with the official renderer are in
// tests/text.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "seacliff/text.h"
#include "text/chat_render.h"
#include "text/chat_turns.h"
#include "text/chat_words.h"
#include "text/testing_tokenizer.h"

namespace seacliff {
namespace {

const std::string kBegin = "<｜begin▁of▁sentence｜>", kEnd = "<｜end▁of▁sentence｜>";
const std::string kThinks = "<｜Assistant｜><think>", kSkips = "<｜Assistant｜></think>";
const ChatOptions kThinking, kChat{.thinking = false};

ChatMessage Message(std::string role, std::string content) {
  ChatMessage message;
  message.role = std::move(role);
  message.content = std::move(content);
  return message;
}
ChatMessage System(std::string content) { return Message("system", std::move(content)); }
ChatMessage User(std::string content) { return Message("user", std::move(content)); }
ChatMessage Assistant(std::string content, std::string reasoning = "") {
  ChatMessage message = Message("assistant", std::move(content));
  message.has_reasoning = !reasoning.empty();
  message.reasoning = std::move(reasoning);
  return message;
}
ChatMessage Calls(std::string reasoning, std::vector<ChatToolCall> calls) {
  ChatMessage message = Assistant("", std::move(reasoning));
  message.tool_calls = std::move(calls);
  return message;
}
ChatMessage Tool(std::string content, std::string id) {
  ChatMessage message = Message("tool", std::move(content));
  message.tool_call_id = std::move(id);
  return message;
}
ChatMessage WithTask(ChatMessage message, std::string task) {
  message.task = std::move(task);
  return message;
}
ChatMessage Prefix(ChatMessage message) {
  message.prefix = true;
  return message;
}

std::string Render(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  auto turns = MakeTurns(messages, options);
  if (!turns.ok()) return "error: " + turns.status().message();
  return RenderTurns(*std::move(turns), options).Text();
}

bool StartsInReasoning(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  return RenderTurns(*MakeTurns(messages, options), options).starts_in_reasoning;
}

TEST(Chat, PlainConversations) {
  EXPECT_EQ(Render({System("Be brief."), User("Hello")}, kChat),
            kBegin + "Be brief.<｜User｜>Hello" + kSkips);
  EXPECT_EQ(Render({User("Hello")}, kThinking), kBegin + "<｜User｜>Hello" + kThinks);
  EXPECT_TRUE(StartsInReasoning({User("Hello")}, kThinking));
  EXPECT_FALSE(StartsInReasoning({User("Hello")}, kChat));
}

TEST(Chat, OldReasoningIsDroppedUnlessThereAreTools) {
  const std::vector<ChatMessage> messages = {User("a"), Assistant("b", "r1"), User("c")};
  EXPECT_EQ(Render(messages, kThinking),
            kBegin + "<｜User｜>a" + kSkips + "b" + kEnd + "<｜User｜>c" + kThinks);
  EXPECT_EQ(Render(messages, {.drop_thinking = false}),
            kBegin + "<｜User｜>a" + kThinks + "r1</think>b" + kEnd + "<｜User｜>c" + kThinks);
  const std::string with_tools = Render(messages, {.tools = {R"({"name": "f"})"}});
  EXPECT_NE(with_tools.find(kThinks + "r1</think>b"), std::string::npos);
  // The client lost it: the turn keeps its form.
  EXPECT_NE(Render({User("a"), Assistant("b"), User("c")}, {.tools = {R"({"name": "f"})"}})
                .find(kThinks + "</think>b" + kEnd),
            std::string::npos);
}

TEST(Chat, OldDevelopersAreDroppedWithTheReasoning) {
  const std::vector<ChatMessage> messages = {Message("developer", "d"), User("a"), Assistant("b"),
                                             Message("developer", "e")};
  EXPECT_EQ(Render(messages, kThinking),
            kBegin + "<｜User｜>a" + kSkips + "b" + kEnd + "<｜User｜>e" + kThinks);
  EXPECT_EQ(Render(messages, kChat),
            kBegin + "<｜User｜>d<｜User｜>a" + kSkips + "b" + kEnd + "<｜User｜>e" + kSkips);
}

TEST(Chat, EffortPrefixByProfile) {
  const auto prefix = [](ChatProfile profile, ChatEffort effort) {
    return std::string(EffortPrefix(profile, effort).substr(0, 29));
  };
  const std::string high = "Reasoning Effort: Absolute ma", max = "Reasoning Effort: Beyond maxi";
  EXPECT_EQ(prefix(ChatProfile::kPreview, ChatEffort::kDefault), "");
  EXPECT_EQ(prefix(ChatProfile::kPreview, ChatEffort::kHigh), "");
  EXPECT_EQ(prefix(ChatProfile::kPreview, ChatEffort::kMax), high);
  EXPECT_EQ(prefix(ChatProfile::k0731, ChatEffort::kDefault), high);
  EXPECT_EQ(prefix(ChatProfile::k0731, ChatEffort::kLow), "");
  EXPECT_EQ(prefix(ChatProfile::k0731, ChatEffort::kHigh), high);
  EXPECT_EQ(prefix(ChatProfile::k0731, ChatEffort::kMax), max);
  EXPECT_EQ(prefix(ChatProfile::kV41, ChatEffort::kLow), "Reasoning Effort: 50 (range 1");
  EXPECT_EQ(prefix(ChatProfile::kV41, ChatEffort::kMax), "Reasoning Effort: 100 (range ");

  const ChatOptions max_0731{.profile = ChatProfile::k0731, .effort = ChatEffort::kMax};
  const std::string text = Render({System("S"), User("x")}, max_0731);
  EXPECT_TRUE(text.starts_with(kBegin + max));
  EXPECT_TRUE(text.ends_with("undiscovered.\n\nS<｜User｜>x" + kThinks));
  EXPECT_EQ(Render({User("x")}, {.profile = ChatProfile::k0731, .thinking = false}),
            kBegin + "<｜User｜>x" + kSkips);
}

TEST(Chat, RemindersAndTasks) {
  EXPECT_EQ(
      Render({Message("latest_reminder", "2026-11-22"), WithTask(User("news?"), "action")}, kChat),
      kBegin + "<｜latest_reminder｜>2026-11-22<｜User｜>news?" + kSkips + "<｜action｜>");
  EXPECT_EQ(Render({User("hi"), WithTask(Assistant("yo"), "title")}, kChat),
            kBegin + "<｜User｜>hi" + kSkips + "yo" + kEnd + "<｜title｜>");
  EXPECT_EQ(Render({WithTask(User("q"), "query"), Assistant("a", "r"), User("b")},
                   {.drop_thinking = false}),
            kBegin + "<｜User｜>q<｜query｜>a" + kEnd + "<｜User｜>b" + kThinks);
  EXPECT_EQ(Render({WithTask(User("q"), "domain"), User("b")}, kChat),
            kBegin + "<｜User｜>q<｜User｜>b" + kSkips);
  EXPECT_FALSE(StartsInReasoning({WithTask(User("q"), "action")}, kThinking));
}

TEST(Chat, PrefixCompletion) {
  EXPECT_EQ(Render({User("Write C"), Prefix(Assistant("```c\n"))}, kChat),
            kBegin + "<｜User｜>Write C" + kSkips + "```c\n");
  EXPECT_EQ(Render({User("q"), Prefix(Assistant("x"))}, kThinking),
            kBegin + "<｜User｜>q" + kSkips + "x");
  EXPECT_EQ(Render({User("q"), Prefix(Assistant("x", "r"))}, kThinking),
            kBegin + "<｜User｜>q" + kThinks + "r</think>x");
  EXPECT_EQ(
      Render({User("q"), Assistant("x")}, {.thinking = false, .continue_final_message = true}),
      kBegin + "<｜User｜>q" + kSkips + "x");
  // Reasoning alone is continued as reasoning.
  EXPECT_EQ(Render({User("q"), Prefix(Assistant("", "r"))}, kThinking),
            kBegin + "<｜User｜>q" + kThinks + "r");
  EXPECT_TRUE(StartsInReasoning({User("q"), Prefix(Assistant("", "r"))}, kThinking));
  EXPECT_FALSE(StartsInReasoning({User("q"), Prefix(Assistant("x", "r"))}, kThinking));
}

TEST(Chat, EveryPromptEndsWithAHeader) {
  EXPECT_EQ(Render({User("a"), System("s")}, kChat), kBegin + "<｜User｜>as" + kSkips);
  EXPECT_EQ(Render({System("s")}, kThinking), kBegin + "s" + kThinks);
  EXPECT_EQ(Render({User("a"), Assistant("b")}, kChat),
            kBegin + "<｜User｜>a" + kSkips + "b" + kEnd + kSkips);
  EXPECT_EQ(Render({System("s"), Assistant("b"), User("a")}, kChat),
            kBegin + "s" + kSkips + "b" + kEnd + "<｜User｜>a" + kSkips);
}

TEST(Chat, LeadingSystemsAndSplitRepliesAreFused) {
  EXPECT_EQ(Render({System("1"), System(""), System("2"), User("a")}, kChat),
            kBegin + "1\n\n2<｜User｜>a" + kSkips);
  EXPECT_EQ(Render({User("a"), User("b"), Assistant("c"), Assistant("d"), User("e")}, kChat),
            kBegin + "<｜User｜>a\n\nb" + kSkips + "c\n\nd" + kEnd + "<｜User｜>e" + kSkips);
}

constexpr char kWeather[] = R"({"type": "function", "function": {"name": "get_weather",
    "parameters": {"type": "object"}, "strict": true}})";

TEST(Chat, ToolsBlockOnTheFirstSystemMessage) {
  const std::string head = ToolsHead(CallTagsOf(ChatProfile::kPreview));
  const std::string line =
      R"({"name": "get_weather", "parameters": {"type": "object"}, "strict": true})";
  EXPECT_EQ(Render({System("S"), User("Q")}, {.thinking = false, .tools = {kWeather}}),
            kBegin + "S\n\n" + head + line + std::string(kToolsTail) + "<｜User｜>Q" + kSkips);
  const std::string fixed =
      R"({"name": "get_weather", "description": "", "parameters": {"type": "object"}})";
  EXPECT_EQ(
      Render({User("Q")},
             {.profile = ChatProfile::k0731, .thinking = false, .tools = {kWeather, kWeather}}),
      kBegin + "\n\n" + head + fixed + "\n" + fixed + std::string(kToolsTail) + "<｜User｜>Q" +
          kSkips);
}

TEST(Chat, ToolCallsAndResultsInTheOrderOfTheCalls) {
  const std::vector<ChatMessage> messages = {
      User("Q"),
      Calls("need", {{"c1", "get_weather", R"({"city": "Rome", "days": 2})"},
                     {"c2", "get_weather", R"({"city": "Oslo"})"}}),
      Tool("cold", "c2"), Tool("warm", "c1")};
  EXPECT_EQ(Render(messages, {.drop_thinking = false}),
            kBegin + "<｜User｜>Q" + kThinks + "need</think>\n\n" +
                R"(<｜DSML｜tool_calls>
<｜DSML｜invoke name="get_weather">
<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>
<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>
</｜DSML｜invoke>
<｜DSML｜invoke name="get_weather">
<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>
</｜DSML｜invoke>
</｜DSML｜tool_calls>)" +
                kEnd +
                "<｜User｜><tool_result>warm</tool_result>\n\n<tool_result>cold</tool_result>" +
                kThinks);
}

TEST(Chat, EmptyArgumentsAreAnEmptyLine) {
  for (const char* arguments : {"", "null", "{}"}) {
    const std::string text = Render({User("Q"), Calls("", {{"c", "now", arguments}})}, kChat);
    EXPECT_NE(text.find("<｜DSML｜invoke name=\"now\">\n\n</｜DSML｜invoke>"), std::string::npos);
  }
}

TEST(Chat, ResultsKeepTheirSlotsAmongText) {
  const std::string text =
      Render({User("Q"), Calls("", {{"1", "f", ""}, {"2", "f", ""}}), Tool("two", "2"),
              User("text"), Tool("one", "1"), Tool("odd", "?")},
             kChat);
  EXPECT_TRUE(text.ends_with(
      "<｜User｜><tool_result>one</tool_result>\n\ntext\n\n<tool_result>odd</tool_result>\n\n"
      "<tool_result>two</tool_result>" +
      kSkips))
      << text;
}

TEST(Chat, ListContents) {
  ChatMessage user = User("ignored");
  user.parts = {{"text", "a"}, {"text", "b"}};
  EXPECT_EQ(Render({user}, kChat), kBegin + "<｜User｜>a\n\nb" + kSkips);
  ChatMessage tool = Tool("", "1");
  tool.parts = {{"text", "a"}, {"image_url", ""}};
  EXPECT_EQ(Render({tool}, kChat),
            kBegin + "<｜User｜><tool_result>a\n\n[Unsupported image_url]</tool_result>" + kSkips);
  user.parts.push_back({"image_url", ""});
  EXPECT_EQ(Render({user}, kChat),
            "error: messages[0].content[2].type: \"image_url\" is not supported, only text");
}

TEST(Chat, ResponseFormatFollowsTheTools) {
  EXPECT_EQ(Render({System("S"), User("Q")},
                   {.thinking = false, .response_format = R"({"type":"object"})"}),
            kBegin +
                "S\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
                "reply:\n{\"type\": \"object\"}<｜User｜>Q" +
                kSkips);
  ChatMessage developer = Message("developer", "d");
  developer.tools = {R"({"name": "f"})"};
  developer.response_format = "{}";
  EXPECT_EQ(Render({developer}, kChat), kBegin + "<｜User｜>d\n\n" +
                                            ToolsHead(CallTagsOf(ChatProfile::kPreview)) +
                                            R"({"name": "f"})" + std::string(kToolsTail) +
                                            std::string(kResponseFormatHead) + "{}" + kSkips);
}

TEST(Chat, V41HeadersAndTags) {
  const ChatOptions options{.profile = ChatProfile::kV41, .effort = ChatEffort::kLow};
  const std::string effort(EffortPrefix(ChatProfile::kV41, ChatEffort::kLow));
  EXPECT_EQ(Render({User("a"), Assistant("b", "r"), System("s")}, options),
            kBegin + "<｜System｜>" + effort + "<｜User｜>a" + kSkips + "b" + kEnd +
                "<｜System｜>s" + kThinks);
  EXPECT_EQ(Render({System("1"), System("2"), User("a")},
                   {.profile = ChatProfile::kV41, .thinking = false}),
            kBegin + "<｜System｜>1<｜System｜>2<｜User｜>a" + kSkips);
  const std::string calls = Render({User("q"), Calls("", {{"1", "f", R"({"a": [1]})"}})}, options);
  EXPECT_NE(
      calls.find("<｜DSML｜ calls>\n<｜DSML｜ invoke name=\"f\">\n<｜DSML｜ parameter name=\"a\" "
                 "string=\"false\">[1]</｜DSML｜ parameter>\n</｜DSML｜ invoke>\n"
                 "</｜DSML｜ calls>"),
      std::string::npos);
}

TEST(Chat, ErrorsNameTheField) {
  const auto error = [](const std::vector<ChatMessage>& messages, const ChatOptions& options = {}) {
    return Render(messages, options);
  };
  EXPECT_EQ(error({}), "error: messages: must not be empty");
  EXPECT_EQ(error({User("a"), Message("robot", "")}),
            "error: messages[1].role: \"robot\" is not a role");
  EXPECT_EQ(error({Message("developer", "")}), "error: messages[0].content: must not be empty");
  EXPECT_EQ(error({WithTask(User("a"), "dance")}),
            "error: messages[0].task: \"dance\" is not a task");
  EXPECT_EQ(
      error({User("a"), Calls("", {{"", "f", "[1]"}})}),
      "error: messages[1].tool_calls[0].function.arguments: must be the text of a JSON object");
  EXPECT_EQ(error({Prefix(Assistant("a")), User("b")}),
            "error: messages[0].prefix: only the last message can be continued");
  EXPECT_EQ(error({User("a")}, {.continue_final_message = true}),
            "error: messages[0].role: only an assistant message can be continued");
  EXPECT_EQ(error({User("a")}, {.tools = {"{\"function\": {}}"}}),
            "error: tools[0].function.name: must be a string");
  EXPECT_EQ(error({User("a")}, {.response_format = "true"}),
            "error: response_format: must be the text of a JSON object");
}

TEST(Chat, ClientTextGivesNoControlIds) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  const auto control = [&](const std::string& text) {
    ChatOptions options{.profile = ChatProfile::k0731};
    std::string quoted = testing_tokenizer::Quoted(text);
    options.tools = {R"({"name": "f", "description": )" + quoted + "}"};
    ChatMessage call = Calls(text, {{"1", "f" + text, "{" + quoted + ": " + quoted + "}"}});
    call.content = text;
    const auto prompt = EncodeChat(
        tokenizer,
        std::vector<ChatMessage>{System(text), Message("latest_reminder", text), User(text), call,
                                 Tool(text, "1"), Message("developer", "d" + text)},
        options);
    EXPECT_TRUE(prompt.ok()) << prompt.status().message();
    std::vector<int32_t> ids;
    for (const int32_t id : prompt->ids) {
      if (tokenizer.IsAdded(id)) ids.push_back(id);
    }
    return ids;
  };
  const auto benign = control("x");
  for (const SpecialToken& row : SpecialTokens()) EXPECT_EQ(control(row.text), benign) << row.text;
}

TEST(Chat, MissingTokenIsAnError) {
  std::string json = testing_tokenizer::Json({});
  const std::string user = SpecialText(SpecialRole::kUser);
  json.replace(json.find(user), user.size(), "<another>");
  const auto tokenizer = Tokenizer::FromJson(json, "f");
  const auto prompt = EncodeChat(*tokenizer, std::vector<ChatMessage>{User("a")}, {});
  ASSERT_FALSE(prompt.ok());
  EXPECT_NE(prompt.status().message().find(user), std::string::npos);
}

TEST(ChatProfile, WordsAndDetection) {
  EXPECT_EQ(*ParseChatProfile("0731"), ChatProfile::k0731);
  EXPECT_EQ(std::string(ChatProfileName(ChatProfile::kV41)), "v41");
  EXPECT_FALSE(ParseChatProfile("v5").ok());
  EXPECT_FALSE(ParseChatEffort("none")->thinking);
  EXPECT_EQ(ParseChatEffort("xhigh")->effort, ChatEffort::kHigh);
  EXPECT_FALSE(ParseChatEffort("loud").ok());

  namespace fs = std::filesystem;
  const fs::path dir = fs::path(::testing::TempDir()) / "seacliff_chat_profile";
  fs::remove_all(dir);
  fs::create_directories(dir / "encoding");
  const auto detect = [&] { return *DetectChatProfile(dir.string()); };
  const auto write = [&](const char* name, const char* text) { std::ofstream(dir / name) << text; };
  EXPECT_EQ(detect(), ChatProfile::kPreview);
  write("config.json", R"({"model_type": "deepseek_v4", "dspark_block_size": 5})");
  EXPECT_EQ(detect(), ChatProfile::k0731);
  write("config.json", R"({"model_type": "deepseek_v41", "dspark_block_size": 5})");
  EXPECT_EQ(detect(), ChatProfile::kV41);
  write("encoding/encoding_dsv4.py", "REASONING_EFFORT_MAX = 1");
  EXPECT_EQ(detect(), ChatProfile::kPreview);
  write("encoding/encoding_dsv4.py", "REASONING_EFFORT_PROMPTS = {}");
  EXPECT_EQ(detect(), ChatProfile::k0731);
  write("encoding/encoding_dsv41.py", "");
  EXPECT_EQ(detect(), ChatProfile::kV41);
  fs::remove_all(dir);
  EXPECT_EQ(detect(), ChatProfile::kPreview);
}

}  // namespace
}  // namespace seacliff
