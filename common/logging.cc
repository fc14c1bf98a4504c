#include "common/logging.h"

#include <cstdlib>

#include "absl/strings/escaping.h"

#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace predella {
namespace {

spdlog::logger& Logger() {
  static spdlog::logger* const logger = [] {
    auto* l = new spdlog::logger(
        "predella", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_pattern("%Y-%m-%dT%H:%M:%S.%fZ %l %v",
                   spdlog::pattern_time_type::utc);
    l->flush_on(spdlog::level::info);
    const char* level = std::getenv("PREDELLA_LOG_LEVEL");
    if (level != nullptr) {
      l->set_level(spdlog::level::from_str(level));
    }
    return l;
  }();
  return *logger;
}

bool NeedsQuotes(absl::string_view value) {
  return value.empty() ||
         value.find_first_of(" \"\n\t\\=") != absl::string_view::npos;
}

void Write(spdlog::level::level_enum level, absl::string_view event,
           std::initializer_list<LogField> fields) {
  if (!Logger().should_log(level)) {
    return;
  }
  std::string line(event);
  for (const LogField& field : fields) {
    if (NeedsQuotes(field.value)) {
      absl::StrAppend(&line, " ", field.key, "=\"",
                      absl::Utf8SafeCEscape(field.value), "\"");
    } else {
      absl::StrAppend(&line, " ", field.key, "=", field.value);
    }
  }
  Logger().log(level, "{}", line);
}

}  // namespace

void LogInfo(absl::string_view event, std::initializer_list<LogField> fields) {
  Write(spdlog::level::info, event, fields);
}
void LogWarning(absl::string_view event,
                std::initializer_list<LogField> fields) {
  Write(spdlog::level::warn, event, fields);
}
void LogError(absl::string_view event, std::initializer_list<LogField> fields) {
  Write(spdlog::level::err, event, fields);
}

bool SetLogLevel(absl::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return false;
  }
  Logger().set_level(parsed);
  return true;
}

}  // namespace predella
