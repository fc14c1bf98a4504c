#include "tests/faultfs/rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <thread>

#include "tests/faultfs/control.h"

namespace predella::faultfs {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// Of "rule N matched=...": the number behind `key`.
int Count(RuleTable* rules, int number, const std::string& key) {
  const std::string report = rules->Report();
  const size_t line = report.find("rule " + std::to_string(number) + " ");
  const size_t at = report.find(key + "=", line);
  return at == std::string::npos
             ? -1
             : std::stoi(report.substr(at + key.size() + 1));
}

int AddRule(RuleTable* rules, const std::string& text) {
  auto rule = ParseRule(text);
  EXPECT_TRUE(rule.ok()) << rule.status();
  return rules->Add(*std::move(rule));
}

TEST(ParseRuleTest, RefusesWhatCouldNotTakeEffect) {
  for (const char* text :
       {"", "op=write", "do=hang", "op=wrote do=hang", "op=write do=burn",
        "op=write do=error", "op=write do=error:EWHAT",
        "op=fsync do=error:38" /* ENOSYS */, "op=write do=error:0",
        "op=write do=delay:0", "op=read do=lie", "op=* do=corrupt",
        "op=fsync,read do=short", "op=write do=hang:5",
        "op=write do=hang skip=-1", "op=write do=hang then=pass"}) {
    EXPECT_FALSE(ParseRule(text).ok()) << text;
  }
}

TEST(RuleTableTest, SkipsThenCounts) {
  RuleTable rules;
  const int number = AddRule(&rules, "op=write do=error:EIO skip=1 count=2");
  EXPECT_EQ(rules.Ask("write", "a").error, 0);
  EXPECT_EQ(rules.Ask("read", "a").error, 0);
  EXPECT_EQ(rules.Ask("write", "a").error, EIO);
  EXPECT_EQ(rules.Ask("write", "b").error, EIO);
  EXPECT_EQ(rules.Ask("write", "b").error, 0);
  EXPECT_EQ(Count(&rules, number, "matched"), 4);
  EXPECT_EQ(Count(&rules, number, "injected"), 2);
  EXPECT_THAT(rules.Report(), HasSubstr("calls write 4\n"));
  EXPECT_TRUE(rules.Remove(number));
  EXPECT_FALSE(rules.Remove(number));
}

TEST(RuleTableTest, MatchesPathsAndBothNamesOfARename) {
  RuleTable rules;
  AddRule(&rules, "op=* do=error:5 path=.predella/records/*");
  EXPECT_EQ(rules.Ask("unlink", ".predella/records/ab/x").error, EIO);
  EXPECT_EQ(rules.Ask("unlink", ".predella/inflight/x").error, 0);
  EXPECT_EQ(rules.Ask("rename", ".predella/x", ".predella/records/ab/x").error,
            EIO);
  EXPECT_EQ(rules.Ask("rename", "x", "y").error, 0);
}

TEST(RuleTableTest, TheFirstWithSomethingToDoDecides) {
  RuleTable rules;
  const int pass = AddRule(&rules, "op=write do=pass");
  AddRule(&rules, "op=write do=short count=1");
  AddRule(&rules, "op=write do=lie");
  EXPECT_TRUE(rules.Ask("write", "a").half);
  const Verdict second = rules.Ask("write", "a");
  EXPECT_FALSE(second.half);
  EXPECT_TRUE(second.lie);
  EXPECT_EQ(Count(&rules, pass, "injected"), 2);
}

TEST(RuleTableTest, WhatHangsAsksAgainWhenItsRuleIsGone) {
  RuleTable rules;
  const int hang = AddRule(&rules, "op=* do=hang");
  Verdict verdict;
  std::thread caller([&] { verdict = rules.Ask("read", "a"); });
  while (Count(&rules, hang, "waiting") == 0) {
    std::this_thread::yield();
  }
  AddRule(&rules, "op=read do=error:ESTALE");
  rules.Remove(hang);
  caller.join();
  EXPECT_EQ(verdict.error, ESTALE);
}

TEST(RuleTableTest, DisarmedItStaysSo) {
  RuleTable rules;
  const int hang = AddRule(&rules, "op=* do=hang");
  std::thread hung([&] { rules.Ask("read", "a"); });
  const int slow = AddRule(&rules, "op=* do=delay:3600000");
  rules.Remove(hang);
  std::thread delayed([&] { rules.Ask("read", "a"); });
  while (Count(&rules, slow, "waiting") == 0) {
    std::this_thread::yield();
  }
  rules.Disarm();
  hung.join();
  delayed.join();
  AddRule(&rules, "op=* do=hang");
  EXPECT_EQ(rules.Ask("read", "a").error, 0);
}

TEST(AnswerCommandTest, AddsReportsAndRemoves) {
  RuleTable rules;
  EXPECT_EQ(AnswerCommand("add op=read do=error:EIO", &rules), "ok 1\n");
  EXPECT_EQ(rules.Ask("read", "a").error, EIO);
  EXPECT_THAT(AnswerCommand("status", &rules),
              StartsWith("rule 1 matched=1 injected=1 waiting=0 "
                         "op=read do=error:EIO\n"));
  EXPECT_EQ(AnswerCommand("remove 1", &rules), "ok\n");
  EXPECT_THAT(AnswerCommand("remove 1", &rules), StartsWith("error "));
  EXPECT_THAT(AnswerCommand("add op=x do=y", &rules),
              StartsWith("error unknown operation \"x\""));
  EXPECT_THAT(AnswerCommand("rest", &rules), StartsWith("error "));
  EXPECT_EQ(AnswerCommand("clear", &rules), "ok\n");
  EXPECT_EQ(AnswerCommand("disarm", &rules), "ok\n");
}

}  // namespace
}  // namespace predella::faultfs
