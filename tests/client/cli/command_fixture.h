// A command of the CLI against a mock connection, and what it prints.
#ifndef PREDELLA_TESTS_CLIENT_CLI_COMMAND_FIXTURE_H_
#define PREDELLA_TESTS_CLIENT_CLI_COMMAND_FIXTURE_H_

#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/context.h"
#include "client/mocks/mock_connection.h"

namespace predella::cli {

class CommandFixture : public ::testing::Test {
 protected:
  // Returns the exit code. `command` stands before the arguments.
  explicit CommandFixture(std::vector<const char*> command = {})
      : command_(std::move(command)) {
    command_.insert(command_.begin(), "predella");
  }
  int Run(const std::vector<const char*>& arguments) {
    std::vector<const char*> all = command_;
    all.insert(all.end(), arguments.begin(), arguments.end());
    out_.str("");
    err_.str("");
    Context context;
    context.out = &out_;
    context.err = &err_;
    context.terminal = terminal_;
    context.connect = [this](const Context&) { return Client(connection_); };
    return RunCli(static_cast<int>(all.size()), all.data(), &context);
  }

  std::shared_ptr<::testing::NiceMock<MockConnection>> connection_ =
      std::make_shared<::testing::NiceMock<MockConnection>>();
  std::ostringstream out_;
  std::ostringstream err_;
  bool terminal_ = false;

 private:
  std::vector<const char*> command_;
};

}  // namespace predella::cli

#endif  // PREDELLA_TESTS_CLIENT_CLI_COMMAND_FIXTURE_H_
